//! The moves in the catalog, without reading all of them at each look; and what a proposal asks for.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, CatalogError, Change, Expect, numbered};
use crate::ids::MoveId;
use crate::mover::{HowToSplit, RequestError, Wanted, lanes};
use crate::placement::{Action, Cut, Decision, Proposal};
use crate::shard_map::ShardMap;
use crate::shard_move::{Cause, Move};

/// Old moves deleted by one commit, at the most.
const DELETED_MAX: usize = 100;

/// What was read of the moves. Finished ones do not change any more, and ids follow one another.
#[derive(Debug, Default)]
pub(super) struct MoveBook(Option<BTreeMap<MoveId, Move>>);

impl MoveBook {
    /// All moves as they are now, oldest first. Finished ones beyond the newest `kept` are deleted.
    pub(super) async fn renew(
        &mut self,
        catalog: &Catalog,
        kept: usize,
    ) -> Result<Vec<Move>, CatalogError> {
        let mut known = if let Some(known) = self.0.take() {
            renewed(known, catalog).await?
        } else {
            let all = catalog.list::<Move>().await?.into_iter();
            all.map(|stored| (stored.record.id, stored.record)).collect()
        };
        let surplus = known.len().saturating_sub(kept).min(DELETED_MAX);
        let oldest = known.values().take(known.len().saturating_sub(kept));
        let old: Vec<Move> = oldest.filter(|m| m.is_finished()).take(surplus).cloned().collect();
        if !old.is_empty() {
            let delete = |change: Change, m: &Move| change.delete(m, Expect::Anything);
            catalog.commit(old.iter().fold(Change::new(), delete)).await?;
            known.retain(|id, _| old.iter().all(|m| m.id != *id));
        }
        let moves = known.values().cloned().collect();
        self.0 = Some(known);
        Ok(moves)
    }
}

/// Reads what may have changed: moves under way, and those with the next ids.
async fn renewed(
    mut known: BTreeMap<MoveId, Move>,
    catalog: &Catalog,
) -> Result<BTreeMap<MoveId, Move>, CatalogError> {
    let open: Vec<MoveId> = known.values().filter(|m| !m.is_finished()).map(|m| m.id).collect();
    for id in open {
        match get(catalog, id).await? {
            Some(m) => known.insert(id, m),
            None => known.remove(&id),
        };
    }
    let mut next = known.keys().last().map_or(1, |newest| newest.0 + 1);
    while let Some(m) = get(catalog, MoveId(next)).await? {
        known.insert(m.id, m);
        next += 1;
    }
    Ok(known)
}

async fn get(catalog: &Catalog, id: MoveId) -> Result<Option<Move>, CatalogError> {
    let stored = catalog.get::<Move>(&numbered(id.0)).await?;
    Ok(stored.map(|stored| stored.record))
}

/// The move, split or merge that carries out a proposal, with the next free id.
///
/// # Errors
/// The map has changed so that it is no longer possible.
pub(super) fn requested(
    chosen: &Proposal,
    decision: &Decision,
    map: &ShardMap,
    moves: &[Move],
    now_unix_ms: u64,
) -> Result<Move, RequestError> {
    let id = MoveId(moves.iter().map(|m| m.id.0).max().map_or(1, |newest| newest + 1));
    let cause = Cause::Controller {
        reason: chosen.reason.clone(),
        predicted_crossing_unix_ms: decision.predicted_crossing_unix_ms,
    };
    let under_way = |shard| moves.iter().any(|m| !m.is_finished() && m.touches(shard));
    let lanes = lanes(map, &wanted(chosen), under_way)?;
    Ok(Move::of_lanes(id, lanes, cause, now_unix_ms))
}

/// What a proposal asks the mover for.
fn wanted(chosen: &Proposal) -> Wanted {
    let Proposal { shard, from, to, .. } = *chosen;
    let split = |cut: &Cut, stays: u32| {
        let how = match cut {
            Cut::Into(parts) => HowToSplit::Into(*parts),
            Cut::At(key) => HowToSplit::At(vec![key.clone()]),
            Cut::Value(value) => HowToSplit::Values(vec![Some(value.clone())]),
        };
        let node = |part| if part == stays { from } else { to };
        Wanted::Split { shard, how, to: (0..cut.parts()).map(node).collect() }
    };
    match &chosen.action {
        Action::Move => Wanted::Move { shards: vec![shard], to },
        Action::Split { cut, stays } | Action::Isolate { cut, stays } => split(cut, *stays),
        Action::Merge { with } => Wanted::Merge { shards: vec![shard, *with], to: Some(to) },
    }
}

#[cfg(test)]
mod tests;
