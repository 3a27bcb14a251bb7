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
        let Lane { source, target, .. } = self.lane;
        let narrower = source.bounds.is_wider_than(&target.bounds);
        narrower.then(|| target.bounds.condition(&table.key, parent))
    }

    /// Which rows of the target's leaf are its own, where `parent` is the object id of the table's
    /// parent on the destination; `None` for all of them.
    pub(super) fn gotten(&self, table: &MovedTable, parent: u32) -> Option<String> {
        let Lane { source, target, .. } = self.lane;
        let narrower = target.bounds.is_wider_than(&source.bounds);
        narrower.then(|| source.bounds.condition(&table.key, parent))
    }
}

/// `ATTACH` of the new leaves of some tables at their parents.
pub(super) fn attach<'a>(
    tables: impl IntoIterator<Item = (&'a MovedTable, &'a TableName)>,
    bounds: &Bounds,
) -> Vec<String> {
    let attach = |(table, leaf): (&MovedTable, &TableName)| {
        let bounds = bounds.for_values(table.key.len());
        format!("ALTER TABLE {} ATTACH PARTITION {leaf} {bounds}", table.parent)
    };
    tables.into_iter().map(attach).collect()
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
