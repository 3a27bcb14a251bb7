//! What a decision looks at: nodes, shards, moves under way, each with its forecast.

use super::overload::Normal;
use crate::ids::{NodeId, ShardId};

/// All that one decision looks at. Every list of loads has one element a step, the first for the
/// step that begins now; a list that is too short goes on with its last element.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// In ms since 1970.
    pub now_unix_ms: u64,
    /// The length of a step of the forecasts.
    pub step_ms: u64,
    /// How long a move takes until the load is at its destination.
    pub move_ms: u64,
    /// A node's id is its index.
    pub nodes: Vec<NodeLoad>,
    /// A shard's id is its index.
    pub shards: Vec<ShardLoad>,
    /// Moves that were requested and are not finished.
    pub in_flight: Vec<InFlight>,
}

/// A node and what it does for no shard.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLoad {
    /// Its name.
    pub name: String,
    /// In busy seconds a second.
    pub capacity: f64,
    /// The load of home and reference tables.
    pub own: Vec<Normal>,
    /// Whether shards may move to it.
    pub takes_shards: bool,
}

/// A shard, where it is, and its forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardLoad {
    /// The node that owns it.
    pub node: NodeId,
    /// Its forecast.
    pub load: Vec<Normal>,
    /// Whether that is the ensemble's forecast; else it is persistence.
    pub trusted: bool,
    /// It moved, or tried to, not long ago: it stays until this time, in ms since 1970.
    pub rests_until_unix_ms: Option<u64>,
}

/// A move that was requested and is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// What moves.
    pub shard: ShardId,
    /// The source.
    pub from: NodeId,
    /// The destination.
    pub to: NodeId,
    /// When its load is expected at the destination, in ms since 1970.
    pub ends_unix_ms: u64,
}

impl InFlight {
    /// Whether the node is its source or its destination.
    pub fn touches(&self, node: NodeId) -> bool {
        self.from == node || self.to == node
    }
}
