//! `foreshard move`, `split` and `merge`: ask, and with `--wait` tell the phases.

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

/// Asks for a move; waits if it is told to.
pub(super) async fn request_move(args: cli::Move) -> ExitCode {
    let (shards, wait, admin) = (args.shards, args.wait, &args.admin);
    let Some(node) = args.node else {
        // Of several that moved together each tells which switch is meant.
        let shard = shards.first().copied().unwrap_or_default();
        let wanted = json!({ "shard": shard });
        let (path, what) = if args.reverse {
            ("reversals", format!("back from the last switch of shard {shard}"))
        } else {
            ("confirmations", format!("back from the last switch of shard {shard}, to lapse,"))
        };
        return Asked { path, wanted, wait, admin }.run(&what).await;
    };
    let wanted = json!({ "shards": shards, "node": node });
    let numbers: Vec<String> = shards.iter().map(ToString::to_string).collect();
    let what = if shards.len() == 1 { "shard" } else { "shards" };
    let what = format!("of {what} {} to {node}", numbers.join(", "));
    Asked { path: "moves", wanted, wait, admin }.run(&what).await
}

/// Asks for a split.
pub(super) async fn request_split(args: cli::Split) -> ExitCode {
    let mut wanted = json!({ "shard": args.shard, "nodes": args.to });
    let how = match (args.at.as_slice(), args.values.as_slice()) {
        ([], []) => {
            let into = args.into.unwrap_or(2);
            wanted["into"] = into.into();
            format!("into {into}")
        }
        ([], values) => {
            wanted["values"] = values.into();
            format!("by values: {}", values.join(", "))
        }
        (at, _) => {
            wanted["at"] = at.into();
            format!("at {}", at.join(", "))
        }
    };
    let asked = Asked { path: "splits", wanted, wait: args.wait, admin: &args.admin };
    asked.run(&format!("that splits shard {} {how}", args.shard)).await
}

/// Asks for a merge.
pub(super) async fn request_merge(args: cli::Merge) -> ExitCode {
    let wanted = match &args.to {
        Some(node) => json!({ "shards": args.shards, "node": node }),
        None => json!({ "shards": args.shards }),
    };
    let asked = Asked { path: "merges", wanted, wait: args.wait, admin: &args.admin };
    let shards: Vec<String> = args.shards.iter().map(ToString::to_string).collect();
    asked.run(&format!("that merges shards {}", shards.join(" "))).await
}

/// Calls a move or a job off.
pub(super) async fn cancel(args: cli::Cancel) -> ExitCode {
    let what = match args.what {
        cli::UnderWay::Move => "move",
        cli::UnderWay::Job => "job",
    };
    let asked = async {
        let admin = AdminClient::new(&args.admin.admin)?;
        admin.post("/api/v1/cancellations", &json!({ what: args.id })).await
    };
    match asked.await {
        Ok(_) => {
            say(format!("{what} {} is called off", args.id));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(format!("foreshard: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What is asked for, and how.
struct Asked<'a> {
    path: &'a str,
    wanted: Value,
    wait: bool,
    admin: &'a cli::Admin,
}

impl Asked<'_> {
    async fn run(&self, what: &str) -> ExitCode {
        match self.ask(what).await {
            Ok(code) => code,
            Err(error) => {
                complain(format!("foreshard: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    async fn ask(&self, what: &str) -> Result<ExitCode, HttpError> {
        let admin = AdminClient::new(&self.admin.admin)?;
        let asked = admin.post(&format!("/api/v1/{}", self.path), &self.wanted).await?;
        let id = asked["id"].clone();
        say(format!("move {id} {what} was asked for"));
        if self.wait { until_finished(&admin, &id).await } else { Ok(ExitCode::SUCCESS) }
    }
}

async fn until_finished(admin: &AdminClient, id: &Value) -> Result<ExitCode, HttpError> {
    let mut told = 0;
    loop {
        let moves = admin.get("/api/v1/moves?limit=1000").await?;
        let found = moves["moves"].as_array().into_iter().flatten().find(|mv| mv["id"] == *id);
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
    if found["state"] == "done" || found["state"] == "lapsed" {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
