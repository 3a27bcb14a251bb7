//! How many connections may be open to one node, and to all, over the pools of one worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::{Permits, Pool};
use crate::runtime::Tasks;

/// How many connections may be open to one node, and to all nodes together.
#[derive(Debug)]
pub struct NodeLimit {
    of_node: Permits,
    of_all: Permits,
    /// The pools of the node, whose idle connections can make room.
    pools: Mutex<Vec<Weak<Pool>>>,
    /// Checkouts that wait for room.
    waiting: AtomicUsize,
}

/// One open connection's part of the limits.
#[derive(Debug)]
pub(super) struct Slot {
    _of_node: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Counts somebody who waits, while it lives.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NodeLimit {
    /// At most `count` connections to this node, and those of `of_all` to all.
    pub fn new(count: u32, of_all: Permits) -> Arc<Self> {
        Arc::new(Self {
            of_node: Permits::new(count),
            of_all,
            pools: Mutex::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    pub(super) fn enter(&self, pool: &Arc<Pool>) {
        self.pools.lock().push(Arc::downgrade(pool));
    }

    /// Whether a checkout waits for a connection to be closed.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Room for one more connection; closes an idle one of another pool for it. Cancel safe.
    pub(super) async fn slot(&self, deadline: Instant) -> Result<Slot, ()> {
        if let Some(slot) = self.try_slot() {
            return Ok(slot);
        }
        let _waiting = Waiting::new(&self.waiting);
        self.close_one();
        let waited = timeout_at(deadline, async {
            let of_node = self.of_node.wait().await;
            (of_node, self.of_all.wait().await)
        });
        match waited.await {
            Ok((Ok(of_node), Ok(of_all))) => Ok(Slot { _of_node: of_node, _of_all: of_all }),
            _ => Err(()),
        }
    }

    /// Closes an idle connection of the node, if there is one.
    pub fn close_one(&self) -> bool {
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().any(|pool| pool.close_one())
    }

    /// There may be so many connections to the node from now on; idle ones are closed for that, others
    /// as they come back.
    pub fn resize(self: &Arc<Self>, count: u32, tasks: &Tasks) {
        if self.of_node.size() != count.max(1) {
            let limit = Arc::clone(self);
            self.of_node.resize(count, tasks, move || {
                limit.close_one();
            });
        }
    }

    fn try_slot(&self) -> Option<Slot> {
        let of_node = self.of_node.take()?;
        let of_all = self.of_all.take()?;
        Some(Slot { _of_node: of_node, _of_all: of_all })
    }
}
