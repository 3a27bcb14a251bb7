//! The gate of each shard: statements pass one by one, and wait while it is closed for a switch.
//!
//! Behind it some go on to the shard's leaf partitions themselves. PostgreSQL locks a leaf before its
//! parent for them, and definitions the other way round: while one of these comes, nobody goes there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::ids::ShardId;
use crate::runtime::Growing;

/// The gates of all shards; each comes to be when it is first asked for. Cheap to clone: all clones
/// have the same gates.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    shards: Arc<Growing<Arc<Gate>>>,
    /// Never closed: who touches no shard is counted by it, and it is renewed.
    elsewhere: Arc<ArcSwap<Gate>>,
    /// How many gates were opened again.
    reopened: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Gate {
    inside: AtomicUsize,
    /// How many keep it closed.
    closed: AtomicUsize,
    /// [`Gates::reopened`] when it was last opened again.
    reopened: AtomicU64,
    /// How many of those inside have gone to leaf partitions.
    at_leaves: AtomicUsize,
    /// How many keep others away from these.
    barring: AtomicUsize,
    opened: Notify,
    emptied: Notify,
}

/// The right to touch a shard until it is dropped: for a statement, or for a whole transaction.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    /// It has led to leaf partitions.
    at_leaves: bool,
}

/// A closed gate. Opens when it is dropped, unless somebody else has closed it too.
#[derive(Debug)]
pub struct ClosedGate {
    gate: Arc<Gate>,
    reopened: Arc<AtomicU64>,
}

/// While it lives statements go by the parent, not to leaf partitions themselves.
#[derive(Debug)]
pub struct BarredLeaves(Vec<Arc<Gate>>);

impl Gates {
    /// For a statement or transaction that touches no shard as far as the map in force says. Look at
    /// the map only after this.
    pub fn enter_elsewhere(&self) -> Pass {
        let gate = self.elsewhere.load_full();
        gate.inside.fetch_add(1, Ordering::SeqCst);
        Pass { gate, at_leaves: false }
    }

    /// Waits until all have ended that had entered so when this was called, or that could think that
    /// an older map than that of now is in force. Cancel safe; give it a deadline.
    pub async fn elsewhere_ended(&self) {
        let old = self.elsewhere.swap(Arc::default());
        // Nobody enters it any more, and who leaves it tells.
        old.closed.fetch_add(1, Ordering::SeqCst);
        old.drained().await;
    }

    /// How many gates were opened again.
    pub fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::SeqCst)
    }

    /// Whether the gate of a shard was opened again since [`Self::reopened`] was `then`. If not, who is
    /// behind it now knows that the shard was neither taken from its node meanwhile nor given to it.
    pub fn reopened_since(&self, shard: ShardId, then: u64) -> bool {
        self.gate(shard).reopened.load(Ordering::SeqCst) > then
    }

    fn gate(&self, shard: ShardId) -> &Arc<Gate> {
        self.shards.at(shard.0)
    }

    /// Passes if the gate is open. Look at the map in force only after this: a switch publishes its
    /// map before it opens the gate.
    pub fn try_enter(&self, shard: ShardId) -> Option<Pass> {
        self.gate(shard).try_enter()
    }

    /// Waits until the gate is open, and passes. Cancel safe.
    pub async fn enter(&self, shard: ShardId) -> Pass {
        let gate = self.gate(shard);
        loop {
            let opened = gate.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if let Some(pass) = gate.try_enter() {
                return pass;
            }
            opened.await;
        }
    }

    /// Keeps statements away from the leaf partitions of these shards.
    pub fn bar_leaves(&self, shards: &[ShardId]) -> BarredLeaves {
        let gates: Vec<_> = shards.iter().map(|shard| Arc::clone(self.gate(*shard))).collect();
        for gate in &gates {
            gate.barring.fetch_add(1, Ordering::SeqCst);
        }
        BarredLeaves(gates)
    }

    /// Closes a shard's gate.
    pub fn close(&self, shard: ShardId) -> ClosedGate {
        let gate = Arc::clone(self.gate(shard));
        gate.closed.fetch_add(1, Ordering::SeqCst);
        ClosedGate { gate, reopened: Arc::clone(&self.reopened) }
    }
}

