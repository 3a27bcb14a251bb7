//! Where the parts of an UPDATE stand in its text, for what moves rows to another shard.

use std::ops::Range;

use super::cursor::{Cursor, comma_parts};
use super::lexer::Token;

/// The places of an UPDATE's parts, as bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateLayout {
    /// The name by which its columns are qualified.
    pub alias: Option<String>,
    /// What is assigned to which column, as stored.
    pub assignments: Vec<(String, Range<usize>)>,
    /// The condition, without WHERE.
    pub condition: Option<Range<usize>>,
    /// RETURNING and its list.
    pub returning: Option<Range<usize>>,
}

/// Reads `UPDATE …`; `None` where it has FROM, or is not understood.
pub(super) fn layout(text: &str, tokens: &[Token]) -> Option<UpdateLayout> {
    let mut cursor = Cursor::new(text, tokens);
    if !cursor.eat("update") || cursor.word() == Some("only") {
        return None;
    }
    cursor.name()?;
    cursor.eat_symbol("*");
    let mut alias = None;
    if cursor.eat("as") || cursor.word() != Some("set") {
        alias = Some(cursor.ident()?);
    }
    if !cursor.eat("set") {
        return None;
    }
    let assigned = clause(&mut cursor, &["from", "where", "returning"]);
    let mut layout =
        UpdateLayout { alias, assignments: Vec::new(), condition: None, returning: None };
    for part in comma_parts(text, assigned) {
        let mut cursor = Cursor::new(text, part);
        let column = cursor.ident()?;
        if !cursor.eat_symbol("=") {
            return None;
        }
        layout.assignments.push((column, bytes(part.get(cursor.at..)?)?));
    }
    if cursor.eat("where") {
        layout.condition = Some(bytes(clause(&mut cursor, &["returning"]))?);
    }
    if cursor.word() == Some("returning") {
        layout.returning = Some(cursor.token()?.start..tokens.last()?.end);
        cursor.at = tokens.len();
    }
    cursor.at_end().then_some(layout)
}

/// The tokens up to one of `ends` that is in no parentheses.
fn clause<'a>(cursor: &mut Cursor<'a>, ends: &[&str]) -> &'a [Token] {
    let start = cursor.at;
    while !cursor.at_end() {
        // `IS DISTINCT FROM`
        let distinct = cursor.word() == Some("distinct") && cursor.word_ahead(1) == Some("from");
        if distinct {
            cursor.at += 2;
        } else if cursor.word().is_some_and(|word| ends.contains(&word)) {
            break;
        } else if !cursor.symbol_ahead(0, "(") || cursor.parenthesized().is_none() {
            cursor.at += 1;
        }
    }
    &cursor.tokens[start..cursor.at]
}

fn bytes(tokens: &[Token]) -> Option<Range<usize>> {
    Some(tokens.first()?.start..tokens.last()?.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_update_are_found_where_they_stand() {
        let text = "UPDATE a.b AS c SET x = f(1, 2), \"Y\" = z IS DISTINCT FROM 3 \
            WHERE x IN (SELECT 1 FROM t) AND y RETURNING *, x";
        let tokens = crate::sql::lexer::tokens(text, super::super::Strings::Standard);
        let layout = layout(text, &tokens).unwrap();
        let parts: Vec<_> =
            layout.assignments.iter().map(|(c, span)| (c.as_str(), &text[span.clone()])).collect();
        assert_eq!(parts, [("x", "f(1, 2)"), ("Y", "z IS DISTINCT FROM 3")]);
        assert_eq!(&text[layout.condition.unwrap()], "x IN (SELECT 1 FROM t) AND y");
        assert_eq!(&text[layout.returning.unwrap()], "RETURNING *, x");
        assert_eq!(layout.alias.as_deref(), Some("c"));
    }

    #[test]
    fn what_is_not_a_plain_update_has_no_layout() {
        for text in [
            "UPDATE t SET a = 1 FROM u",
            "UPDATE t SET (a, b) = (1, 2)",
            "UPDATE t SET a[1] = 2",
            "UPDATE ONLY t SET a = 1",
        ] {
            let tokens = crate::sql::lexer::tokens(text, super::super::Strings::Standard);
            assert_eq!(layout(text, &tokens), None, "{text}");
        }
    }
}
