//! What the models would have said at recent origins, and how much of each that earns.

use std::ops::Range;

use super::super::distribution::LEVELS;
use super::super::real;
use super::{Model, Task};

/// Origins at which they are tried.
const ORIGINS: usize = 10;
/// How far back these go: so many seasons, but at least so many horizons.
const BACK_DAYS: usize = 4;
const BACK_HORIZONS: usize = 6;
/// What the errors of a slow model are multiplied by: it has to be clearly better.
const SLOW_HANDICAP: f64 = 1.25;
/// Each older origin counts this much less.
const RECENCY: f64 = 0.93;
/// Fewer origins than this admit nobody.
const ORIGINS_MIN: usize = 3;
/// Whose error is above this multiple of the best one's gets nothing.
const ERROR_MAX: f64 = 1.6;
/// A share falls with this power of the error.
const POWER: i32 = 4;
/// If the ensemble itself would get nothing it keeps this much of what its error would give it.
const FLOOR_SHARE: f64 = 0.5;
/// How much of the gain in error is believed to narrow the spread.
const NARROWING: f64 = 0.7;
/// An 80 % interval that held this share is left as it is.
const HELD_ENOUGH: std::ops::RangeInclusive<f64> = 0.65..=0.92;
/// How much narrower and wider the intervals are made, and how many origins make that half believed.
const REPAIR: (f64, f64) = (0.6, 2.5);
const REPAIR_DOUBT: f64 = 10.0;
/// Of the levels of a distribution.
const P10: usize = 1;
const P90: usize = 9;
/// Steps of the first block of steps that share their weights; the later ones are longer.
const BLOCK: usize = 12;
const BLOCK_MAX: usize = 48;

/// Distances of the origins from the end of a history of `length` steps, the farthest first.
pub(in super::super) fn origins(task: &Task<'_>, oldest: usize) -> Vec<usize> {
    let newest = task.history.len().saturating_sub(task.horizon);
    let back = (BACK_DAYS * task.day).max(BACK_HORIZONS * task.horizon);
    let span = newest.saturating_sub(oldest).min(back);
    let far = |i: usize| task.horizon + span * (ORIGINS - 1 - i) / (ORIGINS - 1);
    let mut origins: Vec<usize> = (0..ORIGINS).map(far).collect();
    origins.dedup();
    origins
}

/// One model's forecasts.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Trial {
    pub(in super::super) model: Model,
    /// From each origin.
    past: Vec<Vec<f64>>,
    /// From the end of the history.
    point: Vec<f64>,
}

impl Trial {
    /// Asks `predict` at each origin and at the end; `None` if it has no answer somewhere.
    pub(in super::super) fn run(
        model: Model,
        task: Task<'_>,
        origins: &[usize],
        predict: &dyn Fn(Task<'_>) -> Option<Vec<f64>>,
    ) -> Option<Self> {
        let sound = |forecast: Vec<f64>| {
            let sound = forecast.len() == task.horizon && forecast.iter().all(|v| v.is_finite());
            sound.then(|| forecast.iter().map(|value| value.max(0.0)).collect::<Vec<f64>>())
        };
        let point = sound(predict(task)?)?;
        let past = origins.iter().map(|back| {
            let end = task.history.len().checked_sub(*back)?;
            sound(predict(task.until(end))?)
        });
        Some(Self { model, past: past.collect::<Option<_>>()?, point })
    }

    /// What it says of the time after the end of the history.
    pub(in super::super) fn into_point(self) -> Vec<f64> {
        self.point
    }

    /// The same for a history that went on for `age` steps, with `horizon` steps ahead.
    pub(in super::super) fn aged(&self, age: usize, horizon: usize) -> Option<Self> {
        let cut = |forecast: &Vec<f64>| Some(forecast.get(age..age + horizon)?.to_vec());
        let past = self.past.iter().map(cut).collect::<Option<_>>()?;
        Some(Self { model: self.model, past, point: cut(&self.point)? })
    }
}

/// Quantiles of past errors, at one step.
pub(in super::super) type Residuals = [f64; LEVELS.len()];

/// The ensemble and the models that earned a part.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Blend {
    /// The point forecast.
    pub(in super::super) point: Vec<f64>,
    /// How wide the spread is at each step, relative to the ensemble's.
    pub(in super::super) width: Vec<f64>,
    /// By how much the intervals are to be wider, at each step, than the errors at the recent origins
    /// say: 1 where they held about as often as they should.
    pub(in super::super) repair: Vec<f64>,
    /// What the ensemble has of the whole, and each model.
    pub(in super::super) ensemble_share: f64,
    pub(in super::super) shares: Vec<(Model, f64)>,
}

/// The ensemble's own forecasts beside which the models are tried.
pub(in super::super) struct Baseline<'a> {
    /// From the end of the history.
    pub(in super::super) point: &'a [f64],
    /// From each origin; `None` where it has none.
    pub(in super::super) past: Vec<Option<&'a [f64]>>,
    /// What came after each origin.
    pub(in super::super) actual: Vec<&'a [f64]>,
}

