//! Statements that run on every node in one transaction: writes to reference tables, and DDL.
//!
//! All run in the same order of nodes, the home node last, so that two of them wait for each other's
//! locks instead of deadlocking.

use bytes::BytesMut;
use tokio::time::Instant;

use super::pump::{Verdict, pump};
use super::run::{Cost, query_message};
use super::{Client, Exclusive, Fault, Session};
use crate::ids::NodeId;
use crate::load::Access;
use crate::planner::{DdlPlan, OnLeaves};
use crate::shard_map::{Lookup, LookupStanding, ShardMap, TableKind};
use crate::sql::TableName;
use crate::wire::{Reply, ServerError, SqlState, command_tag, put_query};

impl Session {
    /// Runs the same write on every node; the client gets the home node's rows and command tag.
    /// Leaves `ReadyForQuery` to the caller. Commits, unless the client has a transaction block.
    pub async fn run_on_every_node(
        &mut self,
        messages: &[u8],
        describe: bool,
        client: &mut Client,
    ) -> Result<(), Fault> {
        self.write_references().await?;
        let implicit = self.begin_implicit();
        let tag = self.try_on_every_node(messages, describe, client).await;
        self.end_broadcast(implicit, tag, client).await
    }

    async fn try_on_every_node(
        &mut self,
        messages: &[u8],
        describe: bool,
        client: &mut Client,
    ) -> Result<String, Fault> {
        let mut tags = Vec::new();
        for node in self.nodes_home_last() {
            let started = Instant::now();
            let is_home = node == self.engine.live_map.load().home();
            let passes = |kind| match kind {
                b'T' => is_home && describe,
                b'D' | b'N' => is_home,
                _ => false,
            };
            let (tag, bytes) = self.tag_of(node, messages, passes, client).await?;
            let cost = Cost::none(Access::Write);
            self.record(node, &cost, started.elapsed(), bytes);
            tags.push(tag?);
        }
        tags.dedup();
        match tags.as_slice() {
            [tag] => Ok(tag.clone()),
            _ => Err(ServerError::new(
                SqlState::INTERNAL_ERROR,
                "the nodes' copies of a reference table differ",
            )
            .with_detail(format!("The nodes report: {}.", tags.join(", ")))
            .with_hint("Nothing was changed. Compare the table on all nodes and repair it.")
            .into()),
        }
    }

    /// Runs DDL on every node; waits for moves under way first. Leaves `ReadyForQuery` to the
    /// caller. Commits, unless the client has a transaction block.
    pub async fn run_ddl(&mut self, plan: &DdlPlan, client: &mut Client) -> Result<(), Fault> {
        if let Some(apart) = &plan.apart
            && self.is_apart(apart).await?
        {
            return self.run_apart(plan, apart, client).await;
        }
        if self.transaction.ddl.is_none() {
            self.transaction.ddl = match self.transaction.reserved.take() {
                Some(reserved) => Some(reserved),
                None => Some(self.no_moves().await?),
            };
        }
        self.check_declared(plan)?;
        self.go_by_parents(&plan.parents).await?;
        if let Some(lookup) = &plan.fills {
            self.prepare_lookup(lookup).await?;
        }
        let implicit = self.begin_implicit();
        self.transaction.defines_more.add(&plan.more);
        self.transaction.changed_tables.extend(plan.tables.iter().cloned());
        self.transaction.changed_views.extend(plan.views.iter().cloned());
        let tag = match self.try_ddl(plan, client).await {
            Ok(tag) => self.after_ddl(plan).await.map(|()| tag),
            Err(fault) => Err(fault),
        };
        self.engine.direct.forget();
        let sees = tag.is_ok() && !implicit && !plan.tables.is_empty();
        self.end_broadcast(implicit, tag, client).await?;
        if sees { self.see_own_columns().await } else { Ok(()) }
    }

    /// A lookup that was made is filled, and TRUNCATE of a looked-up table empties its lookups.
    async fn after_ddl(&mut self, plan: &DdlPlan) -> Result<(), Fault> {
        if let Some(lookup) = &plan.fills {
            self.fill_lookup(lookup).await?;
        }
        let kept = |lookup: &Lookup| lookup.standing >= LookupStanding::Kept;
        if !self.engine.live_map.load().declared().lookups.iter().any(kept) {
            return Ok(());
        }
        let nodes = self.nodes_home_last();
        self.keep_lookups(&nodes).await
    }

    /// Keeps moves away; waits for those under way.
    pub(super) async fn no_moves(&self) -> Result<Exclusive, Fault> {
        let limit = self.engine.config().ddl_timeout();
        let alone = self.cancel.unless_cancelled(self.engine.define_alone(limit)).await?;
        alone?.ok_or_else(|| move_under_way(limit).into())
    }

