//! Going back from a switch while the old copies are kept, or giving them up: the record of the way
//! back is changed, and who keeps the copies sees it.

use crate::catalog::{Catalog, CatalogError, Expect, Versioned};
use crate::ids::{MoveId, ShardId};
use crate::shard_map::ShardMap;
use crate::shard_move::{Event, Kind, Move, State};

use super::error::MoveError;
use super::request::{RequestError, Wanted, node_named};

/// Which switch is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switched {
    /// The last one of this shard.
    Shard(ShardId),
    /// That of this move, or the one that this way back reverses.
    Move(MoveId),
}

impl std::fmt::Display for Switched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shard(shard) => write!(f, "the last switch of shard {shard}"),
            Self::Move(id) => write!(f, "the switch of move {id}"),
        }
    }
}

impl Switched {
    fn is_reversed_by(self, mv: &Move) -> bool {
        mv.state == State::Keeping
            && match self {
                Self::Shard(shard) => mv.sources().iter().any(|source| source.shard == shard),
                Self::Move(id) => mv.id == id || mv.reverses.is_some_and(|it| it.id == id),
            }
    }
}

/// Asks for the way back; its id.
///
/// # Errors
/// Nothing is kept, or a node that would get a shard back takes none.
pub async fn reverse(
    catalog: &Catalog,
    map: &ShardMap,
    what: Switched,
    now_unix_ms: u64,
) -> Result<MoveId, RequestError> {
    let kept = find(catalog, what).await?;
    for target in kept.record.targets() {
        node_named(map, target.node)?;
    }
    recall(catalog, &kept, now_unix_ms).await
}

/// Gives the old copies up; the id of the way back that is not taken.
///
/// # Errors
/// Nothing is kept.
pub async fn confirm(
    catalog: &Catalog,
    what: Switched,
    now_unix_ms: u64,
) -> Result<MoveId, RequestError> {
    let kept = find(catalog, what).await?;
    let reason = "it was confirmed".to_owned();
    change(catalog, &kept, Event::Lapsed { reason }, now_unix_ms).await
}

async fn find(catalog: &Catalog, what: Switched) -> Result<Versioned<Move>, RequestError> {
    let mut moves = catalog.list::<Move>().await?.into_iter().rev();
    moves.find(|mv| what.is_reversed_by(&mv.record)).ok_or(RequestError::NothingKept(what))
}

/// Whether the way back that `mv` keeps is what is wanted.
pub(super) fn leads(mv: &Move, wanted: &Wanted) -> bool {
    let Wanted::Move { shards, to } = wanted else { return false };
    let sources = mv.sources();
    mv.state == State::Keeping
        && matches!(mv.kind(), Kind::Move | Kind::Batch)
        && mv.to == *to
        && sources.len() == shards.len()
        && sources.iter().all(|source| shards.contains(&source.shard))
}

/// Takes the way back.
pub(super) async fn recall(
    catalog: &Catalog,
    kept: &Versioned<Move>,
    now_unix_ms: u64,
) -> Result<MoveId, RequestError> {
    change(catalog, kept, Event::Recalled, now_unix_ms).await
}

/// Gives the old copies up, if they are only kept. Somebody else may be faster: then the record tells.
pub(super) async fn let_lapse(
    catalog: &Catalog,
    mv: &Versioned<Move>,
    reason: String,
) -> Result<(), MoveError> {
    if mv.record.state != State::Keeping {
        return Ok(());
    }
    let now = super::context::now_unix_ms();
    match change(catalog, mv, Event::Lapsed { reason }, now).await {
        Ok(_) | Err(RequestError::Catalog(CatalogError::Conflict(_))) => Ok(()),
        Err(RequestError::Catalog(error)) => Err(error.into()),
        Err(error) => Err(MoveError::Refused(error.to_string())),
    }
}

async fn change(
    catalog: &Catalog,
    kept: &Versioned<Move>,
    event: Event,
    now_unix_ms: u64,
) -> Result<MoveId, RequestError> {
    let id = kept.record.id;
    let changed = kept.record.clone().on_event(event, now_unix_ms);
    // It was found keeping.
    let changed = changed.map_err(|_| RequestError::NothingKept(Switched::Move(id)))?;
    catalog.put(&changed, Expect::At(kept.revision)).await?;
    Ok(id)
}
