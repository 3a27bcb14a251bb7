//! A distribution for each step, as quantiles.

use serde::{Deserialize, Serialize};

use super::real;

/// The levels of the quantiles of a step.
pub const LEVELS: [f64; 11] = [0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975];
const MEDIAN: usize = 5;
const P10: usize = 1;
const P90: usize = 9;

/// Quantiles at [`LEVELS`] for each step; finite, not negative, and rising with the level.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Distribution {
    steps: Vec<[f64; LEVELS.len()]>,
}

impl Distribution {
    /// Takes quantiles as they were computed: sorts each step's and keeps them in 0 to `ceiling`.
    pub(super) fn new(mut steps: Vec<[f64; LEVELS.len()]>, ceiling: f64) -> Self {
        for quantiles in &mut steps {
            for value in quantiles.iter_mut() {
                *value = if value.is_finite() { value.clamp(0.0, ceiling) } else { 0.0 };
            }
            quantiles.sort_unstable_by(f64::total_cmp);
        }
        Self { steps }
    }

    /// This, with each step moved so that its median is a point forecast.
    pub(super) fn moved_to(&self, point: &[f64]) -> Self {
        let moved = |(quantiles, point): (&[f64; LEVELS.len()], &f64)| {
            let shift = point - quantiles[MEDIAN];
            quantiles.map(|quantile| quantile + shift)
        };
        Self::new(self.steps.iter().zip(point).map(moved).collect(), f64::MAX)
    }

    /// What is left of this when so many steps are over, moved by `offset`, of which half is gone
    /// after 24 steps: it was so far off there.
    #[must_use]
    pub fn after(&self, steps: usize, offset: f64) -> Self {
        const FADE_STEPS: f64 = 24.0;
        let left = self.steps.iter().skip(steps).enumerate().map(|(step, quantiles)| {
            let fade = 0.5f64.powf(real(step) / FADE_STEPS);
            quantiles.map(|quantile| quantile + fade * offset)
        });
        Self::new(left.collect(), f64::MAX)
    }

    /// This, so many times as high at each step.
    pub(super) fn times(&self, factors: &[f64]) -> Self {
        let steps = self.steps.iter().zip(factors.iter().chain(std::iter::repeat(&1.0)));
        let times =
            |(quantiles, factor): (&[f64; LEVELS.len()], &f64)| quantiles.map(|q| q * factor);
        Self::new(steps.map(times).collect(), f64::MAX)
    }

    /// The quantiles of each step.
    pub fn steps(&self) -> &[[f64; LEVELS.len()]] {
        &self.steps
    }

    /// The median of each step.
    pub fn median(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.steps.iter().map(|quantiles| quantiles[MEDIAN])
    }

    /// The 10 % quantile of each step.
    pub fn p10(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.steps.iter().map(|quantiles| quantiles[P10])
    }

    /// The 90 % quantile of each step.
    pub fn p90(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.steps.iter().map(|quantiles| quantiles[P90])
    }

    /// Mean and standard deviation of each step, of the quantile function drawn with straight
    /// lines and cut at its outer levels.
    pub fn moments(&self) -> impl ExactSizeIterator<Item = (f64, f64)> + '_ {
        self.steps.iter().map(moments)
    }
}

fn moments(quantiles: &[f64; LEVELS.len()]) -> (f64, f64) {
    let (first, last) = (quantiles[0], quantiles[LEVELS.len() - 1]);
    let (below, above) = (LEVELS[0], 1.0 - LEVELS[LEVELS.len() - 1]);
    let mut mean = below * first + above * last;
    let mut square = below * first * first + above * last * last;
    for (levels, values) in LEVELS.windows(2).zip(quantiles.windows(2)) {
        let width = levels[1] - levels[0];
        let (a, b) = (values[0], values[1]);
        mean += width * f64::midpoint(a, b);
        square += width * (a * a + a * b + b * b) / 3.0;
    }
    (mean, (square - mean * mean).max(0.0).sqrt())
}

/// The quantiles at [`LEVELS`] of sorted, weighted values; zeros for none.
pub(super) fn weighted_quantiles(sorted: &[(f64, f64)]) -> [f64; LEVELS.len()] {
    let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let mut quantiles = [sorted.last().map_or(0.0, |(value, _)| *value); LEVELS.len()];
    let (mut seen, mut level) = (0.0, 0);
    for (value, weight) in sorted {
        seen += weight;
        while level < LEVELS.len() && seen >= LEVELS[level] * total {
            quantiles[level] = *value;
            level += 1;
        }
    }
    quantiles
}

/// The mean over the steps `at - reach` to `at + reach` of a curve that goes on flat past its ends.
pub(super) fn smoothed(curve: &[f64], at: usize, reach: usize) -> f64 {
    let last = curve.len() - 1;
    let sum: f64 = (at..=at + 2 * reach).map(|i| curve[i.saturating_sub(reach).min(last)]).sum();
    sum / real(2 * reach + 1)
}
