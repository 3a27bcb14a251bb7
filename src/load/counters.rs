//! What the executor calls for each statement: a few relaxed additions, no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, ShardId};
use crate::runtime::Growing;

/// How a statement touches its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// It only reads.
    Read,
    /// It may write.
    Write,
}

/// Running totals of every shard and node since the process started. Cheap to clone: all clones
/// count into the same totals.
///
/// Count each piece of busy time once: a statement of one shard with [`Counters::record_shard`];
/// one that touches several shards once for each, its work divided by their number; one of no
/// shard (home and reference tables, catalog look-ups) with [`Counters::record_node`] alone. The
/// load of a node is the sum of its shards' and its own.
#[derive(Debug, Clone)]
pub struct Counters(Arc<Cells>);

#[derive(Debug)]
struct Cells {
    /// By shard id.
    shards: Growing<ShardCell>,
    /// How many shards there are; grows when one comes to be.
    shard_count: AtomicU32,
    nodes: Box<[NodeCell]>,
}

/// A cache line of its own, so that two busy shards do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct ShardCell {
    reads: AtomicU64,
    writes: AtomicU64,
    busy_nanos: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct NodeCell {
    statements: AtomicU64,
    busy_nanos: AtomicU64,
}

/// The totals of one shard at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShardTotals {
    /// Statements that only read.
    pub reads: u64,
    /// Statements that may write.
    pub writes: u64,
    /// Nanoseconds that a backend worked on them.
    pub busy_nanos: u64,
    /// Rows that they returned or changed.
    pub rows: u64,
    /// Bytes relayed, both ways.
    pub bytes: u64,
}

/// What a statement cost one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// From its first byte to the backend until the backend was ready again.
    pub busy: Duration,
    /// Returned or changed.
    pub rows: u64,
    /// Relayed, both ways.
    pub bytes: u64,
}

/// The totals of what a node did for no shard, at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeTotals {
    /// Statements.
    pub statements: u64,
    /// Nanoseconds that a backend worked on them.
    pub busy_nanos: u64,
}

/// All totals at (almost) one instant; a statement in between may be in one number and not yet in
/// another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// By shard id.
    pub shards: Vec<ShardTotals>,
    /// By node id.
    pub nodes: Vec<NodeTotals>,
}

impl Counters {
    /// Zeros for shards 0 to `shard_count` - 1, to begin with, and nodes 0 to `node_count` - 1.
    pub fn new(shard_count: usize, node_count: usize) -> Self {
        let shard_count = AtomicU32::new(u32::try_from(shard_count).unwrap_or(u32::MAX));
        let nodes = (0..node_count).map(|_| NodeCell::default()).collect();
        Self(Arc::new(Cells { shards: Growing::default(), shard_count, nodes }))
    }

    /// Counts one statement of a shard.
    pub fn record_shard(&self, shard: ShardId, access: Access, work: Work) {
        if shard.0 >= self.shard_count() {
            self.widen(shard);
        }
        let cell = self.0.shards.at(shard.0);
        let statements = match access {
            Access::Read => &cell.reads,
            Access::Write => &cell.writes,
        };
        statements.fetch_add(1, Ordering::Relaxed);
        cell.busy_nanos.fetch_add(nanos(work.busy), Ordering::Relaxed);
        cell.rows.fetch_add(work.rows, Ordering::Relaxed);
        cell.bytes.fetch_add(work.bytes, Ordering::Relaxed);
    }

    /// A shard came to be.
    fn widen(&self, shard: ShardId) {
        self.0.shard_count.fetch_max(shard.0.saturating_add(1), Ordering::Relaxed);
    }

    fn shard_count(&self) -> u32 {
        self.0.shard_count.load(Ordering::Relaxed)
    }

    /// Counts one statement that belongs to no shard: the time that the node's backend worked.
    pub fn record_node(&self, node: NodeId, busy: Duration) {
        let Some(cell) = self.0.nodes.get(node.index()) else { return };
        cell.statements.fetch_add(1, Ordering::Relaxed);
        cell.busy_nanos.fetch_add(nanos(busy), Ordering::Relaxed);
    }