impl Blend {
    /// Weighs the ensemble and the models for each block of steps; `None` if there are too few
    /// origins or no models.
    pub(in super::super) fn of(
        baseline: &Baseline<'_>,
        trials: &[Trial],
        spread: &[Residuals],
    ) -> Option<Self> {
        let usable: Vec<usize> =
            (0..baseline.actual.len()).filter(|i| baseline.past[*i].is_some()).collect();
        if usable.len() < ORIGINS_MIN || trials.is_empty() {
            return None;
        }
        let horizon = baseline.point.len();
        let mut blend = Self {
            point: Vec::with_capacity(horizon),
            width: Vec::with_capacity(horizon),
            repair: Vec::with_capacity(horizon),
            ensemble_share: 0.0,
            shares: trials.iter().map(|trial| (trial.model, 0.0)).collect(),
        };
        for block in blocks(horizon) {
            let contest = Contest { baseline, trials, usable: &usable, block: block.clone() };
            let (weights, width) = contest.weigh();
            let repair = contest.repair(&weights, width, spread);
            let part = real(block.len()) / real(horizon);
            blend.ensemble_share += weights[0] * part;
            for ((_, share), weight) in blend.shares.iter_mut().zip(&weights[1..]) {
                *share += weight * part;
            }
            for step in block {
                let models = trials.iter().zip(&weights[1..]);
                let models: f64 = models.map(|(trial, weight)| weight * trial.point[step]).sum();
                blend.point.push(weights[0] * baseline.point[step] + models);
                blend.width.push(width);
                blend.repair.push(repair);
            }
        }
        Some(blend)
    }
}

fn blocks(horizon: usize) -> Vec<Range<usize>> {
    let (mut blocks, mut start, mut length) = (Vec::new(), 0, BLOCK);
    while start < horizon {
        let end = (start + length).min(horizon);
        blocks.push(start..end);
        (start, length) = (end, (2 * length).min(BLOCK_MAX));
    }
    blocks
}

/// One block of steps.
struct Contest<'a> {
    baseline: &'a Baseline<'a>,
    trials: &'a [Trial],
    usable: &'a [usize],
    block: Range<usize>,
}

impl Contest<'_> {
    /// What the ensemble (0) or a model (from 1 on) said at an origin.
    fn said(&self, who: usize, origin: usize) -> &[f64] {
        match who.checked_sub(1) {
            None => self.baseline.past[origin].unwrap_or_default(),
            Some(model) => &self.trials[model].past[origin],
        }
    }

    /// The mean absolute error of what `said` gives for an origin and step.
    fn error(&self, said: impl Fn(usize, usize) -> f64) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        let mut recency = 1.0;
        for origin in self.usable.iter().rev() {
            let actual = self.baseline.actual[*origin];
            let errors = self.block.clone().map(|step| (actual[step] - said(*origin, step)).abs());
            sum += recency * errors.sum::<f64>();
            total += recency * real(self.block.len());
            recency *= RECENCY;
        }
        sum / f64::max(total, 1e-12)
    }

    /// The weights of the ensemble and of each model, and how wide that makes the spread.
    fn weigh(&self) -> (Vec<f64>, f64) {
        let count = self.trials.len() + 1;
        let error = |who: usize| {
            let slow = who > 0 && self.trials[who - 1].model.is_slow();
            let handicap = if slow { SLOW_HANDICAP } else { 1.0 };
            handicap * self.error(|origin, step| self.said(who, origin)[step]) + 1e-12
        };
        let errors: Vec<f64> = (0..count).map(error).collect();
        let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
        let share = |error: &f64| (best / error).powi(POWER);
        let mut weights: Vec<f64> = errors
            .iter()
            .map(|error| if *error <= ERROR_MAX * best { share(error) } else { 0.0 })
            .collect();
        if weights[0] == 0.0 {
            weights[0] = FLOOR_SHARE * share(&errors[0]);
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        let together = self.error(|origin, step| {
            let parts = weights.iter().enumerate();
            parts.map(|(who, weight)| weight * self.said(who, origin)[step]).sum()
        });
        let ratio = ((together + 1e-12) / errors[0]).clamp(0.5, 1.1);
        (weights, 1.0 + (ratio - 1.0) * NARROWING)
    }

    /// Split-conformal repair of the intervals (Romano et al., "Conformalized quantile regression",
    /// 2019, in its multiplicative form): where the 80 % interval round the blend would have held
    /// far too few or too many of the outcomes at recent origins, the factor that it lacked, shrunk
    /// to 1 as these are few.
    fn repair(&self, weights: &[f64], width: f64, spread: &[Residuals]) -> f64 {
        let mut missed: Vec<f64> = Vec::new();
        for origin in self.usable {
            let actual = self.baseline.actual[*origin];
            for step in self.block.clone() {
                let parts = weights.iter().enumerate();
                let said: f64 =
                    parts.map(|(who, weight)| weight * self.said(who, *origin)[step]).sum();
                let error = actual[step] - said;
                let (low, high) = (spread[step][P10], spread[step][P90]);
                let limit = if error > 0.0 { high } else { -low };
                missed.push(error.abs() / (width * limit).max(1e-12));
            }
        }
        let place = missed.len() * 4 / 5;
        if place == 0 {
            return 1.0;
        }
        let held = missed.iter().filter(|missed| **missed <= 1.0).count();
        let held = real(held) / real(missed.len());
        if HELD_ENOUGH.contains(&held) {
            return 1.0;
        }
        let (_, lacked, _) = missed.select_nth_unstable_by(place, f64::total_cmp);
        let origins = real(self.usable.len());
        lacked.clamp(REPAIR.0, REPAIR.1).powf(origins / (origins + REPAIR_DOUBT))
    }
}
