//! What the skins share: the state that they show, and the one thing that they ask for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::ApiError;
use crate::backend::NodeAddress;
use crate::catalog::{Catalog, CatalogError, EmbeddedKv, Record};
use crate::cluster::Cluster;
use crate::controller::Insight;
use crate::executor::LiveMap;
use crate::frontend::Directory;
use crate::ids::{MoveId, NodeId, ShardId};
use crate::load::{Counters, Samples};
use crate::mover;
use crate::mover::{HowToSplit, Switched, UnderWay, Wanted};
pub(super) use crate::runtime::now_unix_ms;
use crate::shard_map::Standing;
use crate::shard_move::{Cause, Import, Move};

/// Whether clients should be sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet; what is being waited for.
    Starting(String),
    /// Statements are served.
    Ready,
    /// No longer: connections are being drained.
    Stopping,
}

/// Reads the configuration again: what came of it as JSON, or all that speaks against it.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// The proxy's state, for whoever looks at it. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    /// The durable store: moves and decisions.
    pub catalog: Catalog,
    /// The map in force.
    pub live_map: LiveMap,
    /// How to reach each node, by id.
    pub nodes: Arc<[NodeAddress]>,
    /// What the controller saw and decided last, as JSON.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Load and forecasts.
    pub insight: Insight,
    /// What this proxy has counted and looked at, for the one that leads.
    pub counters: Counters,
    /// What was looked at.
    pub samples: Samples,
    /// This process's own store, if the catalog is shared.
    pub local: Option<EmbeddedKv>,
    /// The proxies that serve.
    pub cluster: Cluster,
    /// Who is connected.
    pub directory: Directory,
    /// How far each move under way is.
    pub progress: mover::Progress,
    /// The groups of the policy in force, as an import has them.
    pub imports: Arc<ArcSwap<Vec<Import>>>,
    /// Reads the configuration again; `None` without a file to read it from.
    pub reload: Option<Reload>,
    /// Whether clients should be sent here.
    pub readiness: watch::Receiver<Readiness>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// A decision as the controller stored it; only handed on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StoredDecision(pub(super) Value);

impl Record for StoredDecision {
    const PREFIX: &'static str = "decisions/";

    /// Never written from here.
    fn id(&self) -> String {
        self.0["id"].to_string()
    }
}

impl Service {
    /// The last `limit` moves, newest first.
    pub(super) async fn moves(&self, limit: usize) -> Result<Vec<Move>, CatalogError> {
        self.newest(limit).await
    }

    /// The last `limit` decisions, newest first.
    pub(super) async fn decisions(
        &self,
        limit: usize,
    ) -> Result<Vec<StoredDecision>, CatalogError> {
        self.newest(limit).await
    }

    /// Reads the configuration again; what came of it.
    pub(super) async fn reload(&self) -> Result<Value, ApiError> {
        let Some(reload) = &self.reload else {
            let message = "this proxy was started without a configuration file";
            return Err(ApiError::new(StatusCode::CONFLICT, message));
        };
        reload().await.map_err(|faults| {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, faults)
                .with_hint("nothing was changed; correct the file and reload again")
        })
    }

    /// Asks for a move of some shards to the node of this name; the mover sees the record.
    pub(super) async fn request_move(
        &self,
        shards: Vec<ShardId>,
        to: &str,
    ) -> Result<MoveId, ApiError> {
        let to = self.node(to)?;
        self.request(Wanted::Move { shards, to }).await
    }

    /// Asks for a split of `shard`.
    pub(super) async fn request_split(
        &self,
        shard: ShardId,
        how: HowToSplit,
        to: &[String],
    ) -> Result<MoveId, ApiError> {
        let to = to.iter().map(|name| self.node(name)).collect::<Result<_, _>>()?;
        self.request(Wanted::Split { shard, how, to }).await
    }

    /// Asks for a merge.
    pub(super) async fn request_merge(
        &self,
        shards: Vec<ShardId>,
        to: Option<&str>,
    ) -> Result<MoveId, ApiError> {
        let to = to.map(|name| self.node(name)).transpose()?;
        self.request(Wanted::Merge { shards, to }).await
    }

    /// Asks for the way back of what was switched.
    pub(super) async fn reverse(&self, what: Switched) -> Result<MoveId, ApiError> {
        let map = self.live_map.snapshot();
        let id = mover::reverse(&self.catalog, &map, what, now_unix_ms()).await?;
        tracing::info!(%id, ?what, "a way back was asked for");
        Ok(id)
    }

    /// Gives up the way back of what was switched.
    pub(super) async fn confirm(&self, what: Switched) -> Result<MoveId, ApiError> {
        let id = mover::confirm(&self.catalog, what, now_unix_ms()).await?;
        tracing::info!(%id, ?what, "a way back was given up");
        Ok(id)
    }

    /// Calls a move or a job off.
    pub(super) async fn call_off(&self, what: UnderWay) -> Result<(), ApiError> {
        mover::call_off(&self.catalog, what, now_unix_ms()).await?;
        tracing::info!(%what, "was called off");
        Ok(())
    }

    pub(super) fn node(&self, name: &str) -> Result<NodeId, ApiError> {
        let map = self.live_map.load();
        let there = |id: &NodeId| map.node(*id).standing != Standing::Gone;
        map.node_named(name).filter(there).ok_or_else(|| {
            let nodes = map.nodes().filter(|(id, _)| there(id));
            let names: Vec<_> = nodes.map(|(_, node)| node.name.as_str()).collect();
            ApiError::new(StatusCode::NOT_FOUND, format!("there is no node {name:?}"))
                .with_hint(format!("the nodes are {}", names.join(", ")))
        })
    }

    async fn request(&self, wanted: Wanted) -> Result<MoveId, ApiError> {
        let (map, cause) = (self.live_map.snapshot(), Cause::Operator);
        let id = mover::request_any(&self.catalog, &map, &wanted, cause, now_unix_ms()).await?;
        tracing::info!(%id, ?wanted, "a move was asked for");
        Ok(id)
    }

    pub(super) async fn newest<R: Record>(&self, limit: usize) -> Result<Vec<R>, CatalogError> {
        let records = self.catalog.list::<R>().await?;
        Ok(records.into_iter().rev().take(limit).map(|found| found.record).collect())
    }
}
