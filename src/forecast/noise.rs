//! How large the errors of a forecast are, by what is known where it is made: the level that is
//! forecast, how restless the load was of late, and how restless it is at that time of the season.

use super::real;
use super::solve::Normal;

/// What the size of an error is explained by.
const SIZE: usize = 3;
/// Recent steps that say how restless the load is.
const RECENT: usize = 24;
/// Steps after which half of what they say is gone.
const FADE_STEPS: f64 = 24.0;
/// Seasons that say how restless it is at a time of the season, and the part of one that is a time.
const SEASONS: usize = 4;
const TIMES: usize = 48;
/// Before anything is seen: errors grow as the root of the level, as those of counts do, and by
/// nothing else. So many errors weigh as much as this.
const PRIOR: Signs = [0.5, 0.0, 0.0];
const PRIOR_ROWS: f64 = 18.0;
/// Fewer errors than this say nothing.
const ERRORS_MIN: usize = 8;
/// An error is made larger or smaller by no more than this.
const RATIO_MAX: f64 = 4.0;

/// What is known of a step where it is forecast: logarithms.
pub(super) type Signs = [f64; SIZE];

/// An error, what was known where it was made, and how much it counts.
pub(super) type Seen = (Signs, f64, f64);

/// The restlessness of a history.
pub(super) struct Noise {
    /// Below this level errors shrink no more, much.
    floor: f64,
    day: usize,
    /// Of the distances of the values from those of a season before.
    distances: Sums,
    /// Of how much these change from step to step.
    changes: Sums,
}

/// Running sums, and the mean of what is summed, which is not 0.
struct Sums {
    sums: Vec<f64>,
    mean: f64,
}

impl Sums {
    /// Of values that are 0 before `first`.
    fn of(values: impl Iterator<Item = f64>, first: usize, least: f64) -> Self {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        sums.extend(values.map(|value| {
            sum += value;
            sum
        }));
        let known = sums.len().saturating_sub(1 + first).max(1);
        Self { mean: sum / real(known) + least, sums }
    }

    /// The sum of the values from `from` up to `to`.
    fn between(&self, from: usize, to: usize) -> f64 {
        self.sums[to] - self.sums[from]
    }

    /// The logarithm of a mean in units of the whole one; near to nothing for nothing.
    fn relative(&self, mean: f64) -> f64 {
        ((mean + 0.1 * self.mean) / (1.1 * self.mean)).ln()
    }
}

impl Noise {
    /// What a history says, in seasons of `day` steps.
    pub(super) fn of_history(history: &[f64], day: usize) -> Self {
        let mean = history.iter().sum::<f64>() / real(history.len().max(1));
        let least = 1e-3 * mean + 1e-9;
        let distance = |at: usize| if at >= day { history[at] - history[at - day] } else { 0.0 };
        let change = |at: usize| if at > day { distance(at) - distance(at - 1) } else { 0.0 };
        let steps = 0..history.len();
        let distances = Sums::of(steps.clone().map(|at| distance(at).abs()), day, least);
        let changes = Sums::of(steps.map(|at| change(at).abs()), day, least);
        Self { floor: 0.1 * mean + 1e-9, day, distances, changes }
    }

    /// What is known at an origin of the step that is so far ahead, for which so much is said.
    pub(super) fn signs(&self, origin: usize, ahead: usize, said: f64) -> Signs {
        let fade = 0.5f64.powf(real(ahead) / FADE_STEPS);
        let level = (said.max(0.0) + self.floor).ln();
        [level, fade * self.recent(origin), self.usual(origin, ahead)]
    }

    /// How restless the load was before an origin.
    fn recent(&self, origin: usize) -> f64 {
        let from = origin.saturating_sub(RECENT).max(self.day + 1);
        if from >= origin {
            return 0.0;
        }
        self.changes.relative(self.changes.between(from, origin) / real(origin - from))
    }

    /// How restless it was at the same time of the seasons before.
    fn usual(&self, origin: usize, ahead: usize) -> f64 {
        let reach = (self.day / TIMES).max(1);
        let first = 1 + ahead / self.day.max(1);
        let (mut sum, mut count) = (0.0, 0);
        for back in first..first + SEASONS {
            let Some(at) = (origin + ahead).checked_sub(back * self.day) else { break };
            let (from, to) = (at.saturating_sub(reach).max(self.day), (at + reach + 1).min(origin));
            if from < to {
                sum += self.distances.between(from, to);
                count += to - from;
            }
        }
        if count == 0 { 0.0 } else { self.distances.relative(sum / real(count)) }
    }
}

