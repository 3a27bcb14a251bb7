//! One lane of a move, with what follows from its place: names, and which rows it carries.

use super::context::MoverContext;
use super::error::MoveError;
use super::names;
use super::session::Session;
use crate::ids::NodeId;
use crate::shard_map::Bounds;
use crate::shard_move::{Lane, Move, MovedTable};
use crate::sql::TableName;

/// One lane of a move.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneLane<'a> {
    pub(super) mv: &'a Move,
    pub(super) lane: &'a Lane,
    index: usize,
}

/// All lanes of a move.
pub(super) fn lanes(mv: &Move) -> impl Iterator<Item = OneLane<'_>> {
    mv.lanes.iter().enumerate().map(move |(index, lane)| OneLane { mv, lane, index })
}

impl OneLane<'_> {
    /// The slot of its stream. Also the name of its publication and of its row of positions.
    pub(super) fn slot(&self) -> String {
        names::slot(self.mv, self.index)
    }

    /// The slot of a comparison.
    pub(super) fn verify_slot(&self) -> String {
        names::verify_slot(self.mv, self.index)
    }

    /// Which rows of the source's leaf it carries, where `parent` is the object id of the table's
    /// parent on the source; `None` for all of them.
    pub(super) fn given(&self, table: &MovedTable, parent: u32) -> Option<String> {
        narrower(self.lane.source.bounds, self.lane.target.bounds)
            .map(|bounds| holds(bounds, table, parent))
    }

    /// Which rows of the target's leaf are its own, where `parent` is the object id of the table's
    /// parent on the destination; `None` for all of them.
    pub(super) fn gotten(&self, table: &MovedTable, parent: u32) -> Option<String> {
        narrower(self.lane.target.bounds, self.lane.source.bounds)
            .map(|bounds| holds(bounds, table, parent))
    }
}

/// `other`, if it holds fewer keys than `this`.
fn narrower(this: Bounds, other: Bounds) -> Option<Bounds> {
    match (this, other) {
        (Bounds::Hash { modulus: here, .. }, Bounds::Hash { modulus: there, .. }) => {
            (there > here).then_some(other)
        }
        _ => None,
    }
}

/// A condition that says what `bounds` say, in the words that ATTACH recognizes.
pub(super) fn holds(bounds: Bounds, table: &MovedTable, parent: u32) -> String {
    match bounds {
        Bounds::Hash { modulus, remainder } => format!(
            "satisfies_hash_partition('{parent}'::oid, {modulus}, {remainder}, {})",
            names::list(&table.key)
        ),
        Bounds::Nothing => "false".to_owned(),
    }
}

/// The bounds as ATTACH takes them and `pg_get_expr` gives them.
pub(super) fn for_values(bounds: Bounds) -> String {
    match bounds {
        Bounds::Hash { modulus, remainder } => {
            format!("FOR VALUES WITH (modulus {modulus}, remainder {remainder})")
        }
        Bounds::Nothing => "FOR VALUES WITH ()".to_owned(),
    }
}

/// `ATTACH` of leaves at their parents.
pub(super) fn attach<'a>(
    leaves: impl IntoIterator<Item = (&'a TableName, &'a TableName)>,
    bounds: Bounds,
) -> Vec<String> {
    let bounds = for_values(bounds);
    let attach = |(parent, leaf)| format!("ALTER TABLE {parent} ATTACH PARTITION {leaf} {bounds}");
    leaves.into_iter().map(attach).collect()
}

/// A session on each node of a move.
pub(super) struct Sessions(Vec<(NodeId, Session)>);

impl Sessions {
    /// Connects to all nodes of `mv`.
    pub(super) async fn open(context: &MoverContext, mv: &Move) -> Result<Self, MoveError> {
        let mut sessions = Vec::new();
        for node in mv.nodes() {
            sessions.push((node, Session::open(context, mv, node).await?));
        }
        Ok(Self(sessions))
    }

    /// The session on a node of the move.
    pub(super) fn on(&self, node: NodeId) -> Result<&Session, MoveError> {
        let found = self.0.iter().find(|(id, _)| *id == node);
        let missing = || MoveError::Refused(format!("node {node} is not part of the move"));
        found.map(|(_, session)| session).ok_or_else(missing)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Session> {
        self.0.iter().map(|(_, session)| session)
    }
}
