//! Places between the steps of a move where a test can make the process die.
//!
//! `FORESHARD_FAILPOINT=<name>` in the environment aborts the process when it gets there, as
//! `kill -9` would. The names, in the order in which a move passes them:

use super::error::MoveError;

/// Every failpoint.
pub const FAILPOINTS: [&str; 15] = [
    // Publication and replica identities are made, the state is not stored yet.
    "prepared",
    // The slot is made, nothing is copied.
    "slot_made",
    // All rows are copied, the destination's transaction is open.
    "copy_uncommitted",
    // The copy is committed at the destination, the state is not stored yet.
    "copied",
    // Indexes and constraints are committed, the state is not stored yet.
    "built",
    // A batch of changes is committed at the destination, the source does not know.
    "batch_applied",
    // Both sides were found equal, the state is not stored yet.
    "verified",
    // The gate is closed and drained; nothing has changed hands.
    "drained",
    // The source has detached the shard.
    "detached",
    // The destination has all rows, and has not attached the shard.
    "marker_applied",
    // The destination has attached the shard; the catalog has the old map.
    "attached",
    // The catalog has the new map; the gate is closed.
    "switched",
    // The slot and the publication are dropped, the old copy is there.
    "stream_dropped",
    // Everything is dropped, the state is not stored yet.
    "cleaned",
    // Everything of a move that failed is dropped, the state is not stored yet.
    "undone",
];

/// What happens at a failpoint.
#[derive(Debug, Clone, Default)]
pub struct Failpoints {
    armed: Option<String>,
    aborts: bool,
}

impl Failpoints {
    /// Reads `FORESHARD_FAILPOINT`. An unknown name is reported and ignored.
    pub fn from_env() -> Self {
        let armed = std::env::var("FORESHARD_FAILPOINT").ok().filter(|name| !name.is_empty());
        if let Some(name) = armed.as_deref().filter(|name| !FAILPOINTS.contains(name)) {
            tracing::warn!(name, "unknown failpoint");
        }
        Self { armed, aborts: true }
    }

    /// Ends the mover, not the process, at `name`: for tests that go on in the same process.
    pub fn stopping_at(name: &str) -> Self {
        Self { armed: Some(name.to_owned()), aborts: false }
    }

    /// Passes, unless `name` is armed.
    pub(super) fn pass(&self, name: &'static str) -> Result<(), MoveError> {
        debug_assert!(FAILPOINTS.contains(&name), "no failpoint {name}");
        if self.armed.as_deref() != Some(name) {
            return Ok(());
        }
        if self.aborts {
            tracing::error!(name, "failpoint reached, aborting");
            std::process::abort();
        }
        Err(MoveError::Failpoint(name))
    }
}
