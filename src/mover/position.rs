//! The rows of `foreshard.moves` on a destination: how far each stream of a move is applied there.

use super::error::MoveError;
use super::segments;
use super::session::Session;
use crate::ids::Lsn;
use crate::sql::Literal;

/// Makes the table, and that of segments, if they are not there. The lock keeps two moves from making it together.
pub(super) const CREATE_TABLE: &str = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('foreshard')); \
     CREATE SCHEMA IF NOT EXISTS foreshard; \
     CREATE TABLE IF NOT EXISTS foreshard.moves (\
     move text PRIMARY KEY, applied pg_lsn NOT NULL, built boolean NOT NULL DEFAULT false); \
     DO $foreshard$ BEGIN IF NOT EXISTS (SELECT FROM pg_attribute \
     WHERE attrelid = 'foreshard.moves'::regclass AND attname = 'bytes') THEN \
     ALTER TABLE foreshard.moves ADD COLUMN IF NOT EXISTS arrived boolean NOT NULL DEFAULT false, \
     ADD COLUMN rows bigint NOT NULL DEFAULT 0, ADD COLUMN bytes bigint NOT NULL DEFAULT 0; \
     END IF; END $foreshard$; \
     CREATE TABLE IF NOT EXISTS foreshard.segments (\
     move text, leaf text, number int, low text[], high text[], copied pg_lsn, \
     rows bigint NOT NULL DEFAULT 0, bytes bigint NOT NULL DEFAULT 0, \
     PRIMARY KEY (move, leaf, number)); COMMIT";

/// SQL that starts a stream's row anew, at the slot's first position; of a way back at 0, which means
/// that the mark of the switch was not found yet.
pub(super) fn reset(slot: &str, consistent: Lsn) -> String {
    format!(
        "DELETE FROM foreshard.moves WHERE move = {0}; \
         INSERT INTO foreshard.moves (move, applied) VALUES ({0}, '{consistent}')",
        Literal(slot)
    )
}

/// SQL that stores that everything before `end` is applied.
pub(super) fn advance(slot: &str, end: Lsn) -> String {
    format!("UPDATE foreshard.moves SET applied = '{end}' WHERE move = {}", Literal(slot))
}

/// SQL that stores that everything before `end` is applied at least.
pub(super) fn reach(slot: &str, end: Lsn) -> String {
    let slot = Literal(slot);
    format!("UPDATE foreshard.moves SET applied = greatest(applied, '{end}') WHERE move = {slot}")
}

/// SQL that stores how many rows and bytes the copy has brought.
pub(super) fn set_copied(slot: &str, (rows, bytes): (u64, u64)) -> String {
    let slot = Literal(slot);
    format!("UPDATE foreshard.moves SET rows = {rows}, bytes = {bytes} WHERE move = {slot}")
}

/// SQL that stores that indexes and constraints are there.
pub(super) fn set_built(slot: &str) -> String {
    format!("UPDATE foreshard.moves SET built = true WHERE move = {}", Literal(slot))
}

/// SQL that stores whether every row of the source has arrived, which nobody can write any more.
pub(super) fn set_arrived(slot: &str, arrived: bool) -> String {
    format!("UPDATE foreshard.moves SET arrived = {arrived} WHERE move = {}", Literal(slot))
}

/// SQL that removes what is stored of a slot, if the tables are there.
pub(super) fn remove(slot: &str) -> String {
    let delete = format!("DELETE FROM foreshard.moves WHERE move = {}", Literal(slot));
    let forget = segments::remove(slot);
    format!(
        "DO $foreshard$ BEGIN IF to_regclass('foreshard.moves') IS NOT NULL THEN {delete}; END IF; \
         IF to_regclass('foreshard.segments') IS NOT NULL THEN {forget}; END IF; END $foreshard$"
    )
}

/// The streams of which a node knows something, by the names of their slots.
pub(super) async fn known(session: &Session) -> Result<Vec<String>, MoveError> {
    let doing = "looking for positions";
    let mut slots = Vec::new();
    for table in ["foreshard.moves", "foreshard.segments"] {
        let there = "SELECT WHERE to_regclass($1) IS NOT NULL";
        if !session.rows(doing, there, &[&table]).await?.is_empty() {
            let rows = session.rows(doing, &format!("SELECT move FROM {table}"), &[]).await?;
            slots.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
    }
    slots.sort();
    slots.dedup();
    Ok(slots)
}

/// What a stream's row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) applied: Lsn,
    pub(super) built: bool,
    pub(super) arrived: bool,
    /// Rows and bytes of the copy.
    pub(super) copied: (u64, u64),
}

/// A stream's row; `None` before its copy is committed.
pub(super) async fn find(session: &Session, slot: &str) -> Result<Option<Position>, MoveError> {
    let doing = "reading the applied position";
    let sql = "SELECT WHERE to_regclass('foreshard.moves') IS NOT NULL";
    if session.rows(doing, sql, &[]).await?.is_empty() {
        return Ok(None);
    }
    let sql =
        "SELECT applied::text, built, arrived, rows, bytes FROM foreshard.moves WHERE move = $1";
    let rows = session.rows(doing, sql, &[&slot]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text: String = row.get(0);
    let invalid = |_| MoveError::Stream(format!("{text:?} is no WAL position"));
    let applied = text.parse().map_err(invalid)?;
    let count = |at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or_default();
    let copied = (count(3), count(4));
    Ok(Some(Position { applied, built: row.get(1), arrived: row.get(2), copied }))
}

/// A stream's row, which must be there.
pub(super) async fn read(session: &Session, slot: &str) -> Result<Position, MoveError> {
    let lost = || {
        let text = "has no row of this move in foreshard.moves, so what was applied is not known";
        MoveError::Refused(format!("node {} {text}", session.node))
    };
    find(session, slot).await?.ok_or_else(lost)
}
