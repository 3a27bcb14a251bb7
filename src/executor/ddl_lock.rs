//! Keeps DDL on sharded tables and moves apart: a move copies a table as it was when it began.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

/// Held shared by each move and exclusively by DDL. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DdlLock(Arc<RwLock<()>>);

/// While it lives no DDL on sharded or reference tables runs through this proxy.
#[derive(Debug)]
pub struct Shared(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockReadGuard<()>);

/// While it lives no move starts, and none is under way.
#[derive(Debug)]
pub struct Exclusive(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockWriteGuard<()>);

impl DdlLock {
    /// For a move: waits for running DDL. Cancel safe.
    pub async fn shared(&self) -> Shared {
        Shared(Arc::clone(&self.0).read_owned().await)
    }

    /// For DDL: waits `deadline` at the most for running moves; `None` if they went on. Cancel
    /// safe.
    pub async fn exclusive(&self, deadline: Duration) -> Option<Exclusive> {
        timeout(deadline, Arc::clone(&self.0).write_owned()).await.ok().map(Exclusive)
    }
}
