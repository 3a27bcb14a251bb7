//! History → a distribution of the future, with its measured error.
//!
//! A weighted ensemble of simple components is the floor: each is backtested on the past of the same
//! series, and the quantiles are past errors of the combination. Models beside it take part as far
//! as their errors at recent origins earn it. After a level shift, and where there is too little
//! history, the forecast is persistence with the spread of its own past errors. Step, seasons and
//! horizon are configuration: nothing here knows what a day is.

mod announce;
mod calendar;
mod clean;
mod components;
mod config;
mod distribution;
mod ensemble;
mod expect;
mod members;
mod persistence;
mod score;
mod shift;
mod solve;
mod stack;

pub use announce::{Announcement, Credit};
pub use calendar::{Aspect, Event, Repeats, parse_time};
pub use config::{Config, Model};
pub use distribution::{Distribution, LEVELS};
pub use expect::{Ahead, Known, Timeline};
pub use members::Network;
pub use score::{Outcome, Score, Scorecard};

use components::Shape;
use ensemble::Ensemble;
use members::{Baseline, Blend, Task, Trial};
use serde::Serialize;

/// What is expected of one series, and how far that can be believed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Quantiles of each step from the end of the history on, by the ensemble and its models; by
    /// persistence where the history is too short for it.
    pub ensemble: Distribution,
    /// The same by persistence: the last value, with the spread of its past errors.
    pub persistence: Distribution,
    /// The measured error; `None` where the history is too short to measure one.
    pub backtest: Option<Backtest>,
    /// The weight of each component and model, averaged over the steps; they sum to 1.
    pub weights: Vec<(&'static str, f64)>,
    /// Whether the ensemble's recent error is no worse than persistence's.
    pub trusted: bool,
    /// Why it is not used, if it is not.
    pub fallback: Option<String>,
    /// Whether the load is on a level that it never had, so that the past says little.
    pub shifted: bool,
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

    /// Falls back to persistence, and says why.
    pub fn distrust(&mut self, why: String) {
        self.trusted = false;
        self.fallback = Some(why);
    }
}

/// What the slow models say of a series. Good for as many steps as it was made for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Study {
    /// Distances of the origins at which they were tried from the end of the history.
    origins: Vec<usize>,
    trials: Vec<Trial>,
}

/// Trains the network that forecasts all series, on these and each with its own configuration; it
/// is good for `slack` steps more. `None` if they are too short. Takes seconds.
pub fn train(series: &[(&[f64], &Config)], slack: usize) -> Option<Network> {
    let sane: Vec<(Vec<f64>, &Config)> =
        series.iter().map(|(history, config)| (sane(history), *config)).collect();
    // A series without any load has nothing to teach.
    let alive = sane.iter().filter(|(history, _)| history.iter().any(|value| *value > 0.0));
    let tasks = alive.map(|(history, config)| {
        let task = Task::of(history, config);
        Task { horizon: task.horizon + slack, ..task }
    });
    Network::train(&tasks.collect::<Vec<_>>())
}

/// Asks the slow models about a series, so that the answer can be used for `slack` steps more.
/// Takes up to a second.
pub fn study(history: &[f64], config: &Config, slack: usize, network: Option<&Network>) -> Study {
    let history = sane(history);
    let task = Task::of(&history, config);
    let Some(shape) = Shape::fit(history.len(), task.horizon, task.day, task.week) else {
        return Study::default();
    };
    let origins = members::origins(&task, shape.oldest);
    let task = Task { horizon: task.horizon + slack, ..task };
    let slow = config.models.iter().filter(|model| model.is_slow());
    let run =
        |model: &Model| Trial::run(*model, task, &origins, &|task| model.predict(task, network));
    let trials = slow.filter_map(run).collect();
    Study { origins, trials }
}

/// One model's own point forecast, as it is tried beside the ensemble; `None` if it can't make one.
pub fn alone(
    model: Model,
    history: &[f64],
    config: &Config,
    network: Option<&Network>,
) -> Option<Vec<f64>> {
    let history = sane(history);
    let task = Task::of(&history, config);
    Trial::run(model, task, &[], &|task| model.predict(task, network)).map(Trial::into_point)
}

/// Forecasts a series of loads, oldest first, one value a step and no gaps. Values that are
/// negative or not finite count as 0. The result is finite and not negative, whatever the history.
pub fn forecast(history: &[f64], config: &Config) -> Forecast {
    forecast_with(history, config, (&Study::default(), 0))
}

