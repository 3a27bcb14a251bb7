//! The backtest of the components, their weights, and the spread of their combination.

use std::ops::Range;

use super::clean::without_bursts;
use super::components::{Past, Shape};
use super::distribution::{LEVELS, smoothed, weighted_quantiles};
use super::noise::{Law, Noise, Seen};
use super::stack::{Stack, Trials};
use super::{Backtest, real};

/// Origins spread over the past.
const ORIGINS_SPREAD: usize = 200;
/// Recent steps in which every second is an origin too.
const RECENT_STEPS: usize = 40;
/// Steps on each side over which errors are averaged before they are compared.
const ERROR_REACH: usize = 4;
/// Steps on each side over which residual quantiles are averaged.
const QUANTILE_REACH: usize = 2;
/// From this step on, residual quantiles are those of every so many steps.
const QUANTILE_SPARSE: (usize, usize) = (12, 4);
/// Near steps whose errors follow one law; the later ones are more.
const LAW_STEPS: usize = 6;
/// A component's share falls with this power of its error.
const POWER: i32 = 6;
/// A component with less than this share of the best one's weight is left out.
const SHARE_MIN: f64 = 0.05;
/// Weights are fitted to the errors that the spread is taken from: widen it a little.
const WIDENING: f64 = 1.05;
/// The index of the component that is persistence, and of the seasonal naive one.
const LAST: usize = 0;
const YESTERDAY: usize = 3;
/// Fewer origins than this are not enough for weights of their own.
const FIT_ORIGINS_MIN: usize = 8;

/// The components of one history, with their forecasts from many origins.
pub(super) struct Ensemble<'a> {
    history: &'a [f64],
    shape: Shape,
    origins: Vec<usize>,
    /// How much each origin counts: recent ones more.
    recency: Vec<f64>,
    /// Forecasts by origin, component, step; the last origin is the end of the history.
    forecasts: Vec<f64>,
    /// Weights by step, component.
    weights: Vec<f64>,
    /// What the combination said at each origin, of coefficients that did not see it; the last
    /// origin is the end of the history.
    combined: Vec<Vec<f64>>,
}

impl<'a> Ensemble<'a> {
    /// Backtests the components and weighs them. `further` origins are looked at too.
    pub(super) fn fit(history: &'a [f64], shape: Shape, further: &[usize]) -> Self {
        let origins = origins(history.len(), &shape, further);
        let half_life = real((3 * shape.day).max(300));
        let recency = origins
            .iter()
            .map(|origin| 0.5f64.powf(real(history.len() - origin) / half_life))
            .collect();
        let clean = without_bursts(history);
        let mut sums = Vec::with_capacity(history.len() + 1);
        sums.push(0.0);
        let mut sum = 0.0;
        for value in &clean {
            sum += value;
            sums.push(sum);
        }
        let past = Past { values: &clean, sums: &sums };
        let size = (origins.len() + 1) * shape.count() * shape.horizon;
        let mut forecasts = Vec::with_capacity(size);
        for origin in origins.iter().copied().chain([history.len()]) {
            shape.forecast(past, origin, &mut forecasts);
        }
        let (weights, combined) = (Vec::new(), Vec::new());
        let mut ensemble = Self { history, shape, origins, recency, forecasts, weights, combined };
        ensemble.weights = ensemble.weigh(0..ensemble.origins.len());
        ensemble.combined = ensemble.stacked();
        ensemble
    }

    /// One component's forecast from the origin with this index.
    fn component(&self, origin: usize, component: usize) -> &[f64] {
        let horizon = self.shape.horizon;
        let start = (origin * self.shape.count() + component) * horizon;
        &self.forecasts[start..start + horizon]
    }

    /// What came after the origin with this index.
    fn actual(&self, origin: usize) -> &[f64] {
        let start = self.origins[origin];
        &self.history[start..start + self.shape.horizon]
    }

