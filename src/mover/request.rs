//! Asking for a move: a record that the mover takes up.

use crate::catalog::{Catalog, CatalogError, Expect};
use crate::ids::{MoveId, NodeId, ShardId};
use crate::shard_map::ShardMap;
use crate::shard_move::{Cause, Move};

/// Why a move was not asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The map has no such shard.
    #[error("there is no shard {0}")]
    NoShard(ShardId),
    /// The map has no such node.
    #[error("there is no node {0}")]
    NoNode(NodeId),
    /// It would move nothing.
    #[error("shard {shard} is on node {node} already")]
    AlreadyThere {
        /// The shard.
        shard: ShardId,
        /// The node's name.
        node: String,
    },
    /// One at a time.
    #[error("shard {shard} is being moved already, by move {id}")]
    UnderWay {
        /// The shard.
        shard: ShardId,
        /// The move that is not finished.
        id: MoveId,
    },
    /// The catalog did not take it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// How often the next free id is looked for.
const TRIES: u32 = 20;

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
    let from = map.shard(shard).ok_or(RequestError::NoShard(shard))?.node;
    let node = map.nodes().find(|(id, _)| *id == to).ok_or(RequestError::NoNode(to))?.1;
    if from == to {
        return Err(RequestError::AlreadyThere { shard, node: node.name.clone() });
    }
    let mut conflict = CatalogError::Conflict("moves/".to_owned());
    for _ in 0..TRIES {
        let moves = catalog.list::<Move>().await?;
        let under_way = moves.iter().find(|m| m.record.touches(shard) && !m.record.is_finished());
        if let Some(other) = under_way {
            return Err(RequestError::UnderWay { shard, id: other.record.id });
        }
        let id = MoveId(moves.last().map_or(1, |last| last.record.id.0 + 1));
        let requested = Move::requested(id, shard, from, to, cause.clone(), now_unix_ms);
        match catalog.put(&requested, Expect::Absent).await {
            Ok(_) => return Ok(id),
            Err(error @ CatalogError::Conflict(_)) => conflict = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.into())
}
