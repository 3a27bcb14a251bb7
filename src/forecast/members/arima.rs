//! Autoregression of what the usual season leaves over: AR(8) with a slowly moving level, on the
//! differences from a profile of the recent seasons.

use super::super::real;
use super::super::solve::Normal;
use super::Task;

/// Past values that the next one depends on.
const ORDER: usize = 8;
/// Values of the short mean that it depends on too.
const MEAN_STEPS: usize = 12;
/// Each older season counts this much less in the profile.
const RECENCY: f64 = 0.8;
/// Seasons in the profile, at the most.
const SEASONS_MAX: usize = 7;
/// Steps of history that it needs.
const STEPS_MIN: usize = 4 * MEAN_STEPS;
/// Rows of the regression, at the most.
const ROWS_MAX: usize = 1_200;
/// Differences further out than this multiple of nearly all of them are cut.
const CUT: f64 = 2.0;
/// The ridge, in units of the mean square.
const RIDGE: f64 = 1e-3;

/// Its point forecast.
pub(super) fn predict(task: Task<'_>) -> Option<Vec<f64>> {
    let season = task.season(2)?;
    let seasons = (task.history.len() / season).min(SEASONS_MAX);
    if seasons < 2 || seasons * season < STEPS_MIN {
        return None;
    }
    let recent = &task.history[task.history.len() - seasons * season..];
    let profile = profile(recent, season, task.day);
    let mut rest: Vec<f64> =
        recent.iter().zip(profile.iter().cycle()).map(|(value, usual)| value - usual).collect();
    let highest = cut(&mut rest);
    let level = Levels::of(&rest, task.day);
    let coefficients = fit(&rest, &level, task.day)?;
    let now = level.at(rest.len());
    let mut row = Row::default();
    for _ in 0..task.horizon {
        row.fill(&rest, rest.len(), now);
        let next: f64 = coefficients.iter().zip(row.0).map(|(a, b)| a * b).sum();
        if next.is_nan() || next.abs() > 4.0 * highest {
            return None;
        }
        rest.push(next);
    }
    let ahead = rest[recent.len()..].iter().zip(profile.iter().cycle());
    Some(ahead.map(|(rest, usual)| usual + rest).collect())
}

/// The mean of each place in the season, recent seasons first, smoothed where steps are short.
fn profile(recent: &[f64], season: usize, day: usize) -> Vec<f64> {
    let seasons = recent.len() / season;
    let mut raw = vec![0.0; season];
    let (mut weight, mut total) = (1.0, 0.0);
    for one in recent.chunks_exact(season).rev().take(seasons) {
        raw.iter_mut().zip(one).for_each(|(sum, value)| *sum += weight * value);
        total += weight;
        weight *= RECENCY;
    }
    let reach = match day {
        0..48 => 0,
        48..96 => 1,
        _ => 3,
    };
    let around = |at: usize| {
        let sum: f64 = (0..=2 * reach).map(|i| raw[(at + season + i - reach) % season]).sum();
        sum / real(2 * reach + 1) / total
    };
    (0..season).map(around).collect()
}

/// Cuts what is far out; how far out anything is then.
fn cut(rest: &mut [f64]) -> f64 {
    let mut sizes: Vec<f64> = rest.iter().map(|value| value.abs()).collect();
    let place = (sizes.len() - 1) * 99 / 100;
    let (_, high, _) = sizes.select_nth_unstable_by(place, f64::total_cmp);
    let highest = CUT * *high;
    rest.iter_mut().for_each(|value| *value = value.clamp(-highest, highest));
    highest
}

/// The mean of the last season before each step.
struct Levels {
    sums: Vec<f64>,
    day: usize,
}

impl Levels {
    fn of(rest: &[f64], day: usize) -> Self {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        sums.extend(rest.iter().map(|value| {
            sum += value;
            sum
        }));
        Self { sums, day }
    }

    fn at(&self, step: usize) -> f64 {
        let count = self.day.min(step).max(1);
        (self.sums[step] - self.sums[step.saturating_sub(count)]) / real(count)
    }
}

/// What one value is explained by.
#[derive(Default)]
struct Row([f64; ORDER + 2]);

impl Row {
    fn fill(&mut self, rest: &[f64], at: usize, level: f64) {
        for (lag, value) in self.0[..ORDER].iter_mut().enumerate() {
            *value = rest[at - 1 - lag];
        }
        self.0[ORDER] = rest[at - MEAN_STEPS..at].iter().sum::<f64>() / real(MEAN_STEPS);
        self.0[ORDER + 1] = level;
    }
}

fn fit(rest: &[f64], level: &Levels, day: usize) -> Option<Vec<f64>> {
    let first = day.min(rest.len() / 3).max(2 * MEAN_STEPS);
    let every = (rest.len().saturating_sub(first) / ROWS_MAX).max(1);
    let mut normal = Normal::new(ORDER + 2);
    let mut row = Row::default();
    for at in (first..rest.len()).step_by(every) {
        row.fill(rest, at, level.at(at));
        normal.add(&row.0, rest[at], 1.0);
    }
    let ridge = RIDGE * normal.scale() + 1e-12;
    normal.solve(|_| ridge)
}
