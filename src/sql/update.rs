//! Where the parts of an UPDATE stand in its text, for what moves rows to another shard.

use std::ops::Range;

use super::cursor::{Cursor, comma_parts};
use super::lexer::Token;

/// The places of an UPDATE's parts, as bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateLayout {
    /// The name by which its columns are qualified.
    pub alias: Option<String>,
    /// What is assigned to which column, as stored: SQL.
    pub assignments: Vec<(String, String)>,
    /// What stands behind FROM.
    pub from: Option<Range<usize>>,
    /// The condition, without WHERE.
    pub condition: Option<Range<usize>>,
    /// RETURNING and its list.
    pub returning: Option<Range<usize>>,
    /// The identifiers in RETURNING that may be columns, each with the name before its point.
    pub returned: Vec<(Option<String>, String)>,
}

/// Reads `UPDATE …`; `None` where it is not understood.
pub(super) fn layout(text: &str, tokens: &[Token]) -> Option<UpdateLayout> {
    let mut cursor = Cursor::new(text, tokens);
    if !cursor.eat("update") || cursor.word() == Some("only") {
        return None;
    }
    cursor.name()?;
    cursor.eat_symbol("*");
    let mut layout = UpdateLayout {
        alias: None,
        assignments: Vec::new(),
        from: None,
        condition: None,
        returning: None,
        returned: Vec::new(),
    };
    if cursor.eat("as") || cursor.word() != Some("set") {
        layout.alias = Some(cursor.ident()?);
    }
    if !cursor.eat("set") {
        return None;
    }
    let assigned = clause(&mut cursor, &["from", "where", "returning"]);
    for part in comma_parts(text, assigned) {
        layout.assignments.extend(assignments(text, part)?);
    }
    if cursor.eat("from") {
        layout.from = Some(bytes(clause(&mut cursor, &["where", "returning"]))?);
    }
    if cursor.eat("where") {
        layout.condition = Some(bytes(clause(&mut cursor, &["returning"]))?);
    }
    if cursor.word() == Some("returning") {
        layout.returning = Some(cursor.token()?.start..tokens.last()?.end);
        layout.returned = names(text, tokens.get(cursor.at + 1..)?);
        cursor.at = tokens.len();
    }
    cursor.at_end().then_some(layout)
}

/// `a = 1`, `(a, b) = (1, 2)` or `(a, b) = (SELECT 1, 2)`, each column with its value.
pub(super) fn assignments(text: &str, part: &[Token]) -> Option<Vec<(String, String)>> {
    let mut cursor = Cursor::new(text, part);
    let columns = cursor.ident_list();
    if columns.is_none() {
        cursor.at = 0;
    }
    let column = if columns.is_none() { Some(cursor.ident()?) } else { None };
    if !cursor.eat_symbol("=") {
        return None;
    }
    let value = part.get(cursor.at..)?;
    let written = |tokens: &[Token]| Some(text.get(bytes(tokens)?)?.to_owned());
    let Some(columns) = columns else { return Some(vec![(column?, written(value)?)]) };
    let row = cursor.eat("row");
    let inside = cursor.parenthesized().filter(|_| cursor.at_end())?;
    let first = Cursor::new(text, inside).word();
    if !row && matches!(first, Some("select" | "values" | "with")) {
        let names: Vec<String> = (1..=columns.len()).map(|at| format!("c{at}")).collect();
        let (query, all) = (written(inside)?, names.join(", "));
        let value = |name: &String| format!("(SELECT {name} FROM ({query}) AS given ({all}))");
        return Some(columns.into_iter().zip(names.iter().map(value)).collect());
    }
    let values: Option<Vec<String>> = comma_parts(text, inside).into_iter().map(written).collect();
    // PostgreSQL takes one value without ROW for a mistake.
    let values = values.filter(|it| it.len() == columns.len() && (row || it.len() > 1))?;
    Some(columns.into_iter().zip(values).collect())
}

/// Identifiers that may be columns: what calls nothing and is no alias.
fn names(text: &str, tokens: &[Token]) -> Vec<(Option<String>, String)> {
    let mut found = Vec::new();
    let mut cursor = Cursor::new(text, tokens);
    while !cursor.at_end() {
        if cursor.eat("as") || cursor.eat_symbol("::") {
            cursor.at += 1;
            continue;
        }
        let Some(name) = cursor.ident() else {
            cursor.at += 1;
            continue;
        };
        if !cursor.eat_symbol(".") {
            found.extend((!cursor.symbol_ahead(0, "(")).then_some((None, name)));
        } else if cursor.eat_symbol("*") {
            found.push((Some(name), "*".to_owned()));
        } else {
            found.extend(cursor.ident().map(|column| (Some(name), column)));
        }
    }
    found
}

/// The tokens up to one of `ends` that is in no parentheses.
pub(super) fn clause<'a>(cursor: &mut Cursor<'a>, ends: &[&str]) -> &'a [Token] {
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

pub(super) fn bytes(tokens: &[Token]) -> Option<Range<usize>> {
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
        let parts = layout.assignments.iter().map(|(column, value)| (&**column, &**value));
        let expected = [("x", "f(1, 2)"), ("Y", "z IS DISTINCT FROM 3")];
        assert_eq!(parts.collect::<Vec<_>>(), expected);
        assert_eq!(&text[layout.condition.unwrap()], "x IN (SELECT 1 FROM t) AND y");
        assert_eq!(&text[layout.returning.unwrap()], "RETURNING *, x");
        assert_eq!(layout.alias.as_deref(), Some("c"));
    }

    #[test]
    fn columns_in_parentheses_get_a_value_each() {
        let text = "UPDATE t SET (a, b) = (1, f(2, 3)), (c) = ROW(4), (d, e) = (SELECT 5, 6) \
            FROM u JOIN v ON true WHERE x RETURNING t.a, lower(b) AS c, d::text, u.*";
        let tokens = crate::sql::lexer::tokens(text, super::super::Strings::Standard);
        let layout = layout(text, &tokens).unwrap();
        let given = |name| format!("(SELECT {name} FROM (SELECT 5, 6) AS given (c1, c2))");
        let expected = [("a", "1"), ("b", "f(2, 3)"), ("c", "4")].map(|(c, v)| (c, v.to_owned()));
        let expected = expected.into_iter().chain([("d", given("c1")), ("e", given("c2"))]);
        let parts = layout.assignments.iter().map(|(column, value)| (&**column, value.clone()));
        assert_eq!(parts.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!(&text[layout.from.unwrap()], "u JOIN v ON true");
        let returned = layout.returned.iter().map(|(table, c)| (table.as_deref(), &**c));
        let expected = [(Some("t"), "a"), (None, "b"), (None, "d"), (Some("u"), "*")];
        assert_eq!(returned.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_not_a_plain_update_has_no_layout() {
        for text in [
            "UPDATE t SET (a, b) = (1)",
            "UPDATE t SET (a) = (1)",
            "UPDATE t SET (a, b) = f(1)",
            "UPDATE t SET a[1] = 2",
            "UPDATE ONLY t SET a = 1",
        ] {
            let tokens = crate::sql::lexer::tokens(text, super::super::Strings::Standard);
            assert_eq!(layout(text, &tokens), None, "{text}");
        }
    }
}
