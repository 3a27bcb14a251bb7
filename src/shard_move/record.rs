//! The record of a move: what was asked, how far it is, what it made, what it proved.
//!
//! A split and a merge are moves too: a move has a *lane* for each pair of a shard that gives rows
//! and a shard that gets some of them. A plain move has one lane, a batch one a shard, a split one a
//! child, a merge one a parent.

use serde::{Deserialize, Serialize};

use super::state::State;
use crate::ids::{JobId, Lsn, MoveId, NodeId, ShardId};
use crate::shard_map::Bounds;
use crate::sql::TableName;

/// One move, batch, split or merge, as the catalog stores it under `moves/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Unique over all moves ever made; grows.
    pub id: MoveId,
    /// The shard that moves; the one that is split, or the first of those that move or are merged.
    pub shard: ShardId,
    /// The node that owns it until the switch.
    pub from: NodeId,
    /// The node that owns it after the switch; of a split, that of the last child.
    pub to: NodeId,
    /// Which shards give rows to which.
    pub lanes: Vec<Lane>,
    /// Who wants it, and why.
    pub cause: Cause,
    /// How far it is.
    pub state: State,
    /// When it was asked for, in ms since 1970.
    pub requested_unix_ms: u64,
    /// Every state that it was in, with its beginning; the last is `state`.
    pub history: Vec<Step>,
    /// What it has made or is about to make, and has to remove. Empty when finished.
    pub objects: Vec<Object>,
    /// Rows that the copy brought.
    pub rows_copied: u64,
    /// Bytes that the copy brought.
    pub bytes_copied: u64,
    /// Changes of the stream that were applied.
    pub changes_applied: u64,
    /// One for each table, once it was found equal on both sides.
    pub proofs: Vec<Proof>,
    /// When all tables had been found equal, in ms since 1970.
    pub verified_unix_ms: Option<u64>,
    /// How often the switch was given up and put off.
    pub postponed: u32,
    /// The switch is not tried before this time, in ms since 1970.
    pub not_before_unix_ms: u64,
    /// Why the last try of something failed that is tried again.
    pub trouble: Option<String>,
    /// Why the move was undone.
    pub error: Option<String>,
    /// How long the gate was closed at the switch.
    pub pause_ms: Option<f64>,
    /// When the new map was committed, in ms since 1970.
    pub switched_unix_ms: Option<u64>,
    /// The lanes of the way back, once what it needs is made; none if the old copies are to go at
    /// once.
    #[serde(default)]
    pub back: Vec<Lane>,
    /// What the way back needs of that, until it has it in its own record.
    #[serde(default)]
    pub objects_for_back: Vec<Object>,
    /// Why it can't be reversed once it is done, though it should.
    #[serde(default)]
    pub irreversible: Option<String>,
    /// The move that keeps the old copies current after the switch, and can go back.
    #[serde(default)]
    pub way_back: Option<MoveId>,
    /// Of a way back: the move that it reverses.
    #[serde(default)]
    pub reverses: Option<Reversed>,
    /// Of a way back: until when the old copies are kept, in ms since 1970.
    #[serde(default)]
    pub kept_until_unix_ms: Option<u64>,
    /// Of the rows that a job brings to other tables: the job. Such a move is no record of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

/// The move that a way back reverses, by what its names are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reversed {
    /// Its id.
    pub id: MoveId,
    /// When it was asked for, in ms since 1970.
    pub requested_unix_ms: u64,
}

/// Who wants a move, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A person asked for it.
    Operator,
    /// The controller decided it.
    Controller {
        /// In words, for its users.
        reason: String,
        /// When the source would be overloaded without it, in ms since 1970.
        predicted_crossing_unix_ms: Option<u64>,
    },
}

/// A state and when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The state.
    pub state: State,
    /// In ms since 1970.
    pub at_unix_ms: u64,
}

/// A shard, where it is or is going to be, and which keys it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The shard.
    pub shard: ShardId,
    /// Its node.
    pub node: NodeId,
    /// Its keys.
    pub bounds: Bounds,
}

