//! `foreshard serve`: the proxy in front of existing nodes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::cli;
use super::hand_over::{self, Offer};
use super::logging;
use super::preflight::{Needed, check_nodes};
use super::reload::Source;
use super::running::Running;
use super::signals::{Signals, Wish};
use super::terminal::{complain, story};
use crate::config::Serve;

/// How long those who were accepted just before a hand-over have for logging in.
const LINGER: Duration = Duration::from_millis(300);

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
    let inherited = match inherited(&config, args.take_over).await {
        Ok(sockets) => sockets,
        Err(reason) => {
            complain(reason);
            return ExitCode::FAILURE;
        }
    };
    let data_folder = config.data_folder.clone();
    let running = tokio::select! {
        running = Box::pin(Running::start(config, Source::Config(args.config), inherited)) => running,
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
    let end = until_stopped(&running, &mut signals, &data_folder).await;
    tracing::info!("stopping");
    let good = if end == End::Replaced { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    tokio::select! {
        () = running.stop(end == End::HandedOver) => good,
        () = signals.stop() => ExitCode::FAILURE,
    }
}

/// Why a proxy ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A signal.
    Told,
    /// A process with the same data folder takes over.
    HandedOver,
    /// Another proxy leads.
    Replaced,
}

/// Serves until a signal or another process, which takes over, wants the end.
async fn until_stopped(running: &Running, signals: &mut Signals, data_folder: &Path) -> End {
    let offer = match Offer::new(data_folder) {
        Ok(offer) => Some(offer),
        Err(error) => {
            tracing::warn!(%error, "another process will not be able to take over");
            None
        }
    };
    let wanted = async || match &offer {
        Some(offer) => offer.wanted().await,
        None => std::future::pending().await,
    };
    loop {
        let wanted = tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => return End::Told,
                Wish::Reload => {
                    running.reload();
                    continue;
                }
            },
            () = running.replaced() => {
                tracing::error!("another proxy serves now; started again, this one waits for its turn");
                return End::Replaced;
            }
            wanted = wanted() => wanted,
        };
        let given = wanted.and_then(|wanted| wanted.give(&running.proxy.sockets()?));
        match given {
            Ok(()) => {
                tracing::info!("another process takes over");
                running.proxy.leave();
                // Those who were accepted a moment ago are not told that nobody is let in.
                tokio::time::sleep(LINGER).await;
                return End::HandedOver;
            }
            Err(error) => tracing::warn!(%error, "a hand-over failed"),
        }
    }
}

/// The sockets of the process that is taken over from; none at an ordinary start. Why it can't be.
async fn inherited(config: &Serve, take_over: bool) -> Result<Vec<OwnedFd>, String> {
    if !take_over {
        return Ok(Vec::new());
    }
    // What can be wrong should be found before the old process ends.
    check_nodes(&config.nodes, &config.policy.database, Needed::All)
        .await
        .map_err(|error| story(&error))?;
    let (folder, shown) = (config.data_folder.clone(), config.data_folder.display().to_string());
    let taken = tokio::task::spawn_blocking(move || {
        let (sockets, ending) = hand_over::take_over(&folder)?;
        tracing::info!("clients wait until the old process has ended its transactions");
        ending.wait()?;
        Ok(sockets)
    });
    let taken: Result<std::io::Result<_>, _> = taken.await;
    let no_hand_over = |error: &dyn std::fmt::Display| {
        format!("no process that serves with {shown} can be taken over from: {error}")
    };
    taken.map_err(|error| no_hand_over(&error))?.map_err(|error| no_hand_over(&error))
}
