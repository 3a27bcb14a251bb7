//! The REST skin: paths, parameters, status codes.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::jobs;
use super::load;
use super::peers;
use super::views::{MoveView, NodesView, ShardsView};
use super::{ApiError, Metrics, Readiness, Service};
use crate::ids::{JobId, MoveId, ShardId};
use crate::mover::{HowToSplit, Switched, UnderWay};
use crate::shard_move::Move;

/// How many moves or decisions are listed when the client does not say.
const LIMIT: usize = 50;
/// Most moves or decisions in one answer.
const LIMIT_MAX: usize = 1_000;
/// What `/` answers.
const PATHS: &str = "\
foreshard admin\n\
GET  /metrics            for Prometheus\n\
GET  /healthz            200 while the process lives\n\
GET  /readyz             200 while clients should be sent here, else 503\n\
GET  /api/v1/status      load, forecast and what is under way\n\
GET  /api/v1/shards      where every shard is\n\
GET  /api/v1/nodes       the nodes\n\
GET  /api/v1/moves       moves, newest first (?limit=)\n\
POST /api/v1/moves       {\"shard\": 3, \"node\": \"n2\"} asks for a move; {\"shards\": [3, 4], …}: together\n\
POST /api/v1/splits      {\"shard\": 3, \"into\": 2, \"nodes\": [\"n1\", \"n2\"]} for a split; of a range\n\
                         with \"at\": [\"1000\"], of a list with \"values\": [\"eu\"] instead of \"into\"\n\
POST /api/v1/merges      {\"shards\": [3, 4], \"node\": \"n2\"} for a merge\n\
POST /api/v1/reversals   {\"shard\": 3} or {\"move\": 1} goes back from the last switch, while old copies are kept\n\
POST /api/v1/confirmations  {\"shard\": 3} or {\"move\": 1} gives the old copies up before their time\n\
POST /api/v1/cancellations  {\"move\": 1} or {\"job\": 1} calls it off before its last step\n\
POST /api/v1/verifications  {} or {\"shards\": [3]} looks whether the nodes hold what the map says\n\
POST /api/v1/nodes/n3/add    brings schema and reference tables to a configured node\n\
POST /api/v1/nodes/n3/drain  moves all its shards to other nodes\n\
GET  /api/v1/imports     the groups of the policy, and whether their tables are sharded\n\
POST /api/v1/imports     {\"group\": \"shop\"} makes sharded tables of plain ones with rows, and splits them;\n\
                         \"split\": false leaves one shard, \"check_only\": true only says what would be done\n\
POST /api/v1/reshards    {\"group\": \"shop\"} gives a group the shard key that the policy has now;\n\
                         \"check_only\": true only says what would be done\n\
GET  /api/v1/jobs        verifications and the like with what came of them, newest first (?limit=)\n\
GET  /api/v1/jobs/3      one of them\n\
GET  /api/v1/heatmap     load of every shard, past and expected (?quantity=reads|writes|rows|bytes|busy&past=&ahead=&resolution=sample|step|ten_minutes|hour)\n\
GET  /api/v1/load        kinds of statements, texts, hot keys, split points; shards used together; nodes (?shard=)\n\
GET  /api/v1/forecasts   how good the forecasts were (?shard= also gives what was said beside what came)\n\
POST /api/v1/reload      reads the configuration again; what changed, what needs a restart\n\
GET  /api/v1/clients     who is connected, and what pins a client to its servers\n\
GET  /api/v1/pools       the connections to the nodes\n\
GET  /api/v1/proxies     the proxies of this catalog, where several serve\n\
GET  /api/v1/events      known events; POST adds one, DELETE ?name= takes it away\n\
GET  /api/v1/announcements  what clients announce of themselves, and how far each is believed;\n\
                            POST adds one; /socket is the same over a WebSocket\n\
GET  /api/v1/decisions   decisions with their reasons, newest first (?limit=)\n";