/// The rows that one shard gives to another: those that both bounds hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Who gives.
    pub source: Part,
    /// Who gets. Of the same id as the source in a plain move.
    pub target: Part,
    /// The tables, in the order of the map: referenced tables first. Empty until checked.
    pub tables: Vec<MovedTable>,
}

/// What a move does to the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One shard goes to another node.
    Move,
    /// Several shards of a node go to another one, together.
    Batch,
    /// One shard becomes several.
    Split,
    /// Several shards become one.
    Merge,
}

/// One table of the shard's group, as it was when the move was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedTable {
    /// The partitioned table.
    pub parent: TableName,
    /// The partition that gives its rows, on the source.
    pub leaf: TableName,
    /// The partition that gets them, on the destination; of the same name in a plain move.
    pub new_leaf: TableName,
    /// The shard-key columns, in the order of the partition key.
    pub key: Vec<String>,
    /// Every column but the generated ones, in the order of the source's leaf.
    pub columns: Vec<MovedColumn>,
    /// Whether the leaf has no primary key, so that rows are told apart by all their columns.
    pub whole_row_identity: bool,
    /// The replica identity of the leaf before the move touched it, as `pg_class` has it.
    pub identity: String,
    /// A fingerprint of the parent's and the leaf's definition on the source: DDL changes it.
    pub shape: String,
    /// Whether the binary form of all its columns means the same on every node.
    pub builtin_types: bool,
    /// Set if the rows go to a table with another shard key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub across: Option<Across>,
}

/// How rows are told apart that go from a partition to a partitioned table with another shard key,
/// [`MovedTable::new_leaf`]: a node's part of it gets rows of many partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Across {
    /// The shard-key columns of the other table.
    pub key: Vec<String>,
    /// The bounds of its shards that the lane's target has, by that key; none if it has all of them.
    pub given: Vec<Bounds>,
    /// The bounds of the shards that the rows come from, by [`MovedTable::key`]; none if they come
    /// from all of them.
    pub from: Vec<Bounds>,
}

/// A column of a moved table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedColumn {
    /// Its name, as stored.
    pub name: String,
    /// Its type with modifiers, qualified, as `format_type` gives it with an empty search_path.
    pub type_name: String,
}

/// Something that the move makes on a node. Recorded before it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Where.
    pub node: NodeId,
    /// What.
    pub kind: ObjectKind,
}

/// What a move makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A logical replication slot.
    Slot(String),
    /// A publication of the leaves.
    Publication(String),
    /// A table that holds, or held, the shard's rows.
    Leaf(TableName),
    /// `REPLICA IDENTITY FULL` on a leaf without a primary key.
    FullIdentity(TableName),
    /// A CHECK on the source's leaf that makes its attachment instant, should it have to come back.
    HelperCheck {
        /// The leaf.
        leaf: TableName,
        /// The constraint.
        name: String,
    },
    /// The triggers that make a leaf unwritable while it is detached concurrently.
    Freeze(TableName),
    /// The row of `foreshard.moves` on the destination that says how far a stream is applied, by
    /// the name of its slot.
    Position(String),
}

/// A table that was equal on both sides at one WAL position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The leaf.
    pub leaf: TableName,
    /// How many rows both sides had.
    pub rows: u64,
    /// Of all rows, whatever their order.
    pub checksum: String,
    /// The source's WAL position of the comparison.
    pub lsn: Lsn,
}

impl Move {
    /// A move of one shard that was asked for now. Its bounds are filled in when it is checked.
    #[expect(clippy::too_many_arguments, reason = "the parts of a request, each of its own type")]
    pub fn requested(
        id: MoveId,
        shard: ShardId,
        from: NodeId,
        to: NodeId,
        cause: Cause,
        now_unix_ms: u64,
    ) -> Self {
        let source = Part { shard, node: from, bounds: Bounds::Nothing };
        let target = Part { node: to, ..source.clone() };
        let lane = Lane { source, target, tables: Vec::new() };
        Self::of_lanes(id, vec![lane], cause, now_unix_ms)
    }

