//! `foreshard forecast`: the forecasts, away from any proxy.

mod tasks;

use std::process::ExitCode;

use super::cli;
use super::terminal::{complain, story};
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
    match tasks::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format!("foreshard: {}", story(&error)));
            ExitCode::FAILURE
        }
    }
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
