//! What can be set about forecasting.

use serde::{Deserialize, Serialize};

use super::{Event, Holidays};

/// A model beside the ensemble. It takes part in the forecast of a series by as much as its errors
/// at recent origins earn it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// Autoregression of what the usual season leaves over.
    Arima,
    /// Regression on what was seen last and in earlier seasons.
    Lags,
    /// A recurrent network, one for all series.
    Lstm,
    /// Seasonal decomposition by loess, exponential smoothing of the rest.
    MstlEts,
    /// A trend with change points, and seasons of sines and cosines.
    Prophet,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Arima, Self::Lags, Self::Lstm, Self::MstlEts, Self::Prophet];

    /// Whether it takes so long that it is fitted anew only now and then.
    pub fn is_slow(self) -> bool {
        !matches!(self, Self::Arima)
    }

    /// Its name, as the policy and the metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arima => "arima",
            Self::Lags => "lags",
            Self::Lstm => "lstm",
            Self::MstlEts => "mstl_ets",
            Self::Prophet => "prophet",
        }
    }
}

/// How load is forecast. All durations are configuration, so that a day may last forty seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The length of a step of history and forecast.
    pub step_ms: u64,
    /// The season in which load repeats itself.
    pub day_ms: u64,
    /// A longer season; `null` for none.
    pub week_ms: Option<u64>,
    /// How far ahead to look.
    pub horizon_ms: u64,
    /// How much history to keep, in memory and in the catalog.
    pub history_ms: u64,
    /// A forecast whose recent error, relative to persistence, is above this is not used.
    pub trusted_relative_error_max: f64,
    /// The models that are tried beside the ensemble.
    pub models: Vec<Model>,
    /// How often the slow ones of them are fitted anew.
    pub study_interval_ms: u64,
    /// Known events.
    pub events: Vec<Event>,
    /// Holidays, for the model `prophet`; only where a day is one.
    pub holidays: Vec<Holidays>,
}

impl Default for Config {
    fn default() -> Self {
        const HOUR_MS: u64 = 3_600_000;
        Self {
            step_ms: 60_000,
            day_ms: 24 * HOUR_MS,
            week_ms: Some(7 * 24 * HOUR_MS),
            horizon_ms: 2 * HOUR_MS,
            history_ms: 9 * 24 * HOUR_MS,
            trusted_relative_error_max: 1.0,
            models: vec![Model::Arima],
            study_interval_ms: 1_800_000,
            events: Vec::new(),
            holidays: Vec::new(),
        }
    }
}

/// More steps than this are not forecast, whatever the configuration says.
const HORIZON_STEPS_MAX: usize = 2_000;
/// More steps than this are not kept, whatever the configuration says.
const HISTORY_STEPS_MAX: usize = 200_000;

impl Config {
    /// The step; at least a millisecond.
    pub fn step_ms(&self) -> u64 {
        self.step_ms.max(1)
    }

    /// How many steps are forecast; at least one.
    pub fn horizon_steps(&self) -> usize {
        self.steps(self.horizon_ms).clamp(1, HORIZON_STEPS_MAX)
    }

    /// How many steps of history are kept; at least two.
    pub fn history_steps(&self) -> usize {
        self.steps(self.history_ms).clamp(2, HISTORY_STEPS_MAX)
    }

    /// Steps in the season.
    pub fn day_steps(&self) -> usize {
        self.steps(self.day_ms)
    }

    /// Steps in the longer season, if there is one.
    pub fn week_steps(&self) -> Option<usize> {
        self.week_ms.map(|week_ms| self.steps(week_ms)).filter(|steps| *steps > self.day_steps())
    }

    /// What is wrong with it: the key and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.step_ms == 0 {
            faults.push(("step_ms", "must be at least 1".to_owned()));
        } else if !self.day_ms.is_multiple_of(self.step_ms) {
            faults.push(("day_ms", "must be a multiple of step_ms".to_owned()));
        }
        if self.day_ms < self.step_ms.saturating_mul(4) {
            faults.push(("day_ms", "must be at least 4 steps".to_owned()));
        }
        if self.week_ms.is_some_and(|week| week <= self.day_ms) {
            faults.push(("week_ms", "must be longer than day_ms, or null".to_owned()));
        }
        let steps = self.horizon_ms / self.step_ms.max(1);
        if steps == 0 || usize::try_from(steps).is_ok_and(|steps| steps > HORIZON_STEPS_MAX) {
            faults.push(("horizon_ms", format!("must be 1 to {HORIZON_STEPS_MAX} steps")));
        }
        let steps = self.history_ms / self.step_ms.max(1);
        if usize::try_from(steps).is_ok_and(|steps| steps > HISTORY_STEPS_MAX) {
            faults.push(("history_ms", format!("must be {HISTORY_STEPS_MAX} steps at the most")));
        }
        for event in &self.events {
            if let Some(fault) = event.fault() {
                faults.push(("events", format!("{:?}: {fault}", event.name)));
            }
        }
        let of_holidays = Holidays::faults(&self.holidays);
        faults.extend(of_holidays.into_iter().map(|fault| ("holidays", fault)));
        if self.study_interval_ms < self.step_ms {
            faults.push(("study_interval_ms", "must be at least a step".to_owned()));
        }
        let error_max = self.trusted_relative_error_max;
        if !error_max.is_finite() || error_max < 0.0 {
            faults.push(("trusted_relative_error_max", "must be a number from 0 up".to_owned()));
        }
        faults
    }

    fn steps(&self, duration_ms: u64) -> usize {
        usize::try_from(duration_ms / self.step_ms()).unwrap_or(usize::MAX)
    }
}
