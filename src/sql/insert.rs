//! Where the parts of an INSERT stand in its text, for what splits or completes its rows.

use std::ops::Range;

use super::cursor::{Cursor, comma_parts};
use super::lexer::{Kind, Token};

/// The places of an INSERT's parts, as bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertLayout {
    /// Behind the table's name and alias.
    pub after_table: usize,
    /// The column list with its parentheses.
    pub columns: Option<Range<usize>>,
    /// OVERRIDING … VALUE, and whether it says USER.
    pub overriding: Option<(Range<usize>, bool)>,
    /// VALUES with its rows, DEFAULT VALUES, or the query.
    pub source: Range<usize>,
    /// The rows of VALUES; empty for any other source.
    pub rows: Vec<RowLayout>,
    /// The source is DEFAULT VALUES.
    pub default_values: bool,
    /// ON CONFLICT follows it.
    pub conflict: bool,
    /// Each parameter of the statement with its place.
    pub params: Vec<(u16, Range<usize>)>,
}

/// The places of one row of VALUES.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLayout {
    /// With its parentheses.
    pub span: Range<usize>,
    /// Its values.
    pub cells: Vec<Range<usize>>,
}

/// Reads `INSERT INTO …`; `None` where it begins otherwise or is not understood.
pub(super) fn layout(text: &str, tokens: &[Token]) -> Option<InsertLayout> {
    let mut cursor = Cursor::new(text, tokens);
    if !cursor.eat_all(&["insert", "into"]) {
        return None;
    }
    cursor.name()?;
    if cursor.eat("as") {
        cursor.ident()?;
    }
    let after_table = tokens.get(cursor.at.checked_sub(1)?)?.end;
    let mut columns = None;
    if cursor.symbol_ahead(0, "(") && !starts_query(&cursor, 1) {
        let start = cursor.token()?.start;
        cursor.parenthesized()?;
        columns = Some(start..tokens.get(cursor.at - 1)?.end);
    }
    let mut overriding = None;
    if cursor.word() == Some("overriding") {
        let user = cursor.word_ahead(1) == Some("user");
        overriding = Some((cursor.token()?.start..tokens.get(cursor.at + 2)?.end, user));
        cursor.at += 3;
    }
    let start = cursor.token()?.start;
    let mut layout = InsertLayout {
        after_table,
        columns,
        overriding,
        source: start..start,
        rows: Vec::new(),
        default_values: false,
        conflict: false,
        params: params(tokens),
    };
    if cursor.eat_all(&["default", "values"]) {
        layout.default_values = true;
    } else if cursor.eat("values") {
        layout.rows.push(row(&mut cursor)?);
        while cursor.eat_symbol(",") {
            layout.rows.push(row(&mut cursor)?);
        }
        let ends = |word| matches!(word, "on" | "returning");
        if !cursor.at_end() && !cursor.word().is_some_and(ends) {
            // VALUES … ORDER BY, UNION …
            layout.rows.clear();
            skip_query(&mut cursor);
        }
    } else {
        skip_query(&mut cursor);
    }
    layout.source.end = tokens.get(cursor.at.checked_sub(1)?)?.end;
    layout.conflict = cursor.eat_all(&["on", "conflict"]);
    Some(layout)
}

fn starts_query(cursor: &Cursor<'_>, ahead: usize) -> bool {
    let mut ahead = ahead;
    while cursor.symbol_ahead(ahead, "(") {
        ahead += 1;
    }
    matches!(cursor.word_ahead(ahead), Some("select" | "values" | "with" | "table"))
}

/// Up to ON CONFLICT or RETURNING outside of all parentheses.
fn skip_query(cursor: &mut Cursor<'_>) {
    while !cursor.at_end() {
        let conflict = cursor.word() == Some("on") && cursor.word_ahead(1) == Some("conflict");
        if conflict || cursor.word() == Some("returning") {
            return;
        }
        if !cursor.symbol_ahead(0, "(") || cursor.parenthesized().is_none() {
            cursor.at += 1;
        }
    }
}

fn row(cursor: &mut Cursor<'_>) -> Option<RowLayout> {
    let start = cursor.token()?.start;
    let inside = cursor.parenthesized()?;
    let end = cursor.tokens.get(cursor.at - 1)?.end;
    let bytes = |part: &[Token]| Some(part.first()?.start..part.last()?.end);
    let cells = comma_parts(cursor.text, inside).into_iter().map(bytes).collect::<Option<_>>()?;
    Some(RowLayout { span: start..end, cells })
}

/// The parameters among tokens, in the order in which they stand.
fn params(tokens: &[Token]) -> Vec<(u16, Range<usize>)> {
    let param = |token: &Token| match token.kind {
        Kind::Param(number) => Some((number, token.span())),
        _ => None,
    };
    tokens.iter().filter_map(param).collect()
}