    /// Adds what another proxy has counted since it was asked last: its totals then and now.
    pub fn add(&self, before: &Snapshot, now: &Snapshot) {
        if let Some(last) = now.shards.len().checked_sub(1) {
            self.widen(ShardId(u32::try_from(last).unwrap_or_default()));
        }
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let none = ShardTotals::default();
        for (at, now) in (0..).zip(&now.shards) {
            let cell = self.0.shards.at(at);
            let before = before.shards.get(at as usize).unwrap_or(&none);
            cell.reads.fetch_add(since(now.reads, before.reads), Ordering::Relaxed);
            cell.writes.fetch_add(since(now.writes, before.writes), Ordering::Relaxed);
            let busy = since(now.busy_nanos, before.busy_nanos);
            cell.busy_nanos.fetch_add(busy, Ordering::Relaxed);
            cell.rows.fetch_add(since(now.rows, before.rows), Ordering::Relaxed);
            cell.bytes.fetch_add(since(now.bytes, before.bytes), Ordering::Relaxed);
        }
        let none = NodeTotals::default();
        for (at, (cell, now)) in self.0.nodes.iter().zip(&now.nodes).enumerate() {
            let before = before.nodes.get(at).unwrap_or(&none);
            cell.statements.fetch_add(since(now.statements, before.statements), Ordering::Relaxed);
            let busy = since(now.busy_nanos, before.busy_nanos);
            cell.busy_nanos.fetch_add(busy, Ordering::Relaxed);
        }
    }

    /// The totals of now.
    pub fn snapshot(&self) -> Snapshot {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let shard = |at: u32| {
            let cell = self.0.shards.at(at);
            ShardTotals {
                reads: read(&cell.reads),
                writes: read(&cell.writes),
                busy_nanos: read(&cell.busy_nanos),
                rows: read(&cell.rows),
                bytes: read(&cell.bytes),
            }
        };
        let node = |cell: &NodeCell| NodeTotals {
            statements: read(&cell.statements),
            busy_nanos: read(&cell.busy_nanos),
        };
        Snapshot {
            shards: (0..self.shard_count()).map(shard).collect(),
            nodes: self.0.nodes.iter().map(node).collect(),
        }
    }
}

fn nanos(busy: Duration) -> u64 {
    u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Access, Counters, NodeTotals, ShardTotals, Work};
    use crate::ids::{NodeId, ShardId};

    fn work(busy_micros: u64, rows: u64, bytes: u64) -> Work {
        Work { busy: Duration::from_micros(busy_micros), rows, bytes }
    }

    #[test]
    fn what_other_proxies_count_is_added_once() {
        let (ours, theirs) = (Counters::new(1, 1), Counters::new(1, 1));
        ours.record_shard(ShardId(0), Access::Read, work(1, 1, 1));
        theirs.record_shard(ShardId(0), Access::Read, work(9, 9, 9));
        let before = theirs.snapshot();
        theirs.record_shard(ShardId(0), Access::Write, work(2, 3, 4));
        // A shard that this proxy has not counted yet.
        theirs.record_shard(ShardId(2), Access::Read, work(5, 6, 7));
        theirs.record_node(NodeId(0), Duration::from_micros(8));
        ours.add(&before, &theirs.snapshot());
        let now = ours.snapshot();
        let (busy_nanos, rows, bytes) = (3_000, 4, 5);
        assert_eq!(now.shards[0], ShardTotals { reads: 1, writes: 1, busy_nanos, rows, bytes });
        let (busy_nanos, rows, bytes) = (5_000, 6, 7);
        assert_eq!(now.shards[2], ShardTotals { reads: 1, writes: 0, busy_nanos, rows, bytes });
        assert_eq!(now.nodes[0], NodeTotals { statements: 1, busy_nanos: 8_000 });
    }

    #[test]
    fn counts_of_all_clones_and_threads_add_up() {
        let counters = Counters::new(2, 1);
        let count = |counters: Counters| {
            for _ in 0..1000 {
                counters.record_shard(ShardId(1), Access::Read, work(3, 2, 10));
                counters.record_shard(ShardId(1), Access::Write, work(1, 1, 1));
                counters.record_node(NodeId(0), Duration::from_micros(2));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let counters = counters.clone();
                scope.spawn(move || count(counters));
            }
        });
        let now = counters.snapshot();
        assert_eq!(now.shards[0], ShardTotals::default());
        let (busy_nanos, rows, bytes) = (16_000_000, 12_000, 44_000);
        let one = ShardTotals { reads: 4000, writes: 4000, busy_nanos, rows, bytes };
        assert_eq!(now.shards[1], one);
        assert_eq!(now.nodes[0], NodeTotals { statements: 4000, busy_nanos: 8_000_000 });
    }

    #[test]
    fn a_shard_that_comes_to_be_is_counted_and_an_unknown_node_is_not() {
        let counters = Counters::new(1, 1);
        let elsewhere = counters.clone();
        elsewhere.record_shard(ShardId(0), Access::Write, work(0, 1, 1));
        counters.record_shard(ShardId(2), Access::Read, work(1_000_000, 1, 1));
        elsewhere.record_shard(ShardId(2), Access::Read, work(0, 1, 1));
        counters.record_node(NodeId(1), Duration::from_secs(1));
        let now = counters.snapshot();
        let reads: Vec<u64> = now.shards.iter().map(|shard| shard.reads).collect();
        assert_eq!((reads, now.shards[0].writes), (vec![0, 0, 2], 1));
        assert_eq!(now.nodes, [NodeTotals::default()]);
    }
}