/// How errors grow with what is known: by which power of each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Law(Signs);

impl Law {
    /// The law that past errors follow: least squares of their logarithms, with a ridge towards what
    /// is expected before anything is seen.
    pub(super) fn fit(errors: &[Seen]) -> Self {
        let total: f64 = errors.iter().map(|(.., weight)| weight).sum();
        if errors.len() < ERRORS_MIN || total <= 0.0 {
            return Self(PRIOR);
        }
        let mut sizes: Vec<f64> = errors.iter().map(|(_, error, _)| error.abs()).collect();
        let place = sizes.len() / 2;
        let (_, median, _) = sizes.select_nth_unstable_by(place, f64::total_cmp);
        // The logarithm of an error that is nearly 0 says nothing.
        let floor = 0.1 * *median + 1e-12;
        // What the prior leaves over of an error's size.
        let size = |signs: &Signs, error: f64| (error.abs() + floor).ln() - dot(&PRIOR, signs);
        let (mut mean, mut mean_size) = ([0.0; SIZE], 0.0);
        for (signs, error, weight) in errors {
            mean.iter_mut().zip(signs).for_each(|(sum, sign)| *sum += weight * sign / total);
            mean_size += weight * size(signs, *error) / total;
        }
        let mut normal = Normal::new(SIZE);
        for (signs, error, weight) in errors {
            let row: Signs = std::array::from_fn(|i| signs[i] - mean[i]);
            normal.add(&row, size(signs, *error) - mean_size, *weight);
        }
        let ridge = PRIOR_ROWS * total / real(errors.len()) + 1e-9;
        let found = normal.solve(|_| ridge).unwrap_or_else(|| vec![0.0; SIZE]);
        Self(std::array::from_fn(|i| (PRIOR[i] + found[i]).clamp(0.0, 1.0)))
    }

    /// How many times larger an error is where `now` is known than where `then` was.
    pub(super) fn ratio(&self, now: &Signs, then: &Signs) -> f64 {
        let differences: Signs = std::array::from_fn(|i| now[i] - then[i]);
        dot(&self.0, &differences).exp().clamp(1.0 / RATIO_MAX, RATIO_MAX)
    }
}

fn dot(a: &Signs, b: &Signs) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::{Law, Noise, PRIOR, Seen};

    /// From -1 to 1.
    fn chance(seed: u32) -> f64 {
        f64::from(seed.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 23) - 1.0
    }

    #[test]
    fn errors_that_grow_with_one_sign_show_which_and_few_errors_show_nothing() {
        let seen = |count: u32| -> Vec<Seen> {
            let error = |at: u32| {
                let signs = [chance(3 * at), chance(3 * at + 1), chance(3 * at + 2)];
                (signs, (0.5 * signs[0] + 0.8 * signs[2]).exp() * chance(at + 99_991), 1.0)
            };
            (0..count).map(error).collect()
        };
        assert_eq!(Law::fit(&seen(5)), Law(PRIOR));
        let Law(found) = Law::fit(&seen(2_000));
        assert!((found[0] - 0.5).abs() < 0.15 && found[1] < 0.15, "{found:?}");
        assert!((found[2] - 0.8).abs() < 0.2, "{found:?}");
        let ratio = Law(found).ratio(&[0.0, 0.0, 1.0], &[0.0; 3]);
        assert!((1.7..2.6).contains(&ratio), "{ratio}");
        assert!(Law(found).ratio(&[0.0, 0.0, 99.0], &[0.0; 3]) < 4.01);
    }

    #[test]
    fn a_restless_hour_of_each_day_and_restless_minutes_are_told_apart_from_calm_ones() {
        // Of 96 steps a day the second half is restless.
        let value =
            |at: u32| 10.0 + if at % 96 >= 48 { 3.0 * chance(at) } else { 0.1 * chance(at) };
        let history: Vec<f64> = (0..960).map(value).collect();
        let noise = Noise::of_history(&history, 96);
        let (calm, restless) = (noise.signs(960, 10, 10.0), noise.signs(960, 70, 10.0));
        assert!(calm[2] < -0.5 && restless[2] > 0.3, "{calm:?} {restless:?}");
        let (before, after) = (noise.signs(912, 0, 10.0), noise.signs(960, 0, 10.0));
        assert!(before[1] < after[1] - 1.0, "{before:?} {after:?}");
        assert!(noise.signs(100, 90, 0.0).iter().all(|sign| sign.is_finite()));
    }
}
