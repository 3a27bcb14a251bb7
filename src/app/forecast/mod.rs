//! `foreshard forecast`: the forecasts, away from any proxy.

mod plot;
mod rolling;
mod series;
mod tasks;

use std::path::Path;
use std::process::ExitCode;

use series::Series;

use super::cli;
use super::terminal::{complain, say};
use crate::forecast::{Config, Model};

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
enum ForecastError {
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Neither one thing nor the other.
    #[error("give --from FILE.csv, or --tasks FILE and --out FILE")]
    Arguments,
    /// There is too little to forecast from.
    #[error(
        "{steps} steps are too few: a day has {day} of them (see --day-seconds), and some are needed"
    )]
    TooShort {
        /// Of the history.
        steps: usize,
        /// Steps in a day.
        day: u64,
    },
    /// A line is not what it should be.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// Does what the arguments say.
pub(super) fn forecast(args: &cli::Forecast) -> ExitCode {
    let done = match (&args.from, &args.tasks, &args.out) {
        (Some(from), None, out) => evaluate(from, out.as_deref(), args),
        (None, Some(tasks), Some(out)) => tasks::run(tasks, out, &args.models),
        _ => Err(ForecastError::Arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format!("foreshard: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Evaluates the forecasts of one history.
fn evaluate(from: &Path, out: Option<&Path>, args: &cli::Forecast) -> Result<(), ForecastError> {
    let series = Series::read(from, args.column)?;
    let day = args.day_seconds / u64::try_from(series.step).unwrap_or(1).max(1);
    let config = config_of(day.max(1), args.horizon, &args.models);
    let Some(found) = rolling::evaluate(&series.values, &config) else {
        return Err(ForecastError::TooShort { steps: series.values.len(), day });
    };
    let base = found.rows[2].errors;
    say(format!(
        "{} steps of {} s; {} origins, {} steps ahead",
        series.values.len(),
        series.step,
        found.trusted.1,
        found.horizon
    ));
    say("                 error near   far, relative to a day ago");
    for row in &found.rows {
        let relative = |at: usize| row.errors[at] / base[at].max(1e-12);
        say(format!("{:14} {:10.3} {:9.3}", row.name, relative(0), relative(1)));
    }
    let [inside_80, inside_95] = found.coverage.map(|share| 100.0 * share);
    say(format!("the 80 % interval held {inside_80:.0} %, the 95 % interval {inside_95:.0} %"));
    let (trusted, all) = found.trusted;
    say(format!("trusted at {trusted} of {all} origins"));
    if let Some(out) = out {
        let name = from.display().to_string();
        std::fs::write(out, plot::page(&name, &series, &found)).map_err(file(out))?;
        say(format!("the plot is in {}", out.display()));
    }
    Ok(())
}

/// Names the file in an error of the system.
fn file(path: &Path) -> impl FnOnce(std::io::Error) -> ForecastError {
    let path = path.display().to_string();
    move |source| ForecastError::File { path, source }
}

/// The forecasts' configuration for a series of unnamed steps.
fn config_of(day: u64, horizon: u64, models: &[Model]) -> Config {
    Config {
        step_ms: 1,
        day_ms: day,
        week_ms: day.checked_mul(7),
        horizon_ms: horizon,
        models: models.to_vec(),
        ..Config::default()
    }
}
