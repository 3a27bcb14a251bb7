//! What the skins share: the state that they show, and the one thing that they ask for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::backend::NodeAddress;
use crate::catalog::{Catalog, CatalogError, Record};
use crate::executor::LiveMap;
use crate::shard_move::Move;

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

    async fn newest<R: Record>(&self, limit: usize) -> Result<Vec<R>, CatalogError> {
        let records = self.catalog.list::<R>().await?;
        Ok(records.into_iter().rev().take(limit).map(|found| found.record).collect())
    }
}
