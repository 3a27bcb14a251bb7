//! `foreshard reload`: a running proxy reads its configuration again.

use std::process::ExitCode;

use serde_json::Value;

use super::cli;
use super::http::{AdminClient, HttpError};
use super::terminal::{complain, say};

/// Asks for it, and says what came of it.
pub(super) async fn reload(args: cli::Admin) -> ExitCode {
    match ask(&args).await {
        Ok(answer) => {
            say(format!("in force now: {}", keys(&answer["changed"])));
            say(format!("needs a restart: {}", keys(&answer["needs_restart"])));
            for command in ["import", "reshard"] {
                let groups = &answer[format!("needs_{command}")];
                if groups.as_array().is_some_and(|groups| !groups.is_empty()) {
                    say(format!("waits for foreshard {command}: {}", keys(groups)));
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

async fn ask(args: &cli::Admin) -> Result<Value, HttpError> {
    AdminClient::new(&args.admin)?.post("/api/v1/reload", &Value::Null).await
}

fn keys(list: &Value) -> String {
    let keys: Vec<_> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}
