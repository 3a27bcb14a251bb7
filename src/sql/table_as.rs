//! CREATE TABLE … AS and SELECT … INTO, read by hand: an empty table, and the query whose rows it gets.

use super::cursor::Cursor;
use super::lexer::{Kind, Strings, Token, tokens};

/// A table made of a query's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableAs {
    /// The new table, as written.
    pub name: String,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// TEMP
    pub temporary: bool,
    /// WITH NO DATA
    pub no_data: bool,
    /// What makes the table without rows.
    pub empty: String,
    /// Whose rows fill it.
    pub query: String,
}

/// Reads one statement; `None` if it is none of these.
pub fn table_as(text: &str, strings: Strings) -> Option<TableAs> {
    let all = tokens(text, strings);
    let mut cursor = Cursor::new(text, &all);
    if cursor.eat("create") { created(&mut cursor) } else { selected(text, &all) }
}

fn created(cursor: &mut Cursor<'_>) -> Option<TableAs> {
    cursor.eat_any(&["global", "local"]);
    let temporary = cursor.eat_any(&["temp", "temporary"]);
    cursor.eat("unlogged");
    if !cursor.eat("table") {
        return None;
    }
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let name = cursor.name()?.span;
    while !cursor.at_end() && cursor.word() != Some("as") {
        if cursor.symbol_ahead(0, "(") {
            cursor.parenthesized()?;
        } else {
            cursor.at += 1;
        }
    }
    if !cursor.eat("as") {
        return None;
    }
    let reads = matches!(cursor.word(), Some("select" | "with" | "values" | "table"))
        || cursor.symbol_ahead(0, "(");
    let start = cursor.token().filter(|_| reads)?.start;
    let mut query = &cursor.tokens[cursor.at..];
    let ends_with = |tokens: &[Token], words: &[&str]| {
        let last = tokens.len().checked_sub(words.len()).map(|at| &tokens[at..]);
        last.is_some_and(|last| last.iter().zip(words).all(|(token, word)| is(token, word)))
    };
    let no_data = ends_with(query, &["with", "no", "data"]);
    let ending = if no_data { 3 } else { 2 * usize::from(ends_with(query, &["with", "data"])) };
    query = &query[..query.len() - ending];
    let end = query.last()?.end;
    let name = cursor.slice(name).to_owned();
    Some(TableAs {
        if_not_exists,
        temporary,
        no_data,
        empty: format!("{} WITH NO DATA", cursor.slice(0..end)),
        query: cursor.slice(start..end).to_owned(),
        name,
    })
}

fn is(token: &Token, word: &str) -> bool {
    matches!(&token.kind, Kind::Word(known) if known == word)
}

/// `SELECT … INTO [TEMP | UNLOGGED] [TABLE] name …`
fn selected(text: &str, all: &[Token]) -> Option<TableAs> {
    let mut cursor = Cursor::new(text, all);
    while cursor.word() != Some("into") {
        if cursor.at_end() {
            return None;
        }
        if cursor.symbol_ahead(0, "(") {
            cursor.parenthesized()?;
        } else {
            cursor.at += 1;
        }
    }
    let start = cursor.token()?.start;
    cursor.at += 1;
    cursor.eat_any(&["global", "local"]);
    let kind = match cursor.word() {
        Some("temp" | "temporary") => "TEMP ",
        Some("unlogged") => "UNLOGGED ",
        _ => "",
    };
    cursor.at += usize::from(!kind.is_empty());
    cursor.eat("table");
    let name = cursor.name()?.span;
    let query = format!("{} {}", &text[..start], &text[name.end..]);
    let (name, query) = (&text[name], query.trim());
    Some(TableAs {
        name: name.to_owned(),
        if_not_exists: false,
        temporary: kind == "TEMP ",
        no_data: false,
        empty: format!("CREATE {kind}TABLE {name} AS {query} WITH NO DATA"),
        query: query.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_an_empty_table_and_its_rows() {
        let read = |text: &str| {
            let made = table_as(text, Strings::Standard).unwrap();
            format!("{} / {}", made.empty, made.query)
        };
        assert_eq!(
            read(
                "CREATE TEMP TABLE s.t (a, b) ON COMMIT DROP AS SELECT 1, cast(2 AS int) WITH DATA"
            ),
            "CREATE TEMP TABLE s.t (a, b) ON COMMIT DROP AS SELECT 1, cast(2 AS int) WITH NO DATA / \
             SELECT 1, cast(2 AS int)"
        );
        assert_eq!(
            read("WITH w AS (SELECT 1) SELECT a INTO TEMP TABLE \"T\" FROM w"),
            "CREATE TEMP TABLE \"T\" AS WITH w AS (SELECT 1) SELECT a   FROM w WITH NO DATA / \
             WITH w AS (SELECT 1) SELECT a   FROM w"
        );
        assert!(table_as("CREATE TABLE t AS EXECUTE q", Strings::Standard).is_none());
        assert!(
            table_as("CREATE TABLE t AS TABLE o WITH NO DATA", Strings::Standard).unwrap().no_data
        );
    }
}
