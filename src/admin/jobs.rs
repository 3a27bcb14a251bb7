//! Jobs over REST: verifications, imports, other shard keys, nodes that come and go. Asked for by a record; the mover sees it.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::routes::{Page, limit, read};
use super::service::now_unix_ms;
use super::{ApiError, Service};
use crate::ids::{JobId, ShardId};
use crate::mover;
use crate::shard_map::Standing;
use crate::shard_move::{Errand, Import, Job};

/// What `POST /api/v1/verifications` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerificationRequest {
    /// These shards; none for everything.
    #[serde(default)]
    shards: Vec<ShardId>,
    /// All shards of this group.
    group: Option<String>,
}

pub(super) async fn request_verification(
    State(service): State<Service>,
    body: Result<Json<VerificationRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let VerificationRequest { mut shards, group } = read(body, "{} or {\"shards\": [3]}")?;
    let map = service.live_map.snapshot();
    if let Some(name) = group {
        let found = map.groups().iter().position(|group| group.name == name);
        let Some(found) = found else {
            let names: Vec<_> = map.groups().iter().map(|group| group.name.as_str()).collect();
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                format!("there is no group {name:?}"),
            )
            .with_hint(format!("the groups are {}", names.join(", "))));
        };
        shards.extend(map.shards().filter(|it| it.1.group.index() == found).map(|it| it.0));
    }
    if let Some(missing) = shards.iter().find(|shard| map.shard(**shard).is_none()) {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no shard {missing}"))
            .with_hint("foreshard status lists the shards"));
    }
    accepted(&service, Errand::Verify { shards }).await
}

/// A node that joins, or takes shards again.
pub(super) async fn add_node(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let node = service.node(&name)?;
    accepted(&service, Errand::AddNode { node }).await
}

/// A node that is to leave.
pub(super) async fn drain_node(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let node = service.node(&name)?;
    let map = service.live_map.snapshot();
    let conflict = |message: String| ApiError::new(StatusCode::CONFLICT, message);
    if map.home() == node {
        return Err(conflict(format!("{name} is the home node: it can't be drained"))
            .with_hint("it holds the tables that are not sharded, and stays"));
    }
    let takes =
        |(id, it): &(_, &crate::shard_map::Node)| *id != node && it.standing == Standing::Member;
    if !map.members().any(|node| takes(&node)) {
        return Err(conflict(format!("no other node can take the shards of {name}"))
            .with_hint("add a node to the configuration first"));
    }
    accepted(&service, Errand::DrainNode { node }).await
}

/// What `POST /api/v1/imports` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportRequest {
    /// The group.
    group: String,
    /// Whether its shard is split afterwards into those of the policy.
    #[serde(default = "yes")]
    split: bool,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    check_only: bool,
}

fn yes() -> bool {
    true
}

/// Plain tables become sharded ones.
pub(super) async fn request_import(
    State(service): State<Service>,
    body: Result<Json<ImportRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let ImportRequest { group, split, check_only } = read(body, "{\"group\": \"shop\"}")?;
    let import = Import { split, check_only, ..of_policy(&service, &group)? };
    accepted(&service, Errand::Import(Box::new(import))).await
}

/// What `POST /api/v1/reshards` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReshardRequest {
    /// The group.
    group: String,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    check_only: bool,
}

/// A group gets the shard key of the policy.
pub(super) async fn request_reshard(
    State(service): State<Service>,
    body: Result<Json<ReshardRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let ReshardRequest { group, check_only } = read(body, "{\"group\": \"shop\"}")?;
    let wanted = Import { check_only, ..of_policy(&service, &group)? };
    accepted(&service, Errand::Reshard(Box::new(wanted))).await
}

/// A group as the policy has it.
fn of_policy(service: &Service, group: &str) -> Result<Import, ApiError> {
    let groups = service.imports.load_full();
    let Some(import) = groups.iter().find(|import| import.group == group) else {
        let names: Vec<_> = groups.iter().map(|import| import.group.as_str()).collect();
        let message = format!("the policy has no group {group:?}");
        let known = if names.is_empty() {
            "it has no groups".to_owned()
        } else {
            format!("its groups are {}", names.join(", "))
        };
        return Err(ApiError::new(StatusCode::NOT_FOUND, message)
            .with_hint(format!("{known}; foreshard reload reads it again")));
    };
    Ok(import.clone())
}

/// The groups of the policy, and whether each is sharded.
pub(super) async fn imports(State(service): State<Service>) -> Json<Value> {
    let map = service.live_map.snapshot();
    let groups = service.imports.load_full();
    let group = |import: &Import| {
        let tables: Vec<String> = import.names().iter().map(ToString::to_string).collect();
        let sharded = map.group_named(&import.group).is_some_and(|group| {
            import.names().iter().all(|name| map.tables_of(group).any(|it| it.name == *name))
        });
        json!({ "group": import.group, "tables": tables, "sharded": sharded })
    };
    Json(json!({ "groups": groups.iter().map(group).collect::<Vec<_>>() }))
}

/// Stores a job.
async fn accepted(
    service: &Service,
    errand: Errand,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    tracing::info!(?errand, "a job was asked for");
    let id = mover::request_job(&service.catalog, errand, now_unix_ms()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id }))))
}

pub(super) async fn jobs(
    State(service): State<Service>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let jobs: Vec<Job> = service.newest(limit(page)?).await?;
    Ok(Json(json!({ "jobs": jobs })))
}

pub(super) async fn job(
    State(service): State<Service>,
    Path(id): Path<u64>,
) -> Result<Json<Job>, ApiError> {
    let key = format!("{id:020}");
    let found = service.catalog.get::<Job>(&key).await?.map(|job| job.record);
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("there is no job {}", JobId(id)));
    found.map(Json).ok_or_else(missing)
}
