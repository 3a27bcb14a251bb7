//! The heatmap: the load of every shard and of its keys, past and to come.
//!
//! Forecasts are made each minute or so, of reads and writes each few minutes. What came since then
//! moves what is said of the next steps, so that it is as new as the last sample.

use std::collections::BTreeMap;

use serde::Serialize;

use super::planning::Picture;
use crate::forecast::{Distribution, Forecast};
use crate::ids::{NodeId, ShardId};
use crate::load::{Columns, KeyRange, Recorder, Resolution};
use crate::shard_map::ShardMap;

/// How much the last sample says beside a whole step.
const SAMPLE_WEIGHT: f64 = 0.25;
/// Steps that say where the load is now, at the most.
const RECENT_MAX: usize = 3;

/// What of the load is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// Statements a second that only read.
    Reads,
    /// Statements a second that may write.
    Writes,
    /// Rows a second that statements returned or changed; only of the past.
    Rows,
    /// Bytes a second, both ways; only of the past.
    Bytes,
    /// Busy seconds a second.
    #[default]
    Busy,
}

/// What of a heatmap is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What the values are.
    pub quantity: Quantity,
    /// How long the steps of the past are.
    pub resolution: Resolution,
    /// Steps that are over.
    pub past: usize,
    /// Steps to come.
    pub ahead: usize,
}

/// The load of every shard, step by step, past and to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Heatmap {
    /// What the values are.
    pub quantity: Quantity,
    /// The length of a step to come.
    pub step_ms: u64,
    /// The length of a step of the past.
    pub past_step_ms: u64,
    /// When the first value of `past` begins, in ms since 1970.
    pub past_unix_ms: u64,
    /// When the first values to come begin: those of the step under way.
    pub ahead_unix_ms: u64,
    /// By shard id.
    pub shards: Vec<HeatRow>,
}

/// One shard of a heatmap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeatRow {
    /// The shard.
    pub shard: ShardId,
    /// Its node; `None` if it was split or merged away.
    pub node: Option<NodeId>,
    /// Its bounds, as PostgreSQL writes them.
    pub bounds: Option<String>,
    /// What of its keys has how much of its load, by its sample: what is expected of a range is its
    /// share of what is expected of the shard.
    pub ranges: Vec<KeyRange>,
    /// Since the last sample.
    pub now: f64,
    /// Of each step that is over, oldest first.
    pub past: Vec<f32>,
    /// 10 % quantile of each step to come.
    pub p10: Vec<f64>,
    /// Median.
    pub median: Vec<f64>,
    /// 90 % quantile.
    pub p90: Vec<f64>,
}

/// What is known of the keys of shards.
pub(super) struct Keys<'a> {
    pub(super) map: &'a ShardMap,
    pub(super) ranges: BTreeMap<ShardId, Vec<KeyRange>>,
}

impl Heatmap {
    /// Of nothing.
    pub(super) fn empty(quantity: Quantity, step_ms: u64) -> Self {
        let (past_step_ms, past_unix_ms, ahead_unix_ms) = (step_ms, 0, 0);
        Self { quantity, step_ms, past_step_ms, past_unix_ms, ahead_unix_ms, shards: Vec::new() }
    }

    pub(super) fn fill(
        &mut self,
        window: &Window,
        picture: &Picture,
        recorder: &Recorder,
        keys: &Keys<'_>,
    ) {
        let Some(history) = recorder.ladder().of(window.resolution) else { return };
        let kept = window.past.min(history.len());
        let first = history.end_step().saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX));
        self.past_step_ms = history.step_ms();
        self.past_unix_ms = first.saturating_mul(history.step_ms());
        let base = recorder.history();
        self.ahead_unix_ms = base.end_step().saturating_mul(self.step_ms);
        let (forecasts, made) = picture.forecasts_of(window.quantity);
        let over = usize::try_from(base.end_step().saturating_sub(made)).unwrap_or(usize::MAX);
        let row = |(shard, columns): (u32, &Columns)| {
            let id = ShardId(shard);
            let rates = recorder.now().shards.get(id.index()).copied().unwrap_or_default();
            let now = match window.quantity {
                Quantity::Reads => rates.reads,
                Quantity::Writes => rates.writes,
                Quantity::Rows => rates.rows,
                Quantity::Bytes => rates.bytes,
                Quantity::Busy => rates.busy,
            };
            let since = base.shards().get(id.index()).map(|columns| window.quantity.of(columns));
            let since = since.map(|column| &column[column.len().saturating_sub(over)..]);
            let said = forecasts.get(id.index()).map(Forecast::distribution);
            let said = said.map(|said| caught_up(said, since.unwrap_or_default(), now));
            let level = |quantiles: fn(&Distribution) -> Vec<f64>| {
                let all = said.as_ref().map(quantiles).unwrap_or_default();
                all.into_iter().take(window.ahead).collect()
            };
            let column = window.quantity.of(columns);
            let (node, bounds) = keys.of(id);
            HeatRow {
                shard: id,
                node,
                bounds,
                ranges: keys.ranges.get(&id).cloned().unwrap_or_default(),
                now,
                past: column[column.len() - kept..].to_vec(),
                p10: level(|distribution| distribution.p10().collect()),
                median: level(|distribution| distribution.median().collect()),
                p90: level(|distribution| distribution.p90().collect()),
            }
        };
        self.shards = (0..).zip(history.shards()).map(row).collect();
    }
}

impl Keys<'_> {
    /// The node and the bounds of a shard.
    fn of(&self, id: ShardId) -> (Option<NodeId>, Option<String>) {
        let Some(shard) = self.map.shard(id) else { return (None, None) };
        let columns = self.map.groups().get(shard.group.index()).map_or(1, |g| g.key.len());
        (Some(shard.node), Some(shard.bounds.for_values(columns)))
    }
}

impl Quantity {
    fn of(self, columns: &Columns) -> &Vec<f32> {
        match self {
            Self::Reads => &columns.reads,
            Self::Writes => &columns.writes,
            Self::Rows => &columns.rows,
            Self::Bytes => &columns.bytes,
            Self::Busy => &columns.busy,
        }
    }
}

/// A forecast without the steps that are over, moved by how far off it was at the last of them and
/// is now.
fn caught_up(said: &Distribution, since: &[f32], now: f64) -> Distribution {
    let over = since.len();
    let medians: Vec<f64> = said.median().take(over + 1).collect();
    let mut sums = (0.0, 0.0);
    let mut take = |came: f64, said: Option<&f64>, weight: f64| {
        if let Some(said) = said {
            sums = (sums.0 + weight * (came - said), sums.1 + weight);
        }
    };
    for (step, came) in since.iter().enumerate().skip(over.saturating_sub(RECENT_MAX)) {
        take(f64::from(*came), medians.get(step), 1.0);
    }
    take(now, medians.get(over), SAMPLE_WEIGHT);
    // The sample alone is too little to say where the load is.
    let (sum, weight) = sums;
    said.after(over, sum / f64::max(weight, 1.0))
}

#[cfg(test)]
mod tests;
