//! Column definitions and constraints.

use std::ops::Range;

use crate::sql::cursor::{Cursor, Name};
use crate::sql::lexer::Kind;

/// `name type constraints…`
#[derive(Debug, Clone)]
pub struct ColumnDefinition {
    /// As stored.
    pub name: String,
    /// Its words, lower case, without a length: `character varying`.
    pub type_name: String,
    /// The type has a length or precision.
    pub sized: bool,
    /// The collation, if one is written: as stored, with its schema before it if that is written and
    /// not `pg_catalog`.
    pub collation: Option<String>,
    /// In order.
    pub constraints: Vec<ColumnConstraint>,
    /// Its bytes in the text.
    pub span: Range<usize>,
}

/// A constraint of one column, with what follows it (`DEFERRABLE …`).
#[derive(Debug, Clone)]
pub struct ColumnConstraint {
    /// The name, if it has one.
    pub name: Option<String>,
    /// What it demands.
    pub kind: ConstraintKind,
    /// Its bytes in the text, with CONSTRAINT.
    pub span: Range<usize>,
}

/// A constraint of a table.
#[derive(Debug, Clone)]
pub struct TableConstraint {
    /// The name, if it has one.
    pub name: Option<String>,
    /// What it demands.
    pub kind: ConstraintKind,
    /// Its bytes in the text, with CONSTRAINT.
    pub span: Range<usize>,
}

/// What a constraint demands, or a default gives.
#[derive(Debug, Clone)]
pub enum ConstraintKind {
    /// PRIMARY KEY, with its columns; none where it is that of one column.
    PrimaryKey(Vec<String>),
    /// UNIQUE, likewise.
    Unique(Vec<String>),
    /// FOREIGN KEY or REFERENCES
    Foreign(ForeignKey),
    /// EXCLUDE, or a key USING INDEX
    Unsupported,
    /// GENERATED … AS IDENTITY
    Identity,
    /// DEFAULT, or GENERATED … STORED: the functions called and keywords used
    Default(Vec<String>),
    /// CHECK, NOT NULL and others that need no care
    Other,
}

/// A foreign key.
#[derive(Debug, Clone)]
pub struct ForeignKey {
    /// The referencing columns; none where it is that of one column.
    pub columns: Vec<String>,
    /// The referenced table.
    pub target: Name,
    /// The referenced columns, if written.
    pub target_columns: Option<Vec<String>>,
    /// The bytes of what follows them: `ON DELETE CASCADE DEFERRABLE`.
    pub actions: Range<usize>,
}

/// Words that begin a column's constraint.
const STARTS: [&str; 14] = [
    "check",
    "collate",
    "compression",
    "constraint",
    "default",
    "deferrable",
    "generated",
    "initially",
    "not",
    "null",
    "primary",
    "references",
    "storage",
    "unique",
];

/// Reads the column definition that `cursor` holds.
pub(super) fn column(cursor: &mut Cursor<'_>) -> Option<ColumnDefinition> {
    let span = cursor.token()?.start..cursor.tokens.last()?.end;
    let name = cursor.ident()?;
    let type_start = cursor.at;
    skip_to_constraint(cursor);
    let mut words = Vec::new();
    for token in &cursor.tokens[type_start..cursor.at] {
        match &token.kind {
            Kind::Word(word) | Kind::Quoted(word) => words.push(word.as_str()),
            Kind::Symbol if &cursor.text[token.span()] == "(" => break,
            Kind::Symbol if &cursor.text[token.span()] == "." => words.clear(),
            _ => words.push("?"),
        }
    }
    let array = cursor.tokens[type_start..cursor.at]
        .iter()
        .any(|token| token.kind == Kind::Symbol && &cursor.text[token.span()] == "[");
    if array {
        words.push("[]");
    }
    let type_name = words.join(" ");
    let sized = cursor.tokens[type_start..cursor.at]
        .iter()
        .any(|token| token.kind == Kind::Symbol && &cursor.text[token.span()] == "(");
    let mut definition =
        ColumnDefinition { name, type_name, sized, collation: None, constraints: Vec::new(), span };
    while !cursor.at_end() {
        constraint_of_column(cursor, &mut definition)?;
    }
    Some(definition)
}

/// Moves to the word that begins the next constraint.
fn skip_to_constraint(cursor: &mut Cursor<'_>) {
    while !cursor.at_end() {
        let after_set =
            cursor.at > 0 && Cursor { at: cursor.at - 1, ..*cursor }.word() == Some("set");
        match cursor.word() {
            Some(word) if STARTS.binary_search(&word).is_ok() && !after_set => return,
            _ if cursor.symbol_ahead(0, "(") => {
                if cursor.parenthesized().is_none() {
                    cursor.at = cursor.tokens.len();
                }
            }
            _ => cursor.at += 1,
        }
    }
}

