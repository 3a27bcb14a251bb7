//! What the controller knows of load and forecast, for whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::accuracy::Accuracy;
use super::heatmap::{Heatmap, Keys, Window};
use super::planning::Picture;
use super::probe::{NodeProbe, Probes};
use crate::backend::NodeAddress;
use crate::forecast::{Outcome, Score};
use crate::ids::ShardId;
use crate::load::{self, Held, Pair, Recorder, ShardDetail, Sketch};
use crate::placement::{Cut, Division, Halves, HotKey};
use crate::runtime::Tasks;
use crate::shard_map::{Bounds, Shard, ShardMap};

/// Shared by the controller and the admin room. Cheap to clone; empty until the controller runs.
#[derive(Debug, Clone, Default)]
pub struct Insight(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    recorder: Option<Arc<Mutex<Recorder>>>,
    picture: Arc<Picture>,
    accuracy: Accuracy,
    step_ms: u64,
    sketch: Sketch,
    probes: Probes,
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

    /// Takes in what sessions have sampled.
    pub(super) fn take(&self, held: &Held, now_unix_ms: u64) {
        self.0.lock().sketch.take(held, now_unix_ms, rand::random::<f64>);
    }

    /// Hands on what samples show when shards were split or merged; of each lane the share of the
    /// load that goes with it, where the keys are known.
    pub(super) fn inherit(&self, lanes: &[(ShardId, ShardId, &Bounds)]) -> Vec<Option<f64>> {
        self.0.lock().sketch.inherit(lanes)
    }

    /// Begins to ask the nodes how they are.
    pub(super) fn probe(
        &self,
        nodes: &[NodeAddress],
        database: &str,
        config: &load::Config,
        tasks: &Tasks,
    ) {
        self.0.lock().probes.start(nodes, database, config, tasks);
    }

    /// What the nodes say of themselves.
    pub fn nodes(&self) -> Vec<NodeProbe> {
        let probes = self.0.lock().probes.clone();
        probes.all()
    }

    /// What samples show of each shard.
    pub fn details(&self, map: &ShardMap, only: Option<ShardId>) -> Vec<ShardDetail> {
        let known = self.0.lock();
        let shards = map.shards().filter(|(id, _)| only.is_none_or(|only| only == *id));
        let detail = |(id, shard): (ShardId, &Shard)| {
            let mut detail = known.sketch.of(id)?;
            if let Bounds::Hash { modulus, remainder } = &shard.bounds {
                detail.first_half_share = known.sketch.first_half(id, *modulus, *remainder);
            }
            Some(detail)
        };
        shards.filter_map(detail).collect()
    }

    /// How shards divide, as far as their keys are known.
    pub(super) fn divisions(&self, map: &ShardMap) -> BTreeMap<ShardId, Division> {
        let known = self.0.lock();
        let of = |(id, shard): (ShardId, &Shard)| Some((id, division(&known.sketch, id, shard)?));
        map.shards().filter_map(of).collect()
    }

    /// Which shards share transactions.
    pub fn pairs(&self) -> Vec<Pair> {
        self.0.lock().sketch.pairs()
    }

    /// `past` steps that are over, in a resolution, and `ahead` to come, which are as long as those of
    /// the forecasts; as far as they are known.
    pub fn heatmap(&self, window: &Window, map: &ShardMap) -> Heatmap {
        let (recorder, picture, step_ms, ranges) = {
            let known = self.0.lock();
            let ranges = map.shards().map(|(id, _)| (id, known.sketch.ranges(id))).collect();
            (known.recorder.clone(), Arc::clone(&known.picture), known.step_ms, ranges)
        };
        let mut heatmap = Heatmap::empty(window.quantity, step_ms);
        if let Some(recorder) = recorder {
            heatmap.fill(window, &picture, &recorder.lock(), &Keys { map, ranges });
        }
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

/// How a shard divides by its sampled keys.
fn division(sketch: &Sketch, id: ShardId, shard: &Shard) -> Option<Division> {
    let hottest = sketch.hottest(id);
    match &shard.bounds {
        Bounds::Hash { modulus, remainder } => {
            let first_share = sketch.first_half(id, *modulus, *remainder)?;
            let halves = Halves { cut: Cut::Into(2), first_share, sampled: true };
            let hot = hottest.map(|(share, hash, _)| HotKey {
                share,
                cut: Cut::Into(4),
                part: quarter(hash, *modulus),
                part_share: share + (1.0 - share) / 4.0,
            });
            Some(Division { halves: Some(halves), hot })
        }
        Bounds::Range { .. } => {
            let cut = Cut::At(sketch.middle(id)?);
            let halves = Halves { cut, first_share: 0.5, sampled: true };
            Some(Division { halves: Some(halves), hot: None })
        }
        Bounds::List(_) | Bounds::Others(_) => {
            let (share, _, value) = hottest?;
            let hot = HotKey { share, cut: Cut::Value(value), part: 1, part_share: share };
            Some(Division { halves: None, hot: Some(hot) })
        }
        Bounds::Nothing => None,
    }
}

/// Which of four parts of a shard with this modulus would hold a key with this hash.
fn quarter(hash: u64, modulus: u32) -> u32 {
    u32::try_from(hash / u64::from(modulus.max(1)) % 4).unwrap_or_default()
}
