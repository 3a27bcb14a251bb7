//! Load of each shard and node: counters on the hot path, rates, bounded history.
//!
//! *Busy time* is the unit that adds up and that capacity is given in: seconds that a backend
//! connection worked for a shard, per second. It does no I/O of its own: the controller samples it
//! and keeps its history in the catalog.

mod counters;

pub use counters::{Access, Counters, NodeTotals, ShardTotals, Snapshot};
