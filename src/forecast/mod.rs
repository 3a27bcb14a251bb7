//! History → a distribution of the future, with its measured error.
//!
//! A weighted ensemble of simple components: each is backtested on the past of the same series,
//! and the quantiles are past errors of the combination. Where there is too little history the
//! forecast is persistence with the spread of its own past errors. Step, seasons and horizon are
//! configuration: nothing here knows what a day is.

mod components;
mod config;
mod distribution;
mod ensemble;
mod mstl;
mod persistence;

pub use config::Config;
pub use distribution::{Distribution, LEVELS};

use components::Shape;
use ensemble::Ensemble;
use serde::Serialize;

/// What is expected of one series, and how far that can be believed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Quantiles of each step from the end of the history on, by the ensemble; by persistence
    /// where the history is too short for it.
    pub ensemble: Distribution,
    /// The same by persistence: the last value, with the spread of its past errors.
    pub persistence: Distribution,
    /// The measured error; `None` where the history is too short to measure one.
    pub backtest: Option<Backtest>,
    /// The weight of each component, averaged over the steps; they sum to 1.
    pub weights: Vec<(&'static str, f64)>,
    /// Whether the ensemble's recent error is no worse than persistence's.
    pub trusted: bool,
}

/// Errors over recent past forecasts, whose outcome the weights had not seen where the history is
/// long enough for that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Backtest {
    /// Mean absolute error, in the unit of the series.
    pub mean_absolute_error: f64,
    /// Relative to persistence: below 1 is better than it.
    pub relative_to_persistence: f64,
    /// Relative to the value of a season ago: below 1 is better than it.
    pub relative_to_seasonal_naive: f64,
}

impl Forecast {
    /// The distribution to plan with: the ensemble's where it is trusted, else persistence.
    pub fn distribution(&self) -> &Distribution {
        if self.trusted { &self.ensemble } else { &self.persistence }
    }
}

/// Forecasts a series of loads, oldest first, one value a step and no gaps. Values that are
/// negative or not finite count as 0. The result is finite and not negative, whatever the history.
pub fn forecast(history: &[f64], config: &Config) -> Forecast {
    let history: Vec<f64> =
        history.iter().map(|v| if v.is_finite() { v.max(0.0) } else { 0.0 }).collect();
    let horizon = config.horizon_steps();
    let persistence = persistence::persistence(&history, horizon);
    let shape = Shape::fit(history.len(), horizon, config.day_steps(), config.week_steps());
    let Some(shape) = shape else { return cold(persistence) };
    let ensemble = Ensemble::fit(&history, shape.clone());
    let backtest = ensemble.backtest();
    let mut distribution = ensemble.distribution();
    let mut weights = ensemble.mean_weights();
    if config.mstl {
        let seasons: Vec<usize> =
            [config.day_steps()].into_iter().chain(config.week_steps()).collect();
        if let Some(member) = mstl::admitted(&history, &shape, &seasons) {
            distribution = distribution.halfway_to(&member);
            for (_, weight) in &mut weights {
                *weight /= 2.0;
            }
            weights.push(("mstl_ets", 0.5));
        }
    }
    Forecast {
        ensemble: distribution,
        persistence,
        backtest: Some(backtest),
        weights,
        trusted: backtest.relative_to_persistence <= config.trusted_relative_error_max,
    }
}

/// The forecast of a series too short for anything but persistence.
fn cold(persistence: Distribution) -> Forecast {
    Forecast {
        ensemble: persistence.clone(),
        persistence,
        backtest: None,
        weights: vec![("last", 1.0)],
        trusted: false,
    }
}

/// A count as a real number.
fn real(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests;
