//! Finishes or rolls back what a crash left prepared, judged from the data alone: a prepared
//! transaction whose decision is in the catalog is committed, any other is rolled back. Where a
//! decision hangs on a part that could not be prepared, its node says what came of that.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState as NodeState;

use super::commit::{CommitDecision, LastPart};
use super::engine::{Finishing, Part};
use super::{ColumnsError, Engine};
use crate::backend::NodeAddress;
use crate::catalog::{Change, Expect};
use crate::runtime::Tasks;
use crate::shard_map::Standing;
use crate::sql::Literal;

/// How long one node may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// When a node that has not finished what is committed is asked again.
const SOON: Duration = Duration::from_secs(1);

/// Prepared transactions of this catalog, with their databases.
const PREPARED: &str = "SELECT gid, database::text FROM pg_catalog.pg_prepared_xacts \
    WHERE starts_with(gid, $1)";

/// What came of a transaction; NULL if that is too long ago.
const STATUS: &str = "SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8)";

impl Engine {
    /// Resolves now, then at intervals, until it is stopped.
    pub async fn resolve_forever(self: Arc<Self>, tasks: Tasks) {
        loop {
            self.resolve().await;
            if let Err(error) = self.refresh_derived().await {
                tracing::warn!(%error, "views over sharded tables could not be read");
            }
            let interval = Duration::from_secs(self.config().resolve_interval_s.max(1));
            let next = if self.doubts.any() { interval.min(SOON) } else { interval };
            tokio::select! {
                () = tasks.token().cancelled() => return,
                () = self.doubts.raised.notified() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Resolves what it finds on every node that answers. Decisions are forgotten only once all
    /// nodes have answered and none has a part left.
    pub async fn resolve(&self) {
        let finishing = self.finishing();
        let decisions = match self.catalog.list::<CommitDecision>().await {
            Ok(decisions) => decisions,
            Err(error) => return tracing::warn!(%error, "commit decisions could not be read"),
        };
        let live = self.live_gids.lock().clone();
        let mut all_answered = true;
        // A node that was drained and has left has nothing that could be resolved.
        let map = self.live_map.snapshot();
        let there = map.nodes().filter(|(_, node)| node.standing != Standing::Gone);
        for (id, _) in there {
            let node = &self.nodes[id.index()];
            let only = self.doubts.finishing.lock().await;
            let mark = self.doubts.of(id);
            let resolved = timeout(DEADLINE, self.resolve_node(node, &finishing)).await;
            drop(only);
            if let Ok(Ok(())) = resolved {
                mark.into_iter().for_each(|mark| self.doubts.settle(id, mark));
                continue;
            }
            all_answered = false;
            if let Ok(Err(error)) = resolved {
                tracing::warn!(node = %node.name, %error, "prepared transactions stay");
            }
            if decisions.iter().any(|it| finishing.of(&it.record.gid) == Part::Finishes) {
                self.doubts.raise(id);
                self.share_doubts(&[id]).await;
            }
        }
        if !all_answered {
            return;
        }
        let done = |gid: &String| !live.contains(gid) && finishing.of(gid) == Part::Finishes;
        for decision in decisions.iter().filter(|d| done(&d.record.gid)) {
            let change = Change::new().delete(&decision.record, Expect::At(decision.revision));
            if let Err(error) = self.catalog.commit(change).await {
                tracing::warn!(%error, "a finished commit decision stays in the catalog");
            }
        }
    }

    /// Whether the part of a transaction on which the others hang is committed.
    async fn is_committed(&self, last: &LastPart) -> Result<bool, ColumnsError> {
        let Some(node) = self.nodes.get(last.node.index()) else {
            return Err(ColumnsError::Forgotten(last.xid.clone()));
        };
        let map = self.live_map.snapshot();
        let status = async |client: &Client| {
            node.enter(client).await?;
            Ok::<_, ColumnsError>(client.query_one(STATUS, &[&last.xid]).await?)
        };
        let row = node.ask(map.database(), status).await?;
        match row.get::<_, Option<&str>>(0) {
            Some("committed") => Ok(true),
            Some("aborted") => Ok(false),
            Some(_) => Err(ColumnsError::Undecided),
            None => Err(ColumnsError::Forgotten(last.xid.clone())),
        }
    }

    /// Finishes what is left on a node of those transactions that this proxy finishes.
    ///
    /// # Errors
    /// Where it can't be finished, also of a proxy that was struck off and may still be at work.
    pub(super) async fn resolve_node(
        &self,
        node: &NodeAddress,
        finishing: &Finishing,
    ) -> Result<(), ColumnsError> {
        let map = self.live_map.snapshot();
        let list = async |client: &Client| {
            node.enter(client).await?;
            Ok::<_, ColumnsError>(client.query(PREPARED, &[&self.gid_prefix]).await?)
        };
        let rows = node.ask(map.database(), list).await?;
        for row in rows {
            let (gid, database): (String, String) = (row.get(0), row.get(1));
            // Only once no session is at work on it is the catalog's word on it final.
            if self.live_gids.lock().contains(&gid) {
                continue;
            }
            match finishing.of(&gid) {
                Part::Finishes => {}
                Part::Leaves => continue,
                Part::Waits => return Err(ColumnsError::Undecided),
            }
            let decided = match self.catalog.get::<CommitDecision>(&gid).await? {
                None => false,
                Some(decision) => match &decision.record.last {
                    None => true,
                    Some(last) => self.is_committed(last).await?,
                },
            };
            let verdict = if decided { "COMMIT" } else { "ROLLBACK" };
            let sql = format!("{verdict} PREPARED {}", Literal(&gid));
            let finish = async |client: &Client| {
                node.enter(client).await?;
                match client.batch_execute(&sql).await {
                    // Its session has finished it meanwhile.
                    Err(error) if error.code() == Some(&NodeState::UNDEFINED_OBJECT) => Ok(()),
                    done => Ok::<_, ColumnsError>(done?),
                }
            };
            node.ask(&database, finish).await?;
            tracing::info!(node = %node.name, gid, verdict, "resolved a prepared transaction");
        }
        Ok(())
    }
}