/// All routes.
pub(super) fn router(service: Service, metrics: Metrics) -> Router {
    let leader = from_fn_with_state(service.clone(), peers::by_the_leader);
    let led = Router::new()
        .route("/status", get(status))
        .route("/moves", get(moves))
        .route("/heatmap", get(load::heatmap))
        .route("/load", get(load::detail))
        .route("/forecasts", get(load::forecasts))
        .route_layer(leader);
    let api = Router::new()
        .merge(led)
        .route("/shards", get(shards))
        .route("/nodes", get(nodes))
        .route("/moves", post(request_move))
        .route("/splits", post(request_split))
        .route("/merges", post(request_merge))
        .route("/reversals", post(reverse))
        .route("/confirmations", post(confirm))
        .route("/cancellations", post(cancel))
        .route("/verifications", post(jobs::request_verification))
        .route("/imports", get(jobs::imports).post(jobs::request_import))
        .route("/reshards", post(jobs::request_reshard))
        .route("/nodes/{name}/add", post(jobs::add_node))
        .route("/nodes/{name}/drain", post(jobs::drain_node))
        .route("/jobs", get(jobs::jobs))
        .route("/jobs/{id}", get(jobs::job))
        .route("/decisions", get(decisions))
        .route("/events", get(load::events).post(load::add_event).delete(load::delete_event))
        .route("/announcements", get(load::announcements).post(load::announce))
        .route("/announcements/socket", get(load::announce_socket))
        .route("/clients", get(clients))
        .route("/pools", get(pools))
        .route("/proxies", get(peers::proxies))
        .route("/load/share", post(peers::share))
        .route("/past", get(peers::past))
        .route("/reload", post(reload))
        .with_state(service.clone());
    Router::new()
        .route("/", get(async || PATHS))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(service))
        .route("/metrics", get(render).with_state(metrics))
        .nest("/api/v1", api)
        .fallback(async || {
            ApiError::new(StatusCode::NOT_FOUND, "no such path").with_hint("GET / lists all paths")
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "no such method on this path")
                .with_hint("GET / lists all paths")
        })
}

/// What answers while another proxy serves.
pub(super) fn standby_router(waits: watch::Receiver<String>, metrics: Metrics) -> Router {
    let waiting = async |State(waits): State<watch::Receiver<String>>| {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", *waits.borrow()))
    };
    let refuse = async |State(waits): State<watch::Receiver<String>>| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, waits.borrow().clone())
            .with_hint("ask the proxy that serves")
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(waiting).with_state(waits.clone()))
        .route("/metrics", get(render).with_state(metrics))
        .fallback(refuse)
        .with_state(waits)
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn readyz(State(service): State<Service>) -> (StatusCode, String) {
    let readiness = service.readiness.borrow().clone();
    match readiness {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::Starting(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
    }
}

async fn status(State(service): State<Service>) -> Json<Value> {
    let ready = *service.readiness.borrow() == Readiness::Ready;
    let epoch = service.live_map.load().epoch();
    Json(json!({ "ready": ready, "epoch": epoch, "controller": (service.status)() }))
}

async fn shards(State(service): State<Service>) -> Json<ShardsView> {
    Json(ShardsView::of(&service.live_map.snapshot()))
}

async fn nodes(State(service): State<Service>) -> Json<NodesView> {
    Json(NodesView::of(&service.live_map.snapshot(), &service.nodes))
}

async fn moves(
    State(service): State<Service>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let moves = service.moves(limit(page)?).await?;
    let map = service.live_map.snapshot();
    let view = |record: Move| {
        let live = service.progress.of(record.id).filter(|_| !record.is_finished());
        MoveView::of(&map, record, live)
    };
    let moves: Vec<_> = moves.into_iter().map(view).collect();
    Ok(Json(json!({ "moves": moves })))
}

/// What `POST /api/v1/moves` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveRequest {
    shard: Option<ShardId>,
    /// Several, which move together.
    #[serde(default)]
    shards: Vec<ShardId>,
    node: String,
}

async fn request_move(
    State(service): State<Service>,
    body: Result<Json<MoveRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let MoveRequest { shard, mut shards, node } =
        read(body, "{\"shard\": 3, \"node\": \"n2\"} or {\"shards\": [3, 4], \"node\": \"n2\"}")?;
    shards.extend(shard);
    let id = service.request_move(shards.clone(), &node).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "shards": shards, "node": node }))))
}

/// What `POST /api/v1/splits` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitRequest {
    shard: ShardId,
    /// How many shards it becomes: 2, 4, 8, …
    into: Option<u32>,
    /// Of a range: the key that begins the second shard, a text for each column or the first ones.
    at: Option<Vec<String>>,
    /// Of a list: the values that the second shard gets; null is NULL.
    values: Option<Vec<Option<String>>>,
    /// The node of each; one for all; none if they stay where the shard is.
    #[serde(default)]
    nodes: Vec<String>,
}

