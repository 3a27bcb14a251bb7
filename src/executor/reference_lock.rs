//! Keeps writes to reference tables and the arrival of a node apart: a write goes to the nodes that
//! were members when it began.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

use super::{Fault, Session};
use crate::wire::{ServerError, SqlState};

/// Held shared by each transaction that writes a reference table, exclusively while a node becomes a
/// member. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ReferenceLock(Arc<RwLock<()>>);

/// While it lives no node becomes a member.
#[derive(Debug)]
pub struct Writing(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockReadGuard<()>);

/// While it lives nobody writes a reference table through this proxy.
#[derive(Debug)]
pub struct Still(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockWriteGuard<()>);

impl ReferenceLock {
    /// Waits `deadline` at the most until no transaction has written a reference table and not
    /// ended; `None` if one went on. New writes wait meanwhile. Cancel safe.
    pub async fn still(&self, deadline: Duration) -> Option<Still> {
        timeout(deadline, Arc::clone(&self.0).write_owned()).await.ok().map(Still)
    }
}

impl Session {
    /// To be called before a reference table is written and the nodes are chosen.
    pub(super) async fn write_references(&mut self) -> Result<(), Fault> {
        if self.transaction.references.is_some() {
            return Ok(());
        }
        let limit = self.engine.config().gate_timeout();
        let lock = Arc::clone(&self.engine.reference_lock.0).read_owned();
        let Ok(held) = timeout(limit, lock).await else {
            return Err(ServerError::new(
                SqlState::CANNOT_CONNECT_NOW,
                format!("a node was becoming a member for longer than {limit:?}"),
            )
            .with_hint("Try again.")
            .into());
        };
        self.transaction.references = Some(Writing(held));
        Ok(())
    }
}
