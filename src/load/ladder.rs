//! The same past in several resolutions: each step of a rung is the mean of the finer steps in it,
//! so that a restart in the middle of an hour loses nothing of the hour.

use serde::{Deserialize, Serialize};

use super::history::{Chunk, History};
use super::recorder::{Rates, ShardRates};
use crate::ids::ShardId;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Which rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Of the samples: 5 s, as long as nothing else is configured.
    Sample,
    /// Of the forecasts: a minute, as long as nothing else is configured.
    #[default]
    Step,
    /// Ten minutes.
    TenMinutes,
    /// An hour.
    Hour,
}

/// How long the steps are and how long they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LadderPlan {
    /// The length of a step of the forecasts.
    pub step_ms: u64,
    /// How many of them are kept.
    pub steps: usize,
    /// The season, from which gaps are filled.
    pub day_ms: u64,
    /// Time between two samples.
    pub sample_ms: u64,
    /// How long samples are kept.
    pub samples_kept_ms: u64,
    /// How long steps of ten minutes are kept.
    pub ten_minutes_kept_ms: u64,
    /// How long hours are kept.
    pub hours_kept_ms: u64,
}

/// Histories of the same loads, the finest first. Bounded: each keeps so many steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    rungs: Vec<Rung>,
    /// The index of the rung that forecasts are made of.
    base: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Rung {
    resolution: Resolution,
    history: History,
    /// The step under way: its number, the sum of the finer steps in it, and how many they are.
    open: Option<(u64, Rates, u32)>,
}

impl Ladder {
    /// No past yet. A rung whose steps are not a multiple of the next finer ones' is left out.
    pub fn new(plan: &LadderPlan) -> Self {
        let step_ms = plan.step_ms.max(1);
        let steps = |kept_ms: u64, step_ms: u64| usize::try_from(kept_ms / step_ms).unwrap_or(1);
        let rung = |resolution, step_ms: u64, kept: usize| Rung {
            resolution,
            history: History::new(step_ms, steps(plan.day_ms, step_ms), kept),
            open: None,
        };
        let mut rungs = Vec::new();
        if plan.sample_ms > 0 && plan.sample_ms < step_ms && step_ms.is_multiple_of(plan.sample_ms)
        {
            let kept = steps(plan.samples_kept_ms, plan.sample_ms);
            rungs.push(rung(Resolution::Sample, plan.sample_ms, kept));
        }
        let base = rungs.len();
        rungs.push(rung(Resolution::Step, step_ms, plan.steps));
        let mut finer = step_ms;
        for (resolution, step_ms, kept_ms) in [
            (Resolution::TenMinutes, 10 * MINUTE_MS, plan.ten_minutes_kept_ms),
            (Resolution::Hour, HOUR_MS, plan.hours_kept_ms),
        ] {
            if step_ms > finer && step_ms.is_multiple_of(finer) {
                rungs.push(rung(resolution, step_ms, steps(kept_ms, step_ms)));
                finer = step_ms;
            }
        }
        Self { rungs, base }
    }

    /// What forecasts are made of.
    pub fn base(&self) -> &History {
        &self.rungs[self.base].history
    }

    /// The length of the finest steps.
    pub fn finest_ms(&self) -> u64 {
        self.rungs[0].history.step_ms()
    }

    /// The past in this resolution; `None` if it is not kept.
    pub fn of(&self, resolution: Resolution) -> Option<&History> {
        let found = self.rungs.iter().find(|rung| rung.resolution == resolution);
        found.map(|rung| &rung.history)
    }

    /// All of them, the finest first.
    pub fn histories(&self) -> impl Iterator<Item = &History> {
        self.rungs.iter().map(|rung| &rung.history)
    }

    /// Appends the rates of one of the finest steps.
    pub fn push(&mut self, step: u64, rates: &Rates) {
        self.push_at(0, step, rates);
    }

    /// Appends the rates of a step of the forecasts that somebody else has counted; steps come in
    /// their order, and nothing finer is known of them.
    pub fn import(&mut self, step: u64, rates: &Rates) {
        self.push_at(self.base, step, rates);
    }

    /// Appends the rates of a step to a rung, and to the coarser ones what ends with it.
    fn push_at(&mut self, rung: usize, step: u64, rates: &Rates) {
        self.rungs[rung].history.push(step, rates);
        let mut ended = Some((step, rates.clone()));
        for index in rung + 1..self.rungs.len() {
            let Some((step, rates)) = ended else { return };
            let finer_ms = self.rungs[index - 1].history.step_ms();
            ended = self.rungs[index].take(step, &rates, finer_ms);
        }
    }

    /// Appends stored chunks of every resolution, those of each in the order of their numbers; the
    /// chunks that fit nowhere.
    pub fn restore(&mut self, chunks: Vec<Chunk>) -> Vec<Chunk> {
        let mut useless = Vec::new();
        for chunk in chunks {
            let taken = self.rungs.iter_mut().any(|rung| rung.history.restore(&chunk));
            if !taken {
                useless.push(chunk);
            }
        }
        for index in 1..self.rungs.len() {
            let (finer, rungs) = self.rungs.split_at_mut(index);
            let (Some(finer), Some(rung)) = (finer.last(), rungs.first_mut()) else { continue };
            rung.catch_up(&finer.history);
        }
        useless
    }

    /// Gives a shard the past of others, by their shares, of the time before `unix_ms`.
    pub fn inherit(&mut self, heir: ShardId, from: &[(ShardId, f64)], unix_ms: u64) {
        for rung in &mut self.rungs {
            rung.history.inherit(heir, from, unix_ms / rung.history.step_ms());
            let Some((_, sums, _)) = &mut rung.open else { continue };
            let past = from.iter().filter_map(|(shard, share)| {
                sums.shards.get(shard.index()).map(|rates| rates.times(*share))
            });
            let past = past.fold(ShardRates::default(), ShardRates::plus);
            if let Some(own) = sums.shards.get_mut(heir.index()) {
                *own = own.plus(past);
            }
        }
    }
}

impl Rung {
    /// Takes a finer step; the step that is over with it.
    fn take(&mut self, finer_step: u64, rates: &Rates, finer_ms: u64) -> Option<(u64, Rates)> {
        let ratio = (self.history.step_ms() / finer_ms.max(1)).max(1);
        let step = finer_step / ratio;
        if self.open.as_ref().is_some_and(|(open, ..)| *open != step) {
            // Its last part is missing: the proxy did not run.
            self.close();
        }
        let (_, sums, count) = self.open.get_or_insert_with(|| (step, Rates::default(), 0));
        sums.add(rates);
        *count += 1;
        (finer_step % ratio == ratio - 1).then(|| self.close()).flatten()
    }

    /// Appends the step under way; it and its rates.
    fn close(&mut self) -> Option<(u64, Rates)> {
        let (step, mut sums, count) = self.open.take()?;
        sums.scale(1.0 / f64::from(count.max(1)));
        self.history.push(step, &sums);
        Some((step, sums))
    }

    /// Takes all finer steps that are newer than what it has.
    fn catch_up(&mut self, finer: &History) {
        let ratio = (self.history.step_ms() / finer.step_ms().max(1)).max(1);
        let known = if self.history.is_empty() { 0 } else { self.history.end_step() * ratio };
        for step in known.max(finer.first_step())..finer.end_step() {
            if let Some(rates) = finer.rates(step) {
                self.take(step, &rates, finer.step_ms());
            }
        }
    }
}

#[cfg(test)]
mod tests;