    /// Weights by step and component, from the errors at these origins.
    fn weigh(&self, origins: Range<usize>) -> Vec<f64> {
        let (count, horizon) = (self.shape.count(), self.shape.horizon);
        let mut errors = vec![vec![0.0; horizon]; count];
        let mut total = 0.0;
        for origin in origins {
            let recency = self.recency[origin];
            total += recency;
            for (component, errors) in errors.iter_mut().enumerate() {
                let steps = self.component(origin, component).iter().zip(self.actual(origin));
                for (error, (forecast, actual)) in errors.iter_mut().zip(steps) {
                    *error += recency * (actual - forecast).abs();
                }
            }
        }
        let mut weights = Vec::with_capacity(horizon * count);
        for step in 0..horizon {
            let mean = |errors: &Vec<f64>| smoothed(errors, step, ERROR_REACH) / total + 1e-12;
            let errors: Vec<f64> = errors.iter().map(mean).collect();
            let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
            let share = |error: &f64| Some((best / error).powi(POWER)).filter(|s| *s >= SHARE_MIN);
            let shares: Vec<f64> = errors.iter().map(|e| share(e).unwrap_or(0.0)).collect();
            let sum: f64 = shares.iter().sum();
            weights.extend(shares.iter().map(|share| share / sum));
        }
        weights
    }

    /// The weighted mean from the origin with this index.
    fn mean(&self, origin: usize, weights: &[f64]) -> Vec<f64> {
        let count = self.shape.count();
        let mut mean = vec![0.0; self.shape.horizon];
        for component in 0..count {
            let forecast = self.component(origin, component);
            let weights = weights.iter().skip(component).step_by(count);
            for ((sum, value), weight) in mean.iter_mut().zip(forecast).zip(weights) {
                *sum += weight * value;
            }
        }
        mean
    }

    /// The weighted means from all origins, corrected by regression.
    fn stacked(&self) -> Vec<Vec<f64>> {
        let origins = self.origins.len();
        let means: Vec<Vec<f64>> = (0..=origins).map(|o| self.mean(o, &self.weights)).collect();
        let trials = Trials {
            horizon: self.shape.horizon,
            count: self.shape.count(),
            forecasts: &self.forecasts,
            actuals: (0..origins).map(|origin| self.actual(origin)).collect(),
            recency: &self.recency,
            means: &means,
        };
        let stack = Stack::fit(&trials);
        (0..=origins).map(|origin| stack.apply(&trials, origin)).collect()
    }

    /// The combination at the end of the history.
    pub(super) fn point(&self) -> &[f64] {
        &self.combined[self.origins.len()]
    }

    /// The combination at a past origin, if that was looked at.
    pub(super) fn at(&self, origin: usize) -> Option<&[f64]> {
        let index = self.origins.binary_search(&origin).ok()?;
        Some(&self.combined[index])
    }

    /// Quantiles of the past errors of the combination, at each step: as they would be where so much
    /// is forecast of a load so restless.
    pub(super) fn spread(&self) -> Vec<[f64; LEVELS.len()]> {
        let horizon = self.shape.horizon;
        let noise = Noise::of_history(self.history, self.shape.day);
        let mut by_level = vec![vec![0.0; horizon]; LEVELS.len()];
        let mut residuals: Vec<(f64, f64)> = Vec::with_capacity(self.origins.len());
        let (dense, every) = QUANTILE_SPARSE;
        let (mut law, mut law_end) = (Law::fit(&[]), 0);
        for step in 0..horizon {
            if step == law_end {
                law_end =
                    horizon.min(step + if step < dense { LAW_STEPS } else { dense.max(step / 2) });
                law = self.law(&noise, step..law_end);
            }
            if step >= dense && !step.is_multiple_of(every) {
                by_level.iter_mut().for_each(|level| level[step] = level[step - 1]);
                continue;
            }
            let now = noise.signs(self.history.len(), step, self.point()[step]);
            residuals.clear();
            residuals.extend((0..self.origins.len()).map(|origin| {
                let (then, missed, recency) = self.seen(&noise, origin, step);
                (missed * law.ratio(&now, &then), recency)
            }));
            residuals.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
            for (level, value) in by_level.iter_mut().zip(weighted_quantiles(&residuals)) {
                level[step] = value;
            }
        }
        let of = |level: usize, step| WIDENING * smoothed(&by_level[level], step, QUANTILE_REACH);
        (0..horizon).map(|step| std::array::from_fn(|level| of(level, step))).collect()
    }

