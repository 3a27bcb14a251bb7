//! Models that have to earn their place, series by series, by what they would have said at recent
//! origins.

mod arima;
mod lags;
mod lstm;
mod mstl;
mod prophet;
mod trial;

pub use lstm::Network;
pub(super) use prophet::holiday_factors;
pub(super) use trial::{Baseline, Blend, Trial, origins};

use super::config::Config;
pub(super) use super::config::Model;

/// What a model is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'a> {
    /// Oldest first.
    pub(super) history: &'a [f64],
    /// Steps ahead.
    pub(super) horizon: usize,
    /// Steps of the season.
    pub(super) day: usize,
    /// Steps of the longer season.
    pub(super) week: Option<usize>,
}

impl<'a> Task<'a> {
    /// What is asked of a history.
    pub(super) fn of(history: &'a [f64], config: &Config) -> Self {
        Self {
            history,
            horizon: config.horizon_steps(),
            day: config.day_steps(),
            week: config.week_steps(),
        }
    }

    /// The same as it was when only the first `end` steps were known.
    pub(super) fn until(self, end: usize) -> Self {
        Self { history: &self.history[..end], ..self }
    }

    /// The longest season that the history has at least `times` of.
    pub(super) fn season(&self, times: usize) -> Option<usize> {
        let seasons = self.week.into_iter().chain([self.day]);
        seasons.into_iter().find(|season| self.history.len() >= times * season + self.horizon)
    }
}

impl Model {
    /// Its point forecast; `None` if it can't make one of so little, or of such a history.
    pub(super) fn predict(self, task: Task<'_>, network: Option<&Network>) -> Option<Vec<f64>> {
        match self {
            Self::Arima => arima::predict(task),
            Self::Lags => lags::predict(task),
            Self::Lstm => network?.predict(task),
            Self::MstlEts => mstl::predict(task),
            Self::Prophet => prophet::predict(task),
        }
    }
}