async fn request_split(
    State(service): State<Service>,
    body: Result<Json<SplitRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let SplitRequest { shard, into, at, values, nodes } =
        read(body, "{\"shard\": 3, \"into\": 2, \"nodes\": [\"n1\", \"n2\"]}")?;
    let how = match (into, at, values) {
        (into, None, None) => HowToSplit::Into(into.unwrap_or(2)),
        (None, Some(at), None) => HowToSplit::At(at),
        (None, None, Some(values)) => HowToSplit::Values(values),
        _ => {
            let message = "a split is into so many, at a key, or by values: one of them";
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
    };
    let into = if let HowToSplit::Into(into) = how { into } else { 2 };
    let id = service.request_split(shard, how, &nodes).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "shard": shard, "into": into }))))
}

/// What `POST /api/v1/merges` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeRequest {
    shards: Vec<ShardId>,
    /// That of the first, if none is named.
    node: Option<String>,
}

async fn request_merge(
    State(service): State<Service>,
    body: Result<Json<MergeRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let MergeRequest { shards, node } = read(body, "{\"shards\": [3, 4], \"node\": \"n2\"}")?;
    let id = service.request_merge(shards.clone(), node.as_deref()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "shards": shards }))))
}

/// What `POST /api/v1/reversals` and `confirmations` take: one of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum SwitchedRequest {
    /// Whose last switch is meant.
    Shard(ShardId),
    /// The move that switched.
    Move(MoveId),
}

impl From<SwitchedRequest> for Switched {
    fn from(wanted: SwitchedRequest) -> Self {
        match wanted {
            SwitchedRequest::Shard(shard) => Self::Shard(shard),
            SwitchedRequest::Move(id) => Self::Move(id),
        }
    }
}

async fn reverse(
    State(service): State<Service>,
    body: Result<Json<SwitchedRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let id = service.reverse(read(body, "{\"shard\": 3}")?.into()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id }))))
}

async fn confirm(
    State(service): State<Service>,
    body: Result<Json<SwitchedRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let id = service.confirm(read(body, "{\"shard\": 3}")?.into()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id }))))
}

/// What `POST /api/v1/cancellations` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum CancelRequest {
    /// This move.
    Move(MoveId),
    /// This job.
    Job(JobId),
}

async fn cancel(
    State(service): State<Service>,
    body: Result<Json<CancelRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let (what, told) = match read(body, "{\"move\": 1} or {\"job\": 1}")? {
        CancelRequest::Move(id) => (UnderWay::Move(id), json!({ "move": id })),
        CancelRequest::Job(id) => (UnderWay::Job(id), json!({ "job": id })),
    };
    service.call_off(what).await?;
    Ok((StatusCode::ACCEPTED, Json(told)))
}

/// The body of a request, which has to look like `example`.
pub(super) fn read<T>(body: Result<Json<T>, JsonRejection>, example: &str) -> Result<T, ApiError> {
    let bad = |error: JsonRejection| {
        ApiError::new(error.status(), error.body_text())
            .with_hint(format!("send {example} as application/json"))
    };
    body.map(|Json(wanted)| wanted).map_err(bad)
}

async fn clients(State(service): State<Service>) -> Json<Value> {
    Json(json!({ "clients": service.directory.clients() }))
}

async fn pools(State(service): State<Service>) -> Json<Value> {
    Json(json!({ "pools": service.directory.pools() }))
}

async fn reload(State(service): State<Service>) -> Result<Json<Value>, ApiError> {
    service.reload().await.map(Json)
}

async fn decisions(
    State(service): State<Service>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let decisions = service.decisions(limit(page)?).await?;
    Ok(Json(json!({ "decisions": decisions })))
}

/// Which part of a list is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
}

pub(super) fn limit(page: Result<Query<Page>, QueryRejection>) -> Result<usize, ApiError> {
    let bad = |error: QueryRejection| ApiError::new(StatusCode::BAD_REQUEST, error.body_text());
    let Query(page) = page.map_err(bad)?;
    Ok(page.limit.unwrap_or(LIMIT).min(LIMIT_MAX))
}
