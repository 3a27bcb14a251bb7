//! The simple forecasts that the ensemble weighs: levels, last season, profile of several seasons.
//!
//! Each uses only what was known at its origin.

use super::distribution::smoothed;
use super::real;

/// Seasons that a profile averages, at the most.
const PROFILE_DAYS_MAX: usize = 7;
/// Steps that must lie before the oldest origin, beside its seasons.
const MARGIN: usize = 8;
/// Origins that a backtest needs at least.
const ORIGINS_MIN: usize = 30;
/// Steps on each side over which a profile is smoothed.
const PROFILE_REACH: usize = 2;

/// What the forecasts of a history look like: how far, with which seasons, from which origins.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Steps ahead.
    pub(super) horizon: usize,
    /// Steps of the season.
    pub(super) day: usize,
    /// Seasons that the profile averages; a profile needs two.
    days: usize,
    /// Steps of the longer season, if the history is long enough for it.
    week: Option<usize>,
    /// The oldest origin that can be forecast.
    pub(super) oldest: usize,
    /// How much of a level offset is left after each step, for three half lives.
    fades: [Vec<f64>; 3],
}

/// Names of the components, in their order.
const NAMES: [&str; 10] = [
    "last",
    "mean_6",
    "mean_24",
    "yesterday",
    "yesterday_short_offset",
    "yesterday_long_offset",
    "profile_short_offset",
    "profile_long_offset",
    "profile_ratio",
    "last_week",
];
/// Where the profile's components start.
const PROFILE_AT: usize = 6;

impl Shape {
    /// The shape for a history of `length` steps; `None` if that is too short.
    pub(super) fn fit(
        length: usize,
        horizon: usize,
        day: usize,
        week: Option<usize>,
    ) -> Option<Self> {
        let newest = length.checked_sub(horizon)?;
        if day == 0 {
            return None;
        }
        let week = week.filter(|week| length > week + horizon + 150);
        let oldest = |days: usize| {
            let seasons = (days.max(1) * day).max(week.unwrap_or(0));
            seasons + MARGIN
        };
        let mut days = (newest / day).saturating_sub(1).min(PROFILE_DAYS_MAX);
        while days > 2 && newest < oldest(days) + 2 * day {
            days -= 1;
        }
        let oldest = oldest(days);
        if newest < oldest + ORIGINS_MIN {
            return None;
        }
        let fade =
            |half_life: f64| (0..horizon).map(|step| 0.5f64.powf(real(step) / half_life)).collect();
        let fades = [fade(24.0), fade(48.0), fade(96.0)];
        Some(Self { horizon, day, days, week, oldest, fades })
    }

    /// How many components there are.
    pub(super) fn count(&self) -> usize {
        self.names().len()
    }

    /// The names of the components.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names = NAMES[..PROFILE_AT].to_vec();
        if self.days >= 2 {
            names.extend(&NAMES[PROFILE_AT..NAMES.len() - 1]);
        }
        if self.week.is_some() {
            names.extend(&NAMES[NAMES.len() - 1..]);
        }
        names
    }

    /// Appends each component's forecast from the origin `at` (the first unseen step) to `out`.
    pub(super) fn forecast(&self, past: Past<'_>, at: usize, out: &mut Vec<f64>) {
        let y = past.values;
        for level in [y[at - 1], past.mean(at, 6), past.mean(at, 24)] {
            out.extend(std::iter::repeat_n(level, self.horizon));
        }
        let steps = 0..self.horizon;
        let [short, medium, long] = &self.fades;
        let offset = past.offset(at, self.day);
        let yesterday = |step: usize| y[seasons_before(at, step, self.day)];
        out.extend(steps.clone().map(yesterday));
        out.extend(steps.clone().map(|step| yesterday(step) + short[step] * offset));
        out.extend(steps.clone().map(|step| yesterday(step) + long[step] * offset));
        if self.days >= 2 {
            self.profile(past, at, out);
        }
        if let Some(week) = self.week {
            let offset = past.offset(at, week);
            let last_week = |step: usize| y[seasons_before(at, step, week)];
            out.extend(steps.map(|step| last_week(step) + medium[step] * offset));
        }
    }

    /// The mean of the last seasons, smoothed, with an offset or a ratio that fades.
    fn profile(&self, past: Past<'_>, at: usize, out: &mut Vec<f64>) {
        let y = past.values;
        let mean_of_days = |step: usize| {
            (1..=self.days).map(|back| y[step - back * self.day]).sum::<f64>() / real(self.days)
        };
        let raw: Vec<f64> = (0..self.horizon)
            .map(|step| mean_of_days(at + step - self.day * (step / self.day)))
            .collect();
        let smooth: Vec<f64> =
            (0..self.horizon).map(|step| smoothed(&raw, step, PROFILE_REACH)).collect();
        let offset = (1..=3).map(|back| y[at - back] - mean_of_days(at - back)).sum::<f64>() / 3.0;
        let recent: f64 = (1..=6).map(|back| y[at - back]).sum();
        let usual: f64 = (1..=6).map(|back| mean_of_days(at - back)).sum();
        let ratio = (recent / usual.max(1e-9)).clamp(0.3, 3.0);
        let [short, _, long] = &self.fades;
        out.extend(smooth.iter().zip(short).map(|(value, fade)| value + fade * offset));
        out.extend(smooth.iter().zip(long).map(|(value, fade)| value + fade * offset));
        out.extend(
            smooth.iter().zip(long).map(|(value, fade)| value * (1.0 + (ratio - 1.0) * fade)),
        );
    }
}

/// The last step before `at` that lies a whole number of seasons before `at + step`.
fn seasons_before(at: usize, step: usize, season: usize) -> usize {
    at + step - season * (1 + step / season)
}

/// A history with its running sums.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past<'a> {
    /// The values, oldest first.
    pub(super) values: &'a [f64],
    /// The sum of all values before each, and of all.
    pub(super) sums: &'a [f64],
}

impl Past<'_> {
    /// The mean of the `count` values before `at`.
    fn mean(&self, at: usize, count: usize) -> f64 {
        let count = count.min(at);
        (self.sums[at] - self.sums[at - count]) / real(count.max(1))
    }

    /// How much the last three values before `at` lie above those of a season before.
    fn offset(&self, at: usize, season: usize) -> f64 {
        (1..=3).map(|back| self.values[at - back] - self.values[at - back - season]).sum::<f64>()
            / 3.0
    }
}
