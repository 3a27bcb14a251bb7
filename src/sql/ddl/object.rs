//! Statements about named objects: DROP, TRUNCATE, ANALYZE, GRANT, and what is no table.

use std::ops::Range;

use super::DdlStatement;
use crate::sql::cursor::{Cursor, Name, comma_parts};

/// A statement about a list of objects.
#[derive(Debug, Clone)]
pub struct Named {
    /// The objects.
    pub names: Vec<Name>,
    /// The bytes of each, with what belongs to it alone.
    pub parts: Vec<Range<usize>>,
    /// CONCURRENTLY
    pub concurrently: bool,
    /// IF EXISTS
    pub if_exists: bool,
}

/// VACUUM and REINDEX: what can't run in a transaction block.
#[derive(Debug, Clone)]
pub struct Maintenance {
    /// The tables; none where it is about an index, or all tables.
    pub tables: Vec<Name>,
    /// The index, likewise.
    pub index: Option<Name>,
}

/// GRANT and REVOKE.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The tables, where it is about tables by name.
    pub tables: Option<Vec<Name>>,
    /// It is about sequences or large objects: the home node alone has them.
    pub at_home: bool,
}

/// Objects that every node has alike.
const GLOBAL: [&str; 18] = [
    "aggregate",
    "cast",
    "collation",
    "conversion",
    "domain",
    "extension",
    "function",
    "group",
    "operator",
    "policy",
    "procedure",
    "role",
    "routine",
    "schema",
    "sequence",
    "statistics",
    "trigger",
    "type",
];

/// Behind CREATE, ALTER or DROP.
pub(super) fn global(cursor: &Cursor<'_>) -> Option<DdlStatement> {
    let object = cursor.word()?;
    let global = GLOBAL.binary_search(&object).is_ok()
        || object == "user" && cursor.word_ahead(1) != Some("mapping")
        || object == "default" && cursor.word_ahead(1) == Some("privileges")
        || object == "owned" && cursor.word_ahead(1) == Some("by")
        || object == "text" && cursor.word_ahead(1) == Some("search");
    let named = matches!(object, "function" | "procedure" | "routine");
    let of_table = matches!(object, "policy" | "trigger");
    let routine = if object == "trigger" {
        behind(cursor, &["execute", "function"])
            .or_else(|| behind(cursor, &["execute", "procedure"]))
    } else {
        Cursor { at: cursor.at + 1, ..*cursor }.name().filter(|_| named)
    };
    let table = if of_table { behind(cursor, &["on"]) } else { None };
    global.then(|| DdlStatement::Global { object: object.to_owned(), routine, table })
}

/// The name behind the first of these words in a row.
fn behind(cursor: &Cursor<'_>, words: &[&str]) -> Option<Name> {
    (cursor.at + 1..cursor.tokens.len()).find_map(|at| {
        let mut here = Cursor { at, ..*cursor };
        if here.eat_all(words) { here.name() } else { None }
    })
}

/// `INDEX …`, behind ALTER: an index of a home table is at home only, others are everywhere. Not where
/// IF EXISTS can't be said.
pub(super) fn index(cursor: &Cursor<'_>) -> Option<DdlStatement> {
    let object = cursor.word().filter(|word| *word == "index")?.to_owned();
    let firm = ["attach", "depends", "all"];
    if (1..5).any(|ahead| cursor.word_ahead(ahead).is_some_and(|word| firm.contains(&word))) {
        return None;
    }
    Some(DdlStatement::Global { object, routine: with_parameters(cursor), table: None })
}

/// The index whose storage parameters are set or reset.
fn with_parameters(cursor: &Cursor<'_>) -> Option<Name> {
    let mut cursor = Cursor { at: cursor.at + 1, ..*cursor };
    cursor.eat_all(&["if", "exists"]);
    let name = cursor.name()?;
    (cursor.eat_any(&["set", "reset"]) && cursor.eat_symbol("(")).then_some(name)
}

/// `DATABASE name SET | RESET …`, behind ALTER: what its sessions begin with.
pub(super) fn database(cursor: &mut Cursor<'_>) -> Option<DdlStatement> {
    let object = cursor.word().filter(|word| *word == "database")?.to_owned();
    cursor.at += 1;
    let name = cursor.name()?;
    let sets = matches!(cursor.word(), Some("set" | "reset"))
        && cursor.word_ahead(1) != Some("tablespace");
    sets.then_some(DdlStatement::Global { object, routine: Some(name), table: None })
}

/// `[CONCURRENTLY] [IF EXISTS] [ONLY] a, b …`
pub(super) fn named(cursor: &mut Cursor<'_>) -> Option<Named> {
    let concurrently = cursor.eat("concurrently");
    let if_exists = cursor.eat_all(&["if", "exists"]);
    if cursor.word() == Some("only") {
        return None;
    }
    let names = starred(cursor)?;
    let ends = |word| matches!(word, "cascade" | "restrict" | "restart" | "continue" | "identity");
    while cursor.word().is_some_and(ends) {
        cursor.at += 1;
    }
    let parts = spans(&names);
    cursor.at_end().then_some(Named { names, parts, concurrently, if_exists })
}

