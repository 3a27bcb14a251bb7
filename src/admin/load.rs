//! Load and forecasts: the heatmap, how good the forecasts were, known events, and what clients
//! announce.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{ApiError, Service};
use crate::catalog::{Change, Expect};
use crate::controller::{Heatmap, Quantity, Window};
use crate::forecast::{Announcement, Credit, Event};
use crate::ids::ShardId;
use crate::load::{Resolution, SAMPLED_ONE_IN};
use crate::runtime::now_unix_ms;

/// Steps on each side when the client does not say.
const STEPS: usize = 120;
/// Most events that the API keeps.
const EVENTS_MAX: usize = 1_000;
/// What the names of announcements begin with.
const ANNOUNCED: &str = "announced/";
/// Bytes of a message of a WebSocket, and how long it may say nothing.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const SOCKET_IDLE_MAX: Duration = Duration::from_hours(1);
/// Pairs of shards in one answer.
const PAIRS_MAX: usize = 1_000;
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
    let window = Window { quantity, resolution, past, ahead };
    Ok(Json(service.insight.heatmap(&window, &service.live_map.snapshot())))
}

/// What samples show of each shard, which shards share transactions, and how the nodes are.
pub(super) async fn detail(
    State(service): State<Service>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(whose) = whose.map_err(|error| bad(&error))?;
    let mut pairs = service.insight.pairs();
    pairs.retain(|pair| whose.shard.is_none_or(|only| only == pair.first || only == pair.second));
    pairs.truncate(PAIRS_MAX);
    Ok(Json(json!({
        "sampled_one_in": SAMPLED_ONE_IN,
        "shards": service.insight.details(&service.live_map.snapshot(), whose.shard),
        "together": pairs,
        "nodes": service.insight.nodes(),
    })))
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
    if event.name.starts_with(ANNOUNCED) {
        let what = format!("names that begin with {ANNOUNCED:?} are those of announcements");
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, what));
    }
    store(&service, &Event { client: None, ..event }).await
}

/// What clients announce, and how far each is believed.
pub(super) async fn announcements(State(service): State<Service>) -> Result<Json<Value>, ApiError> {
    let events = service.catalog.list::<Event>().await?.into_iter().map(|stored| stored.record);
    let announced: Vec<Event> = events.filter(|event| event.client.is_some()).collect();
    let credits = service.catalog.list::<Credit>().await?;
    let clients: Vec<Value> = credits.iter().map(|stored| client(&stored.record)).collect();
    Ok(Json(json!({ "announcements": announced, "clients": clients })))
}

fn client(credit: &Credit) -> Value {
    json!({
        "client": credit.client,
        "trust": credit.trust(),
        "effect_max": credit.bound(),
        "outcomes": credit.resolved,
    })
}

/// What a client announces of itself: an event whose effect is bounded.
pub(super) async fn announce(
    State(service): State<Service>,
    body: Result<Json<Announcement>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Json(said) = body.map_err(|error| bad_body(&error))?;
    take(&service, said).await
}

/// The same over a WebSocket: a text message an announcement, answered by the event or an error.
pub(super) async fn announce_socket(
    State(service): State<Service>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let small = upgrade.max_message_size(MESSAGE_BYTES_MAX);
    small.on_upgrade(async move |mut socket| {
        // A socket that says nothing for long is closed: nobody waits for it.
        while let Ok(Some(Ok(message))) = timeout(SOCKET_IDLE_MAX, socket.recv()).await {
            let Message::Text(text) = message else { continue };
            let taken = match Announcement::parse(&text) {
                Ok(said) => take(&service, said).await.map(|(_, Json(event))| event),
                Err(fault) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, fault)),
            };
            let answer = taken.unwrap_or_else(|error| ApiError::body(&error));
            if socket.send(Message::Text(answer.to_string().into())).await.is_err() {
                return;
            }
        }
    })
}

async fn take(
    service: &Service,
    said: Announcement,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let unusable = |fault| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, fault);
    store(service, &said.into_event(None, now_unix_ms()).map_err(unusable)?).await
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
