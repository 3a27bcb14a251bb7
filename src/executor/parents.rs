//! A definition locks a table before its partitions; a statement that was sent to a partition itself
//! may want the table after it, at the latest to read the partition's bounds. So that the two do not
//! deadlock, nobody is at the partitions while a definition runs, at no proxy: statements go by the
//! table then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::gate::BarredLeaves;
use super::run::query_message;
use super::session::Member;
use super::{Fault, Session};
use crate::cluster::{Barred, Closing};
use crate::ids::ShardId;
use crate::planner::Parents;
use crate::shard_map::TableKind;
use crate::sql::TableName;

/// How long a transaction that may hold locks waits for others, which may wait for these.
const BESIDE_LOCKS: Duration = Duration::from_secs(1);

/// Transactions that end soon are waited for before anything else is asked.
const AT_FIRST: Duration = Duration::from_millis(50);

/// The shorter of the session's timeouts, in milliseconds.
const TIMEOUT: &str = "SELECT min(setting::bigint) FROM pg_catalog.pg_settings \
                       WHERE name IN ('lock_timeout', 'statement_timeout') AND setting <> '0'";

/// While it lives nobody goes to the partitions of some tables.
#[derive(Debug)]
pub(super) struct ByParents {
    shards: BTreeSet<ShardId>,
    _here: BarredLeaves,
    _there: Option<Closing>,
}

impl Session {
    /// Whether a statement on this shard may go to its leaf partition: until the transaction ends, a
    /// definition waits for it then.
    pub fn go_to_leaf(&mut self, shard: ShardId) -> bool {
        let mut passes = self.transaction.passes.iter_mut();
        passes.find(|(held, _)| *held == shard).is_some_and(|(_, pass)| pass.go_to_leaves())
    }

    /// Keeps others away from the partitions of what is about to be defined, until the transaction
    /// ends, and waits for those who are there; not for ever: then it is PostgreSQL that waits.
    pub(super) async fn go_by_parents(&mut self, parents: &Parents) -> Result<(), Fault> {
        let shards = self.shards_of(parents).await?;
        let Some(ddl) = &self.transaction.ddl else { return Ok(()) };
        let shards: BTreeSet<_> =
            shards.into_iter().filter(|shard| !ddl.goes_by_parent(*shard)).collect();
        if shards.is_empty() {
            return Ok(());
        }
        for (shard, pass) in &mut self.transaction.passes {
            if shards.contains(shard) {
                pass.forget_leaves();
            }
        }
        let all: Vec<_> = shards.iter().copied().collect();
        let here = self.engine.gates.bar_leaves(&all);
        let there = match self.engine.cluster.close(Barred::Leaves(all)).await {
            Ok(closing) => Some(closing),
            Err(error) => {
                tracing::warn!(%error, "other proxies do not hear of a definition");
                None
            }
        };
        let others = async || {
            here.left().await;
            if let Some(closing) = &there {
                closing.passed().await;
            }
        };
        let cancel = Arc::clone(&self.cancel);
        if cancel.unless_cancelled(timeout(AT_FIRST, others())).await?.is_err() {
            let limit = self.patience().await?;
            if cancel.unless_cancelled(timeout(limit, others())).await?.is_err() {
                tracing::debug!("a definition runs beside transactions at partitions");
            }
        }
        if let Some(ddl) = &mut self.transaction.ddl {
            ddl.keep(ByParents { shards, _here: here, _there: there });
        }
        Ok(())
    }

    /// How long a definition waits for others before PostgreSQL does: no longer than the client has said
    /// that it waits for locks or statements.
    async fn patience(&mut self) -> Result<Duration, Fault> {
        let holds_locks = self.members.iter().any(Member::has_begun);
        let limit = if holds_locks { BESIDE_LOCKS } else { self.engine.config().ddl_timeout() };
        let home = self.engine.live_map.load().home();
        let rows = self.rows_of(home, &query_message(TIMEOUT)).await?;
        let own = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        Ok(own.map_or(limit, |ms| limit.min(Duration::from_millis(ms))))
    }

    /// The shards of the groups of what is defined.
    async fn shards_of(&mut self, parents: &Parents) -> Result<Vec<ShardId>, Fault> {
        let mut tables = parents.tables.clone();
        if let Some(query) = &parents.of_indexes {
            let home = self.engine.live_map.load().home();
            for row in self.rows_of(home, &query_message(query)).await? {
                if let [Some(schema), Some(name)] = row.as_slice() {
                    tables.push(TableName::new(schema.as_str(), name.as_str()));
                }
            }
        }
        let map = self.engine.live_map.load();
        let group = |table: &TableName| match map.table(table)?.kind {
            TableKind::Sharded { group, .. } => Some(group),
            TableKind::Reference => None,
        };
        let groups: BTreeSet<_> = tables.iter().filter_map(group).collect();
        let shards = map.shards().filter(|(_, shard)| groups.contains(&shard.group));
        Ok(shards.map(|(id, _)| id).collect())
    }
}

impl ByParents {
    pub(super) fn has(&self, shard: ShardId) -> bool {
        self.shards.contains(&shard)
    }
}
