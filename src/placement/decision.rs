//! A decision as a value: what was expected, what was weighed, what came of it.

use serde::{Deserialize, Serialize};

use crate::ids::{MoveId, NodeId, ShardId};

/// One decision about one node that may be overloaded. Kept in the catalog under `decisions/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Unique over all decisions ever recorded; grows. 0 until it is recorded.
    pub id: u64,
    /// When it was made, in ms since 1970.
    pub at_unix_ms: u64,
    /// The node that may be overloaded.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// Its capacity, in busy seconds a second.
    pub capacity: f64,
    /// When its load will more likely than not be above its capacity, in ms since 1970, if nothing
    /// is done; `None` if at no time.
    pub predicted_crossing_unix_ms: Option<u64>,
    /// The highest probability, over the steps, that its load is above its capacity.
    pub probability: f64,
    /// The load expected at the most loaded step, in busy seconds a second.
    pub peak: f64,
    /// What the forecast rests on.
    pub basis: Basis,
    /// How many pairs of shard and destination were weighed.
    pub considered: usize,
    /// The best of them, best first.
    pub candidates: Vec<Candidate>,
    /// The move that is proposed.
    pub chosen: Option<Proposal>,
    /// Why there is none.
    pub not_taken: Option<NotTaken>,
    /// Why it is not carried out, in words.
    pub not_taken_reason: Option<String>,
    /// What became of it.
    pub standing: Standing,
    /// The move that it caused.
    pub move_id: Option<MoveId>,
}

/// What a forecast rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The ensemble, for most of the load.
    Forecast,
    /// Persistence, for most of the load: the ensemble's recent error is higher.
    Persistence,
}

/// What is done to a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Action {
    /// It goes to another node.
    #[default]
    Move,
    /// It is split; this part stays where it is, the others go to another node.
    Split {
        /// Where it is cut.
        cut: Cut,
        /// The part that stays, from 0.
        stays: u32,
    },
    /// It is split so that its hottest key is alone, or with as little else as may be.
    Isolate {
        /// Where it is cut.
        cut: Cut,
        /// The part that stays, from 0.
        stays: u32,
    },
    /// It becomes one with the other half of what was a shard before.
    Merge {
        /// The other half.
        with: ShardId,
    },
}

/// How a shard is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// By hash, into so many.
    Into(u32),
    /// A range, at this key: it is the first of the second part.
    At(String),
    /// A list: this value goes, as the second part.
    Value(String),
}

impl Cut {
    /// How many parts there are then.
    pub fn parts(&self) -> u32 {
        match self {
            Self::Into(parts) => *parts,
            Self::At(_) | Self::Value(_) => 2,
        }
    }
}

/// Something that was weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Of which shard.
    pub shard: ShardId,
    /// What would be done.
    #[serde(default)]
    pub action: Action,
    /// Where it, or a part of it, would go.
    pub to: NodeId,
    /// How much of its load that is.
    #[serde(default = "all")]
    pub share: f64,
    /// Overload-seconds (busy seconds above planned capacity) that it avoids.
    pub gain: f64,
    /// Its price, in the same unit.
    pub cost: f64,
}

fn all() -> f64 {
    1.0
}

/// What is worth its price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Of which shard.
    pub shard: ShardId,
    /// What should be done.
    #[serde(default)]
    pub action: Action,
    /// Its owner.
    pub from: NodeId,
    /// Its next owner.
    pub to: NodeId,
    /// Overload-seconds that it avoids.
    pub gain: f64,
    /// Its price, in the same unit.
    pub cost: f64,
    /// Why, in a sentence for people.
    pub reason: String,
}

/// Why no move is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotTaken {
    /// As many moves as may be are under way.
    MovesAtLimit,
    /// A move from or to the node is under way.
    NodeInMove,
    /// No shard of the node can move: none is there, or all rest; or no node can take one.
    NothingToMove,
    /// The best move avoids less than it costs.
    NotWorthIt,
    /// A move for another node avoids more, and goes first.
    OtherNodeFirst,
    /// It would only help if what clients announce comes, and do harm if it does not.
    OnlyAnnounced,
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No move was proposed.
    NotTaken,
    /// The move is advice: the mode is `advise`, or the history is still too short.
    Advised,
    /// The move waits for approval.
    AwaitingApproval,
    /// Somebody approved it: the controller requests the move if it is still possible.
    Approved,
    /// Somebody rejected it.
    Rejected,
    /// Approval came too late, or the move was no longer possible.
    Expired,
    /// The move was requested.
    Requested,
}