/// `a [*], b [*] …`
fn starred(cursor: &mut Cursor<'_>) -> Option<Vec<Name>> {
    let mut names = Vec::new();
    loop {
        if cursor.word() == Some("only") {
            return None;
        }
        names.push(cursor.name()?);
        cursor.eat_symbol("*");
        if !cursor.eat_symbol(",") {
            return Some(names);
        }
    }
}

fn spans(names: &[Name]) -> Vec<Range<usize>> {
    names.iter().map(|name| name.span.clone()).collect()
}

/// `a, b … [IN … MODE] [NOWAIT]`, behind LOCK.
pub(super) fn locked(cursor: &mut Cursor<'_>) -> Option<Named> {
    let names = starred(cursor)?;
    let ends = cursor.at_end() || matches!(cursor.word(), Some("in" | "nowait"));
    let parts = spans(&names);
    ends.then_some(Named { names, parts, concurrently: false, if_exists: false })
}

/// `[(options)] [VERBOSE] table [(columns)], …`; `None` without tables.
pub(super) fn analyzed(cursor: &mut Cursor<'_>) -> Option<Named> {
    if cursor.symbol_ahead(0, "(") {
        cursor.parenthesized()?;
    }
    cursor.eat("verbose");
    let (mut names, mut parts) = (Vec::new(), Vec::new());
    for part in comma_parts(cursor.text, cursor.tokens.get(cursor.at..)?) {
        parts.push(part.first()?.start..part.last()?.end);
        let mut cursor = Cursor::new(cursor.text, part);
        names.push(cursor.name()?);
        if cursor.symbol_ahead(0, "(") {
            cursor.parenthesized()?;
        }
        if !cursor.at_end() {
            return None;
        }
    }
    Some(Named { names, parts, concurrently: false, if_exists: false })
}

/// Behind VACUUM.
pub(super) fn vacuumed(cursor: &mut Cursor<'_>) -> Option<Maintenance> {
    if cursor.symbol_ahead(0, "(") {
        cursor.parenthesized()?;
    }
    while cursor.eat_any(&["full", "freeze", "verbose", "analyze", "analyse"]) {}
    if cursor.at_end() {
        return Some(Maintenance { tables: Vec::new(), index: None });
    }
    let named = analyzed(&mut *cursor)?;
    Some(Maintenance { tables: named.names, index: None })
}

/// Behind REINDEX.
pub(super) fn reindexed(cursor: &mut Cursor<'_>) -> Option<Maintenance> {
    if cursor.symbol_ahead(0, "(") {
        cursor.parenthesized()?;
    }
    let object = cursor.word()?;
    cursor.at += 1;
    cursor.eat("concurrently");
    let name = cursor.name().filter(|_| cursor.at_end());
    Some(match object {
        "table" => Maintenance { tables: vec![name?], index: None },
        "index" => Maintenance { tables: Vec::new(), index: Some(name?) },
        "schema" | "database" | "system" => Maintenance { tables: Vec::new(), index: None },
        _ => return None,
    })
}

/// `… ON … TO | FROM …`; a grant of roles has no ON.
pub(super) fn grant(cursor: &mut Cursor<'_>) -> Option<Grant> {
    while !cursor.at_end() && cursor.word() != Some("on") {
        cursor.at += 1;
    }
    cursor.at += 1;
    let mut grant = Grant { tables: None, at_home: false };
    let Some(word) = cursor.word().filter(|_| !cursor.at_end()) else {
        // A quoted table, or no ON.
        if cursor.at < cursor.tokens.len() {
            grant.tables = Some(tables(cursor)?);
        }
        return Some(grant);
    };
    let objects = [
        "all",
        "database",
        "domain",
        "foreign",
        "function",
        "language",
        "large",
        "parameter",
        "procedure",
        "routine",
        "schema",
        "tablespace",
        "type",
    ];
    if matches!((word, cursor.word_ahead(1)), ("sequence", _) | ("all", Some("sequences")))
        || matches!(
            (word, cursor.word_ahead(1)),
            ("large", Some("object")) | ("foreign", Some("data" | "server"))
        )
    {
        grant.at_home = true;
    } else if !objects.contains(&word) || cursor.symbol_ahead(1, ".") {
        cursor.eat("table");
        grant.tables = Some(tables(cursor)?);
    }
    Some(grant)
}

fn tables(cursor: &mut Cursor<'_>) -> Option<Vec<Name>> {
    let mut names = vec![cursor.name()?];
    while cursor.eat_symbol(",") {
        names.push(cursor.name()?);
    }
    Some(names)
}
