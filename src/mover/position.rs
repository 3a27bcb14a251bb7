//! The row of `foreshard.moves` on the destination: how far a move's stream is applied there.

use super::error::MoveError;
use super::names;
use super::session::Session;
use crate::ids::Lsn;
use crate::shard_move::Move;
use crate::sql::Literal;

/// Makes the table, if it is not there.
pub(super) const CREATE_TABLE: &str = "CREATE SCHEMA IF NOT EXISTS foreshard; \
     CREATE TABLE IF NOT EXISTS foreshard.moves (\
     move text PRIMARY KEY, applied pg_lsn NOT NULL, built boolean NOT NULL DEFAULT false)";

/// SQL that starts a move's row anew, at the slot's first position.
pub(super) fn reset(mv: &Move, consistent: Lsn) -> String {
    let name = names::slot(mv);
    format!(
        "DELETE FROM foreshard.moves WHERE move = {0}; \
         INSERT INTO foreshard.moves (move, applied) VALUES ({0}, '{consistent}')",
        Literal(&name)
    )
}

/// SQL that stores that everything before `end` is applied.
pub(super) fn advance(slot: &str, end: Lsn) -> String {
    format!("UPDATE foreshard.moves SET applied = '{end}' WHERE move = {}", Literal(slot))
}

/// SQL that stores that indexes and constraints are there.
pub(super) fn set_built(mv: &Move) -> String {
    let name = names::slot(mv);
    format!("UPDATE foreshard.moves SET built = true WHERE move = {}", Literal(&name))
}

/// SQL that removes a move's row, if the table is there.
pub(super) fn remove(mv: &Move) -> String {
    let name = names::slot(mv);
    let delete = format!("DELETE FROM foreshard.moves WHERE move = {}", Literal(&name));
    format!(
        "DO $foreshard$ BEGIN IF to_regclass('foreshard.moves') IS NOT NULL THEN {delete}; END IF; \
         END $foreshard$"
    )
}

/// The stored position.
pub(super) async fn read(session: &Session, mv: &Move) -> Result<Lsn, MoveError> {
    let sql = "SELECT applied::text FROM foreshard.moves WHERE move = $1";
    let rows = session.rows("reading the applied position", sql, &[&names::slot(mv)]).await?;
    let text: Option<String> = rows.first().map(|row| row.get(0));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| lost(session))
}

/// Whether indexes and constraints are there.
pub(super) async fn is_built(session: &Session, mv: &Move) -> Result<bool, MoveError> {
    let sql = "SELECT built FROM foreshard.moves WHERE move = $1";
    let rows = session.rows("reading the applied position", sql, &[&names::slot(mv)]).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| lost(session))
}

fn lost(session: &Session) -> MoveError {
    let text = "has no row of this move in foreshard.moves, so what was applied is not known";
    MoveError::Refused(format!("node {} {text}", session.node))
}
