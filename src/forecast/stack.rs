//! A regression of what the weighted mean missed on how the components differed from it.
//!
//! Fitted for each block of steps, with a ridge that is chosen by the errors on left-out parts of
//! the past; where that gains nothing the weighted mean stays as it is. Absolute errors are what is
//! minimised: each row counts by the inverse of its error.

use std::ops::Range;

use super::solve::Normal;

/// Parts of the past that are left out in turn.
pub(super) const FOLDS: usize = 4;
/// Ridges that are tried, in units of the mean square of the differences.
const RIDGES: [f64; 5] = [0.02, 0.1, 0.5, 2.0, 10.0];
/// Steps of the first block; the blocks after the second double.
const FIRST_BLOCK: usize = 6;
/// Steps of a block that are looked at.
const STEPS_SEEN: usize = 3;
/// What is added of what the regression says.
const TRUST: f64 = 0.9;
/// Errors below this share of the mean one count no more than it.
const ERROR_FLOOR: f64 = 0.5;
/// The error must shrink to this share.
const GAIN_MIN: f64 = 0.99;

/// What the components said at past origins, and what came.
pub(super) struct Trials<'a> {
    /// Steps ahead.
    pub(super) horizon: usize,
    /// How many components there are.
    pub(super) count: usize,
    /// By origin, component, step; one more origin than `actuals` has.
    pub(super) forecasts: &'a [f64],
    /// By origin.
    pub(super) actuals: Vec<&'a [f64]>,
    /// How much each origin counts.
    pub(super) recency: &'a [f64],
    /// The weighted mean, by origin; also one more.
    pub(super) means: &'a [Vec<f64>],
}

/// Coefficients by block.
pub(super) struct Stack(Vec<(Range<usize>, Option<Coefficients>)>);

/// By component: of the whole past, and of the past without each part.
struct Coefficients {
    all: Vec<f64>,
    without: Vec<Vec<f64>>,
}

/// The part of the past that an origin belongs to.
fn fold_of(origin: usize, origins: usize) -> usize {
    origin * FOLDS / origins.max(1)
}

impl Stack {
    pub(super) fn fit(trials: &Trials<'_>) -> Self {
        let fitted = |block: Range<usize>| (block.clone(), Block::new(trials, block).fit());
        Self(blocks(trials.horizon).into_iter().map(fitted).collect())
    }

    /// The forecast at an origin; of the coefficients that did not see it.
    pub(super) fn apply(&self, trials: &Trials<'_>, origin: usize) -> Vec<f64> {
        let origins = trials.actuals.len();
        let mut forecast = trials.means[origin].clone();
        for (block, coefficients) in &self.0 {
            let Some(coefficients) = coefficients else { continue };
            let coefficients = if origin < origins {
                &coefficients.without[fold_of(origin, origins)]
            } else {
                &coefficients.all
            };
            for (component, coefficient) in coefficients.iter().enumerate() {
                for step in block.clone() {
                    forecast[step] += coefficient * trials.difference(origin, component, step);
                }
            }
        }
        forecast
    }
}

impl Trials<'_> {
    fn difference(&self, origin: usize, component: usize, step: usize) -> f64 {
        let forecast = self.forecasts[(origin * self.count + component) * self.horizon + step];
        forecast - self.means[origin][step]
    }

    fn missed(&self, origin: usize, step: usize) -> f64 {
        self.actuals[origin][step] - self.means[origin][step]
    }
}

/// Blocks of steps that share coefficients.
fn blocks(horizon: usize) -> Vec<Range<usize>> {
    let (mut blocks, mut start, mut length) = (Vec::new(), 0, FIRST_BLOCK);
    while start < horizon {
        let end = (start + length).min(horizon);
        blocks.push(start..end);
        if start > 0 {
            length *= 2;
        }
        start = end;
    }
    blocks
}

/// The rows of one block: by origin and step, the differences of the components.
struct Block<'a> {
    trials: &'a Trials<'a>,
    steps: Vec<usize>,
    differences: Vec<f64>,
}

impl<'a> Block<'a> {
    fn new(trials: &'a Trials<'a>, block: Range<usize>) -> Self {
        let steps: Vec<usize> = if block.len() <= STEPS_SEEN {
            block.collect()
        } else {
            let middle = |i: usize| block.start + (2 * i + 1) * block.len() / (2 * STEPS_SEEN);
            (0..STEPS_SEEN).map(middle).collect()
        };
        let origins = trials.actuals.len();
        let mut differences = Vec::with_capacity(origins * steps.len() * trials.count);
        for origin in 0..origins {
            for step in &steps {
                let of = |component| trials.difference(origin, component, *step);
                differences.extend((0..trials.count).map(of));
            }
        }
        Self { trials, steps, differences }
    }

    /// `(origin, what was missed, differences)` of each row.
    fn rows(&self) -> impl Iterator<Item = (usize, f64, &[f64])> {
        let places = (0..self.trials.actuals.len())
            .flat_map(|origin| self.steps.iter().map(move |step| (origin, *step)));
        places
            .zip(self.differences.chunks_exact(self.trials.count))
            .map(|((origin, step), row)| (origin, self.trials.missed(origin, step), row))
    }

    /// The mean absolute error, if `correction` is added to the weighted mean.
    fn error(&self, correction: impl Fn(usize, &[f64]) -> f64) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for (origin, missed, row) in self.rows() {
            let recency = self.trials.recency[origin];
            sum += recency * (missed - correction(origin, row)).abs();
            total += recency;
        }
        sum / f64::max(total, 1e-12)
    }

    /// The coefficients, if they gain anything.
    fn fit(&self) -> Option<Coefficients> {
        let origins = self.trials.actuals.len();
        let plain = self.error(|_, _| 0.0);
        let floor = (ERROR_FLOOR * plain).max(1e-12);
        let mut parts = vec![Normal::new(self.trials.count); FOLDS];
        for (origin, missed, row) in self.rows() {
            let weight = self.trials.recency[origin] / missed.abs().max(floor);
            parts[fold_of(origin, origins)].add(row, missed, weight);
        }
        let sum_without = |left_out: usize| {
            let mut sum = Normal::new(self.trials.count);
            for (part, normal) in parts.iter().enumerate() {
                if part != left_out {
                    sum.add_all(normal);
                }
            }
            sum
        };
        let sums: Vec<Normal> = (0..FOLDS).map(sum_without).collect();
        let mut best: Option<(f64, f64, Vec<Vec<f64>>)> = None;
        for ridge in RIDGES {
            let solved: Option<Vec<_>> = sums.iter().map(|sum| solve(sum, ridge)).collect();
            let Some(without) = solved else { continue };
            let error = self.error(|origin, row| dot(&without[fold_of(origin, origins)], row));
            let highest = best.as_ref().map_or(GAIN_MIN * plain, |(error, ..)| *error);
            if error < highest {
                best = Some((error, ridge, without));
            }
        }
        let (_, ridge, without) = best?;
        let all = solve(&sum_without(FOLDS), ridge)?;
        Some(Coefficients { all, without })
    }
}

fn solve(sum: &Normal, ridge: f64) -> Option<Vec<f64>> {
    let ridge = ridge * sum.scale() + 1e-12;
    let solved = sum.solve(|_| ridge)?;
    Some(solved.into_iter().map(|coefficient| TRUST * coefficient).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
