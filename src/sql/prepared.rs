//! PREPARE, EXECUTE and DEALLOCATE, read by hand. PREPARE TRANSACTION is none of them.

use std::ops::Range;

use super::control::Control;
use super::cursor::{Cursor, comma_parts};
use super::lexer::{Kind, Strings, Token, tokens};

/// `PREPARE name [(types)] AS statement`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareStatement {
    /// As stored.
    pub name: String,
    /// The bytes of each declared type.
    pub types: Vec<Range<usize>>,
    /// The bytes of the statement, with comments before it.
    pub body: Range<usize>,
}

/// `EXECUTE name [(arguments)]`, also behind EXPLAIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecuteStatement {
    /// As stored.
    pub name: String,
    /// The arguments, in order.
    pub arguments: Vec<Argument>,
    /// The bytes of EXPLAIN and its options.
    pub explain: Option<Range<usize>>,
}

/// An argument of EXECUTE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its bytes.
    pub span: Range<usize>,
    /// Its value, where it is written as one.
    pub literal: Option<ArgumentLiteral>,
}

/// A plain literal: what it is as a parameter in text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentLiteral {
    /// NULL
    Null,
    /// A string: any type's.
    String(String),
    /// An integer, with its sign.
    Integer(String),
    /// TRUE or FALSE
    Bool(bool),
}

/// Reads a statement of these; `cursor` stands behind its first word `verb`.
pub(super) fn read(verb: &str, cursor: &mut Cursor<'_>) -> Option<Control> {
    match verb {
        "prepare" => prepare(cursor).map(|it| Control::Prepare(it.into())),
        "execute" => execute(cursor, None).map(|it| Control::Execute(it.into())),
        _ => {
            cursor.eat("prepare");
            let name = if cursor.eat("all") { None } else { Some(cursor.ident()?) };
            cursor.at_end().then_some(Control::Deallocate { name })
        }
    }
}

/// Reads `EXPLAIN … EXECUTE …`.
pub(super) fn explained(text: &str, tokens: &[Token]) -> Option<Control> {
    let mut cursor = Cursor::new(text, tokens);
    cursor.at = 1;
    if cursor.parenthesized().is_none() {
        cursor.eat_any(&["analyze", "analyse"]);
        cursor.eat("verbose");
    }
    let start = cursor.token()?.start;
    if !cursor.eat("execute") {
        return None;
    }
    let explain = Some(tokens.first()?.start..start);
    execute(&mut cursor, explain).map(|it| Control::Execute(it.into()))
}

/// Reads `CREATE TABLE … AS EXECUTE …`, with the bytes of WITH NO DATA; what makes the table is in the
/// place of EXPLAIN.
pub fn executed_table(text: &str, strings: Strings) -> Option<(ExecuteStatement, Range<usize>)> {
    let all = tokens(text.trim_end_matches([';', ' ', '\n']), strings);
    let mut end = all.len();
    for words in [&["with", "no", "data"][..], &["with", "data"]] {
        let tail = end.checked_sub(words.len()).and_then(|at| all.get(at..end))?;
        let is = |(token, word): (&Token, &&str)| token.kind == Kind::Word((*word).to_owned());
        if tail.iter().zip(words).all(is) {
            end -= words.len();
            break;
        }
    }
    let mut cursor = Cursor::new(text, &all[..end]);
    if !cursor.eat("create") {
        return None;
    }
    while !(cursor.word() == Some("as") && cursor.word_ahead(1) == Some("execute")) {
        if cursor.at_end() {
            return None;
        }
        if cursor.parenthesized().is_none() {
            cursor.at += 1;
        }
    }
    cursor.at += 1;
    let start = cursor.token()?.start;
    cursor.at += 1;
    let after = all.get(end).map_or(text.len(), |token| token.start)..text.len();
    Some((execute(&mut cursor, Some(0..start))?, after))
}

fn prepare(cursor: &mut Cursor<'_>) -> Option<PrepareStatement> {
    let name = cursor.ident()?;
    let types = match cursor.parenthesized() {
        Some(inside) => spans(cursor.text, inside)?,
        None => Vec::new(),
    };
    if !cursor.eat("as") {
        return None;
    }
    let start = cursor.tokens.get(cursor.at.checked_sub(1)?)?.end;
    cursor.token()?;
    let body = start..cursor.tokens.last()?.end;
    Some(PrepareStatement { name, types, body })
}

