//! Regression on lags: each block of steps ahead is explained directly by what was seen at the same
//! time in earlier seasons and by what was seen last, fitted by least absolute errors with a ridge.

use super::super::real;
use super::super::solve::Normal;
use super::Task;

/// Past origins that it learns from.
const ORIGINS: usize = 300;
/// Steps of a block that it learns from.
const STEPS_SEEN: usize = 4;
/// Steps of the first block; the later ones double.
const FIRST_BLOCK: usize = 4;
/// The ridge, in units of the mean square.
const RIDGE: f64 = 0.01;
/// What a step is explained by: see [`Lags::fill`].
const SIZE: usize = 13;

/// Its point forecast.
pub(super) fn predict(task: Task<'_>) -> Option<Vec<f64>> {
    let week = task.week.filter(|week| task.history.len() >= 3 * week + task.horizon);
    let lags = Lags::of(task, week)?;
    let end = task.history.len();
    let newest = end.checked_sub(task.horizon)?;
    let span = newest.checked_sub(lags.oldest()).filter(|span| *span >= 2 * task.day)?;
    let origins: Vec<usize> =
        (0..ORIGINS).map(|i| lags.oldest() + span * i / (ORIGINS - 1)).collect();
    let mut forecast = Vec::with_capacity(task.horizon);
    let (mut start, mut length) = (0, FIRST_BLOCK);
    let mut row = [0.0; SIZE];
    while start < task.horizon {
        let block = start..(start + length).min(task.horizon);
        let coefficients = lags.fit(&origins, block.clone())?;
        for step in block.clone() {
            lags.fill(end, step, &mut row);
            let level = lags.mean(end, task.day);
            forecast.push(level + dot(&coefficients, &row));
        }
        (start, length) = (block.end, 2 * length);
    }
    Some(forecast)
}

struct Lags<'a> {
    history: &'a [f64],
    sums: Vec<f64>,
    day: usize,
    week: Option<usize>,
}

impl<'a> Lags<'a> {
    fn of(task: Task<'a>, week: Option<usize>) -> Option<Self> {
        if task.day < 4 || task.history.len() < (5 * task.day + task.horizon).max(100) {
            return None;
        }
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        sums.extend(task.history.iter().map(|value| {
            sum += value;
            sum
        }));
        Some(Self { history: task.history, sums, day: task.day, week })
    }

    /// The oldest origin that has all lags.
    fn oldest(&self) -> usize {
        self.week.map_or(0, |week| 2 * week).max(2 * self.day) + 16
    }

    /// The mean of the `count` values before `at`.
    fn mean(&self, at: usize, count: usize) -> f64 {
        (self.sums[at] - self.sums[at - count]) / real(count)
    }

    /// The mean round the step that lies so many whole seasons before, as far as it was known.
    fn around(&self, origin: usize, step: usize, season: usize, back: usize) -> f64 {
        let at = origin + step - season * (step / season + back);
        let (from, to) = (at.saturating_sub(1), (at + 2).min(origin));
        (self.sums[to] - self.sums[from]) / real(to - from)
    }

    /// What a step is explained by; all differences from the mean of the last season.
    fn fill(&self, origin: usize, step: usize, row: &mut [f64; SIZE]) {
        let level = self.mean(origin, self.day);
        let season_ago = |back| self.around(origin, step, self.day, back) - level;
        let week = self.week.unwrap_or(self.day);
        let weeks_ago = |back| self.around(origin, step, week, back) - level;
        let before = |back: usize| self.history[origin - back];
        *row = [
            1e-3 * level,
            before(1) - level,
            before(2) - level,
            before(3) - level,
            self.mean(origin, 6) - level,
            self.mean(origin, 12.min(self.day)) - level,
            self.history[origin + step - self.day * (1 + step / self.day)] - level,
            season_ago(1),
            season_ago(2),
            weeks_ago(1),
            weeks_ago(2),
            self.mean(origin, 3) - self.mean(origin + 1 - self.day, 3),
            self.mean(origin, 3) - self.mean(origin + 1 - week, 3),
        ];
    }

    /// The coefficients of a block: least squares, and once more with the rows weighed by the
    /// inverse of their errors.
    fn fit(&self, origins: &[usize], block: std::ops::Range<usize>) -> Option<Vec<f64>> {
        let count = STEPS_SEEN.min(block.len());
        let steps: Vec<usize> =
            (0..count).map(|i| block.start + (2 * i + 1) * block.len() / (2 * count)).collect();
        let mut coefficients: Option<Vec<f64>> = None;
        let mut row = [0.0; SIZE];
        let mut floor = 0.0;
        for _ in 0..2 {
            let mut normal = Normal::new(SIZE);
            let (mut errors, mut rows) = (0.0, 0.0);
            for (origin, step) in
                origins.iter().flat_map(|origin| steps.iter().map(move |step| (*origin, *step)))
            {
                self.fill(origin, step, &mut row);
                let above = self.history[origin + step] - self.mean(origin, self.day);
                let error = coefficients.as_ref().map(|c| (above - dot(c, &row)).abs());
                let weight = error.map_or(1.0, |error| 1.0 / error.max(floor));
                normal.add(&row, above, weight);
                errors += above.abs();
                rows += 1.0;
            }
            floor = 0.1 * errors / rows + 1e-12;
            let ridge = RIDGE * normal.scale() + 1e-12;
            coefficients = Some(normal.solve(|_| ridge)?);
        }
        coefficients
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
