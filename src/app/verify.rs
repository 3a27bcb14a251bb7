//! `foreshard verify`: ask, wait, tell what was found.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::cli;
use super::http::{AdminClient, HttpError};
use super::job;
use super::terminal::{complain, say};
use super::view;

/// Looks whether the nodes hold what the map says.
pub(super) async fn verify(args: cli::Verify) -> ExitCode {
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            complain(format!("foreshard: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: cli::Verify) -> Result<ExitCode, HttpError> {
    let admin = AdminClient::new(&args.admin.admin)?;
    let wanted = json!({ "shards": args.shards, "group": args.group });
    let job = job::finish(&admin, "/api/v1/verifications", &wanted).await?;
    for line in view::findings(&job["report"]) {
        say(line);
    }
    Ok(outcome(&job))
}

fn outcome(job: &Value) -> ExitCode {
    if let Some(error) = job["error"].as_str() {
        complain(format!("foreshard: {error}"));
        return ExitCode::from(2);
    }
    let findings = job["report"]["findings"].as_array().map_or(&[][..], Vec::as_slice);
    match findings {
        [] => ExitCode::SUCCESS,
        all if all.iter().all(|finding| finding["kind"] == "unknown") => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}
