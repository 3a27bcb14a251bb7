//! CREATE, ALTER and DROP VIEW, materialized or not.

use super::object;
use crate::sql::cursor::{Cursor, Name};
use crate::sql::lexer::{Kind, Token};
use crate::sql::statement::Query;

/// A statement about views.
#[derive(Debug, Clone)]
pub struct ViewStatement {
    /// What it does.
    pub verb: ViewVerb,
    /// The views; one, but for DROP.
    pub names: Vec<Name>,
    /// IF EXISTS
    pub if_exists: bool,
    /// MATERIALIZED
    pub materialized: bool,
    /// TEMP
    pub temporary: bool,
    /// The query of CREATE, where it can be read.
    pub query: Option<Box<Query>>,
}

/// What a statement does to views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewVerb {
    /// CREATE
    Create,
    /// ALTER
    Alter,
    /// DROP
    Drop,
}

/// Behind CREATE and OR REPLACE; `None` if it is no view.
pub(super) fn created(cursor: &mut Cursor<'_>) -> Option<ViewStatement> {
    let temporary = cursor.eat_any(&["temp", "temporary"]);
    let recursive = cursor.eat("recursive");
    let materialized = cursor.eat("materialized");
    if !cursor.eat("view") {
        return None;
    }
    cursor.eat_all(&["if", "not", "exists"]);
    let names = vec![cursor.name()?];
    if cursor.symbol_ahead(0, "(") {
        cursor.parenthesized()?;
    }
    while !cursor.at_end() && !cursor.eat("as") {
        if !cursor.symbol_ahead(0, "(") || cursor.parenthesized().is_none() {
            cursor.at += 1;
        }
    }
    let tokens = without_options(cursor.tokens.get(cursor.at..)?);
    // A recursive view names itself.
    let query = super::super::parse::query(cursor.text, tokens).ok().filter(|_| !recursive);
    Some(ViewStatement {
        verb: ViewVerb::Create,
        names,
        if_exists: false,
        materialized,
        temporary,
        query: query.map(Box::new),
    })
}

/// Behind ALTER or DROP; `None` if it is no view.
pub(super) fn changed(cursor: &mut Cursor<'_>, verb: ViewVerb) -> Option<ViewStatement> {
    let materialized = cursor.eat("materialized");
    if !cursor.eat("view") {
        return None;
    }
    let (names, if_exists) = if verb == ViewVerb::Drop {
        let named = object::named(cursor)?;
        (named.names, named.if_exists)
    } else {
        let if_exists = cursor.eat_all(&["if", "exists"]);
        (vec![cursor.name()?], if_exists)
    };
    Some(ViewStatement { verb, names, if_exists, materialized, temporary: false, query: None })
}

/// Without `WITH [CASCADED | LOCAL] CHECK OPTION` and `WITH [NO] DATA` behind the query.
fn without_options(tokens: &[Token]) -> &[Token] {
    let words: Vec<&str> = tokens.iter().rev().take(4).map(word).collect();
    let length = match words.as_slice() {
        ["option", "check", "with", ..] | ["data", "no", "with", ..] => 3,
        ["option", "check", "cascaded" | "local", "with"] => 4,
        ["data", "with", ..] => 2,
        _ => 0,
    };
    &tokens[..tokens.len() - length]
}

fn word(token: &Token) -> &str {
    match &token.kind {
        Kind::Word(word) => word,
        _ => "",
    }
}
