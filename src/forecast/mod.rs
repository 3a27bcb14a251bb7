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
mod holidays;
mod members;
mod noise;
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
pub use holidays::{Holidays, Weekday};
pub use members::Network;
pub use score::{Outcome, Score, Scorecard};

use components::Shape;
use ensemble::Ensemble;
use holidays::Effects;
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
    /// What holidays do.
    effects: Effects,
    /// The number of the step after the history.
    end_step: u64,
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
/// Takes up to a second. What holidays do is learned from the coarser past, if there is one: it goes
/// back further.
pub fn study(
    past: &Timeline<'_>,
    coarse: Option<&Timeline<'_>>,
    config: &Config,
    slack: usize,
    network: Option<&Network>,
) -> Study {
    let mut history = sane(past.values);
    let steps = history.len();
    let ahead = u64::try_from(config.horizon_steps() + slack).unwrap_or_default();
    let until_ms = past.end_step.saturating_add(ahead).saturating_mul(past.step_ms);
    let wanted = past.unix_ms(0).saturating_sub(DAY_MS)..until_ms;
    let effects = if config.models.contains(&Model::Prophet) {
        Effects::learn(coarse.unwrap_or(past), config, &wanted)
    } else {
        Effects::default()
    };
    let first = past.end_step.saturating_sub(u64::try_from(steps).unwrap_or_default());
    without(&mut history, effects.factors(first, past.step_ms, steps).as_deref());
    let end_step = past.end_step;
    let task = Task::of(&history, config);
    let Some(shape) = Shape::fit(steps, task.horizon, task.day, task.week) else {
        return Study { effects, end_step, ..Study::default() };
    };
    let origins = members::origins(&task, shape.oldest);
    let task = Task { horizon: task.horizon + slack, ..task };
    let slow = config.models.iter().filter(|model| model.is_slow());
    let run =
        |model: &Model| Trial::run(*model, task, &origins, &|task| model.predict(task, network));
    let trials = slow.filter_map(run).collect();
    Study { origins, trials, effects, end_step }
}

/// The longest day.
const DAY_MS: u64 = 86_400_000;

/// Takes factors out of a history.
fn without(history: &mut [f64], factors: Option<&[f64]>) {
    let factors = factors.unwrap_or_default();
    history.iter_mut().zip(factors).for_each(|(value, factor)| *value /= factor);
}

/// One model's own point forecast, as it is tried beside the ensemble, with what a study of the same
/// history found of holidays; `None` if it can't make one.
pub fn alone(
    model: Model,
    history: &[f64],
    config: &Config,
    (study, network): (&Study, Option<&Network>),
) -> Option<Vec<f64>> {
    let mut history = sane(history);
    let factors = study.factors(history.len(), 0, config);
    without(&mut history, factors.as_deref());
    let task = Task::of(&history, config);
    let said = Trial::run(model, task, &[], &|task| model.predict(task, network));
    let mut point = said.map(Trial::into_point)?;
    let ahead = factors.iter().flat_map(|factors| &factors[history.len()..]);
    point.iter_mut().zip(ahead).for_each(|(value, factor)| *value *= factor);
    Some(point)
}

impl Study {
    /// The factors of holidays for a history of so many steps and what is ahead of it, `age` steps
    /// after the study.
    fn factors(&self, steps: usize, age: usize, config: &Config) -> Option<Vec<f64>> {
        let end = self.end_step + u64::try_from(age).unwrap_or_default();
        let first = end.checked_sub(u64::try_from(steps).ok()?)?;
        self.effects.factors(first, config.step_ms(), steps + config.horizon_steps())
    }
}

/// Forecasts a series of loads, oldest first, one value a step and no gaps. Values that are
/// negative or not finite count as 0. The result is finite and not negative, whatever the history.
pub fn forecast(history: &[f64], config: &Config) -> Forecast {
    forecast_with(history, config, (&Study::default(), 0))
}

/// The same with a study of the series, and the number of steps that came since then.
pub fn forecast_with(history: &[f64], config: &Config, (study, age): (&Study, usize)) -> Forecast {
    let mut history = sane(history);
    let horizon = config.horizon_steps();
    if !history.is_empty() && history.iter().all(|value| *value == 0.0) {
        return idle(horizon);
    }
    let persistence = persistence::persistence(&history, horizon);
    let Some(factors) = study.factors(history.len(), age, config) else {
        return usual(&history, persistence, config, (study, age));
    };
    without(&mut history, Some(&factors));
    let mut forecast = usual(&history, persistence, config, (study, age));
    if forecast.backtest.is_some() {
        forecast.ensemble = forecast.ensemble.times(&factors[history.len()..]);
    }
    forecast
}

/// The forecast of a history without holidays.
fn usual(
    history: &[f64],
    persistence: Distribution,
    config: &Config,
    (study, age): (&Study, usize),
) -> Forecast {
    let task = Task::of(history, config);
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
    let ensemble = Ensemble::fit(history, shape, &ends);
    let backtest = ensemble.backtest();
    let shifted = shift::is_shifted(history, task.day);
    let (distribution, weights) = if shifted {
        let after = shift::after(history, task.day, task.horizon);
        (persistence.moved_to(&after), vec![("after_shift", 1.0)])
    } else {
        let run =
            |model: &Model| Trial::run(*model, task, &origins, &|task| model.predict(task, None));
        let fast = config.models.iter().filter(|model| !model.is_slow());
        let trials: Vec<Trial> = fast.filter_map(run).chain(studied).collect();
        blended(&ensemble, history, &ends, &trials)
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