    /// How the past errors at these steps depend on what was known, by three of the steps.
    fn law(&self, noise: &Noise, steps: Range<usize>) -> Law {
        let third = steps.len() / 3;
        let mut looked_at = vec![steps.start, steps.start + third, steps.start + 2 * third];
        looked_at.dedup();
        let all = looked_at.into_iter().flat_map(|step| {
            (0..self.origins.len()).map(move |origin| self.seen(noise, origin, step))
        });
        Law::fit(&all.collect::<Vec<Seen>>())
    }

    /// By how much the combination missed a step from the origin with this index, and what was known
    /// there.
    fn seen(&self, noise: &Noise, origin: usize, step: usize) -> Seen {
        let said = self.combined[origin][step];
        let signs = noise.signs(self.origins[origin], step, said);
        (signs, self.actual(origin)[step] - said, self.recency[origin])
    }

    /// The highest value that is believed: twice the range of the history above its maximum.
    pub(super) fn ceiling(&self) -> f64 {
        let highest = self.history.iter().copied().fold(0.0, f64::max);
        let lowest = self.history.iter().copied().fold(f64::INFINITY, f64::min);
        highest + 2.0 * (highest - lowest)
    }

    /// The error at the newest third of the origins, of weights from older ones. Where the history
    /// is long enough, the weights saw nothing of what they are judged by.
    pub(super) fn backtest(&self) -> Backtest {
        let newest = self.history.len() - self.shape.horizon;
        let split = newest - (newest - self.shape.oldest) / 3;
        let judged = self.origins.partition_point(|origin| *origin < split);
        let unseen = self.origins.partition_point(|o| o + self.shape.horizon <= split);
        let fitted = match (unseen >= FIT_ORIGINS_MIN, judged >= FIT_ORIGINS_MIN) {
            (true, _) => self.weigh(0..unseen),
            (false, true) => self.weigh(0..judged),
            (false, false) => self.weights.clone(),
        };
        let (mut ours, mut last, mut yesterday, mut total) = (0.0, 0.0, 0.0, 0.0);
        for origin in judged..self.origins.len() {
            let recency = self.recency[origin];
            let actual = self.actual(origin);
            ours += recency * absolute_error(&self.mean(origin, &fitted), actual);
            last += recency * absolute_error(self.component(origin, LAST), actual);
            yesterday += recency * absolute_error(self.component(origin, YESTERDAY), actual);
            total += recency;
        }
        Backtest {
            mean_absolute_error: ours / total.max(1e-12),
            relative_to_persistence: relative(ours, last),
            relative_to_seasonal_naive: relative(ours, yesterday),
        }
    }

    /// Each component's weight, averaged over the steps.
    pub(super) fn mean_weights(&self) -> Vec<(&'static str, f64)> {
        let count = self.shape.count();
        let mean = |component: usize| {
            self.weights.iter().skip(component).step_by(count).sum::<f64>()
                / real(self.shape.horizon)
        };
        self.shape.names().into_iter().enumerate().map(|(i, name)| (name, mean(i))).collect()
    }
}

/// The origins of the backtest: spread over the past, dense at its end.
fn origins(length: usize, shape: &Shape, further: &[usize]) -> Vec<usize> {
    let newest = length - shape.horizon;
    let mut first = shape.oldest;
    if shape.day > 100 {
        first = first.max(newest.saturating_sub(5 * shape.day));
    }
    let span = newest - first;
    let mut origins: Vec<usize> =
        (0..ORIGINS_SPREAD).map(|i| first + span * i / (ORIGINS_SPREAD - 1)).collect();
    origins.extend((shape.oldest.max(newest.saturating_sub(RECENT_STEPS))..=newest).step_by(2));
    origins.extend(further.iter().filter(|origin| (shape.oldest..=newest).contains(*origin)));
    origins.sort_unstable();
    origins.dedup();
    origins
}

/// The mean absolute error of one forecast.
fn absolute_error(forecast: &[f64], actual: &[f64]) -> f64 {
    let sum: f64 = forecast.iter().zip(actual).map(|(f, a)| (f - a).abs()).sum();
    sum / real(actual.len().max(1))
}

/// One error in units of another; 1 where both are (almost) nothing.
fn relative(error: f64, baseline: f64) -> f64 {
    (error + 1e-12) / (baseline + 1e-12)
}
