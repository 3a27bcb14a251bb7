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

impl<'a> OneLane<'a> {
    /// The only lane of a move that nobody makes.
    pub(super) fn of(mv: &'a Move, lane: &'a Lane) -> Self {
        Self { mv, lane, index: 0 }
    }
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

    /// Which rows of the source's leaf it carries, where `parent` is the object id of
    /// [`dealt_by`] on the source; `None` for all of them.
    pub(super) fn given(&self, table: &MovedTable, parent: u32) -> Option<String> {
        if let Some(across) = &table.across {
            return any_of(&across.given, &across.key, parent);
        }
        let Lane { source, target, .. } = self.lane;
        let narrower = source.bounds.is_wider_than(&target.bounds);
        narrower.then(|| target.bounds.condition(&table.key, parent))
    }

    /// Which rows of the target's leaf are its own, where `parent` is the object id of the table's
    /// parent on the destination; `None` for all of them.
    pub(super) fn gotten(&self, table: &MovedTable, parent: u32) -> Option<String> {
        if let Some(across) = &table.across {
            return any_of(&across.from, &table.key, parent);
        }
        let Lane { source, target, .. } = self.lane;
        let narrower = target.bounds.is_wider_than(&source.bounds);
        narrower.then(|| source.bounds.condition(&table.key, parent))
    }
}

impl OneLane<'_> {
    /// The tables whose rows are compared on both sides: where they go across, all partitions of a
    /// table together, or each would have to be looked for among the rows of all others.
    pub(super) fn compared(&self) -> Vec<MovedTable> {
        let mut all: Vec<MovedTable> = Vec::new();
        for table in &self.lane.tables {
            let is_twin = |it: &&mut MovedTable| it.new_leaf == table.new_leaf;
            let Some(across) = &table.across else {
                all.push(table.clone());
                continue;
            };
            match all.iter_mut().find(is_twin).and_then(|it| it.across.as_mut()) {
                Some(whole) => whole.from.extend(across.from.iter().cloned()),
                None => all.push(MovedTable { leaf: table.parent.clone(), ..table.clone() }),
            }
        }
        all
    }
}

/// The partitioned table whose bounds say which rows of a source's leaf a lane carries.
pub(super) fn dealt_by(table: &MovedTable) -> &TableName {
    if table.across.is_some() { &table.new_leaf } else { &table.parent }
}

/// The condition that a key is in one of some bounds; `None` if there are none.
fn any_of(bounds: &[Bounds], key: &[String], parent: u32) -> Option<String> {
    let all: Vec<String> =
        bounds.iter().map(|bounds| format!("({})", bounds.condition(key, parent))).collect();
    (!all.is_empty()).then(|| all.join(" OR "))
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
