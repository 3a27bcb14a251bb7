//! `foreshard move`: asks for a move, and with `--wait` tells its phases.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::cli;
use super::http::{AdminClient, HttpError};
use super::terminal::{complain, say};
use super::view;

/// How often a move is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Asks; waits if it is told to.
pub(super) async fn request_move(args: cli::Move) -> ExitCode {
    match run(&args).await {
        Ok(code) => code,
        Err(error) => {
            complain(format!("foreshard: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &cli::Move) -> Result<ExitCode, HttpError> {
    let admin = AdminClient::new(&args.admin.admin)?;
    let wanted = json!({ "shard": args.shard, "node": args.node });
    let asked = admin.post("/api/v1/moves", &wanted).await?;
    let id = asked["id"].clone();
    say(format!("move {id} of shard {} to {} was asked for", args.shard, args.node));
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut told = 0;
    loop {
        let moves = admin.get("/api/v1/moves?limit=1000").await?;
        let found = moves["moves"].as_array().into_iter().flatten().find(|mv| mv["id"] == id);
        let Some(found) = found else {
            return Err(HttpError::Refused(format!("move {id} is no longer there")));
        };
        let phases = view::phases(found);
        for phase in phases.iter().skip(told) {
            say(phase);
        }
        told = phases.len();
        if found["finished"] == true {
            return Ok(outcome(found));
        }
        sleep(POLL).await;
    }
}

fn outcome(found: &Value) -> ExitCode {
    say(view::move_line(found));
    if found["state"] == "done" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
