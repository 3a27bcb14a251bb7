//! ALTER TABLE.

use std::ops::Range;

use super::column::{self, ColumnDefinition, TableConstraint};
use crate::sql::cursor::{Cursor, Name, comma_parts};
use crate::sql::lexer::Token;

/// ALTER TABLE.
#[derive(Debug, Clone)]
pub struct AlterTable {
    /// The table.
    pub name: Name,
    /// The bytes of ONLY, or of `*`.
    pub only: Option<Range<usize>>,
    /// In order.
    pub actions: Vec<AlterAction>,
    /// The bytes of all of them.
    pub all: Range<usize>,
}

/// One action of ALTER TABLE.
#[derive(Debug, Clone)]
pub enum AlterAction {
    /// ADD COLUMN
    AddColumn(ColumnDefinition),
    /// DROP COLUMN, with the column
    DropColumn(String),
    /// ALTER COLUMN … TYPE, with the column
    ColumnType(String),
    /// ALTER COLUMN … SET DEFAULT, with the functions called
    ColumnDefault(Vec<String>),
    /// ALTER COLUMN … ADD GENERATED … AS IDENTITY, with the column
    ColumnIdentity(String),
    /// ALTER COLUMN with something else
    ColumnOther,
    /// RENAME COLUMN, with the old name
    RenameColumn(String),
    /// RENAME TO
    Rename(String),
    /// SET SCHEMA
    SetSchema(String),
    /// ADD CONSTRAINT
    AddConstraint(TableConstraint),
    /// DROP, RENAME, VALIDATE or ALTER CONSTRAINT, with its name
    OtherConstraint(String),
    /// REPLICA IDENTITY, with the word that follows
    ReplicaIdentity(String),
    /// Something else, by its words
    Other(String),
}

impl AlterAction {
    /// Whether rows of another table become rows of this one, or the other way round.
    pub fn takes_in(&self) -> bool {
        let Self::Other(words) = self else { return false };
        matches!(words.split(' ').next(), Some("ATTACH" | "INHERIT"))
    }
}

/// Behind ALTER TABLE.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Option<AlterTable> {
    cursor.eat_all(&["if", "exists"]);
    let mut only = cursor.token()?.span();
    let written = cursor.eat("only");
    let name = cursor.name()?;
    if !written {
        only = cursor.token()?.span();
    }
    let written = written || cursor.eat_symbol("*");
    let rest = cursor.tokens.get(cursor.at..)?;
    let all = rest.first()?.start..rest.last()?.end;
    let actions: Option<Vec<_>> =
        comma_parts(cursor.text, rest).into_iter().map(|part| action(cursor.text, part)).collect();
    Some(AlterTable { name, only: written.then_some(only), actions: actions?, all })
}

fn action(text: &str, tokens: &[Token]) -> Option<AlterAction> {
    let mut cursor = Cursor::new(text, tokens);
    let other = || {
        let words = tokens.iter().take(2).map(|token| text[token.span()].to_ascii_uppercase());
        Some(AlterAction::Other(words.collect::<Vec<_>>().join(" ")))
    };
    if cursor.eat_all(&["rename", "to"]) {
        return cursor.ident().map(AlterAction::Rename);
    }
    if cursor.eat_all(&["set", "schema"]) {
        return cursor.ident().map(AlterAction::SetSchema);
    }
    if cursor.eat_all(&["replica", "identity"]) {
        return cursor.word().map(|word| AlterAction::ReplicaIdentity(word.to_owned()));
    }
    match cursor.word()? {
        "add" => {
            cursor.at += 1;
            let explicit = cursor.eat("column");
            if !explicit && column::starts_table_constraint(&cursor) {
                let constraint = Cursor::new(text, &tokens[cursor.at..]);
                return column::table_constraint(&mut { constraint })
                    .map(AlterAction::AddConstraint);
            }
            cursor.eat_all(&["if", "not", "exists"]);
            let column = Cursor::new(text, &tokens[cursor.at..]);
            column::column(&mut { column }).map(AlterAction::AddColumn)
        }
        "drop" | "validate" | "rename" | "alter" if cursor.word_ahead(1) == Some("constraint") => {
            cursor.at += 2;
            cursor.eat_all(&["if", "exists"]);
            cursor.ident().map(AlterAction::OtherConstraint)
        }
        "drop" => {
            cursor.at += 1;
            cursor.eat("column");
            cursor.eat_all(&["if", "exists"]);
            cursor.ident().map(AlterAction::DropColumn)
        }
        "rename" => {
            cursor.at += 1;
            cursor.eat("column");
            cursor.ident().map(AlterAction::RenameColumn)
        }
        "alter" => {
            cursor.at += 1;
            cursor.eat("column");
            let name = cursor.ident()?;
            Some(altered_column(&mut cursor, name))
        }
        _ => other(),
    }
}

fn altered_column(cursor: &mut Cursor<'_>, name: String) -> AlterAction {
    if cursor.eat("type") || cursor.eat_all(&["set", "data", "type"]) {
        return AlterAction::ColumnType(name);
    }
    if cursor.eat_all(&["set", "default"]) {
        let calls = column::calls(&Cursor { at: cursor.tokens.len(), ..*cursor }, cursor.at);
        return AlterAction::ColumnDefault(calls);
    }
    if cursor.word() == Some("add") {
        return AlterAction::ColumnIdentity(name);
    }
    AlterAction::ColumnOther
}