fn constraint_of_column(cursor: &mut Cursor<'_>, definition: &mut ColumnDefinition) -> Option<()> {
    let start = cursor.at;
    let name = if cursor.eat("constraint") { Some(cursor.ident()?) } else { None };
    let word = cursor.word()?;
    cursor.at += 1;
    let extends = matches!(word, "deferrable" | "initially")
        || word == "not" && cursor.word() == Some("deferrable");
    let kind = match word {
        "primary" => ConstraintKind::PrimaryKey(Vec::new()),
        "unique" => ConstraintKind::Unique(Vec::new()),
        "references" => ConstraintKind::Foreign(foreign(cursor, Vec::new())?),
        "generated" if cursor.eat_any(&["always", "by"]) => {
            cursor.eat_all(&["default"]);
            cursor.eat("as");
            if cursor.word() == Some("identity") {
                ConstraintKind::Identity
            } else {
                ConstraintKind::Default(Vec::new())
            }
        }
        "default" => {
            // The first token is the value's: `DEFAULT NULL`.
            let first = cursor.at;
            if cursor.symbol_ahead(0, "(") {
                cursor.parenthesized()?;
            } else {
                cursor.at += 1;
            }
            skip_to_constraint(cursor);
            ConstraintKind::Default(calls(cursor, first))
        }
        "collate" => {
            let name = cursor.name()?;
            definition.collation = Some(match name.schema.as_deref() {
                None | Some("pg_catalog") => name.name,
                Some(schema) => format!("{schema}.{}", name.name),
            });
            ConstraintKind::Other
        }
        "constraint" => return None,
        _ if STARTS.binary_search(&word).is_ok() => ConstraintKind::Other,
        _ => return None,
    };
    if word == "not" {
        cursor.eat_any(&["null", "deferrable"]);
    }
    skip_to_constraint(cursor);
    let span = cursor.tokens[start].start..cursor.tokens[cursor.at - 1].end;
    match definition.constraints.last_mut() {
        Some(last) if extends => {
            last.span.end = span.end;
            if let ConstraintKind::Foreign(foreign) = &mut last.kind {
                foreign.actions.end = span.end;
            }
        }
        _ => definition.constraints.push(ColumnConstraint { name, kind, span }),
    }
    Some(())
}

/// The functions called, and keywords that are values, from token `first` to the cursor.
pub(super) fn calls(cursor: &Cursor<'_>, first: usize) -> Vec<String> {
    let mut names = Vec::new();
    for (index, token) in cursor.tokens.iter().enumerate().take(cursor.at).skip(first) {
        let (Kind::Word(name) | Kind::Quoted(name)) = &token.kind else { continue };
        let called = Cursor { at: index, ..*cursor }.symbol_ahead(1, "(");
        if called || name.starts_with("current_") || name.starts_with("local") {
            names.push(name.clone());
        }
    }
    names
}

/// What follows REFERENCES, up to the next constraint.
fn foreign(cursor: &mut Cursor<'_>, columns: Vec<String>) -> Option<ForeignKey> {
    let target = cursor.name()?;
    let target_columns =
        if cursor.symbol_ahead(0, "(") { Some(cursor.ident_list()?) } else { None };
    let start = cursor.tokens[cursor.at - 1].end;
    skip_to_constraint(cursor);
    let end = cursor.tokens[cursor.at - 1].end;
    Some(ForeignKey { columns, target, target_columns, actions: start..end })
}

/// Whether a table's element at the cursor is a constraint, not a column.
pub(super) fn starts_table_constraint(cursor: &Cursor<'_>) -> bool {
    match cursor.word() {
        Some("constraint" | "check" | "exclude") => true,
        Some("primary" | "foreign") => cursor.word_ahead(1) == Some("key"),
        Some("unique") => {
            cursor.symbol_ahead(1, "(") || matches!(cursor.word_ahead(1), Some("using" | "nulls"))
        }
        _ => false,
    }
}

/// Reads the table constraint that `cursor` holds.
pub(super) fn table_constraint(cursor: &mut Cursor<'_>) -> Option<TableConstraint> {
    let start = cursor.token()?.start;
    let span = start..cursor.tokens.last()?.end;
    let name = if cursor.eat("constraint") { Some(cursor.ident()?) } else { None };
    let word = cursor.word()?;
    cursor.at += 1;
    let kind = match word {
        "primary" | "unique" => {
            cursor.eat("key");
            if cursor.eat("nulls") {
                cursor.eat("not");
                cursor.eat("distinct");
            }
            if cursor.symbol_ahead(0, "(") {
                let columns = cursor.ident_list()?;
                if word == "primary" {
                    ConstraintKind::PrimaryKey(columns)
                } else {
                    ConstraintKind::Unique(columns)
                }
            } else {
                ConstraintKind::Unsupported
            }
        }
        "foreign" => {
            cursor.eat("key");
            let columns = cursor.ident_list()?;
            if !cursor.eat("references") {
                return None;
            }
            let mut foreign = foreign(cursor, columns)?;
            foreign.actions.end = span.end;
            ConstraintKind::Foreign(foreign)
        }
        "exclude" => ConstraintKind::Unsupported,
        "check" => ConstraintKind::Other,
        _ => return None,
    };
    cursor.at = cursor.tokens.len();
    Some(TableConstraint { name, kind, span })
}