fn execute(cursor: &mut Cursor<'_>, explain: Option<Range<usize>>) -> Option<ExecuteStatement> {
    let name = cursor.ident()?;
    let arguments = match cursor.parenthesized() {
        Some(inside) => {
            let argument = |part: &&[Token]| {
                Some(Argument { span: span(part)?, literal: literal(cursor.text, part) })
            };
            let parts = comma_parts(cursor.text, inside);
            parts.iter().map(argument).collect::<Option<_>>()?
        }
        None => Vec::new(),
    };
    cursor.at_end().then_some(ExecuteStatement { name, arguments, explain })
}

fn spans(text: &str, tokens: &[Token]) -> Option<Vec<Range<usize>>> {
    comma_parts(text, tokens).iter().map(|part| span(part)).collect()
}

fn span(tokens: &[Token]) -> Option<Range<usize>> {
    Some(tokens.first()?.start..tokens.last()?.end)
}

fn literal(text: &str, tokens: &[Token]) -> Option<ArgumentLiteral> {
    match tokens {
        [Token { kind: Kind::String(value), .. }] => Some(ArgumentLiteral::String(value.clone())),
        [Token { kind: Kind::Word(word), .. }] => match word.as_str() {
            "null" => Some(ArgumentLiteral::Null),
            "true" => Some(ArgumentLiteral::Bool(true)),
            "false" => Some(ArgumentLiteral::Bool(false)),
            _ => None,
        },
        [number @ Token { kind: Kind::Integer, .. }] => {
            Some(ArgumentLiteral::Integer(text[number.span()].to_owned()))
        }
        [sign @ Token { kind: Kind::Symbol, .. }, number @ Token { kind: Kind::Integer, .. }]
            if &text[sign.span()] == "-" =>
        {
            Some(ArgumentLiteral::Integer(format!("-{}", &text[number.span()])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Control, StatementKind, Strings, parse};
    use super::ArgumentLiteral;

    fn control(text: &str) -> Option<Control> {
        match parse(text, Strings::Standard).statements.pop()?.kind {
            StatementKind::Control(control) => Some(control),
            _ => None,
        }
    }

    #[test]
    fn a_prepare_is_cut_into_its_parts() {
        let text = "PREPARE \"My\" (numeric(10, 2), text[]) AS /* why */ SELECT $1";
        let Some(Control::Prepare(prepare)) = control(text) else { panic!("not read") };
        assert_eq!(prepare.name, "My");
        let types: Vec<&str> = prepare.types.iter().map(|span| &text[span.clone()]).collect();
        assert_eq!(types, ["numeric(10, 2)", "text[]"]);
        assert_eq!(&text[prepare.body], " /* why */ SELECT $1");
    }

    #[test]
    fn arguments_are_literals_or_expressions() {
        let text = "EXECUTE p (1, -2, 'it''s', NULL, true, f(1, 2), 1.5, '1'::int)";
        let Some(Control::Execute(execute)) = control(text) else { panic!("not read") };
        let read = execute.arguments.iter().map(|it| (&text[it.span.clone()], it.literal.clone()));
        let literal = |literal| Some(literal);
        assert_eq!(
            read.collect::<Vec<_>>(),
            [
                ("1", literal(ArgumentLiteral::Integer("1".to_owned()))),
                ("-2", literal(ArgumentLiteral::Integer("-2".to_owned()))),
                ("'it''s'", literal(ArgumentLiteral::String("it's".to_owned()))),
                ("NULL", literal(ArgumentLiteral::Null)),
                ("true", literal(ArgumentLiteral::Bool(true))),
                ("f(1, 2)", None),
                ("1.5", None),
                ("'1'::int", None),
            ]
        );
    }

    #[test]
    fn explain_may_stand_before_execute() {
        let text = "EXPLAIN (costs off) EXECUTE p(1)";
        let Some(Control::Execute(execute)) = control(text) else { panic!("not read") };
        assert_eq!(execute.explain.map(|span| &text[span]), Some("EXPLAIN (costs off) "));
        let Some(Control::Execute(execute)) = control("explain analyze verbose execute q") else {
            panic!("not read")
        };
        assert_eq!((execute.name.as_str(), execute.arguments.len()), ("q", 0));
    }

    #[test]
    fn what_is_none_of_them_is_not_read_as_one() {
        for text in [
            "PREPARE TRANSACTION 'x'",
            "PREPARE p",
            "EXECUTE p(1) junk",
            "EXECUTE p(1,)",
            "EXPLAIN SELECT 1",
            "DEALLOCATE",
        ] {
            assert_eq!(control(text), None, "{text}");
        }
        let name = |name: &str| Some(Control::Deallocate { name: Some(name.to_owned()) });
        assert_eq!(control("DEALLOCATE prepare P"), name("p"));
        assert_eq!(control("deallocate ALL"), Some(Control::Deallocate { name: None }));
        assert_eq!(control("DEALLOCATE \"_pg3_0\""), name("_pg3_0"));
    }
}
