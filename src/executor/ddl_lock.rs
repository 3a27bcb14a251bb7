//! Keeps DDL on sharded tables and moves apart: a move copies a table as it was when it began.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};
use tokio::time::timeout;

use super::Engine;
use super::parents::ByParents;
use crate::catalog::CatalogError;
use crate::cluster::Definitions;
use crate::ids::ShardId;

/// Held shared by each move and exclusively by DDL. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DdlLock {
    lock: Arc<RwLock<()>>,
    /// How many wait for it exclusively.
    waiting: watch::Sender<usize>,
}

/// Counts one who waits.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// While it lives no DDL on sharded or reference tables runs through this proxy.
#[derive(Debug)]
pub struct Shared(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockReadGuard<()>);

/// While it lives no move starts, and none is under way.
#[derive(Debug)]
pub struct Exclusive {
    #[expect(dead_code, reason = "held for its drop")]
    here: OwnedRwLockWriteGuard<()>,
    /// Of the proxy that leads, if this is another one.
    #[expect(dead_code, reason = "held for its drop")]
    there: Option<Definitions>,
    /// Whose partitions statements do not go to.
    by_parents: Vec<ByParents>,
}

impl Exclusive {
    /// Also keeps the proxy that leads from moving shards.
    #[must_use]
    pub fn with(self, there: Definitions) -> Self {
        Self { there: Some(there), ..self }
    }

    /// Holds this too.
    pub(super) fn keep(&mut self, by_parents: ByParents) {
        self.by_parents.push(by_parents);
    }

    /// Whether nobody goes to a shard's partitions while it lives.
    pub(super) fn goes_by_parent(&self, shard: ShardId) -> bool {
        self.by_parents.iter().any(|held| held.has(shard))
    }
}

impl DdlLock {
    /// For a move: waits for running DDL. Cancel safe.
    pub async fn shared(&self) -> Shared {
        Shared(Arc::clone(&self.lock).read_owned().await)
    }

    /// For DDL: waits `deadline` at the most for running moves; `None` if they went on. Cancel
    /// safe.
    pub async fn exclusive(&self, deadline: Duration) -> Option<Exclusive> {
        self.waiting.send_modify(|count| *count += 1);
        let _waiting = Waiting(&self.waiting);
        let here = timeout(deadline, Arc::clone(&self.lock).write_owned()).await.ok()?;
        Some(Exclusive { here, there: None, by_parents: Vec::new() })
    }

    /// Waits until somebody waits for it exclusively: for who holds it shared and can give it up.
    /// Cancel safe.
    pub async fn wanted(&self) {
        // The sender is here: it does not end.
        drop(self.waiting.subscribe().wait_for(|count| *count > 0).await);
    }
}

impl Engine {
    /// For one who changes definitions on any proxy: keeps moves away, and waits `limit` at the most for
    /// those under way and for others who do the same; `None` if they went on. The map in force is the
    /// newest then.
    ///
    /// # Errors
    /// The catalog can't be asked.
    pub async fn define_alone(&self, limit: Duration) -> Result<Option<Exclusive>, CatalogError> {
        let Some(lock) = self.ddl_lock.exclusive(limit).await else { return Ok(None) };
        if self.cluster.leads() {
            return Ok(Some(lock));
        }
        let Some(granted) = self.cluster.ask_for_definitions(limit).await? else { return Ok(None) };
        // Moves and jobs that ended before have changed the map.
        Ok(self.is_current(limit).await.then(|| lock.with(granted)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::DdlLock;

    #[tokio::test]
    async fn who_holds_it_shared_hears_that_somebody_wants_it_alone() {
        let lock = DdlLock::default();
        let shared = lock.shared().await;
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, lock.wanted()).await.is_err());
        let yielding = async {
            lock.wanted().await;
            drop(shared);
        };
        let (alone, ()) = tokio::join!(lock.exclusive(Duration::from_secs(10)), yielding);
        assert!(alone.is_some());
        assert!(tokio::time::timeout(soon, lock.wanted()).await.is_err());
    }
}
