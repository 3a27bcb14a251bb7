//! Logs go to standard error; `FORESHARD_LOG` says how much.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::cli::LogFormat;

/// Starts logging, at `level` unless the environment says otherwise.
pub(super) fn start(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env("FORESHARD_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    drop(started);
}
