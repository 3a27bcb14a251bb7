//! A trend with change points and seasons of sines and cosines, as Prophet has them (Taylor and
//! Letham, "Forecasting at scale", 2018), fitted by least absolute errors with ridges.
//!
//! Unlike Prophet it lets its last residual fade, so that it starts where the load is.

use std::f64::consts::TAU;

use super::super::real;
use super::super::solve::Normal;
use super::Task;

/// Sines and cosines of the season and of the longer one.
const DAY_WAVES: usize = 12;
const WEEK_WAVES: usize = 16;
/// Where the trend may change, evenly spread.
const CHANGE_POINTS: usize = 12;
/// Ridges for each row: of the waves, of the changes of the trend.
const WAVE_RIDGE: f64 = 5e-4;
const CHANGE_RIDGE: f64 = 1e-2;
/// Rows that are looked at, at the most, and how far back.
const ROWS_MAX: usize = 1_500;
const STEPS_MAX: usize = 8_064;
const WEEKS_MAX: usize = 6;
const DAYS_MAX: usize = 7;
/// Steps in which half of the last residual is gone.
const FADE_STEPS: f64 = 24.0;
/// Steps that the last residual is the mean of.
const RESIDUAL_STEPS: usize = 6;

/// Its point forecast.
pub(super) fn predict(task: Task<'_>) -> Option<Vec<f64>> {
    let week = task.week.filter(|week| task.history.len() >= 2 * week);
    let wanted = week.map_or(DAYS_MAX * task.day, |week| (WEEKS_MAX * week).min(STEPS_MAX));
    let seen = task.history.len().min(wanted.max(2 * task.day));
    let history = &task.history[task.history.len() - seen..];
    if seen < 2 * task.day || seen < 8 * RESIDUAL_STEPS || task.day < 4 {
        return None;
    }
    let curve = Curve { steps: seen, day: task.day, week: week.filter(|week| seen >= 2 * week) };
    let mean = history.iter().sum::<f64>() / real(seen);
    let spread = history.iter().map(|value| (value - mean).abs()).sum::<f64>() / real(seen);
    let spread = spread + 1e-12;
    let scaled: Vec<f64> = history.iter().map(|value| (value - mean) / spread).collect();
    let coefficients = curve.fit(&scaled)?;
    let mut row = vec![0.0; curve.size()];
    let mut at = |step: usize| {
        curve.fill(step, &mut row);
        dot(&coefficients, &row)
    };
    let last = (seen - RESIDUAL_STEPS..seen).map(|step| scaled[step] - at(step)).sum::<f64>();
    let last = last / real(RESIDUAL_STEPS);
    let ahead = (0..task.horizon).map(|step| {
        let fade = 0.5f64.powf(real(step) / FADE_STEPS);
        mean + spread * (at(seen + step) + fade * last)
    });
    Some(ahead.collect())
}

/// What the load is explained by at each step.
struct Curve {
    steps: usize,
    day: usize,
    week: Option<usize>,
}

impl Curve {
    fn day_waves(&self) -> usize {
        (self.day / 2).saturating_sub(1).min(DAY_WAVES)
    }

    /// How many coefficients there are.
    fn size(&self) -> usize {
        let week = if self.week.is_some() { WEEK_WAVES } else { 0 };
        2 + CHANGE_POINTS + 2 * (self.day_waves() + week)
    }

    fn fill(&self, step: usize, row: &mut [f64]) {
        let time = real(step) / real(self.steps);
        row[0] = 1.0;
        row[1] = time;
        for (change, value) in row[2..2 + CHANGE_POINTS].iter_mut().enumerate() {
            *value = (time - 0.95 * real(change + 1) / real(CHANGE_POINTS + 1)).max(0.0);
        }
        let day = (1..=self.day_waves()).map(|wave| (self.day, wave));
        // Each seventh wave of the week is one of the day.
        let week = (1..).filter(|wave| wave % 7 != 0).take(WEEK_WAVES);
        let week = self.week.into_iter().flat_map(|season| week.clone().map(move |w| (season, w)));
        let waves = row[2 + CHANGE_POINTS..].chunks_exact_mut(2);
        for (pair, (season, wave)) in waves.zip(day.chain(week)) {
            let (sine, cosine) = (TAU * real(step % season * wave) / real(season)).sin_cos();
            pair[0] = sine;
            pair[1] = cosine;
        }
    }

    /// Least squares, and once more with the rows weighed by the inverse of their errors.
    fn fit(&self, scaled: &[f64]) -> Option<Vec<f64>> {
        let size = self.size();
        let every = (scaled.len() / ROWS_MAX).max(1);
        let seen: Vec<usize> = (0..scaled.len()).rev().step_by(every).collect();
        let mut rows = vec![0.0; size * seen.len()];
        for (row, step) in rows.chunks_exact_mut(size).zip(&seen) {
            self.fill(*step, row);
        }
        let mut coefficients = vec![0.0; size];
        for pass in 0..2 {
            let mut normal = Normal::new(size);
            for (row, step) in rows.chunks_exact(size).zip(&seen) {
                let error = (scaled[*step] - dot(&coefficients, row)).abs();
                let weight = if pass == 0 { 1.0 } else { 1.0 / error.max(0.5) };
                normal.add(row, scaled[*step], weight);
            }
            let rows = real(seen.len());
            coefficients = normal.solve(|index| match index {
                0 | 1 => 1e-6 * rows,
                _ if index < 2 + CHANGE_POINTS => CHANGE_RIDGE * rows,
                _ => WAVE_RIDGE * rows,
            })?;
        }
        Some(coefficients)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
