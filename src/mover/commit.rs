//! The commit of a switch: the new map and the move's state, in one.

use super::context::{MoverContext, now_unix_ms};
use super::error::MoveError;
use super::{back, check};
use crate::catalog::{CatalogError, Change, Expect, Record, Versioned};
use crate::ids::ShardId;
use crate::shard_map::{Shard, ShardMap};
use crate::shard_move::{Event, Lane, Move, State};

/// How often a commit of the map is tried that another writer of the map was faster than.
const TRIES: u32 = 20;

/// Stores the new map and the move's state in one commit, and puts the map in force.
pub(super) async fn commit(
    context: &MoverContext,
    mv: &Versioned<Move>,
) -> Result<Versioned<Move>, MoveError> {
    for tries in 0..TRIES {
        let map = context
            .catalog
            .get::<ShardMap>("")
            .await?
            .ok_or_else(|| MoveError::Refused("the catalog holds no shard map".to_owned()))?;
        let stored = context.catalog.get::<Move>(&mv.record.id()).await?;
        if let Some(stored) = stored.filter(|stored| stored.record.state == State::Switched) {
            // A commit whose answer was lost.
            context.live_map.publish(map.record);
            return Ok(stored);
        }
        let next = changed(&map.record, &mv.record)?;
        let now = now_unix_ms();
        let back = way_back(context, &map.record, &mv.record, (tries, now)).await?;
        let event = Event::Switched { way_back: back.as_ref().map(|back| back.id) };
        let switched = mv.record.clone().on_event(event, now)?;
        let mut change = Change::new()
            .put(&next, Expect::At(map.revision))?
            .put(&switched, Expect::At(mv.revision))?;
        if let Some(back) = &back {
            change = change.put(back, Expect::Absent)?;
        }
        match context.catalog.commit(change).await {
            Ok(revision) => {
                context.pass("switched")?;
                context.live_map.publish(next);
                return Ok(Versioned { record: switched, revision });
            }
            Err(CatalogError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(MoveError::Busy("the map changed under every try to commit it".to_owned()))
}

/// The record of the way back, if what it needs is made and old copies are kept still.
async fn way_back(
    context: &MoverContext,
    map: &ShardMap,
    mv: &Move,
    (tries, now_unix_ms): (u32, u64),
) -> Result<Option<Move>, MoveError> {
    let kept_ms = back::kept_ms(context, map, mv);
    if mv.back.is_empty() || kept_ms == 0 {
        return Ok(None);
    }
    if tries > 0 {
        // Somebody may have taken the id.
        let moves = context.catalog.list::<Move>().await?;
        moves.iter().for_each(|mv| context.saw(mv.record.id));
    }
    let mut back = mv.going_back(context.next_id(), now_unix_ms, kept_ms);
    back.objects = check::objects(&back);
    Ok(Some(back))
}

/// The map after the move.
fn changed(map: &ShardMap, mv: &Move) -> Result<ShardMap, MoveError> {
    for source in mv.sources() {
        let there = map.shard(source.shard).filter(|shard| shard.node == source.node);
        if there.is_none_or(|shard| shard.bounds != source.bounds) {
            let text = "the catalog's map has the shard elsewhere than the move says";
            return Err(MoveError::Refused(text.to_owned()));
        }
    }
    let gone: Vec<_> = mv.sources().iter().map(|source| source.shard).collect();
    let new: Vec<_> = mv.lanes.iter().filter_map(|lane| made(map, lane)).collect();
    let invalid = |error| MoveError::Refused(format!("the new map would be wrong: {error}"));
    map.with_shards(&gone, &new).map_err(invalid)
}

/// The shard that gets rows by a lane: of the group of the one that gives them.
fn made(map: &ShardMap, Lane { source, target, .. }: &Lane) -> Option<(ShardId, Shard)> {
    let group = map.shard(source.shard)?.group;
    Some((target.shard, Shard { group, bounds: target.bounds.clone(), node: target.node }))
}
