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
use crate::forecast::{Config, Holidays, Model};

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
    /// A day is none.
    #[error("--holidays: {0}")]
    Holidays(String),
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
    let step_ms = u64::try_from(series.step).unwrap_or(1).max(1).saturating_mul(1_000);
    let mut config = config_of((day.max(1), step_ms), args.horizon, &args.models);
    config.holidays = holidays(args)?;
    let Some(found) = rolling::evaluate(&series, &config) else {
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

/// The days that the arguments name, as holidays of one kind.
fn holidays(args: &cli::Forecast) -> Result<Vec<Holidays>, ForecastError> {
    if args.holidays.is_empty() {
        return Ok(Vec::new());
    }
    let all = vec![Holidays {
        name: "holidays".to_owned(),
        days: args.holidays.clone(),
        like: None,
        utc_offset_minutes: 0,
    }];
    match Holidays::faults(&all).into_iter().next() {
        Some(fault) => Err(ForecastError::Holidays(fault)),
        None => Ok(all),
    }
}

/// Names the file in an error of the system.
fn file(path: &Path) -> impl FnOnce(std::io::Error) -> ForecastError {
    let path = path.display().to_string();
    move |source| ForecastError::File { path, source }
}

/// The forecasts' configuration for a series.
/// `(day, step_ms)`: the steps of a day, and their length.
fn config_of((day, step_ms): (u64, u64), horizon: u64, models: &[Model]) -> Config {
    let day_ms = day.saturating_mul(step_ms);
    Config {
        step_ms,
        day_ms,
        week_ms: day_ms.checked_mul(7),
        horizon_ms: horizon.saturating_mul(step_ms),
        models: models.to_vec(),
        ..Config::default()
    }
}
