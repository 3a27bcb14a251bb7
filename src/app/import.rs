//! `foreshard import` and `foreshard reshard`: ask, wait, tell the steps.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::cli;
use super::http::{AdminClient, HttpError};
use super::job;
use super::terminal::{complain, say};

/// Makes sharded tables of plain ones.
pub(super) async fn import(args: cli::Import) -> ExitCode {
    ended(run(&args).await)
}

/// Gives a group the shard key of the policy.
pub(super) async fn reshard(args: cli::Reshard) -> ExitCode {
    let run = async {
        let admin = AdminClient::new(&args.admin.admin)?;
        let wanted = json!({ "group": args.group, "check_only": args.check });
        let job = job::finish(&admin, "/api/v1/reshards", &wanted).await?;
        Ok(job["error"].as_str().map(str::to_owned).into_iter().collect())
    };
    ended(run.await)
}

fn ended(errors: Result<Vec<String>, HttpError>) -> ExitCode {
    match errors {
        Ok(errors) if errors.is_empty() => ExitCode::SUCCESS,
        Ok(errors) => {
            errors.iter().for_each(|error| complain(format!("foreshard: {error}")));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format!("foreshard: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What went wrong: nothing, if all is well. After an error nothing further is imported, but
/// everything is checked.
async fn run(args: &cli::Import) -> Result<Vec<String>, HttpError> {
    let admin = AdminClient::new(&args.admin.admin)?;
    let groups = match &args.group {
        Some(group) => vec![group.clone()],
        None => left(&admin.get("/api/v1/imports").await?),
    };
    if groups.is_empty() {
        say("every group of the policy is sharded");
    }
    let mut errors = Vec::new();
    for group in groups {
        if args.all {
            say(format!("group {group}"));
        }
        let wanted = json!({ "group": group, "split": !args.no_split, "check_only": args.check });
        let job = job::finish(&admin, "/api/v1/imports", &wanted).await?;
        errors.extend(job["error"].as_str().map(str::to_owned));
        if !args.check && !errors.is_empty() {
            break;
        }
    }
    Ok(errors)
}

/// The groups that are not sharded.
fn left(told: &Value) -> Vec<String> {
    let groups = told["groups"].as_array().map_or(&[][..], Vec::as_slice);
    let left = groups.iter().filter(|group| group["sharded"] == false);
    left.filter_map(|group| group["group"].as_str().map(str::to_owned)).collect()
}
