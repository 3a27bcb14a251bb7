//! The record of a move: what was asked, how far it is, what it made, what it proved.

use serde::{Deserialize, Serialize};

use super::state::State;
use crate::ids::{Lsn, MoveId, NodeId, ShardId};
use crate::sql::TableName;

/// One move of one shard, as the catalog stores it under `moves/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Unique over all moves ever made; grows.
    pub id: MoveId,
    /// The shard that moves.
    pub shard: ShardId,
    /// The node that owns it until the switch.
    pub from: NodeId,
    /// The node that owns it after the switch.
    pub to: NodeId,
    /// Who wants it, and why.
    pub cause: Cause,
    /// How far it is.
    pub state: State,
    /// When it was asked for, in ms since 1970.
    pub requested_unix_ms: u64,
    /// Every state that it was in, with its beginning; the last is `state`.
    pub history: Vec<Step>,
    /// The tables that move, in the order of the map. Empty until checked.
    pub tables: Vec<MovedTable>,
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

/// One table of the shard's group, as it was when the move was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedTable {
    /// The partitioned table.
    pub parent: TableName,
    /// The partition that moves; of the same name on both nodes.
    pub leaf: TableName,
    /// The shard-key columns, in the order of the partition key.
    pub key: Vec<String>,
    /// Every column but the generated ones, in the order of the source's leaf.
    pub columns: Vec<MovedColumn>,
    /// Whether the leaf has no primary key, so that rows are told apart by all their columns.
    pub whole_row_identity: bool,
    /// Whether the binary form of all its columns means the same on every node.
    pub builtin_types: bool,
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
    /// The row of `foreshard.moves` on the destination that says how far the stream is applied.
    Position,
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
    /// A move that was asked for now.
    #[expect(clippy::too_many_arguments, reason = "the parts of a request, each of its own type")]
    pub fn requested(
        id: MoveId,
        shard: ShardId,
        from: NodeId,
        to: NodeId,
        cause: Cause,
        now_unix_ms: u64,
    ) -> Self {
        let state = State::Requested;
        Self {
            id,
            shard,
            from,
            to,
            cause,
            state,
            requested_unix_ms: now_unix_ms,
            history: vec![Step { state, at_unix_ms: now_unix_ms }],
            tables: Vec::new(),
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
        }
    }

    /// Whether nothing more will happen to it.
    pub fn is_finished(&self) -> bool {
        self.state.is_final()
    }
}
