//! The names of what a move makes: always the same for the same move, never those of another.

use crate::ids::{JobId, Lsn, MoveId};
use crate::shard_move::{Move, MovedTable, Reversed};
use crate::sql::Ident;

/// Prefix of the WAL messages that mark the end of a shard's stream.
pub(super) const MARKER_PREFIX: &str = "foreshard";

/// Slots are named in all databases of a server, so the time makes it unique over proxies. That of a
/// way back was made before the way back had an id.
pub(super) fn slot(mv: &Move, lane: usize) -> String {
    if let Some(job) = mv.job {
        return format!("{}{lane}", of_job(job, mv.requested_unix_ms));
    }
    match mv.reverses {
        Some(Reversed { id, requested_unix_ms }) => back(id, requested_unix_ms, lane),
        None => format!("foreshard_m{}_{}_{lane}", mv.id, mv.requested_unix_ms),
    }
}

/// What the names of all slots, publications and positions of a job begin with.
pub(super) fn of_job(job: JobId, requested_unix_ms: u64) -> String {
    format!("foreshard_j{job}_{requested_unix_ms}_")
}

/// Whether a slot, or its row of positions, is one of a job.
pub(super) fn is_of_job(slot: &str) -> bool {
    let id = slot.strip_prefix("foreshard_j").and_then(|rest| rest.split_once('_'));
    id.is_some_and(|(id, _)| id.parse::<u64>().is_ok())
}

fn back(reversed: MoveId, requested_unix_ms: u64, lane: usize) -> String {
    format!("foreshard_b{reversed}_{requested_unix_ms}_{lane}")
}

/// What [`slot`] is going to be on the way back of `mv`.
pub(super) fn back_slot(mv: &Move, lane: usize) -> String {
    back(mv.id, mv.requested_unix_ms, lane)
}

/// A slot for one comparison.
pub(super) fn verify_slot(mv: &Move, lane: usize) -> String {
    let kind = if mv.job.is_some() { "w" } else { "v" };
    format!("foreshard_{kind}{}_{}_{lane}", mv.id, mv.requested_unix_ms)
}

/// The triggers that keep a leaf from being written while it is detached concurrently: on rows, and
/// on TRUNCATE.
pub(super) const FREEZE: [&str; 2] = ["foreshard_freeze", "foreshard_freeze_truncate"];

/// The CHECK that makes ATTACH instant.
pub(super) fn helper_check(mv: &Move) -> String {
    format!("foreshard_move_{}", mv.id)
}

/// The content of the marker of one try of the switch.
pub(super) fn marker(mv: &Move, wal_end: Lsn, attempt: u32) -> String {
    format!("{} {wal_end} {attempt}", slot(mv, 0))
}

/// `name` as an identifier in SQL.
pub(super) fn quoted(name: &str) -> String {
    Ident::new(name).to_string()
}

/// Names as a list of identifiers.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| quoted(name)).collect();
    quoted.join(", ")
}

/// The columns that a table's copy and stream carry.
pub(super) fn columns(table: &MovedTable) -> String {
    list(table.columns.iter().map(|column| &column.name))
}
