//! What proxies of one catalog ask each other for.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ApiError, Service};
use crate::catalog::{Page, REPLICATED};
use crate::cluster::{Presence, Roll};
use crate::load;
use crate::load::{Held, Snapshot};

/// Longest answer that is handed on, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// About the longest page of a copied store, in bytes.
const PAGE_BYTES: usize = 4 << 20;

/// What a proxy has counted since it began, and looked at since it was asked last.
#[derive(Debug, Serialize, Deserialize)]
pub struct Share {
    /// The totals.
    pub counted: Snapshot,
    /// One statement in many.
    pub samples: Held,
}

/// Gives this proxy's share of the load to the one that leads.
pub(super) async fn share(State(service): State<Service>) -> Json<Share> {
    // Who leads takes its samples itself.
    let samples = if service.cluster.leads() { Held::default() } else { service.samples.take() };
    Json(Share { counted: service.counters.snapshot(), samples })
}

/// Where a copy goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    from: String,
}

/// The history of load and scores, as they are stored, for a proxy that may lead later.
pub(super) async fn past(
    State(service): State<Service>,
    place: Result<Query<Place>, QueryRejection>,
) -> Result<Json<Page>, ApiError> {
    let bad = |error: QueryRejection| ApiError::new(StatusCode::BAD_REQUEST, error.body_text());
    let Query(Place { after, from }) = place.map_err(bad)?;
    let Some(local) = &service.local else {
        let message = "this proxy shares its catalog with no other one";
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    };
    Ok(Json(local.page(REPLICATED, (after, from), PAGE_BYTES).await?))
}

/// What only the proxy that leads knows is asked of it, whoever is asked.
pub(super) async fn by_the_leader(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let Some(leader) = service.cluster.leader() else { return next.run(request).await };
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    let url = format!("http://{}/api/v1{path}", leader.reached_at(&leader.admin));
    match load::get(&url, ANSWER_BYTES_MAX).await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => ApiError::new(StatusCode::BAD_GATEWAY, error.to_string())
            .with_hint("another proxy leads, and only that one knows: ask it")
            .into_response(),
    }
}

/// The proxies of this catalog that are there.
pub(super) async fn proxies(State(service): State<Service>) -> Json<Value> {
    let Some(mirror) = service.cluster.mirror() else {
        return Json(json!({ "proxies": [] }));
    };
    let roll = mirror.get::<Roll>().map(|roll| roll.record).unwrap_or_default();
    let there = mirror.list::<Presence>().into_iter().map(|presence| presence.record);
    let view = |presence: Presence| {
        let enrolled = roll.proxies.iter().find(|proxy| proxy.id == presence.id);
        json!({
            "number": enrolled.map(|proxy| proxy.number),
            "serves": enrolled.is_some(),
            "leads": enrolled.is_some_and(|proxy| proxy.number == roll.leader),
            "this": enrolled.map(|proxy| proxy.number) == service.cluster.me(),
            "host": presence.host,
            "listen": presence.listen,
            "admin": presence.admin,
            "since_unix_ms": presence.since_unix_ms,
        })
    };
    let proxies: Vec<Value> = there.map(view).collect();
    Json(json!({ "proxies": proxies, "term": roll.number }))
}
