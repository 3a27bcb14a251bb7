//! The simple forecasts that the ensemble weighs: levels, last season, profiles of several seasons.
//!
//! Each uses only what was known at its origin.

use super::distribution::smoothed;
use super::real;

/// Seasons that a profile averages, at the most.
const PROFILE_DAYS_MAX: usize = 7;
/// Longer seasons that their profile averages, at the most.
const PROFILE_WEEKS_MAX: usize = 8;
/// A season of fewer steps than this is too coarse to smooth its profile.
const SMOOTH_DAY_MIN: usize = 96;
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
    pub(super) week: Option<usize>,
    /// Longer seasons that their profile averages.
    weeks: usize,
    /// The oldest origin that can be forecast.
    pub(super) oldest: usize,
    /// How much of a level offset is left after each step, for three half lives.
    fades: [Vec<f64>; 3],
}

/// Names of the components, in their order.
const NAMES: [&str; 15] = [
    "last",
    "mean_6",
    "mean_24",
    "yesterday",
    "yesterday_short_offset",
    "yesterday_long_offset",
    "profile_short_offset",
    "profile_long_offset",
    "profile_ratio",
    "last_week_short_offset",
    "last_week_long_offset",
    "week_profile",
    "week_profile_short_offset",
    "week_profile_long_offset",
    "week_profile_ratio",
];
/// Where the components of the profile of the season start.
const PROFILE_AT: usize = 6;
/// Where the components of the longer season start.
const WEEK_AT: usize = 9;

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
        let weeks = week.map_or(0, |week| (newest / (2 * week)).clamp(1, PROFILE_WEEKS_MAX));
        let oldest = |days: usize| {
            let seasons = (days.max(1) * day).max(week.unwrap_or(0) * weeks);
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
        Some(Self { horizon, day, days, week, weeks, oldest, fades })
    }

    /// How many components there are.
    pub(super) fn count(&self) -> usize {
        self.names().len()
    }

    /// The names of the components.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names = NAMES[..PROFILE_AT].to_vec();
        if self.days >= 2 {
            names.extend(&NAMES[PROFILE_AT..WEEK_AT]);
        }
        if self.week.is_some() {
            names.extend(&NAMES[WEEK_AT..]);
        }
        names
    }

    /// Appends each component's forecast from the origin `at` (the first unseen step) to `out`.
    pub(super) fn forecast(&self, past: Past<'_>, at: usize, out: &mut Vec<f64>) {
        let y = past.values;
        for level in [y[at - 1], past.mean(at, 6), past.mean(at, 24)] {
            out.extend(std::iter::repeat_n(level, self.horizon));
        }
        let [short, medium, long] = &self.fades;
        let offset = past.offset(at, self.day);
        let yesterday = self.seasons_ago(past, at, self.day);
        out.extend(&yesterday);
        extend_faded(out, &yesterday, short, offset);
        extend_faded(out, &yesterday, long, offset);
        if self.days >= 2 {
            let profile = Profile::of(past, at, (self.day, self.days));
            let curve = profile.curve(self.horizon, PROFILE_REACH);
            extend_faded(out, &curve, short, profile.offset());
            extend_faded(out, &curve, long, profile.offset());
            extend_scaled(out, &curve, long, profile.ratio());
        }
        if let Some(week) = self.week {
            let offset = past.offset(at, week);
            let last_week = self.seasons_ago(past, at, week);
            extend_faded(out, &last_week, medium, offset);
            extend_faded(out, &last_week, long, offset);
            let profile = Profile::of(past, at, (week, self.weeks));
            let reach = if self.day >= SMOOTH_DAY_MIN { PROFILE_REACH } else { 0 };
            let curve = profile.curve(self.horizon, reach);
            out.extend(&curve);
            extend_faded(out, &curve, short, profile.offset());
            extend_faded(out, &curve, long, profile.offset());
            extend_scaled(out, &curve, long, profile.ratio());
        }
    }

    /// The last known values that lie a whole number of seasons before each step.
    fn seasons_ago(&self, past: Past<'_>, at: usize, season: usize) -> Vec<f64> {
        (0..self.horizon).map(|step| past.values[seasons_before(at, step, season)]).collect()
    }
}

/// Appends a curve with an offset that fades.
fn extend_faded(out: &mut Vec<f64>, curve: &[f64], fade: &[f64], offset: f64) {
    out.extend(curve.iter().zip(fade).map(|(value, fade)| value + fade * offset));
}

/// Appends a curve with a ratio that fades.
fn extend_scaled(out: &mut Vec<f64>, curve: &[f64], fade: &[f64], ratio: f64) {
    out.extend(curve.iter().zip(fade).map(|(value, fade)| value * (1.0 + (ratio - 1.0) * fade)));
}

/// The mean of some seasons before an origin.
struct Profile<'a> {
    past: Past<'a>,
    at: usize,
    season: usize,
    seasons: usize,
}

impl<'a> Profile<'a> {
    /// `(season, seasons)`: steps of one, and how many.
    fn of(past: Past<'a>, at: usize, (season, seasons): (usize, usize)) -> Self {
        Self { past, at, season, seasons }
    }

    fn mean(&self, step: usize) -> f64 {
        let values = (1..=self.seasons).map(|back| self.past.values[step - back * self.season]);
        values.sum::<f64>() / real(self.seasons)
    }

    /// It at the steps after the origin.
    fn curve(&self, horizon: usize, reach: usize) -> Vec<f64> {
        let raw: Vec<f64> = (0..horizon)
            .map(|step| self.mean(self.at + step - self.season * (step / self.season)))
            .collect();
        (0..horizon).map(|step| smoothed(&raw, step, reach)).collect()
    }

    /// How much the last values lie above it.
    fn offset(&self) -> f64 {
        let above = |back: usize| self.past.values[self.at - back] - self.mean(self.at - back);
        (1..=3).map(above).sum::<f64>() / 3.0
    }

    /// The last values in units of it.
    fn ratio(&self) -> f64 {
        let recent: f64 = (1..=6).map(|back| self.past.values[self.at - back]).sum();
        let usual: f64 = (1..=6).map(|back| self.mean(self.at - back)).sum();
        (recent / usual.max(1e-9)).clamp(0.3, 3.0)
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
