//! CREATE TABLE and CREATE INDEX.

use std::ops::Range;

use super::column::{self, ColumnDefinition, TableConstraint};
use crate::sql::cursor::{Cursor, Name, comma_parts};
use crate::sql::lexer::{Kind, Token};

/// CREATE TABLE.
#[derive(Debug, Clone)]
pub struct CreateTable {
    /// The table.
    pub name: Name,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// TEMP
    pub temporary: bool,
    /// UNLOGGED
    pub unlogged: bool,
    /// What stands in the parentheses, in order; `None` for `AS`, `OF` and `PARTITION OF`.
    pub elements: Option<Vec<TableElement>>,
    /// The bytes of the parentheses and what they hold.
    pub body: Range<usize>,
    /// The bytes of `WITH (…)` behind them.
    pub with: Option<Range<usize>>,
    /// Other clauses behind them, by their first word, lower case.
    pub clauses: Vec<String>,
}

/// An element of a table's definition.
#[derive(Debug, Clone)]
pub enum TableElement {
    /// A column.
    Column(ColumnDefinition),
    /// A constraint.
    Constraint(TableConstraint),
    /// LIKE, with the table.
    Like(Name),
}

/// CREATE INDEX.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent words")]
pub struct CreateIndex {
    /// UNIQUE
    pub unique: bool,
    /// CONCURRENTLY
    pub concurrently: bool,
    /// ON ONLY
    pub only: bool,
    /// The table.
    pub table: Name,
    /// Its plain columns.
    pub columns: Vec<String>,
    /// Its name, if it is written.
    pub name: Option<Name>,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
}

/// Behind CREATE; `None` if it is no table.
pub(super) fn table(cursor: &mut Cursor<'_>) -> Option<CreateTable> {
    cursor.eat_any(&["global", "local"]);
    let temporary = cursor.eat_any(&["temp", "temporary"]);
    let unlogged = cursor.eat("unlogged");
    if !cursor.eat("table") {
        return None;
    }
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let name = cursor.name()?;
    let mut table = CreateTable {
        body: name.span.end..name.span.end,
        name,
        if_not_exists,
        temporary,
        unlogged,
        elements: None,
        with: None,
        clauses: Vec::new(),
    };
    if cursor.symbol_ahead(0, "(") {
        let start = cursor.token()?.start;
        let inside = cursor.parenthesized()?;
        table.body = start..cursor.tokens[cursor.at - 1].end;
        // `CREATE TABLE t (a, b) AS SELECT …` has names only.
        if cursor.word() != Some("as") {
            table.elements = Some(elements(cursor.text, inside)?);
        }
    }
    while !cursor.at_end() {
        clause(cursor, &mut table)?;
    }
    Some(table)
}

fn elements(text: &str, inside: &[Token]) -> Option<Vec<TableElement>> {
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let element = |part| {
        let mut cursor = Cursor::new(text, part);
        if cursor.eat("like") {
            return cursor.name().map(TableElement::Like);
        }
        if column::starts_table_constraint(&cursor) {
            return column::table_constraint(&mut cursor).map(TableElement::Constraint);
        }
        column::column(&mut cursor).map(TableElement::Column)
    };
    comma_parts(text, inside).into_iter().map(element).collect()
}

/// A clause behind the parentheses.
fn clause(cursor: &mut Cursor<'_>, table: &mut CreateTable) -> Option<()> {
    let start = cursor.token()?.start;
    let word = cursor.word()?;
    cursor.at += 1;
    match word {
        "with" if cursor.symbol_ahead(0, "(") => {
            cursor.parenthesized()?;
            table.with = Some(start..cursor.tokens[cursor.at - 1].end);
        }
        "tablespace" => {
            cursor.ident()?;
            table.clauses.push(word.to_owned());
        }
        // AS, INHERITS, PARTITION BY, USING, OF, ON COMMIT, …: none of them is understood further.
        _ => {
            table.clauses.push(word.to_owned());
            cursor.at = cursor.tokens.len();
        }
    }
    Some(())
}

/// Behind CREATE; `None` if it is no index.
pub(super) fn index(cursor: &mut Cursor<'_>) -> Option<CreateIndex> {
    let unique = cursor.eat("unique");
    if !cursor.eat("index") {
        return None;
    }
    let concurrently = cursor.eat("concurrently");
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let mut name = None;
    if !cursor.eat("on") {
        name = Some(cursor.name()?);
        if !cursor.eat("on") {
            return None;
        }
    }
    let only = cursor.eat("only");
    let table = cursor.name()?;
    if cursor.eat("using") {
        cursor.ident()?;
    }
    let inside = cursor.parenthesized()?;
    let mut columns = Vec::new();
    for part in comma_parts(cursor.text, inside) {
        // An operator class may follow a plain column, a call or an operator may not.
        let Some(Kind::Word(name) | Kind::Quoted(name)) = part.first().map(|token| &token.kind)
        else {
            continue;
        };
        if part.iter().skip(1).all(|token| matches!(token.kind, Kind::Word(_))) {
            columns.push(name.clone());
        }
    }
    cursor.at = cursor.tokens.len();
    Some(CreateIndex { unique, concurrently, only, table, columns, name, if_not_exists })
}