/// The parameters of a text with their places, in order.
pub fn params_of(text: &str) -> Vec<(u16, Range<usize>)> {
    params(&super::lexer::tokens(text, super::Strings::Standard))
}

/// The names of what looks like a function call.
pub fn calls_in(text: &str) -> Vec<String> {
    let tokens = super::lexer::tokens(text, super::Strings::Standard);
    let name = |pair: &[Token]| match &pair[0].kind {
        Kind::Word(name) | Kind::Quoted(name) if &text[pair[1].span()] == "(" => Some(name.clone()),
        _ => None,
    };
    tokens.windows(2).filter_map(name).collect()
}

/// Functions that give the time at which their transaction or statement began, and those of them
/// that take no parentheses.
const CLOCKS: [&str; 3] = ["now", "statement_timestamp", "transaction_timestamp"];
const CLOCK_WORDS: [&str; 5] =
    ["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"];

/// Where the text calls the clock that stands still during a statement, such as `now()`.
pub fn clock_calls(text: &str) -> Vec<Range<usize>> {
    let tokens = super::lexer::tokens(text, super::Strings::Standard);
    let mut cursor = Cursor::new(text, &tokens);
    let mut found = Vec::new();
    while let Some(token) = cursor.token() {
        let at = cursor.at;
        let after_dot = at > 0 && Cursor { at: at - 1, ..cursor }.symbol_ahead(0, ".");
        let catalog =
            after_dot && at > 1 && Cursor { at: at - 2, ..cursor }.word() == Some("pg_catalog");
        match cursor.word() {
            Some(word) if CLOCK_WORDS.contains(&word) && !after_dot => {
                cursor.at += 1;
                if cursor.symbol_ahead(0, "(") {
                    cursor.parenthesized();
                }
                found.push(token.start..tokens[cursor.at - 1].end);
            }
            Some(word)
                if CLOCKS.contains(&word)
                    && cursor.symbol_ahead(1, "(")
                    && cursor.symbol_ahead(2, ")")
                    && (!after_dot || catalog) =>
            {
                let start = if catalog { tokens[at - 2].start } else { token.start };
                found.push(start..tokens[at + 2].end);
                cursor.at += 3;
            }
            _ => cursor.at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::tokens;

    fn of(text: &str) -> InsertLayout {
        layout(text, &tokens(text, super::super::Strings::Standard)).unwrap()
    }

    #[test]
    fn rows_and_values_are_found_where_they_stand() {
        let text = "INSERT INTO a.b AS c (x, y) OVERRIDING USER VALUE \
            VALUES (1, f(2, 3)), ('(,', $2) ON CONFLICT DO NOTHING";
        let layout = of(text);
        assert_eq!(&text[layout.columns.unwrap()], "(x, y)");
        assert_eq!(&text[layout.overriding.unwrap().0], "OVERRIDING USER VALUE");
        let cells: Vec<_> = layout.rows.iter().flat_map(|row| &row.cells).collect();
        let cells: Vec<_> = cells.into_iter().map(|cell| &text[cell.clone()]).collect();
        assert_eq!(cells, ["1", "f(2, 3)", "'(,'", "$2"]);
        assert_eq!(&text[layout.source.clone()], "VALUES (1, f(2, 3)), ('(,', $2)");
        assert_eq!(&text[..layout.after_table], "INSERT INTO a.b AS c");
    }

    #[test]
    fn a_query_ends_where_the_clauses_of_insert_begin() {
        for (text, source) in [
            ("INSERT INTO t SELECT 1 FROM u RETURNING x", "SELECT 1 FROM u"),
            ("INSERT INTO t (SELECT 1) ON CONFLICT DO NOTHING", "(SELECT 1)"),
            ("INSERT INTO t (a) SELECT b FROM u JOIN v ON true", "SELECT b FROM u JOIN v ON true"),
            ("INSERT INTO t DEFAULT VALUES", "DEFAULT VALUES"),
            ("INSERT INTO t VALUES (1) UNION SELECT 2", "VALUES (1) UNION SELECT 2"),
        ] {
            let layout = of(text);
            assert_eq!(&text[layout.source], source);
            assert!(layout.rows.is_empty());
        }
    }

    #[test]
    fn the_clock_is_found_only_where_it_is_called() {
        let text = "SELECT now(), x.now(), now, 'now()', pg_catalog.now(), current_timestamp(3), \
            a.current_date, LOCALTIME";
        let calls: Vec<_> = clock_calls(text).into_iter().map(|span| &text[span]).collect();
        assert_eq!(calls, ["now()", "pg_catalog.now()", "current_timestamp(3)", "LOCALTIME"]);
    }
}
