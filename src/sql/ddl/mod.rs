//! Definitions, read by hand: what the planner must know to spread them over nodes, with the byte
//! positions at which it splices.

mod alter;
mod column;
mod create;
mod object;
mod view;

pub use alter::{AlterAction, AlterTable};
pub use column::{ColumnConstraint, ColumnDefinition, ConstraintKind, ForeignKey, TableConstraint};
pub use create::{CreateIndex, CreateTable, TableElement};
pub use object::{Grant, Maintenance, Named};
pub use view::{ViewStatement, ViewVerb};

use super::cursor::{Cursor, Name};
use super::lexer::Token;

/// A definition.
#[derive(Debug, Clone)]
pub enum DdlStatement {
    /// CREATE TABLE
    CreateTable(CreateTable),
    /// ALTER TABLE
    AlterTable(AlterTable),
    /// CREATE INDEX
    CreateIndex(CreateIndex),
    /// CREATE, ALTER, DROP VIEW
    View(ViewStatement),
    /// DROP TABLE
    DropTable(Named),
    /// DROP INDEX
    DropIndex(Named),
    /// TRUNCATE
    Truncate(Named),
    /// ANALYZE of named tables
    Analyze(Named),
    /// VACUUM, REINDEX
    Maintenance(Maintenance),
    /// LOCK
    Lock(Named),
    /// GRANT, REVOKE
    Grant(Grant),
    /// COMMENT ON
    Comment,
    /// CREATE, ALTER or DROP of what is no table and belongs on every node.
    Global {
        /// `schema`, `type`, `function`, …
        object: String,
        /// The name of a function, a procedure or a database; the function that a new trigger calls.
        routine: Option<Name>,
        /// The table of a trigger or a policy.
        table: Option<Name>,
    },
}

/// Reads a definition; `None` if it is none of these.
pub(super) fn read(text: &str, tokens: &[Token]) -> Option<DdlStatement> {
    let mut cursor = Cursor::new(text, tokens);
    let verb = cursor.word()?;
    cursor.at += 1;
    match verb {
        "create" => created(&mut cursor),
        "alter" if cursor.eat("table") => alter::read(&mut cursor).map(DdlStatement::AlterTable),
        "drop" if cursor.eat("table") => object::named(&mut cursor).map(DdlStatement::DropTable),
        "drop" if cursor.eat("index") => object::named(&mut cursor).map(DdlStatement::DropIndex),
        "alter" | "drop" => {
            let start = cursor.at;
            let kind = if verb == "drop" { ViewVerb::Drop } else { ViewVerb::Alter };
            if let Some(view) = view::changed(&mut cursor, kind) {
                return Some(DdlStatement::View(view));
            }
            cursor.at = start;
            let index = || object::index(&cursor).filter(|_| verb == "alter");
            let object = object::global(&cursor).or_else(index);
            object.or_else(|| object::database(&mut cursor))
        }
        "truncate" => {
            cursor.eat("table");
            object::named(&mut cursor).map(DdlStatement::Truncate)
        }
        "lock" => {
            cursor.eat("table");
            object::locked(&mut cursor).map(DdlStatement::Lock)
        }
        "analyze" | "analyse" => object::analyzed(&mut cursor).map(DdlStatement::Analyze),
        "vacuum" => object::vacuumed(&mut cursor).map(DdlStatement::Maintenance),
        "reindex" => object::reindexed(&mut cursor).map(DdlStatement::Maintenance),
        "grant" | "revoke" => object::grant(&mut cursor).map(DdlStatement::Grant),
        "comment" => Some(DdlStatement::Comment),
        "reassign" => object::global(&cursor),
        _ => None,
    }
}

fn created(cursor: &mut Cursor<'_>) -> Option<DdlStatement> {
    let start = cursor.at;
    if let Some(table) = create::table(cursor) {
        return Some(DdlStatement::CreateTable(table));
    }
    cursor.at = start;
    if let Some(index) = create::index(cursor) {
        return Some(DdlStatement::CreateIndex(index));
    }
    cursor.at = start;
    cursor.eat_all(&["or", "replace"]);
    let start = cursor.at;
    if let Some(view) = view::created(cursor) {
        return Some(DdlStatement::View(view));
    }
    cursor.at = start;
    object::global(cursor)
}
