//! `foreshard node add` and `node drain`: ask, wait, tell the steps.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::cli::{NodeCommand, OfNode};
use super::http::{AdminClient, HttpError};
use super::job;
use super::terminal::complain;

/// Adds or drains a node.
pub(super) async fn node(command: NodeCommand) -> ExitCode {
    let (verb, args) = match command {
        NodeCommand::Add(args) => ("add", args),
        NodeCommand::Drain(args) => ("drain", args),
    };
    let job = match run(verb, &args).await {
        Ok(job) => job,
        Err(error) => {
            complain(format!("foreshard: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match job["error"].as_str() {
        None => ExitCode::SUCCESS,
        Some(error) => {
            complain(format!("foreshard: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: &str, args: &OfNode) -> Result<Value, HttpError> {
    let admin = AdminClient::new(&args.admin.admin)?;
    job::finish(&admin, &format!("/api/v1/nodes/{}/{verb}", args.node), &json!({})).await
}
