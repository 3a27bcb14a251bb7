//! Asking for a move, a split or a merge: a record that the mover takes up.

use super::call_off::UnderWay;
use super::recall::{Switched, leads, recall};
use crate::catalog::{Catalog, CatalogError, Expect};
use crate::ids::{MoveId, NodeId, ShardId};
use crate::shard_map::{Bounds, Cut, KeyValue, Node, ShardMap, Standing};
use crate::shard_move::{Cause, Lane, Move, Part};

/// Why a move was not asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The map has no such shard.
    #[error("there is no shard {0}")]
    NoShard(ShardId),
    /// The map has no such node.
    #[error("there is no node {0}")]
    NoNode(NodeId),
    /// It takes no shards.
    #[error("node {node} takes no shards: it {why}")]
    TakesNone {
        /// The node's name.
        node: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// It would move nothing.
    #[error("shard {shard} is on node {node} already")]
    AlreadyThere {
        /// The shard.
        shard: ShardId,
        /// The node's name.
        node: String,
    },
    /// Its keys can't be cut like this.
    #[error("shard {shard} can't be split like this: {why}")]
    CanNotSplit {
        /// The shard.
        shard: ShardId,
        /// What would work.
        why: String,
    },
    /// A split needs a node for each child, or none.
    #[error("{nodes} nodes are named for {into} new shards: name none, one, or one for each")]
    Nodes {
        /// How many nodes were named.
        nodes: usize,
        /// How many children there are.
        into: usize,
    },
    /// They don't share a stream.
    #[error(
        "these shards can't move together: name shards of one node, each once, and ask for the others \
         by moves of their own"
    )]
    NotTogether,
    /// Together they are no shard.
    #[error(
        "these shards can't be merged: only all parts of one former shard can, neighbouring ranges, and lists"
    )]
    CanNotMerge,
    /// One at a time.
    #[error("shard {shard} is being moved already, by move {id}")]
    UnderWay {
        /// The shard.
        shard: ShardId,
        /// The move that is not finished.
        id: MoveId,
    },
    /// All shards of its group are on their way.
    #[error("shard {0} can't be moved while its group is imported or gets another shard key")]
    OnTheWay(ShardId),
    /// No old copy is there to go back to.
    #[error(
        "nothing is kept of {0} that could be gone back to: ask for an ordinary move, split or merge"
    )]
    NothingKept(Switched),
    /// No record is about it.
    #[error("there is no {0}")]
    NotUnderWay(UnderWay),
    /// It can't be called off any more.
    #[error("{what} {why}")]
    NotToCallOff {
        /// What was to be called off.
        what: UnderWay,
        /// Why not, and what to do instead.
        why: &'static str,
    },
    /// It is going to be done within a moment, or put off.
    #[error("{0} is in its last step: ask again, should it be put off")]
    InLastStep(UnderWay),
    /// The catalog did not take it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// How often the next free id is looked for.
const TRIES: u32 = 20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Shards of one node on another one: copied by one stream, switched together.
    Move {
        /// The shards, in any order.
        shards: Vec<ShardId>,
        /// Their new node.
        to: NodeId,
    },
    /// Several shards instead of one.
    Split {
        /// The shard.
        shard: ShardId,
        /// How it is cut.
        how: HowToSplit,
        /// The node of each; one for all; none if they stay where the shard is.
        to: Vec<NodeId>,
    },
    /// Shards with these bounds, each on its node, instead of one: any cut that the map can have.
    Parts {
        /// The shard.
        shard: ShardId,
        /// What it becomes.
        parts: Vec<(Bounds, NodeId)>,
    },
    /// One shard instead of several.
    Merge {
        /// The shards, in any order; all parts of a shard that could be split into them.
        shards: Vec<ShardId>,
        /// Its node; if none is named, that of the first.
        to: Option<NodeId>,
    },
}

/// How a shard is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HowToSplit {
    /// A shard by hash into so many: a power of two.
    Into(u32),
    /// A range into what is before a key and what is not, by a text for each column of the key or
    /// the first ones.
    At(Vec<String>),
    /// A list, or what holds all other values, into what stays and these values; `None` is NULL.
    Values(Vec<Option<String>>),
}