    /// A plan was made by the map of then: its tables are still what they were.
    fn check_declared(&self, plan: &DdlPlan) -> Result<(), Fault> {
        let map = self.engine.live_map.load();
        let changed = |(name, kind): &&(TableName, TableKind)| {
            map.table(name).is_none_or(|table| table.kind != *kind)
        };
        match plan.kinds.iter().find(changed) {
            None => Ok(()),
            Some((name, _)) => Err(ServerError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the policy has changed what {name} is"),
            )
            .with_hint("Try again.")
            .into()),
        }
    }

    async fn try_ddl(&mut self, plan: &DdlPlan, client: &mut Client) -> Result<String, Fault> {
        for lock in &plan.locks {
            for node in self.nodes_home_last() {
                self.run_ddl_statement(node, &query_message(lock), false, client).await?;
            }
        }
        if let Some(on_leaves) = &plan.on_leaves
            && self.leaves_have(on_leaves).await?
        {
            if !on_leaves.alone {
                return Err(among_others(on_leaves).into());
            }
            return self.try_statements(|n, map| on_leaves.statements_for(n, map), client).await;
        }
        self.try_statements(|node, map| plan.statements_for(node, map), client).await
    }

    /// Whether leaves, on any node, have one of the constraints.
    async fn leaves_have(&mut self, on_leaves: &OnLeaves) -> Result<bool, Fault> {
        for node in self.nodes_home_last() {
            self.join_block(node).await?;
            let guard = &mut self.member(node).await?.guard;
            if !guard.command(&on_leaves.question()).await?.rows.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs each node's statements; the tag of the home node's first, whose notices pass.
    pub(super) async fn try_statements(
        &mut self,
        statements: impl Fn(NodeId, &ShardMap) -> Vec<String>,
        client: &mut Client,
    ) -> Result<String, Fault> {
        let map = self.engine.live_map.snapshot();
        let (mut first_tag, mut verifier) = (String::new(), None);
        for node in self.nodes_home_last() {
            let is_home = node == map.home();
            for (index, sql) in statements(node, &map).into_iter().enumerate() {
                let sql = self.with_one_verifier(node, sql, &mut verifier).await?;
                let mut query = BytesMut::new();
                put_query(&sql, &mut query);
                let shown = is_home && index == 0;
                let tag = self.run_ddl_statement(node, &query, shown, client).await?;
                // The home node, which comes last, may own no shard and have nothing to do.
                if shown || index == 0 && first_tag.is_empty() {
                    first_tag = tag;
                }
            }
        }
        Ok(first_tag)
    }

    /// Runs one statement; its command tag. The client gets the notices of the one that is shown.
    pub(super) async fn run_ddl_statement(
        &mut self,
        node: NodeId,
        query: &[u8],
        shown: bool,
        client: &mut Client,
    ) -> Result<String, Fault> {
        let passes = |kind| shown && kind == b'N';
        self.tag_of(node, query, passes, client).await?.0
    }

    /// What one node says to these messages: its command tag, or its error; and how many bytes that
    /// was. The client gets the frames of these kinds.
    async fn tag_of(
        &mut self,
        node: NodeId,
        messages: &[u8],
        passes: impl Fn(u8) -> bool,
        client: &mut Client,
    ) -> Result<(Result<String, Fault>, u64), Fault> {
        let member = self.ask(node, messages).await?;
        let (mut tag, mut error) = (String::new(), None);
        let bytes = pump(&mut member.guard, client, |kind, frame| match kind {
            b'C' => {
                command_tag(&frame[5..]).clone_into(&mut tag);
                Verdict::Drop
            }
            b'E' => {
                error.get_or_insert_with(|| BytesMut::from(frame).freeze());
                Verdict::Drop
            }
            b'Z' => Verdict::DropLast,
            kind if passes(kind) => Verdict::Forward,
            _ => Verdict::Drop,
        });
        let bytes = bytes.await?;
        Ok((error.map_or(Ok(tag), |frame| Err(Fault::Reported(frame))), bytes))
    }

    /// Starts a transaction block for several statements that are one to the client; `false` if the
    /// client has one already.
    pub fn begin_unless_begun(&mut self) -> bool {
        self.begin_implicit()
    }

    /// Starts a transaction block for one statement; `false` if the client has one already.
    pub(super) fn begin_implicit(&mut self) -> bool {
        let implicit = !self.in_transaction();
        if implicit {
            self.begin("BEGIN");
        }
        implicit
    }

    /// Ends what [`Session::begin_implicit`] started, and answers the client.
    pub(super) async fn end_broadcast(
        &mut self,
        implicit: bool,
        tag: Result<String, Fault>,
        client: &mut Client,
    ) -> Result<(), Fault> {
        let tag = Box::pin(self.end_implicit(implicit, tag, client)).await?;
        client.put(Reply::CommandComplete(&tag));
        Ok(())
    }

    /// The same, and the answer is left to the caller.
    pub(super) async fn end_implicit<T>(
        &mut self,
        implicit: bool,
        ran: Result<T, Fault>,
        client: &mut Client,
    ) -> Result<T, Fault> {
        match ran {
            Ok(ran) => {
                if implicit {
                    self.commit().await?;
                }
                Ok(ran)
            }
            Err(fault) => {
                let fault = client.told(fault).await;
                if implicit {
                    self.rollback().await?;
                } else {
                    self.fail();
                }
                Err(fault)
            }
        }
    }

    /// All members, the home node last.
    pub(super) fn nodes_home_last(&self) -> Vec<NodeId> {
        let map = self.engine.live_map.snapshot();
        let home = map.home();
        let others = map.members().map(|(id, _)| id).filter(|id| *id != home);
        others.chain([home]).collect()
    }
}

fn among_others(on_leaves: &OnLeaves) -> ServerError {
    let table = &on_leaves.table.name;
    ServerError::refused(
        format!("ALTER TABLE \"{table}\" can't change a foreign key among other things"),
        "Foreign keys of a sharded table are on its partitions, the rest is not.",
        "Change the foreign key in a statement of its own.",
    )
}

fn move_under_way(limit: std::time::Duration) -> ServerError {
    ServerError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("shards were being moved for longer than {limit:?}"),
    )
    .with_detail("A move copies tables as they were when it began, so DDL has to wait for it.")
    .with_hint("Try again when `foreshard status` shows no move under way.")
}
