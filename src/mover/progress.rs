//! How far each move under way is, for those who look on. Lost with the process; what matters is in
//! the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::ids::MoveId;

/// Live numbers of one move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Live {
    /// Rows copied so far.
    pub rows_copied: u64,
    /// Bytes copied so far.
    pub bytes_copied: u64,
    /// Changes of the stream applied so far by this process.
    pub changes_applied: u64,
    /// WAL of the source that is not worked through, when last looked at.
    pub lag_bytes: u64,
}

/// Live numbers of all moves under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<BTreeMap<MoveId, Live>>>);

impl Progress {
    /// The numbers of one move; `None` if it is not under way.
    pub fn of(&self, id: MoveId) -> Option<Live> {
        self.0.lock().get(&id).copied()
    }

    /// The numbers of all moves under way.
    pub fn all(&self) -> BTreeMap<MoveId, Live> {
        self.0.lock().clone()
    }

    pub(super) fn update(&self, id: MoveId, change: impl FnOnce(&mut Live)) {
        change(self.0.lock().entry(id).or_default());
    }

    pub(super) fn forget(&self, id: MoveId) {
        self.0.lock().remove(&id);
    }
}
