//! Definitions outside of transactions, node by node: CREATE INDEX CONCURRENTLY, VACUUM, REINDEX.

use super::run::query_message;
use super::{Client, Fault, Session};
use crate::ids::NodeId;
use crate::planner::{Apart, DdlPlan, Presence};
use crate::sql::Literal;
use crate::wire::{Reply, ServerError, SqlState};

impl Session {
    /// Whether it is to be done apart, as the home node is now.
    pub(super) async fn is_apart(&mut self, apart: &Apart) -> Result<bool, Fault> {
        let Some((relation, presence)) = &apart.only_if else { return Ok(true) };
        let home = self.engine.live_map.load().home();
        let kind = self.relation_kind(home, relation).await?;
        Ok(match presence {
            Presence::Absent => kind.is_none(),
            Presence::PlainIndex => kind.as_deref() == Some("i"),
        })
    }

    /// Runs it; leaves `ReadyForQuery` to the caller. What an error leaves half done is taken back.
    pub(super) async fn run_apart(
        &mut self,
        plan: &DdlPlan,
        apart: &Apart,
        client: &mut Client,
    ) -> Result<(), Fault> {
        if self.in_transaction() {
            let message = "this statement cannot run inside a transaction block";
            return Err(ServerError::new(SqlState("25001"), message)
                .with_hint("It runs on each node outside of any transaction.")
                .into());
        }
        let _no_moves = self.no_moves().await?;
        let mut tag = None;
        if apart.after_steps {
            tag = Some(self.in_one(|node, map| plan.statements_for(node, map), client).await?);
        }
        match self.try_apart(apart, client).await {
            Ok(first) => {
                client.put(Reply::CommandComplete(&tag.unwrap_or(first)));
                self.finish().await
            }
            Err(fault) => {
                self.undo(apart).await;
                Err(fault)
            }
        }
    }

    async fn try_apart(&mut self, apart: &Apart, client: &mut Client) -> Result<String, Fault> {
        let map = self.engine.live_map.snapshot();
        let mut nodes = self.nodes_home_last();
        if let Some(relation) = &apart.only_where {
            let home = map.home();
            let mut having = Vec::new();
            for node in nodes {
                // What no node has is an error of the home node's.
                if node == home || self.relation_kind(node, relation).await?.is_some() {
                    having.push(node);
                }
            }
            nodes = having;
        }
        let mut tag = String::new();
        for node in nodes {
            for sql in apart.each_on(node, &map) {
                let shown = node == map.home();
                tag = self.run_ddl_statement(node, &query_message(&sql), shown, client).await?;
            }
        }
        let last = |node, map: &_| apart.last_on(node, map);
        if self.nodes_home_last().iter().any(|node| !last(*node, &map).is_empty()) {
            self.in_one(last, client).await?;
        }
        Ok(tag)
    }

    /// Runs statements of all nodes in one transaction.
    async fn in_one(
        &mut self,
        statements: impl Fn(NodeId, &crate::shard_map::ShardMap) -> Vec<String>,
        client: &mut Client,
    ) -> Result<String, Fault> {
        self.begin_implicit();
        match self.try_statements(statements, client).await {
            Ok(tag) => self.commit().await.map(|()| tag),
            Err(fault) => {
                self.rollback().await?;
                Err(fault)
            }
        }
    }

    /// Takes back what was done, as far as the nodes answer.
    async fn undo(&mut self, apart: &Apart) {
        let map = self.engine.live_map.snapshot();
        for node in self.nodes_home_last() {
            for sql in apart.undo_on(node, &map) {
                match self.run_unseen(node, &query_message(&sql)).await {
                    Ok(None) => {}
                    Ok(Some(_)) | Err(_) => {
                        tracing::warn!(%node, "an index that was not finished stays on a node");
                    }
                }
            }
        }
    }

    /// `pg_class.relkind` of a relation, by its name as SQL; `None` if there is none.
    async fn relation_kind(
        &mut self,
        node: NodeId,
        relation: &str,
    ) -> Result<Option<String>, Fault> {
        let sql = format!(
            "SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({})",
            Literal(relation)
        );
        let member = self.ask(node, &query_message(&sql)).await?;
        let rows = member.guard.finish_command().await?.rows;
        Ok(rows.into_iter().flatten().flatten().next())
    }
}
