//! Waiting for a job that the admin API was asked for.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::http::{AdminClient, HttpError};
use super::terminal::say;

/// How often a job is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Asks for a job and waits for its end; tells its steps meanwhile.
pub(super) async fn finish(
    admin: &AdminClient,
    path: &str,
    wanted: &Value,
) -> Result<Value, HttpError> {
    let asked = admin.post(path, wanted).await?;
    let path = format!("/api/v1/jobs/{}", asked["id"]);
    let mut told = 0;
    loop {
        let job = admin.get(&path).await?;
        let steps = job["steps"].as_array().map_or(&[][..], Vec::as_slice);
        for step in steps.iter().skip(told) {
            say(step.as_str().unwrap_or_default());
        }
        told = steps.len();
        if job["state"] != "running" {
            return Ok(job);
        }
        sleep(POLL).await;
    }
}
