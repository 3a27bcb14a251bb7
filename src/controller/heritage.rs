//! What new shards inherit: the children of a split their parent's past by their share of its keys,
//! a merged shard the sum of its parents', a shard of a new table the shape of its siblings'.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::insight::Insight;
use super::planning::Past;
use crate::catalog::{Catalog, CatalogError, Expect, Record};
use crate::ids::{GroupId, MoveId, ShardId};
use crate::load::Recorder;
use crate::shard_map::ShardMap;
use crate::shard_move::{Kind, Move};

/// A shard that was idle for at least this share of the known past, and did something since, may be
/// new.
const IDLE_SHARE: usize = 2;
/// Steps that a new shard must have had load in, before its level is known.
const LEVEL_STEPS: usize = 5;

/// The splits and merges whose new shards have their past already.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Heritage {
    moves: BTreeSet<MoveId>,
}

impl Record for Heritage {
    const PREFIX: &'static str = "heritage";

    fn id(&self) -> String {
        String::new()
    }
}

impl Heritage {
    pub(super) async fn read(catalog: &Catalog) -> Result<Self, CatalogError> {
        Ok(catalog.get::<Self>("").await?.map(|stored| stored.record).unwrap_or_default())
    }

    /// Gives the new shards of splits and merges that were switched their past, and what samples
    /// show of their keys. These shards: if there are any, the history is to be written anew, and
    /// after it this.
    pub(super) fn settle(
        &mut self,
        moves: &[Move],
        recorder: &Mutex<Recorder>,
        insight: &Insight,
    ) -> Vec<ShardId> {
        let news = moves.iter().filter(|m| {
            matches!(m.kind(), Kind::Split | Kind::Merge) && !self.moves.contains(&m.id)
        });
        let mut heirs = Vec::new();
        let mut known: BTreeSet<MoveId> = self.moves.clone();
        for (m, switched_unix_ms) in news.filter_map(|m| Some((m, m.switched_unix_ms?))) {
            let lanes = m.lanes.iter();
            let lanes = lanes.map(|l| (l.source.shard, l.target.shard, &l.target.bounds));
            let shares = insight.inherit(&lanes.collect::<Vec<_>>());
            for heir in m.targets() {
                let parents = parents(m, heir.shard, &shares);
                recorder.lock().inherit(heir.shard, &parents, switched_unix_ms);
                heirs.push(heir.shard);
            }
            known.insert(m.id);
        }
        // Moves that are no longer listed do not come back.
        known.retain(|id| moves.iter().any(|m| m.id == *id));
        self.moves = known;
        heirs
    }

    /// Remembers it over a restart.
    pub(super) async fn store(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        catalog.put(self, Expect::Anything).await.map(drop)
    }
}

/// Whose past a new shard gets, and how much of each: by the sampled keys, where these say it by
/// lane; else keys are taken to be spread evenly over the children, which what comes corrects within
/// a day.
fn parents(m: &Move, heir: ShardId, sampled: &[Option<f64>]) -> Vec<(ShardId, f64)> {
    let even = |source: ShardId| {
        let heirs = m.lanes.iter().filter(|lane| lane.source.shard == source).count();
        1.0 / f64::from(u32::try_from(heirs.max(1)).unwrap_or(u32::MAX))
    };
    let lanes = m.lanes.iter().zip(sampled).filter(|(lane, _)| lane.target.shard == heir);
    lanes
        .map(|(lane, share)| {
            let source = lane.source.shard;
            (source, share.unwrap_or_else(|| even(source)))
        })
        .collect()
}

/// Gives shards that are new the shape of their siblings' past at their own level, for forecasts
/// only: nothing of it is stored. Siblings are the shards of the same group; if all of these are
/// new, all others.
pub(super) fn from_siblings(past: &mut Past, map: &ShardMap) {
    let steps = past.steps;
    let births: Vec<(ShardId, GroupId, usize)> = map
        .shards()
        .filter_map(|(id, shard)| Some((id, shard.group, idle_steps(past.shards.get(id.index())?))))
        .collect();
    let is_new = |idle: usize| idle > steps / IDLE_SHARE;
    let (new, old): (Vec<_>, Vec<_>) = births.into_iter().partition(|(.., idle)| is_new(*idle));
    for (id, group, idle) in new.into_iter().filter(|(.., idle)| idle + LEVEL_STEPS <= steps) {
        let of_group = old.iter().any(|(_, other, _)| *other == group);
        let siblings: Vec<ShardId> = old
            .iter()
            .filter(|(_, other, _)| !of_group || *other == group)
            .map(|(id, ..)| *id)
            .collect();
        let sum = |step: usize| siblings.iter().map(|id| past.shards[id.index()][step]).sum();
        let theirs: Vec<f64> = (0..steps).map(sum).collect();
        let since: f64 = theirs[idle..].iter().sum();
        let own: f64 = past.shards[id.index()][idle..].iter().sum();
        if since > 0.0 {
            let before = past.shards[id.index()][..idle].iter_mut().zip(&theirs);
            before.for_each(|(value, theirs)| *value = own / since * theirs);
        }
    }
}

/// The steps before the first load.
fn idle_steps(values: &[f64]) -> usize {
    values.iter().take_while(|value| **value == 0.0).count()
}

#[cfg(test)]
mod tests;