/// The same with a study of the series, and the number of steps that came since then.
pub fn forecast_with(history: &[f64], config: &Config, (study, age): (&Study, usize)) -> Forecast {
    let history = sane(history);
    let task = Task::of(&history, config);
    if !history.is_empty() && history.iter().all(|value| *value == 0.0) {
        return idle(task.horizon);
    }
    let persistence = persistence::persistence(&history, task.horizon);
    let shape = Shape::fit(history.len(), task.horizon, task.day, task.week);
    let Some(shape) = shape else { return cold(persistence) };
    let studied: Vec<Trial> =
        study.trials.iter().filter_map(|trial| trial.aged(age, task.horizon)).collect();
    let origins = if studied.is_empty() {
        members::origins(&task, shape.oldest)
    } else {
        study.origins.clone()
    };
    let ends: Vec<usize> = origins.iter().map(|back| history.len().saturating_sub(*back)).collect();
    let ensemble = Ensemble::fit(&history, shape, &ends);
    let backtest = ensemble.backtest();
    let shifted = shift::is_shifted(&history, task.day);
    let (distribution, weights) = if shifted {
        let after = shift::after(&history, task.day, task.horizon);
        (persistence.moved_to(&after), vec![("after_shift", 1.0)])
    } else {
        let run =
            |model: &Model| Trial::run(*model, task, &origins, &|task| model.predict(task, None));
        let fast = config.models.iter().filter(|model| !model.is_slow());
        let trials: Vec<Trial> = fast.filter_map(run).chain(studied).collect();
        blended(&ensemble, &history, &ends, &trials)
    };
    let times = backtest.relative_to_persistence;
    let trusted = times <= config.trusted_relative_error_max;
    let fallback = (!trusted).then(|| format!("its backtest's error is {times:.2} persistence's"));
    let backtest = Some(backtest);
    Forecast { ensemble: distribution, persistence, backtest, weights, trusted, fallback, shifted }
}

/// The ensemble with the models that earned a part, and the weights of all.
fn blended(
    ensemble: &Ensemble<'_>,
    history: &[f64],
    ends: &[usize],
    trials: &[Trial],
) -> (Distribution, Vec<(&'static str, f64)>) {
    let point = ensemble.point();
    let baseline = Baseline {
        point,
        past: ends.iter().map(|end| ensemble.at(*end)).collect(),
        actual: ends.iter().map(|end| &history[*end..*end + point.len()]).collect(),
    };
    let mut weights = ensemble.mean_weights();
    let spread = ensemble.spread();
    let blend = Blend::of(&baseline, trials, &spread);
    if let Some(blend) = &blend {
        weights.iter_mut().for_each(|(_, weight)| *weight *= blend.ensemble_share);
        weights.extend(blend.shares.iter().map(|(model, share)| (model.name(), *share)));
    }
    let spread = spread.into_iter().enumerate().map(|(step, spread)| {
        let (point, width) = match &blend {
            Some(blend) => (blend.point[step], blend.width[step] * blend.repair[step]),
            None => (point[step], 1.0),
        };
        spread.map(|residual| point + width * residual)
    });
    (Distribution::new(spread.collect(), ensemble.ceiling()), weights)
}

/// The forecast of what never did anything.
fn idle(horizon: usize) -> Forecast {
    let zeros = Distribution::new(vec![[0.0; LEVELS.len()]; horizon], 0.0);
    let backtest = Backtest {
        mean_absolute_error: 0.0,
        relative_to_persistence: 1.0,
        relative_to_seasonal_naive: 1.0,
    };
    Forecast {
        ensemble: zeros.clone(),
        persistence: zeros,
        backtest: Some(backtest),
        weights: vec![("last", 1.0)],
        trusted: true,
        fallback: None,
        shifted: false,
    }
}

/// The history as it can be computed with.
fn sane(history: &[f64]) -> Vec<f64> {
    history.iter().map(|v| if v.is_finite() { v.max(0.0) } else { 0.0 }).collect()
}

/// The forecast of a series too short for anything but persistence.
fn cold(persistence: Distribution) -> Forecast {
    Forecast {
        ensemble: persistence.clone(),
        persistence,
        backtest: None,
        weights: vec![("last", 1.0)],
        trusted: false,
        fallback: Some("there is too little history".to_owned()),
        shifted: false,
    }
}

/// A count as a real number.
fn real(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests;