/// Writes the record of a new move of `shard` to the node `to`.
#[expect(clippy::too_many_arguments, reason = "what is asked, of whom, and when")]
pub async fn request(
    catalog: &Catalog,
    map: &ShardMap,
    shard: ShardId,
    to: NodeId,
    cause: Cause,
    now_unix_ms: u64,
) -> Result<MoveId, RequestError> {
    request_any(catalog, map, &Wanted::Move { shards: vec![shard], to }, cause, now_unix_ms).await
}

/// Writes the record of what is wanted; or asks for the way back, if that is what is wanted.
pub async fn request_any(
    catalog: &Catalog,
    map: &ShardMap,
    wanted: &Wanted,
    cause: Cause,
    now_unix_ms: u64,
) -> Result<MoveId, RequestError> {
    let mut conflict = CatalogError::Conflict("moves/".to_owned());
    for _ in 0..TRIES {
        let moves = catalog.list::<Move>().await?;
        let open: Vec<&Move> =
            moves.iter().map(|found| &found.record).filter(|mv| !mv.is_finished()).collect();
        let taken = |shard| open.iter().any(|mv| mv.touches(shard));
        let lanes = lanes(map, wanted, taken)?;
        if let Some(back) = moves.iter().find(|found| leads(&found.record, wanted)) {
            match recall(catalog, back, now_unix_ms).await {
                Err(RequestError::Catalog(error @ CatalogError::Conflict(_))) => {
                    conflict = error;
                    continue;
                }
                recalled => return recalled,
            }
        }
        for lane in &lanes {
            let shard = lane.source.shard;
            let busy = |mv: &&&Move| mv.is_under_way() && mv.touches(shard);
            if let Some(other) = open.iter().find(busy) {
                return Err(RequestError::UnderWay { shard, id: other.id });
            }
        }
        let id = MoveId(moves.last().map_or(1, |last| last.record.id.0 + 1));
        let requested = Move::of_lanes(id, lanes, cause.clone(), now_unix_ms);
        match catalog.put(&requested, Expect::Absent).await {
            Ok(_) => return Ok(id),
            Err(error @ CatalogError::Conflict(_)) => conflict = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.into())
}

/// The lanes of what is wanted at this map; `taken` says which shards a move under way makes.
///
/// # Errors
/// It is not possible.
pub fn lanes(
    map: &ShardMap,
    wanted: &Wanted,
    taken: impl Fn(ShardId) -> bool,
) -> Result<Vec<Lane>, RequestError> {
    let lane = |source, target| Lane { source, target, tables: Vec::new() };
    match wanted {
        Wanted::Move { shards, to } => whole(map, shards, *to),
        Wanted::Split { shard, how, to } => {
            let source = part(map, *shard)?;
            let can_not = |why| RequestError::CanNotSplit { shard: *shard, why };
            let bounds = cut(map, &source, how).map_err(can_not)?;
            for node in to {
                node_named(map, *node)?;
            }
            let nodes = match to.as_slice() {
                [] => vec![source.node; bounds.len()],
                [one] => vec![*one; bounds.len()],
                all if all.len() == bounds.len() => all.to_vec(),
                all => return Err(RequestError::Nodes { nodes: all.len(), into: bounds.len() }),
            };
            let ids = map.free_shards(bounds.len(), taken);
            let parts = ids.into_iter().zip(bounds).zip(nodes);
            Ok(parts
                .map(|((shard, bounds), node)| lane(source.clone(), Part { shard, node, bounds }))
                .collect())
        }
        Wanted::Parts { shard, parts } => {
            let source = part(map, *shard)?;
            for (_, node) in parts {
                node_named(map, *node)?;
            }
            let ids = map.free_shards(parts.len(), taken).into_iter();
            let targets = ids.zip(parts.iter().cloned());
            Ok(targets
                .map(|(shard, (bounds, node))| lane(source.clone(), Part { shard, node, bounds }))
                .collect())
        }
        Wanted::Merge { shards, to } => {
            let sources: Vec<Part> =
                shards.iter().map(|shard| part(map, *shard)).collect::<Result<_, _>>()?;
            let group = |part: &Part| map.shard(part.shard).map(|shard| shard.group);
            let first = sources.first().ok_or(RequestError::CanNotMerge)?;
            let same = sources.iter().all(|source| group(source) == group(first));
            let bounds: Vec<Bounds> = sources.iter().map(|source| source.bounds.clone()).collect();
            let bounds = Bounds::merged(&bounds).filter(|_| same);
            let bounds = bounds.ok_or(RequestError::CanNotMerge)?;
            let node = to.unwrap_or(first.node);
            node_named(map, node)?;
            let id = map.free_shards(1, taken).first().copied();
            let target = Part { shard: id.ok_or(RequestError::CanNotMerge)?, node, bounds };
            Ok(sources.into_iter().map(|source| lane(source, target.clone())).collect())
        }
    }
}

/// A lane for each of some shards that go to another node as they are.
fn whole(map: &ShardMap, shards: &[ShardId], to: NodeId) -> Result<Vec<Lane>, RequestError> {
    let mut lanes: Vec<Lane> = Vec::new();
    for shard in shards {
        let source = part(map, *shard)?;
        let node = node_named(map, to)?;
        if source.node == to {
            return Err(RequestError::AlreadyThere { shard: *shard, node });
        }
        let beside = |lane: &Lane| lane.source.node == source.node && lane.source.shard != *shard;
        if !lanes.iter().all(beside) {
            return Err(RequestError::NotTogether);
        }
        let target = Part { node: to, ..source.clone() };
        lanes.push(Lane { source, target, tables: Vec::new() });
    }
    if lanes.is_empty() { Err(RequestError::NotTogether) } else { Ok(lanes) }
}

/// The bounds of the children; or why there are none.
fn cut(map: &ShardMap, source: &Part, how: &HowToSplit) -> Result<Vec<Bounds>, String> {
    let bounds = &source.bounds;
    let types = match map.shard(source.shard) {
        Some(shard) => map.groups()[shard.group.index()].key.as_slice(),
        None => &[],
    };
    let value = |(text, key_type): (&String, &crate::shard_map::KeyType)| {
        key_type.parse(text.as_bytes()).map_err(|invalid| invalid.to_string())
    };
    match how {
        HowToSplit::Into(into) => bounds.split(*into).ok_or_else(|| match bounds {
            Bounds::Range { .. } => "it is a range: say at which key".to_owned(),
            Bounds::List(_) | Bounds::Others(_) => "it is a list: say which values".to_owned(),
            _ => format!("into {into}, which is no power of two from 2 on"),
        }),
        HowToSplit::At(texts) => {
            if texts.len() > types.len() {
                return Err(format!("its key has {} column(s)", types.len()));
            }
            let at: Cut = texts.iter().zip(types).map(value).collect::<Result<_, _>>()?;
            let outside = || "it is no range with this key inside".to_owned();
            bounds.split_at(&at).ok_or_else(outside)
        }
        HowToSplit::Values(texts) => {
            let key_type = types.first().ok_or("it has no key")?;
            let read = |text: &Option<String>| match text {
                Some(text) => value((text, key_type)),
                None => Ok(KeyValue::Null),
            };
            let values: Vec<KeyValue> = texts.iter().map(read).collect::<Result<_, _>>()?;
            let foreign = || {
                "it is no list with these values and others, nor what holds all other values"
                    .to_owned()
            };
            bounds.split_off(&values).ok_or_else(foreign)
        }
    }
}

fn part(map: &ShardMap, shard: ShardId) -> Result<Part, RequestError> {
    let found = map.shard(shard).ok_or(RequestError::NoShard(shard))?;
    if map.tables_of(found.group).any(|table| map.importing().contains(&table.name)) {
        return Err(RequestError::OnTheWay(shard));
    }
    Ok(Part { shard, node: found.node, bounds: found.bounds.clone() })
}

pub(super) fn node_named(map: &ShardMap, id: NodeId) -> Result<String, RequestError> {
    let found = map.nodes().find(|(node, _)| *node == id).map(|(_, node)| node);
    let Some(Node { name, standing }) = found else { return Err(RequestError::NoNode(id)) };
    let none = |why| Err(RequestError::TakesNone { node: name.clone(), why });
    match standing {
        Standing::Member => Ok(name.clone()),
        Standing::Draining => none("is being drained (foreshard node add takes it back)"),
        Standing::Joining => none("has not joined yet (foreshard node add)"),
        Standing::Gone => none("has left"),
    }
}
