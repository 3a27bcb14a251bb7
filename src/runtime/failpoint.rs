//! Places between two steps where a test can make the process die or stop.
//!
//! `FORESHARD_FAILPOINT=<name>` in the environment aborts the process when it gets there, as
//! `kill -9` would; `stop:<name>` stops it once, as `kill -STOP` would. The names are
//! [`MOVE_FAILPOINTS`], [`CONCURRENT_FAILPOINTS`], [`BACK_FAILPOINTS`],
//! [`RESUME_FAILPOINTS`], [`JOIN_FAILPOINTS`], [`IMPORT_FAILPOINTS`], [`RESHARD_FAILPOINTS`] and [`COMMIT_FAILPOINTS`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, raise};

/// Those of a move, in the order in which it passes them.
pub const MOVE_FAILPOINTS: [&str; 16] = [
    // Publication and replica identities are made, the state is not stored yet.
    "prepared",
    // The slot is made, nothing is copied.
    "slot_made",
    // A segment is copied, the destination's transaction is open.
    "copy_uncommitted",
    // A segment is committed at the destination.
    "segment_copied",
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

/// That of a copy that went on after it had been cut off.
pub const RESUME_FAILPOINTS: [&str; 1] = [
    // The stream has brought all segments to the last snapshot; this is not noted.
    "window_passed",
];

/// Those of a switch that detaches concurrently, between *drained* and *attached*.
pub const CONCURRENT_FAILPOINTS: [&str; 3] = [
    // The source's leaves are frozen, and the end of the stream is marked.
    "frozen",
    // The destination has noted that it has all rows; the source's leaves are frozen and attached.
    "arrived", // The source's leaves are hidden, their detachment may be pending.
    "hidden",
];

/// Those of a move that keeps the way back, and of the way back before it is as any other move.
pub const BACK_FAILPOINTS: [&str; 5] = [
    // What the way back needs is made, the state is not stored yet.
    "armed",
    // The switch's mark was found in the stream of the way back, nothing of it is noted.
    "mark_found",
    // The mark is noted with the old copies, nothing after it is applied.
    "mark_noted",
    // The old copies can be gone back to, the state is not stored yet.
    "recalled",
    // The old copies have all that ATTACH wants, the state is not stored yet.
    "restored",
];

/// Those of a node that joins, in order.
pub const JOIN_FAILPOINTS: [&str; 2] = [
    // Everything is brought and prepared there, the decision is not recorded.
    "node_prepared",
    // The decision and the map are recorded, nothing is committed there.
    "node_decided",
];

/// Those of an import, in order.
pub const IMPORT_FAILPOINTS: [&str; 10] = [
    // What an earlier process left is dropped, or nothing was left.
    "import_undone",
    // The partitioned twins are made.
    "import_made",
    // The first table has its check, which is not validated.
    "import_checked",
    // PostgreSQL has proved that all rows fit.
    "import_validated",
    // The other nodes have prepared their definitions.
    "import_defined",
    // The home node has prepared the step, too; nothing is decided.
    "import_prepared",
    // The decision and the map are stored, nothing is committed.
    "import_decided",
    // The home node has committed, the others have not.
    "import_committed",
    // All is committed, and nobody acts by the old map.
    "import_settled",
    // The shard of the group is split, and more is to be split.
    "import_split",
];

/// Those of a change of the shard key, in order; its copy and its streams pass those of a move.
pub const RESHARD_FAILPOINTS: [&str; 15] = [
    // What an earlier process left is dropped, or nothing was left.
    "reshard_undone",
    // The empty twins are made on every node.
    "reshard_made",
    // Publications and replica identities are made.
    "reshard_published",
    // All rows are copied.
    "reshard_copied",
    // Indexes and constraints are built on the first node.
    "reshard_built_one",
    // The same on every node; the stage is not stored yet.
    "reshard_built",
    // Both sides were found equal.
    "reshard_verified",
    // The gates are closed, and the tables locked on every node.
    "reshard_locked",
    // Every row has arrived.
    "reshard_arrived",
    // Every node has prepared the exchange; nothing is decided.
    "reshard_prepared",
    // The decision and the map are stored, nothing is committed.
    "reshard_decided",
    // The first node has committed, the others have not.
    "reshard_committed",
    // The map is in force, the old tables are there.
    "reshard_switched",
    // The old tables are gone.
    "reshard_cleaned",
    // Moves may begin again; the job's end is not stored.
    "reshard_finished",
];

/// Those of a commit in two phases, in order.
pub const COMMIT_FAILPOINTS: [&str; 4] = [
    // Every node has prepared its part, the decision is not recorded.
    "all_prepared",
    // The part that can't be prepared is recorded, and not committed.
    "last_announced",
    // The decision is recorded, no part is committed but the one that can't be prepared.
    "decided",
    // Every node has committed its part, the decision is there.
    "committed",
];

/// The process goes on past a failpoint that was to end it: the caller has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failpoint {0}")]
pub struct Reached(pub &'static str);

/// What happens at a failpoint.
#[derive(Debug, Clone, Default)]
pub struct Failpoints {
    armed: Option<String>,
    effect: Effect,
}

#[derive(Debug, Clone, Default)]
enum Effect {
    /// Who passes it has to stop.
    #[default]
    Return,
    Abort,
    /// Unless it has happened.
    Stop(Arc<AtomicBool>),
}

impl Failpoints {
    /// Reads `FORESHARD_FAILPOINT`. An unknown name is reported and ignored.
    pub fn from_env() -> Self {
        let told = std::env::var("FORESHARD_FAILPOINT").ok().filter(|name| !name.is_empty());
        let (armed, effect) = match told.as_deref().map(|told| (told, told.strip_prefix("stop:"))) {
            None => (None, Effect::default()),
            Some((_, Some(name))) => (Some(name.to_owned()), Effect::Stop(Arc::default())),
            Some((name, None)) => (Some(name.to_owned()), Effect::Abort),
        };
        if let Some(name) = armed.as_deref().filter(|name| !is_known(name)) {
            tracing::warn!(name, "unknown failpoint");
        }
        Self { armed, effect }
    }

    /// Ends who passes `name`, not the process: for tests that go on in the same process.
    pub fn stopping_at(name: &str) -> Self {
        Self { armed: Some(name.to_owned()), effect: Effect::Return }
    }

    /// Passes, unless `name` is armed.
    ///
    /// # Errors
    /// [`Reached`], if it is and the process goes on.
    pub fn pass(&self, name: &'static str) -> Result<(), Reached> {
        self.abort_at(name);
        let returns = matches!(self.effect, Effect::Return) && self.armed.as_deref() == Some(name);
        if returns { Err(Reached(name)) } else { Ok(()) }
    }

    /// Passes, unless `name` is armed to abort or to stop the process: where nothing less can be stopped.
    pub fn abort_at(&self, name: &'static str) {
        debug_assert!(is_known(name), "no failpoint {name}");
        if self.armed.as_deref() != Some(name) {
            return;
        }
        match &self.effect {
            Effect::Return => {}
            Effect::Abort => {
                tracing::error!(name, "failpoint reached, aborting");
                std::process::abort();
            }
            Effect::Stop(stopped) => {
                if !stopped.swap(true, Ordering::Relaxed) {
                    tracing::error!(name, "failpoint reached, stopping");
                    if let Err(error) = raise(Signal::SIGSTOP) {
                        tracing::error!(%error, "the process can't be stopped");
                    }
                }
            }
        }
    }
}

fn is_known(name: &str) -> bool {
    let moves =
        [&MOVE_FAILPOINTS[..], &RESUME_FAILPOINTS, &CONCURRENT_FAILPOINTS, &BACK_FAILPOINTS];
    let others =
        [&JOIN_FAILPOINTS[..], &IMPORT_FAILPOINTS, &RESHARD_FAILPOINTS, &COMMIT_FAILPOINTS];
    moves.iter().chain(&others).any(|it| it.contains(&name))
}
