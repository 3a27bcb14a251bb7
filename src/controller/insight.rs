//! What the controller knows of load and forecast, for whoever asks: the heatmap, past and to come,
//! and how good the forecasts were.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::accuracy::Accuracy;
use super::planning::Picture;
use crate::forecast::{Distribution, Forecast, Outcome, Score};
use crate::ids::ShardId;
use crate::load::{Columns, Recorder, Resolution};

/// What of the load is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// Statements a second that only read.
    Reads,
    /// Statements a second that may write.
    Writes,
    /// Busy seconds a second.
    #[default]
    Busy,
}

/// Shared by the controller and the admin room. Cheap to clone; empty until the controller runs.
#[derive(Debug, Clone, Default)]
pub struct Insight(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    recorder: Option<Arc<Mutex<Recorder>>>,
    picture: Arc<Picture>,
    accuracy: Accuracy,
    step_ms: u64,
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
    /// When the first values to come begin.
    pub ahead_unix_ms: u64,
    /// By shard id.
    pub shards: Vec<HeatRow>,
}

/// One shard of a heatmap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeatRow {
    /// The shard.
    pub shard: ShardId,
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

/// How good the forecasts of one shard are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardAccuracy {
    /// The shard.
    pub shard: ShardId,
    /// Whether the forecast is planned with; else it is persistence.
    pub trusted: bool,
    /// Why not.
    pub fallback: Option<String>,
    /// Whether the load is on a level that it never had.
    pub shifted: bool,
    /// The weight of each component and model.
    pub weights: Vec<(&'static str, f64)>,
    /// By steps ahead.
    pub scores: Vec<Score>,
    /// How many steps ahead the outcomes were said.
    pub outcomes_steps_ahead: usize,
    /// What was said and what came, oldest first; only of a single shard.
    pub outcomes: Vec<Outcome>,
}

impl Insight {
    pub(super) fn begin(&self, recorder: Arc<Mutex<Recorder>>, step_ms: u64) {
        let mut known = self.0.lock();
        known.recorder = Some(recorder);
        known.step_ms = step_ms;
    }

    pub(super) fn renew(&self, picture: Arc<Picture>, accuracy: Accuracy) {
        let mut known = self.0.lock();
        known.picture = picture;
        known.accuracy = accuracy;
    }

    /// `past` steps that are over, in a resolution, and `ahead` to come, which are as long as those of
    /// the forecasts; as far as they are known.
    pub fn heatmap(&self, window: &Window) -> Heatmap {
        let (recorder, picture, step_ms) = {
            let known = self.0.lock();
            (known.recorder.clone(), Arc::clone(&known.picture), known.step_ms)
        };
        let quantity = window.quantity;
        let ahead_unix_ms = picture.end_step.saturating_mul(step_ms);
        let mut heatmap = Heatmap {
            quantity,
            step_ms,
            past_step_ms: step_ms,
            past_unix_ms: ahead_unix_ms,
            ahead_unix_ms,
            shards: Vec::new(),
        };
        let Some(recorder) = recorder else { return heatmap };
        let recorder = recorder.lock();
        let Some(history) = recorder.ladder().of(window.resolution) else { return heatmap };
        let kept = window.past.min(history.len());
        let first = history.end_step().saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX));
        heatmap.past_step_ms = history.step_ms();
        heatmap.past_unix_ms = first.saturating_mul(history.step_ms());
        let row = |(shard, columns): (u32, &Columns)| {
            let index = ShardId(shard).index();
            let rates = recorder.now().shards.get(index).copied().unwrap_or_default();
            let (column, now) = match quantity {
                Quantity::Reads => (&columns.reads, rates.reads),
                Quantity::Writes => (&columns.writes, rates.writes),
                Quantity::Busy => (&columns.busy, rates.busy),
            };
            let forecast = picture.forecasts_of(quantity).get(index).map(Forecast::distribution);
            let level = |quantiles: fn(&Distribution) -> Vec<f64>| {
                let all = forecast.map(quantiles).unwrap_or_default();
                all.into_iter().take(window.ahead).collect()
            };
            HeatRow {
                shard: ShardId(shard),
                now,
                past: column[column.len() - kept..].to_vec(),
                p10: level(|distribution| distribution.p10().collect()),
                median: level(|distribution| distribution.median().collect()),
                p90: level(|distribution| distribution.p90().collect()),
            }
        };
        heatmap.shards = (0..).zip(history.shards()).map(row).collect();
        heatmap
    }

    /// How good the forecasts of each shard are; with outcomes, if it is only of one.
    pub fn accuracy(&self, only: Option<ShardId>) -> Vec<ShardAccuracy> {
        let known = self.0.lock();
        let cards = (0u32..).map(ShardId).zip(known.accuracy.cards());
        let wanted = cards.filter(|(shard, _)| only.is_none_or(|only| only == *shard));
        let of = wanted.filter_map(|(shard, card)| {
            let forecast = known.picture.shards.get(shard.index())?;
            let (outcomes_steps_ahead, mut outcomes) = card.outcomes();
            if only.is_none() {
                outcomes.clear();
            }
            Some(ShardAccuracy {
                shard,
                trusted: forecast.trusted,
                fallback: forecast.fallback.clone(),
                shifted: forecast.shifted,
                weights: forecast.weights.clone(),
                scores: card.scores(),
                outcomes_steps_ahead,
                outcomes,
            })
        });
        of.collect()
    }
}