    /// A move over these lanes, of which there is one at least.
    pub fn of_lanes(id: MoveId, lanes: Vec<Lane>, cause: Cause, now_unix_ms: u64) -> Self {
        let state = State::Requested;
        let first = lanes.first().map(|lane| lane.source.clone());
        let last = lanes.last().map(|lane| lane.target.clone());
        Self {
            id,
            shard: first.as_ref().map_or(ShardId(0), |part| part.shard),
            from: first.map_or(NodeId(0), |part| part.node),
            to: last.map_or(NodeId(0), |part| part.node),
            lanes,
            cause,
            state,
            requested_unix_ms: now_unix_ms,
            history: vec![Step { state, at_unix_ms: now_unix_ms }],
            objects: Vec::new(),
            rows_copied: 0,
            bytes_copied: 0,
            changes_applied: 0,
            proofs: Vec::new(),
            verified_unix_ms: None,
            postponed: 0,
            not_before_unix_ms: 0,
            trouble: None,
            error: None,
            pause_ms: None,
            switched_unix_ms: None,
            back: Vec::new(),
            objects_for_back: Vec::new(),
            irreversible: None,
            way_back: None,
            reverses: None,
            kept_until_unix_ms: None,
            job: None,
        }
    }

    /// The move back, over [`Self::back`], which keeps the old copies current from the switch at
    /// `now_unix_ms` on. What it makes is not filled in.
    #[must_use]
    pub fn going_back(&self, id: MoveId, now_unix_ms: u64, kept_ms: u64) -> Self {
        let state = State::Keeping;
        Self {
            state,
            history: vec![Step { state, at_unix_ms: now_unix_ms }],
            reverses: Some(Reversed { id: self.id, requested_unix_ms: self.requested_unix_ms }),
            kept_until_unix_ms: Some(now_unix_ms.saturating_add(kept_ms)),
            ..Self::of_lanes(id, self.back.clone(), self.cause.clone(), now_unix_ms)
        }
    }

    /// Whether nothing more will happen to it.
    pub fn is_finished(&self) -> bool {
        self.state.is_final()
    }

    /// Whether it only keeps old copies, or takes them away: other moves of the shard need not wait
    /// for its end, they bring it about.
    pub fn is_aside(&self) -> bool {
        let recalled = || self.history.iter().any(|step| step.state == State::Requested);
        self.reverses.is_some()
            && match self.state {
                State::Keeping => true,
                State::Undoing => !recalled(),
                _ => false,
            }
    }

    /// Whether a shard is on its way by it.
    pub fn is_under_way(&self) -> bool {
        !self.is_finished() && !self.is_aside()
    }

    /// What it does to the shards.
    pub fn kind(&self) -> Kind {
        let whole = self.lanes.iter().all(|lane| lane.source.shard == lane.target.shard);
        match (self.sources().len(), self.targets().len()) {
            (1, 1) => Kind::Move,
            _ if whole => Kind::Batch,
            (1, _) => Kind::Split,
            _ => Kind::Merge,
        }
    }

    /// The shards that give rows, each once.
    pub fn sources(&self) -> Vec<Part> {
        distinct(self.lanes.iter().map(|lane| lane.source.clone()))
    }

    /// The shards that get rows, each once.
    pub fn targets(&self) -> Vec<Part> {
        distinct(self.lanes.iter().map(|lane| lane.target.clone()))
    }

    /// All nodes that it touches, each once.
    pub fn nodes(&self) -> Vec<NodeId> {
        distinct(self.lanes.iter().flat_map(|lane| [lane.source.node, lane.target.node]))
    }

    /// Whether it gives rows of this shard away, or makes it.
    pub fn touches(&self, shard: ShardId) -> bool {
        self.lanes.iter().any(|lane| lane.source.shard == shard || lane.target.shard == shard)
    }

    /// The leaves of a source, in the order of the map.
    pub fn leaves_of(&self, source: ShardId) -> Vec<&MovedTable> {
        let lane = self.lanes.iter().find(|lane| lane.source.shard == source);
        lane.into_iter().flat_map(|lane| &lane.tables).collect()
    }

    /// The tables that a target gets, in the order of the map.
    pub fn tables_for(&self, target: ShardId) -> Vec<&MovedTable> {
        let lane = self.lanes.iter().find(|lane| lane.target.shard == target);
        lane.into_iter().flat_map(|lane| &lane.tables).collect()
    }
}

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}
