//! `foreshard serve`: the proxy in front of existing nodes.

use std::process::ExitCode;

use super::cli;
use super::logging;
use super::running::Running;
use super::signals::{Signals, Wish};
use super::terminal::{complain, story};
use crate::config::Serve;

/// Runs until a signal stops it.
pub(super) async fn serve(args: cli::Serve) -> ExitCode {
    logging::start("info", args.log_format);
    let config = match Serve::load(&args.config) {
        Ok(config) => config,
        Err(faults) => {
            complain(faults);
            return ExitCode::FAILURE;
        }
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            complain(format!("signals can't be received: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let running = tokio::select! {
        running = Running::start(config, Some(args.config)) => running,
        () = signals.stop() => return ExitCode::SUCCESS,
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => {
            complain(story(&error));
            return ExitCode::FAILURE;
        }
    };
    for warning in &running.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(listen = %running.proxy.address, admin = %running.admin.address(), "ready");
    while signals.next().await == Wish::Reload {
        running.reload();
    }
    tracing::info!("stopping");
    tokio::select! {
        () = running.stop() => ExitCode::SUCCESS,
        () = signals.stop() => ExitCode::FAILURE,
    }
}
