//! A trend with change points and seasons of sines and cosines, as Prophet has them (Taylor and
//! Letham, "Forecasting at scale", 2018), fitted by least absolute errors with ridges.
//!
//! Unlike Prophet it lets its last residual fade, so that it starts where the load is. What holidays
//! do is told apart from its curve, for all other models need it too: see [`holiday_factors`].

use std::f64::consts::TAU;

use super::super::holidays::Mark;
use super::super::real;
use super::super::solve::Normal;
use super::Task;

/// Sines and cosines of the season and of the longer one.
const DAY_WAVES: usize = 12;
const WEEK_WAVES: usize = 16;
/// Where the trend may change, evenly spread.
const CHANGE_POINTS: usize = 12;
/// Sines and cosines of what a holiday does in the course of its day.
const HOLIDAY_WAVES: usize = 2;
/// Columns of a kind of holidays.
const HOLIDAY_SIZE: usize = 1 + 2 * HOLIDAY_WAVES;
/// Ridges for each row: of the waves, of the changes of the trend; for each row of a holiday.
const WAVE_RIDGE: f64 = 5e-4;
const CHANGE_RIDGE: f64 = 1e-2;
const HOLIDAY_RIDGE: f64 = 0.05;
/// Rows that are looked at, at the most, and how far back.
const ROWS_MAX: usize = 1_500;
const HOLIDAY_ROWS_MAX: usize = 2_500;
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
    let week = week.filter(|week| seen >= 2 * week);
    let curve = Curve { steps: seen, day: task.day, week, kinds: 0 };
    let (scaled, mean, spread) = scaled(history);
    let every = (seen / ROWS_MAX).max(1);
    let rows: Vec<Place> = (0..seen).rev().step_by(every).map(Place::usual).collect();
    let coefficients = curve.fit(&scaled, &rows)?;
    let mut row = vec![0.0; curve.size()];
    let mut at = |step: usize| {
        curve.fill(Place::usual(step), &mut row);
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

/// What holidays do to a load whose past is `values`: for each mark the factor by which it is higher
/// or lower than it would be on a usual day; 1 where there is no mark. Marks go on after the past.
/// What `seen` says no to is not learned from. `None` if the past is too short.
pub(in super::super) fn holiday_factors(
    task: Task<'_>,
    marks: &[Mark],
    seen: &dyn Fn(usize) -> bool,
) -> Option<Vec<f64>> {
    let steps = task.history.len();
    let week = task.week.filter(|week| steps >= 2 * week);
    if steps < 7 * task.day || task.day < 4 || marks.len() < steps {
        return None;
    }
    let kinds = marks.iter().map(|mark| mark.kinds()).max().unwrap_or(0);
    let curve = Curve { steps, day: task.day, week, kinds };
    // Holidays multiply the load rather than adding to it.
    let least = 0.05 * task.history.iter().sum::<f64>() / real(steps) + 1e-12;
    let logarithms: Vec<f64> = task.history.iter().map(|value| (value + least).ln()).collect();
    let (scaled, _, spread) = scaled(&logarithms);
    // A stride with a factor of the day's would always see the same hours.
    let mut every = (steps / HOLIDAY_ROWS_MAX).max(1);
    while every > 1 && shares_factor(every, task.day) {
        every += 1;
    }
    let rows = (0..steps).filter(|step| {
        let marked = marks[*step] != Mark::Usual;
        seen(*step) && (marked || step.is_multiple_of(every))
    });
    let rows: Vec<Place> = rows.map(|step| Place { step, mark: marks[step] }).collect();
    let coefficients = curve.fit(&scaled, &rows)?;
    let mut row = vec![0.0; curve.size()];
    let mut value = |place: Place| {
        curve.fill(place, &mut row);
        spread * dot(&coefficients, &row)
    };
    let factors = marks.iter().enumerate().map(|(step, mark)| match mark {
        Mark::Usual => 1.0,
        mark => (value(Place { step, mark: *mark }) - value(Place::usual(step))).exp(),
    });
    Some(factors.collect())
}

fn shares_factor(mut a: usize, mut b: usize) -> bool {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a > 1
}

/// Values without their mean, in units of their mean distance from it; these two.
fn scaled(values: &[f64]) -> (Vec<f64>, f64, f64) {
    let mean = values.iter().sum::<f64>() / real(values.len());
    let spread = values.iter().map(|value| (value - mean).abs()).sum::<f64>() / real(values.len());
    let spread = spread + 1e-12;
    (values.iter().map(|value| (value - mean) / spread).collect(), mean, spread)
}

/// A step, and what is known of its day.
#[derive(Debug, Clone, Copy)]
struct Place {
    step: usize,
    mark: Mark,
}

impl Place {
    fn usual(step: usize) -> Self {
        Self { step, mark: Mark::Usual }
    }
}

/// What the load is explained by at each step.
struct Curve {
    steps: usize,
    day: usize,
    week: Option<usize>,
    /// Of holidays.
    kinds: usize,
}

impl Curve {
    fn day_waves(&self) -> usize {
        (self.day / 2).saturating_sub(1).min(DAY_WAVES)
    }

    /// How many coefficients there are.
    fn size(&self) -> usize {
        self.usual_size() + HOLIDAY_SIZE * self.kinds
    }

    /// Without those of holidays.
    fn usual_size(&self) -> usize {
        let week = if self.week.is_some() { WEEK_WAVES } else { 0 };
        2 + CHANGE_POINTS + 2 * (self.day_waves() + week)
    }

    fn fill(&self, Place { step, mark }: Place, row: &mut [f64]) {
        let (row, holidays) = row.split_at_mut(self.usual_size());
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
        // The same time of the weekday that the day is like.
        let like = if let Mark::Like(days) = mark { step + days * self.day } else { step };
        for (pair, (season, wave)) in waves.zip(day.chain(week)) {
            let (sine, cosine) = (TAU * real(like % season * wave) / real(season)).sin_cos();
            pair[0] = sine;
            pair[1] = cosine;
        }
        holidays.fill(0.0);
        let Mark::Kind(kind) = mark else { return };
        let Some(own) = holidays.chunks_exact_mut(HOLIDAY_SIZE).nth(kind) else { return };
        own[0] = 1.0;
        for (pair, wave) in own[1..].chunks_exact_mut(2).zip(1..) {
            let (sine, cosine) = (TAU * real(step % self.day * wave) / real(self.day)).sin_cos();
            pair[0] = sine;
            pair[1] = cosine;
        }
    }

    /// Least squares, and once more with the rows weighed by the inverse of their errors.
    fn fit(&self, scaled: &[f64], seen: &[Place]) -> Option<Vec<f64>> {
        let (size, usual_size) = (self.size(), self.usual_size());
        let mut rows = vec![0.0; size * seen.len()];
        let mut of_kind = vec![0.0; self.kinds];
        for (row, place) in rows.chunks_exact_mut(size).zip(seen) {
            self.fill(*place, row);
            if let Mark::Kind(kind) = place.mark {
                of_kind[kind] += 1.0;
            }
        }
        let mut coefficients = vec![0.0; size];
        for pass in 0..2 {
            let mut normal = Normal::new(size);
            for (row, Place { step, .. }) in rows.chunks_exact(size).zip(seen) {
                let error = (scaled[*step] - dot(&coefficients, row)).abs();
                let weight = if pass == 0 { 1.0 } else { 1.0 / error.max(0.5) };
                normal.add(row, scaled[*step], weight);
            }
            let rows = real(seen.len());
            coefficients = normal.solve(|index| match index {
                0 | 1 => 1e-6 * rows,
                _ if index < 2 + CHANGE_POINTS => CHANGE_RIDGE * rows,
                _ if index < usual_size => WAVE_RIDGE * rows,
                _ => HOLIDAY_RIDGE * of_kind[(index - usual_size) / HOLIDAY_SIZE] + 1e-6 * rows,
            })?;
        }
        Some(coefficients)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