impl Gate {
    /// Counts itself in before it looks, so that a closer sees it or it sees the closer.
    fn try_enter(self: &Arc<Self>) -> Option<Pass> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let pass = Pass { gate: Arc::clone(self), at_leaves: false };
        (self.closed.load(Ordering::SeqCst) == 0).then_some(pass)
    }

    /// Waits until nobody is inside.
    async fn drained(&self) {
        self.emptied(&self.inside).await;
    }

    async fn emptied(&self, count: &AtomicUsize) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if count.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Pass {
    /// Whether the shard's leaf partitions may be gone to. Whoever has been there goes on: it holds
    /// their locks.
    pub fn go_to_leaves(&mut self) -> bool {
        if self.at_leaves {
            return true;
        }
        // As at the gate: it counts itself in before it looks.
        self.gate.at_leaves.fetch_add(1, Ordering::SeqCst);
        self.at_leaves = true;
        if self.gate.barring.load(Ordering::SeqCst) > 0 {
            self.forget_leaves();
        }
        self.at_leaves
    }

    /// Nobody waits for this one any more.
    pub fn forget_leaves(&mut self) {
        if !std::mem::take(&mut self.at_leaves) {
            return;
        }
        let left = self.gate.at_leaves.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 && self.gate.barring.load(Ordering::SeqCst) > 0 {
            self.gate.emptied.notify_waiters();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.forget_leaves();
        let left = self.gate.inside.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 && self.gate.closed.load(Ordering::SeqCst) > 0 {
            self.gate.emptied.notify_waiters();
        }
    }
}

impl BarredLeaves {
    /// Waits until all have ended that had gone there before. Cancel safe; give it a deadline.
    pub async fn left(&self) {
        for gate in &self.0 {
            gate.emptied(&gate.at_leaves).await;
        }
    }
}

impl Drop for BarredLeaves {
    fn drop(&mut self) {
        for gate in &self.0 {
            gate.barring.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl ClosedGate {
    /// Waits until nobody is inside: all that passed before it closed has ended. Cancel safe; give
    /// it a deadline.
    pub async fn drained(&self) {
        self.gate.drained().await;
    }
}

impl Drop for ClosedGate {
    fn drop(&mut self) {
        let count = self.reopened.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.reopened.fetch_max(count, Ordering::SeqCst);
        if self.gate.closed.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.gate.opened.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Gates;
    use crate::ids::ShardId;

    #[tokio::test]
    async fn a_shard_that_comes_to_be_gets_a_gate_and_the_others_keep_theirs() {
        let gates = Gates::default();
        let closed = gates.close(ShardId(0));
        let elsewhere = gates.clone();
        let inside = elsewhere.try_enter(ShardId(5)).unwrap();
        assert!(gates.try_enter(ShardId(0)).is_none());
        let other = gates.close(ShardId(5));
        assert!(elsewhere.try_enter(ShardId(5)).is_none());
        drop((closed, inside));
        other.drained().await;
        assert!(elsewhere.try_enter(ShardId(0)).is_some());
    }

    #[tokio::test]
    async fn who_touched_no_shard_before_is_waited_for_and_who_comes_later_is_not() {
        let gates = Gates::default();
        let before = gates.enter_elsewhere();
        let ended = gates.elsewhere_ended();
        tokio::pin!(ended);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut ended).await.is_err());
        let _later = gates.enter_elsewhere();
        drop(before);
        ended.await;
    }

    #[tokio::test]
    async fn who_is_at_a_leaf_is_waited_for_and_others_go_by_the_parent_meanwhile() {
        let gates = Gates::default();
        let [mut there, mut other] = [0, 0].map(|shard| gates.try_enter(ShardId(shard)).unwrap());
        assert!(there.go_to_leaves());
        let barred = gates.bar_leaves(&[ShardId(0), ShardId(1)]);
        assert!(!other.go_to_leaves() && there.go_to_leaves());
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, barred.left()).await.is_err());
        drop(there);
        barred.left().await;
        drop(barred);
        assert!(other.go_to_leaves());
        // Whoever defines something itself does not wait for itself.
        let barred = gates.bar_leaves(&[ShardId(0)]);
        other.forget_leaves();
        barred.left().await;
        assert!(!other.go_to_leaves());
    }

    #[tokio::test]
    async fn a_closed_gate_drains_who_is_inside_and_holds_who_comes() {
        let gates = Gates::default();
        let inside = gates.try_enter(ShardId(1)).unwrap();
        let closed = gates.close(ShardId(1));
        assert!(gates.try_enter(ShardId(1)).is_none());
        assert!(gates.try_enter(ShardId(0)).is_some());
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, closed.drained()).await.is_err());
        drop(inside);
        closed.drained().await;
        assert!(tokio::time::timeout(soon, gates.enter(ShardId(1))).await.is_err());
        // It opens once nobody keeps it closed.
        let too = gates.close(ShardId(1));
        drop(closed);
        assert!(gates.try_enter(ShardId(1)).is_none());
        let then = gates.reopened();
        drop(too);
        gates.enter(ShardId(1)).await;
        assert!(gates.reopened_since(ShardId(1), then) && !gates.reopened_since(ShardId(0), 0));
        assert!(!gates.reopened_since(ShardId(1), gates.reopened()));
    }
}
