//! The shapes of the JSON that the API gives.

use serde::Serialize;
use tokio::time::Instant;

use crate::backend::NodeAddress;
use crate::ids::{Epoch, NodeId, ShardId};
use crate::mover::{Live, Told};
use crate::shard_map::{Bounds, ShardMap, Standing, leaf_name};
use crate::shard_move::{Kind, Move};

/// Where every shard is.
#[derive(Debug, Serialize)]
pub(super) struct ShardsView {
    epoch: Epoch,
    database: String,
    shards: Vec<ShardView>,
}

#[derive(Debug, Serialize)]
struct ShardView {
    shard: ShardId,
    group: String,
    bounds: Bounds,
    node: String,
    /// Its tables on that node.
    tables: Vec<String>,
}

impl ShardsView {
    pub(super) fn of(map: &ShardMap) -> Self {
        let shards = map.shards().map(|(id, shard)| {
            let tables = map.tables_of(shard.group).map(|table| {
                let leaf = leaf_name(&table.name, id);
                format!("{}.{}", leaf.schema, leaf.name)
            });
            ShardView {
                shard: id,
                group: map.groups()[shard.group.index()].name.clone(),
                bounds: shard.bounds.clone(),
                node: node_name(map, shard.node),
                tables: tables.collect(),
            }
        });
        let shards = shards.collect();
        Self { epoch: map.epoch(), database: map.database().to_owned(), shards }
    }
}

/// The nodes.
#[derive(Debug, Serialize)]
pub(super) struct NodesView {
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    id: NodeId,
    node: String,
    host: Option<String>,
    port: Option<u16>,
    /// Whether it holds the tables that are not sharded.
    home: bool,
    /// Whether it is a member, joins, or is being drained.
    standing: Standing,
    shards: Vec<ShardId>,
}

impl NodesView {
    pub(super) fn of(map: &ShardMap, addresses: &[NodeAddress]) -> Self {
        let there = map.nodes().filter(|(_, node)| node.standing != Standing::Gone);
        let nodes = there.map(|(id, node)| {
            let address = addresses.iter().find(|address| address.name == node.name);
            let shards = map.shards().filter(|(_, shard)| shard.node == id);
            NodeView {
                id,
                node: node.name.clone(),
                host: address.map(|address| address.host.clone()),
                port: address.map(|address| address.port),
                home: map.home() == id,
                standing: node.standing,
                shards: shards.map(|(shard, _)| shard).collect(),
            }
        });
        Self { nodes: nodes.collect() }
    }
}

/// A move's record, and the names of its nodes.
#[derive(Debug, Serialize)]
pub(super) struct MoveView {
    from_node: String,
    to_node: String,
    finished: bool,
    kind: Kind,
    /// The shards that it makes.
    new_shards: Vec<ShardId>,
    /// While it is under way.
    progress: Option<Told>,
    #[serde(flatten)]
    record: Move,
}

impl MoveView {
    pub(super) fn of(map: &ShardMap, record: Move, live: Option<Live>) -> Self {
        Self {
            progress: live.map(|live| live.told(Instant::now())),
            from_node: node_name(map, record.from),
            to_node: node_name(map, record.to),
            finished: record.is_finished(),
            kind: record.kind(),
            new_shards: record.targets().iter().map(|part| part.shard).collect(),
            record,
        }
    }
}

fn node_name(map: &ShardMap, id: NodeId) -> String {
    map.nodes().find(|(node, _)| *node == id).map(|(_, node)| node.name.clone()).unwrap_or_default()
}
