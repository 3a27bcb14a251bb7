//! Load and forecasts: the heatmap, how good the forecasts were, known events, and what clients
//! announce.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, Service};
use crate::catalog::{Change, Expect};
use crate::controller::{Heatmap, Quantity, Window};
use crate::forecast::Event;
use crate::ids::ShardId;
use crate::load::Resolution;

/// Steps on each side when the client does not say.
const STEPS: usize = 120;
/// Most events that the API keeps.
const EVENTS_MAX: usize = 1_000;
/// Most steps on each side.
const STEPS_MAX: usize = 10_000;

/// What of the heatmap is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default)]
    quantity: Quantity,
    #[serde(default)]
    resolution: Resolution,
    past: Option<usize>,
    ahead: Option<usize>,
}

/// Load of every shard, past and expected.
pub(super) async fn heatmap(
    State(service): State<Service>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Heatmap>, ApiError> {
    let Query(Asked { quantity, resolution, past, ahead }) = asked.map_err(|error| bad(&error))?;
    let steps = |asked: Option<usize>| asked.unwrap_or(STEPS).min(STEPS_MAX);
    let (past, ahead) = (steps(past), steps(ahead));
    Ok(Json(service.insight.heatmap(&Window { quantity, resolution, past, ahead })))
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

/// The events of the API; those of the policy stand there.
pub(super) async fn events(State(service): State<Service>) -> Result<Json<Value>, ApiError> {
    let events = service.catalog.list::<Event>().await?;
    let events: Vec<Event> = events.into_iter().map(|stored| stored.record).collect();
    Ok(Json(json!({ "events": events })))
}

/// Adds an event, or changes the one of this name.
pub(super) async fn add_event(
    State(service): State<Service>,
    body: Result<Json<Event>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Json(event) = body.map_err(|error| bad_body(&error))?;
    store(&service, &Event { announced: false, ..event }).await
}

/// What a client announces of itself: an event whose effect is bounded.
pub(super) async fn announce(
    State(service): State<Service>,
    body: Result<Json<Event>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Json(event) = body.map_err(|error| bad_body(&error))?;
    let name = format!("announced/{}", event.name);
    store(&service, &Event { name, announced: true, repeats_minutes: None, ..event }).await
}

/// Which event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    name: String,
}

/// Deletes the event of this name.
pub(super) async fn delete_event(
    State(service): State<Service>,
    named: Result<Query<Named>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let Query(named) = named.map_err(|error| bad(&error))?;
    let Some(stored) = service.catalog.get::<Event>(&named.name).await? else {
        let what = format!("there is no event {:?}", named.name);
        return Err(ApiError::new(StatusCode::NOT_FOUND, what));
    };
    let change = Change::new().delete(&stored.record, Expect::At(stored.revision));
    service.catalog.commit(change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn store(service: &Service, event: &Event) -> Result<(StatusCode, Json<Value>), ApiError> {
    let unusable = |what: String| Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, what));
    if let Some(fault) = event.fault() {
        return unusable(fault);
    }
    let stored = service.catalog.list::<Event>().await?;
    if stored.len() >= EVENTS_MAX && stored.iter().all(|other| other.record.name != event.name) {
        return unusable(format!("there are {EVENTS_MAX} events already, the most allowed"));
    }
    service.catalog.put(event, Expect::Anything).await?;
    Ok((StatusCode::CREATED, Json(json!({ "event": event }))))
}

fn bad_body(error: &JsonRejection) -> ApiError {
    ApiError::new(error.status(), error.body_text()).with_hint(
        "send {\"name\": \"sale\", \"begins\": \"2026-11-27 08:00\", \"lasts_minutes\": 600, \
         \"factor\": 3} as application/json",
    )
}

fn bad(error: &QueryRejection) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error.body_text()).with_hint("GET / lists all paths")
}
