//! `make demo`: a shop on three nodes, a rush hour that comes every day, and the shards that move
//! before it.
//!
//! Starts the real `foreshard dev`, makes and loads the shop through it, drives it with pgbench for
//! some short days, and counts at the end, on each node directly, what is there. Every number comes
//! from the run; the exit status says whether all of it held.

mod census;
mod day;
mod loads;
mod pgbench;
mod proxy;
mod report;
mod rows;
mod run;
mod screen;
mod shop;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use proxy::Foreshard;
use screen::say;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let keep = std::env::var("KEEP").is_ok_and(|keep| !matches!(keep.as_str(), "" | "0" | "no"));
    match demo(keep).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format!("\nthe demo ended early: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether the story came out as it should. Nothing is left running, unless `keep`.
async fn demo(keep: bool) -> anyhow::Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut foreshard = Foreshard::spawn()?;
    let ended = tokio::select! {
        ended = run::run(&mut foreshard) => ended,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("told to stop")),
        _ = hang_up.recv() => Err(anyhow::anyhow!("the terminal has gone")),
    };
    if ended.is_err() {
        foreshard.show_log();
    }
    if keep && ended.is_ok() {
        foreshard.leave().await?;
    } else {
        foreshard.stop().await?;
    }
    ended
}
