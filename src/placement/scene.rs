//! What a decision looks at: nodes, shards, moves under way, each with its forecast.

use super::decision::Cut;
use super::overload::Normal;
use crate::ids::{MoveId, NodeId, ShardId};

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
    /// Whether there is such a shard; else this holds the place of one that was split or merged away.
    pub exists: bool,
    /// Its forecast.
    pub load: Vec<Normal>,
    /// Whether that is the ensemble's forecast; else it is persistence.
    pub trusted: bool,
    /// The forecast without what clients announced, where that makes a difference.
    pub plain: Option<Vec<Normal>>,
    /// It moved, or tried to, not long ago: it stays until this time, in ms since 1970.
    pub rests_until_unix_ms: Option<u64>,
    /// How it can be divided; `None` if it can't.
    pub division: Option<Division>,
    /// The shard with which it was one before a split, if that can be merged with it again.
    pub sibling: Option<ShardId>,
    /// The highest load of the last day.
    pub day_peak: f64,
}

impl ShardLoad {
    /// A shard that stays whole.
    pub fn new(node: NodeId, load: Vec<Normal>, trusted: bool) -> Self {
        Self {
            node,
            exists: true,
            load,
            trusted,
            plain: None,
            rests_until_unix_ms: None,
            division: None,
            sibling: None,
            day_peak: 0.0,
        }
    }
}

/// How a shard's load divides.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Division {
    /// In two.
    pub halves: Option<Halves>,
    /// The key with most of the load, if one stands out and can be set apart.
    pub hot: Option<HotKey>,
}

/// How a shard divides in two.
#[derive(Debug, Clone, PartialEq)]
pub struct Halves {
    /// Where.
    pub cut: Cut,
    /// The share of the first half.
    pub first_share: f64,
    /// Whether that is known from sampled keys; else it is taken to be a half.
    pub sampled: bool,
}

/// A key that has much of a shard's load.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    /// Of the shard's load.
    pub share: f64,
    /// What sets it apart.
    pub cut: Cut,
    /// Which part holds it then.
    pub part: u32,
    /// How much of the load that part has.
    pub part_share: f64,
}

/// What a move that was requested and is not finished does to one shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InFlight {
    /// The move.
    pub id: MoveId,
    /// What moves.
    pub shard: ShardId,
    /// How much of its load goes to the destination: all, but of a split a part.
    pub share: f64,
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
