//! Hints: a comment at the start of a text that says where it goes, for statements from which that
//! can't be read: `/* foreshard: key(orders) = 42 */ CALL close_orders()`.

use super::cursor::Cursor;
use super::lexer::{Kind, Strings, tokens};
use super::statement::{Constant, ConstantValue};

/// What a hint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// All that the statement touches of a group has this key.
    Key {
        /// The group's name, or that of one of its tables; a schema may stand before it.
        of: (Option<String>, String),
        /// A value for each column of the key.
        values: Vec<Constant>,
    },
    /// All that it touches is in this shard.
    Shard(u32),
    /// It runs on this node.
    Node(String),
}

/// The hint at the start of `text`; `None` if there is none.
///
/// # Errors
/// There is one that can't be read.
pub fn hint(text: &str) -> Option<Result<Hint, String>> {
    let comment = text.trim_start().strip_prefix("/*")?;
    let inside = &comment[..comment.find("*/")?];
    let said = inside.trim_start().strip_prefix("foreshard:")?;
    let tokens = tokens(said, Strings::Standard);
    let mut cursor = Cursor::new(said, &tokens);
    let read = read(&mut cursor).filter(|_| cursor.at_end());
    Some(read.ok_or_else(|| said.trim().to_owned()))
}

fn read(cursor: &mut Cursor<'_>) -> Option<Hint> {
    if cursor.eat("shard") {
        return match value(cursor.eat_symbol("=").then_some(cursor)?)?.value {
            ConstantValue::Integer(digits) => digits.parse().ok().map(Hint::Shard),
            _ => None,
        };
    }
    if cursor.eat("node") {
        let named = cursor.eat_symbol("=");
        let name = cursor.string().map(str::to_owned).or_else(|| cursor.ident())?;
        return named.then_some(Hint::Node(name));
    }
    if !cursor.eat("key") || !cursor.eat_symbol("(") {
        return None;
    }
    let of = cursor.name()?;
    if !cursor.eat_symbol(")") || !cursor.eat_symbol("=") {
        return None;
    }
    let several = cursor.eat_symbol("(");
    let mut values = vec![value(cursor)?];
    while several && cursor.eat_symbol(",") {
        values.push(value(cursor)?);
    }
    (!several || cursor.eat_symbol(")")).then_some(())?;
    Some(Hint::Key { of: (of.schema, of.name), values })
}

fn value(cursor: &mut Cursor<'_>) -> Option<Constant> {
    let minus = if cursor.eat_symbol("-") { "-" } else { "" };
    let token = cursor.token()?;
    let value = match &token.kind {
        Kind::Integer => ConstantValue::Integer(format!("{minus}{}", cursor.slice(token.span()))),
        _ if !minus.is_empty() => return None,
        Kind::String(text) => ConstantValue::String(text.clone()),
        Kind::Param(number) => ConstantValue::Param(*number),
        Kind::Word(word) if word == "null" => ConstantValue::Null,
        _ => return None,
    };
    cursor.at += 1;
    Some(Constant { value, cast: None })
}

#[cfg(test)]
mod tests {
    use super::{Hint, hint};

    #[test]
    fn a_hint_is_read_at_the_start_of_a_text_only() {
        for (text, expected) in [
            ("/* foreshard: key(shop) = 42 */ CALL f()", "shop [Integer(\"42\")]"),
            ("  /*foreshard:key(\"Shop\")=-7*/ CALL f()", "Shop [Integer(\"-7\")]"),
            (
                "/* foreshard: key(sales.orders) = (1, 'a*', $2, NULL) */ SELECT 1",
                "sales.orders [Integer(\"1\"), String(\"a*\"), Param(2), Null]",
            ),
            ("/* foreshard: shard = 3 */ DO ''", "shard 3"),
            ("/* foreshard: node = n2 */ DO ''", "node n2"),
            ("/* foreshard: node = 'N 2' */ DO ''", "node N 2"),
            ("SELECT 1 /* foreshard: shard = 3 */", "none"),
            ("/* shard = 3 */ SELECT 1", "none"),
            ("-- foreshard: shard = 3\nSELECT 1", "none"),
            ("/* foreshard: shard = x */ SELECT 1", "fault shard = x"),
            ("/* foreshard: key(shop) */ SELECT 1", "fault key(shop)"),
            ("/* foreshard: key(shop) = 1 + 1 */ SELECT 1", "fault key(shop) = 1 + 1"),
            ("/* foreshard: key(shop) = 1, 2 */ SELECT 1", "fault key(shop) = 1, 2"),
            ("/* foreshard: */ SELECT 1", "fault "),
        ] {
            let shown = match hint(text) {
                None => "none".to_owned(),
                Some(Err(fault)) => format!("fault {fault}"),
                Some(Ok(Hint::Shard(shard))) => format!("shard {shard}"),
                Some(Ok(Hint::Node(node))) => format!("node {node}"),
                Some(Ok(Hint::Key { of: (schema, name), values })) => {
                    let schema = schema.map(|schema| schema + ".").unwrap_or_default();
                    let values: Vec<_> = values.into_iter().map(|value| value.value).collect();
                    format!("{schema}{name} {values:?}")
                }
            };
            assert_eq!(shown, expected, "{text}");
        }
    }
}
