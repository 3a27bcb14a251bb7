//! Many forecasts at once: tasks in, one JSON object a line; quantiles out, as 32-bit floats.
//!
//! The formats are those of `integration/forecast/eval.py`. Beside the output stands a file with
//! the processor seconds of each task, as 64-bit floats.

use std::fs::File;
use std::io;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use super::{ForecastError, config_of, file};
use crate::app::terminal::say;
use crate::forecast::{Config, Model, Network, Timeline, forecast_with, study, train};

/// Steps ahead that a task asks for.
const HORIZON: u64 = 96;

/// One task.
#[derive(Debug, Deserialize)]
struct Task {
    /// The series.
    #[serde(default)]
    id: String,
    /// Steps in a day.
    day: u64,
    /// The history, oldest first.
    y: Vec<f64>,
}

/// Forecasts every task.
pub(super) fn run(from: &Path, to: &Path, models: &[Model]) -> Result<(), ForecastError> {
    let tasks = File::open(from).map_err(file(from))?;
    let mut seconds_path = to.to_path_buf().into_os_string();
    seconds_path.push(".sec");
    let seconds_path = PathBuf::from(seconds_path);
    let mut out = BufWriter::new(File::create(to).map_err(file(to))?);
    let seconds = File::create(&seconds_path).map_err(file(&seconds_path))?;
    let mut seconds = BufWriter::new(seconds);
    let mut took = Vec::new();
    let network = if models.contains(&Model::Lstm) { learned(from, models)? } else { None };
    for (index, line) in BufReader::new(tasks).lines().enumerate() {
        let task = parse(from, index, line)?;
        let config = config_of((task.day, 1), HORIZON, models);
        let begin = processor_seconds();
        let end_step = u64::try_from(task.y.len()).unwrap_or_default();
        let past = Timeline { values: &task.y, end_step, step_ms: 1, day: config.day_steps() };
        let study = study(&past, None, &config, 0, network.as_ref());
        let forecast = forecast_with(&task.y, &config, (&study, 0));
        let spent = processor_seconds() - begin;
        took.push(spent);
        seconds.write_all(&spent.to_le_bytes()).map_err(file(&seconds_path))?;
        for quantile in forecast.ensemble.steps().iter().flatten() {
            out.write_all(&single(*quantile).to_le_bytes()).map_err(file(to))?;
        }
    }
    out.flush().map_err(file(to))?;
    seconds.flush().map_err(file(&seconds_path))?;
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took.get(took.len() * percent / 100).map_or(0.0, |s| s * 1e3);
    say(format!(
        "{} forecasts; processor time median {:.2} ms, 95 % below {:.2} ms",
        took.len(),
        at(50),
        at(95)
    ));
    Ok(())
}

/// The network, trained on the first task of each series: what is known before all others.
fn learned(from: &Path, models: &[Model]) -> Result<Option<Network>, ForecastError> {
    let tasks = File::open(from).map_err(file(from))?;
    let mut series: Vec<(String, Vec<f64>, Config)> = Vec::new();
    for (index, line) in BufReader::new(tasks).lines().enumerate() {
        let task = parse(from, index, line)?;
        if series.iter().all(|(id, ..)| *id != task.id) {
            series.push((task.id, task.y, config_of((task.day, 1), HORIZON, models)));
        }
    }
    let series: Vec<_> =
        series.iter().map(|(_, history, config)| (history.as_slice(), config)).collect();
    Ok(train(&series, 0))
}

fn parse(from: &Path, index: usize, line: io::Result<String>) -> Result<Task, ForecastError> {
    serde_json::from_str(&line.map_err(file(from))?).map_err(|error| ForecastError::Line {
        path: from.display().to_string(),
        line: index + 1,
        what: error.to_string(),
    })
}

/// The processor time that this thread has used.
fn processor_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0.0, |time| std::time::Duration::from(time).as_secs_f64())
}

#[expect(clippy::cast_possible_truncation, reason = "the format has single precision")]
fn single(value: f64) -> f32 {
    value as f32
}
