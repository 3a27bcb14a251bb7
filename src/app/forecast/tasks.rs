//! Many forecasts at once: tasks in, one JSON object a line; quantiles out, as 32-bit floats.
//!
//! The formats are those of `integration/forecast/eval.py`. Beside the output stands a file with
//! the processor seconds of each task, as 64-bit floats.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use super::{ForecastError, config_of};
use crate::app::cli;
use crate::app::terminal::say;
use crate::forecast::{forecast_with, study};

/// Steps ahead that a task asks for.
const HORIZON: u64 = 96;

/// One task.
#[derive(Debug, Deserialize)]
struct Task {
    /// Steps in a day.
    day: u64,
    /// The history, oldest first.
    y: Vec<f64>,
}

/// Forecasts every task.
pub(super) fn run(args: &cli::Forecast) -> Result<(), ForecastError> {
    let tasks = File::open(&args.tasks).map_err(file(&args.tasks))?;
    let mut seconds_path = args.out.clone().into_os_string();
    seconds_path.push(".sec");
    let seconds_path = PathBuf::from(seconds_path);
    let mut out = BufWriter::new(File::create(&args.out).map_err(file(&args.out))?);
    let seconds = File::create(&seconds_path).map_err(file(&seconds_path))?;
    let mut seconds = BufWriter::new(seconds);
    let mut took = Vec::new();
    for (index, line) in BufReader::new(tasks).lines().enumerate() {
        let line = line.map_err(file(&args.tasks))?;
        let task: Task = serde_json::from_str(&line).map_err(|error| ForecastError::Line {
            path: args.tasks.display().to_string(),
            line: index + 1,
            what: error.to_string(),
        })?;
        let config = config_of(task.day, HORIZON, &args.models);
        let begin = processor_seconds();
        let study = study(&task.y, &config, 0);
        let forecast = forecast_with(&task.y, &config, (&study, 0));
        let spent = processor_seconds() - begin;
        took.push(spent);
        seconds.write_all(&spent.to_le_bytes()).map_err(file(&seconds_path))?;
        for quantile in forecast.ensemble.steps().iter().flatten() {
            out.write_all(&single(*quantile).to_le_bytes()).map_err(file(&args.out))?;
        }
    }
    out.flush().map_err(file(&args.out))?;
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

/// The processor time that this thread has used.
fn processor_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0.0, |time| std::time::Duration::from(time).as_secs_f64())
}

#[expect(clippy::cast_possible_truncation, reason = "the format has single precision")]
fn single(value: f64) -> f32 {
    value as f32
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> ForecastError {
    let path = path.display().to_string();
    move |source| ForecastError::File { path, source }
}
