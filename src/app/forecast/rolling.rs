//! Forecasts from many origins in the last half of a history, and how good each model was.

use super::series::Series;
use crate::forecast::{
    Config, Distribution, Forecast, Model, Timeline, alone, forecast_with, study, train,
};

/// Origins, evenly spaced over the last half of the history.
const ORIGINS: usize = 20;

/// What came of it.
#[derive(Debug)]
pub(super) struct Evaluation {
    /// Steps ahead.
    pub(super) horizon: usize,
    /// The combination first, then the naive ones, then each model alone.
    pub(super) rows: Vec<Row>,
    /// How often the 80 % and the 95 % interval held the outcome.
    pub(super) coverage: [f64; 2],
    /// The weight of each component and model, averaged over the origins; the highest first.
    pub(super) weights: Vec<(&'static str, f64)>,
    /// Origins whose forecast was trusted, and all.
    pub(super) trusted: (usize, usize),
    /// The last origin and what was said there.
    pub(super) last: (usize, Distribution),
}

/// The error of one way to forecast.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Mean absolute error over the first eighth of the horizon and over all of it.
    pub(super) errors: [f64; 2],
    /// At how many origins it had an answer.
    pub(super) answers: usize,
}

/// Sums of the errors of one way to forecast.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    near: f64,
    far: f64,
    answers: u32,
}

impl Sums {
    fn take(&mut self, said: impl Iterator<Item = f64>, came: &[f64], near: usize) {
        let errors: Vec<f64> = said.zip(came).map(|(said, came)| (said - came).abs()).collect();
        self.near += errors[..near].iter().sum::<f64>() / real(near);
        self.far += errors.iter().sum::<f64>() / real(errors.len());
        self.answers += 1;
    }

    fn row(&self, name: &'static str) -> Row {
        let count = f64::from(self.answers.max(1));
        let answers = usize::try_from(self.answers).unwrap_or_default();
        Row { name, errors: [self.near / count, self.far / count], answers }
    }
}

/// Forecasts from each origin; `None` if the history is too short for even one.
pub(super) fn evaluate(series: &Series, config: &Config) -> Option<Evaluation> {
    let history = series.values.as_slice();
    let horizon = config.horizon_steps();
    let newest = history.len().checked_sub(horizon)?;
    let oldest = (history.len() / 2).min(newest);
    let mut origins: Vec<usize> =
        (0..ORIGINS).map(|i| oldest + (newest - oldest) * i / (ORIGINS - 1)).collect();
    origins.dedup();
    let day = config.day_steps();
    let last_origin = *origins.last().filter(|origin| **origin > day)?;
    let near = (horizon / 8).max(1);
    // It learns from what comes before all origins.
    let wanted = config.models.contains(&Model::Lstm);
    let network = if wanted { train(&[(&history[..oldest], config)], 0) } else { None };
    let network = network.as_ref();
    let names = ["combination", "last value", "a day ago"];
    let mut sums = vec![Sums::default(); names.len() + config.models.len()];
    let (mut inside, mut weights): ([f64; 2], Vec<(&'static str, f64)>) = ([0.0; 2], Vec::new());
    let (mut trusted, mut last) = (0, None);
    for origin in origins.iter().copied().filter(|origin| *origin > day) {
        let (past, came) = (&history[..origin], &history[origin..origin + horizon]);
        let line = Timeline {
            values: past,
            end_step: series.first_step() + u64::try_from(origin).unwrap_or_default(),
            step_ms: config.step_ms(),
            day,
        };
        let study = study(&line, None, config, 0, network);
        let forecast = forecast_with(past, config, (&study, 0));
        sums[0].take(forecast.ensemble.median(), came, near);
        sums[1].take(std::iter::repeat_n(past[origin - 1], horizon), came, near);
        let day_ago = (0..horizon).map(|step| past[origin + step - day * (1 + step / day)]);
        sums[2].take(day_ago, came, near);
        for (model, sums) in config.models.iter().zip(&mut sums[names.len()..]) {
            if let Some(said) = alone(*model, past, config, (&study, network)) {
                sums.take(said.into_iter(), came, near);
            }
        }
        held(&forecast, came, &mut inside);
        add_weights(&forecast, &mut weights);
        trusted += usize::from(forecast.trusted);
        last = (origin == last_origin).then_some(forecast.ensemble).or(last);
    }
    let count = sums[0].answers;
    inside.iter_mut().for_each(|share| *share /= f64::from(count) * real(horizon));
    weights.iter_mut().for_each(|(_, weight)| *weight /= f64::from(count));
    weights.sort_by(|a, b| b.1.total_cmp(&a.1));
    let names = names.into_iter().chain(config.models.iter().map(|model| model.name()));
    Some(Evaluation {
        horizon,
        rows: sums.iter().zip(names).map(|(sums, name)| sums.row(name)).collect(),
        coverage: inside,
        weights,
        trusted: (trusted, usize::try_from(count).unwrap_or_default()),
        last: (last_origin, last?),
    })
}

/// Counts how many outcomes the 80 % and the 95 % interval held.
fn held(forecast: &Forecast, came: &[f64], inside: &mut [f64; 2]) {
    for (said, came) in forecast.ensemble.steps().iter().zip(came) {
        inside[0] += real(usize::from((said[1]..=said[9]).contains(came)));
        inside[1] += real(usize::from((said[0]..=said[10]).contains(came)));
    }
}

fn add_weights(forecast: &Forecast, weights: &mut Vec<(&'static str, f64)>) {
    for (name, weight) in &forecast.weights {
        match weights.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += weight,
            None => weights.push((name, *weight)),
        }
    }
}

fn real(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
