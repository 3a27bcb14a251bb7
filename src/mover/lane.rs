//! What a move carries: its lanes one by one, and the streams that bring them.
//!
//! A stream is what one slot brings to one node. Shards that move as they are from a node to the same
//! other one share it: the source decodes its WAL once for all of them, and what a transaction did to
//! them arrives in one. Of what is split, merged or dealt anew each lane has a stream of its own, since
//! the source has to tell its rows from those of others.

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
}

/// All lanes of a move.
pub(super) fn lanes(mv: &Move) -> impl Iterator<Item = OneLane<'_>> {
    mv.lanes.iter().map(move |lane| OneLane { mv, lane })
}

impl OneLane<'_> {
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

/// What one slot brings from a node to another: one lane, or several.
#[derive(Debug, Clone)]
pub(super) struct Stream<'a> {
    pub(super) mv: &'a Move,
    /// Of the same nodes, all of them; never empty.
    lanes: Vec<&'a Lane>,
    index: usize,
}

/// All streams of a move, in the order of their first lanes.
pub(super) fn streams(mv: &Move) -> Vec<Stream<'_>> {
    streams_of(mv, &mv.lanes)
}

/// The streams that bring some lanes; as many, in the same order, as the same lanes need the other
/// way.
pub(super) fn streams_of<'a>(mv: &'a Move, lanes: &'a [Lane]) -> Vec<Stream<'a>> {
    let is_whole = |lane: &Lane| mv.job.is_none() && lane.source.shard == lane.target.shard;
    let nodes = |lane: &Lane| (lane.source.node, lane.target.node);
    let mut all: Vec<Stream<'a>> = Vec::new();
    for lane in lanes {
        let shared = all.iter_mut().find(|stream| {
            is_whole(lane) && is_whole(stream.lanes[0]) && nodes(lane) == nodes(stream.lanes[0])
        });
        match shared {
            Some(stream) => stream.lanes.push(lane),
            None => all.push(Stream { mv, lanes: vec![lane], index: all.len() }),
        }
    }
    all
}

/// The streams of a move, those together that bring rows to the same shard.
pub(super) fn parcels(mv: &Move) -> Vec<Vec<Stream<'_>>> {
    let mut all: Vec<Vec<Stream<'_>>> = Vec::new();
    for stream in streams(mv) {
        let brings = |shard| stream.lanes.iter().any(|lane| lane.target.shard == shard);
        let beside = all.iter_mut().find(|parcel| {
            parcel.iter().flat_map(|it| &it.lanes).any(|lane| brings(lane.target.shard))
        });
        match beside {
            Some(parcel) => parcel.push(stream),
            None => all.push(vec![stream]),
        }
    }
    all
}

impl<'a> Stream<'a> {
    /// The name of its slot, of its publication and of its row of positions.
    pub(super) fn slot(&self) -> String {
        names::slot(self.mv, self.index)
    }

    /// The slot of a comparison.
    pub(super) fn verify_slot(&self) -> String {
        names::verify_slot(self.mv, self.index)
    }

    /// Which of the move's streams it is, from 0.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The node that gives the rows.
    pub(super) fn from(&self) -> NodeId {
        self.lanes[0].source.node
    }

    /// The node that gets them.
    pub(super) fn to(&self) -> NodeId {
        self.lanes[0].target.node
    }

    /// Its lanes.
    pub(super) fn lanes(&self) -> impl Iterator<Item = OneLane<'a>> + use<'a, '_> {
        self.lanes.iter().map(|lane| OneLane { mv: self.mv, lane })
    }

    /// Its tables, each with its lane.
    pub(super) fn tables(
        &self,
    ) -> impl Iterator<Item = (OneLane<'a>, &'a MovedTable)> + use<'a, '_> {
        self.lanes().flat_map(|one| one.lane.tables.iter().map(move |table| (one, table)))
    }

    /// The tables whose rows are compared on both sides: where they go across, all partitions of a
    /// table together, or each would have to be looked for among the rows of all others.
    pub(super) fn compared(&self) -> Vec<(OneLane<'a>, MovedTable)> {
        let mut all: Vec<(OneLane<'a>, MovedTable)> = Vec::new();
        for (lane, table) in self.tables() {
            let Some(across) = &table.across else {
                all.push((lane, table.clone()));
                continue;
            };
            let twin = all.iter_mut().find(|(_, it)| it.new_leaf == table.new_leaf);
            match twin.and_then(|(_, it)| it.across.as_mut()) {
                Some(whole) => whole.from.extend(across.from.iter().cloned()),
                None => {
                    all.push((lane, MovedTable { leaf: table.parent.clone(), ..table.clone() }));
                }
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
