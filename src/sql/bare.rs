//! Columns of a query that have no type of their own: INSERT gives them the types of its columns.

use super::Strings;
use super::cursor::{Cursor, comma_parts};
use super::lexer::{Kind, Token, tokens};

/// What a column of a SELECT is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bare {
    /// It has a type.
    No,
    /// A string constant.
    String,
    /// A parameter, which has a type if one was declared.
    Param(u16),
}

/// Words that end the columns of a SELECT.
const ENDS: [&str; 10] =
    ["fetch", "for", "from", "group", "having", "limit", "offset", "order", "where", "window"];
/// Words with which all columns of a query get types: rows are compared.
const COMPARES: [&str; 4] = ["distinct", "except", "intersect", "union"];

/// What each of the `count` columns of a query is.
pub fn bare_columns(text: &str, count: usize) -> Vec<Bare> {
    let all = tokens(text, Strings::Standard);
    let outer = outermost(text, &all);
    let is = |at: &usize, words: &[&str]| matches!(&all[*at].kind, Kind::Word(word) if words.contains(&word.as_str()));
    let mut columns = vec![Bare::No; count];
    let select = outer.iter().copied().find(|at| is(at, &["select"]));
    let Some(select) = select.filter(|_| !outer.iter().any(|at| is(at, &COMPARES))) else {
        return columns;
    };
    let end = outer.iter().copied().find(|at| *at > select && is(at, &ENDS));
    let mut items = &all[select + 1..end.unwrap_or(all.len())];
    if let [Token { kind: Kind::Word(word), .. }, rest @ ..] = items
        && word == "all"
    {
        items = rest;
    }
    let parts = comma_parts(text, items);
    let star = |part: &&[Token]| part.last().is_some_and(|t| &text[t.span()] == "*");
    // Behind a `*` columns are counted from the end.
    let stars = parts.iter().filter(|part| star(part)).count();
    let mut seen = false;
    for (index, part) in parts.iter().enumerate() {
        seen |= star(part);
        let place = if seen { (count + index).checked_sub(parts.len()) } else { Some(index) };
        if let Some(column) = place.and_then(|at| columns.get_mut(at))
            && !(seen && stars > 1)
        {
            *column = bare(text, part);
        }
    }
    columns
}

/// The tokens that are in no parentheses.
fn outermost(text: &str, all: &[Token]) -> Vec<usize> {
    let (mut depth, mut outer) = (0_usize, Vec::new());
    for (index, token) in all.iter().enumerate() {
        match &text[token.span()] {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            _ if depth == 0 => outer.push(index),
            _ => {}
        }
    }
    outer
}

/// One column, perhaps with an alias.
fn bare(text: &str, part: &[Token]) -> Bare {
    let mut cursor = Cursor::new(text, part);
    let inside = cursor.parenthesized();
    let first = inside.map_or(part.first(), |_| None);
    let rest = match inside {
        Some(_) => part.get(cursor.at..).unwrap_or_default(),
        None => part.get(1..).unwrap_or_default(),
    };
    let alias = matches!(rest, [Token { kind: Kind::Word(word), .. }, _] if word == "as")
        || matches!(rest, [] | [Token { kind: Kind::Word(_) | Kind::Quoted(_), .. }]);
    match (inside, first.map(|token| &token.kind)) {
        _ if !alias => Bare::No,
        (Some(inside), _) => bare(text, inside),
        (None, Some(Kind::String(_))) => Bare::String,
        (None, Some(Kind::Param(number))) => Bare::Param(*number),
        _ => Bare::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_constants_and_parameters_that_stand_alone_have_no_type() {
        let (no, string, param) = (Bare::No, Bare::String, Bare::Param(2));
        for (text, expected) in [
            ("SELECT 'a', b, $2", vec![string, no, param]),
            ("SELECT ALL ('a') AS x, ((E'b')) FROM t", vec![string, string]),
            ("SELECT 'a' || 'b', lower('a'), 'a'::text FROM t", vec![no, no, no]),
            ("SELECT *, 'a' x FROM t", vec![no, no, string]),
            ("SELECT 'a', t.*, $$b$$ FROM t", vec![string, no, no, string]),
            ("SELECT *, 'a', u.* FROM t, u", vec![no, no, no]),
            ("WITH x AS (SELECT 'q' UNION SELECT 'r') SELECT 'a', y FROM x", vec![string, no]),
            ("SELECT DISTINCT 'a' FROM t", vec![no]),
            ("SELECT 'a' UNION ALL SELECT 'b'", vec![no]),
            ("SELECT y FROM (SELECT 'a' AS y) x", vec![no]),
            ("VALUES ('a')", vec![no]),
            ("SELECT", vec![no]),
        ] {
            assert_eq!(bare_columns(text, expected.len()), expected, "{text}");
        }
    }
}
