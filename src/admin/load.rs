//! Load and forecasts: the heatmap, and how good the forecasts were.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, Service};
use crate::controller::{Heatmap, Quantity};
use crate::ids::ShardId;

/// Steps on each side when the client does not say.
const STEPS: usize = 120;
/// Most steps on each side.
const STEPS_MAX: usize = 10_000;

/// What of the heatmap is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    #[serde(default)]
    quantity: Quantity,
    past: Option<usize>,
    ahead: Option<usize>,
}

/// Load of every shard, past and expected.
pub(super) async fn heatmap(
    State(service): State<Service>,
    window: Result<Query<Window>, QueryRejection>,
) -> Result<Json<Heatmap>, ApiError> {
    let Query(window) = window.map_err(|error| bad(&error))?;
    let steps = |asked: Option<usize>| asked.unwrap_or(STEPS).min(STEPS_MAX);
    let (past, ahead) = (steps(window.past), steps(window.ahead));
    Ok(Json(service.insight.heatmap(window.quantity, past, ahead)))
}

/// Whose forecasts are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    shard: Option<ShardId>,
}

/// How good the forecasts were.
pub(super) async fn forecasts(
    State(service): State<Service>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(whose) = whose.map_err(|error| bad(&error))?;
    Ok(Json(json!({ "forecasts": service.insight.accuracy(whose.shard) })))
}

fn bad(error: &QueryRejection) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error.body_text()).with_hint("GET / lists all paths")
}
