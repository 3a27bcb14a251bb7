//! System columns of sharded and reference tables: what they say of a row's place or version holds for
//! one partition of one node.

use super::scatter::SYSTEM_COLUMNS;
use crate::sql::{Query, Statement};
use crate::wire::ServerError;

/// Refuses what would name partitions.
///
/// # Errors
/// `tableoid` is named.
pub(super) fn check(statement: &Statement) -> Result<(), ServerError> {
    if !statement.has("tableoid") {
        return Ok(());
    }
    Err(ServerError::refused(
        "tableoid of a sharded table is not supported",
        "It would be that of the partition in which a row is.",
        "Write the table's name itself: 'orders'::regclass.",
    ))
}

/// Whether it names the places of rows, which rows of several partitions share.
pub(super) fn names_places(statement: &Statement) -> bool {
    statement.has("ctid")
}

/// Whether its system columns are only such as say which version a row is, and stand before FROM, where
/// each row gives its own.
pub(super) fn gives_versions(text: &str, query: &Query, statement: &Statement) -> bool {
    let named = SYSTEM_COLUMNS.iter().filter(|column| statement.has(column));
    let mut named = named.peekable();
    if named.peek().is_none() || query.levels.len() > 1 {
        return false;
    }
    let text = text.to_ascii_lowercase();
    let Some(from) = text.find("from") else { return false };
    { named }.all(|name| matches!(*name, "xmin" | "xmax") && !text[from..].contains(name))
}

/// A system column whose value in a write is another one on each node that has the same rows. `xmax`
/// behind RETURNING says whether the row is a new one.
pub(super) fn differs(text: &str, statement: &Statement) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    // In a literal or a name it is none.
    let clause = text.find("returning").filter(|at| {
        let alone = statement.has("returning") && text.rfind("returning") == Some(*at);
        alone && !text[..*at].ends_with('"')
    });
    let before = clause.map_or(text.as_str(), |at| &text[..at]);
    let differs = |column: &&&str| **column != "xmax" || before.contains("xmax");
    let mut named = SYSTEM_COLUMNS.iter().filter(|column| statement.has(column));
    named.find(differs).copied()
}
