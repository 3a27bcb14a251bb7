//! The nodes' side of one client session: the connections that it holds, and its transaction.

use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::cancel::CancelTarget;
use super::{Engine, Exclusive, Fault, Pass};
use crate::backend::{Guard, Pool, Settings};
use crate::ids::{NodeId, ShardId};
use crate::shard_map::ShardMap;
use crate::sql::TableName;
use crate::wire::{ServerError, SqlState, TransactionStatus, put_query};

/// The nodes' side of one client session.
#[derive(Debug)]
pub struct Session {
    /// What all sessions share.
    pub engine: Arc<Engine>,
    /// By node id: the pools of this user and database.
    pools: Vec<Arc<Pool>>,
    /// The connections that it holds, one a node at the most.
    pub(super) members: SmallVec<[Member; 1]>,
    /// The settings that follow it.
    pub settings: Arc<Settings>,
    /// The settings of its start, which RESET goes back to.
    pub startup_settings: Arc<Settings>,
    /// The schemas that its `search_path` means.
    pub search_path: Vec<String>,
    pub(super) transaction: Transaction,
    /// What a cancel request for this session reaches.
    pub cancel: Arc<CancelTarget>,
}

/// A connection that a session holds.
#[derive(Debug)]
pub struct Member {
    /// The node that it leads to.
    pub node: NodeId,
    /// The connection.
    pub guard: Guard,
    /// State on the connection keeps the session on it.
    pub pinned: bool,
    /// It is inside the session's explicit transaction.
    begun: bool,
    /// Answers to statements of the proxy's own that come before the client's.
    pub(super) answers_to_skip: usize,
    /// Those statements, sent with the client's next.
    pub(super) preface: BytesMut,
}

/// What a session knows of its transaction.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent marks")]
pub(super) struct Transaction {
    /// The client's BEGIN, while its transaction lasts.
    pub begin: Option<String>,
    /// A text of several statements began it: with which modes is not known.
    pub begun_unseen: bool,
    /// It can only be rolled back.
    pub failed: bool,
    /// What a node that joins later must run after BEGIN: SET TRANSACTION, SET, savepoints and the
    /// way back to them, in the order in which the client gave them.
    pub prelude: Vec<String>,
    /// The shards that it has touched stay where they are until it ends.
    pub passes: SmallVec<[(ShardId, Pass); 2]>,
    /// The map in force when it first touched a node.
    pub map: Option<Arc<ShardMap>>,
    /// A statement may have changed settings of the session.
    pub settings_changed: bool,
    /// No move while its DDL is not committed.
    pub ddl: Option<Exclusive>,
    /// Its DDL made a reference table whose defaults differ from node to node.
    pub varies: bool,
    /// Tables whose columns are to be read again after it.
    pub changed_tables: Vec<TableName>,
}

impl Member {
    /// Whether it is inside the session's explicit transaction.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// It joined the transaction, but nothing was sent: it never began.
    pub(super) fn forget_preface(&mut self) {
        self.preface.clear();
        self.answers_to_skip = 0;
        self.begun = false;
    }
}

impl Session {
    /// A session that has touched no node yet.
    pub fn new(engine: Arc<Engine>, pools: Vec<Arc<Pool>>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        Self {
            engine,
            pools,
            members: SmallVec::new(),
            startup_settings: Arc::clone(&settings),
            settings,
            search_path: Vec::new(),
            transaction: Transaction::default(),
            cancel: Arc::default(),
        }
    }

    /// What a `ReadyForQuery` has to say now.
    pub fn status(&self) -> TransactionStatus {
        match &self.transaction {
            Transaction { begin: None, .. } => TransactionStatus::Idle,
            Transaction { failed: true, .. } => TransactionStatus::Failed,
            _ => TransactionStatus::Open,
        }
    }

    /// Whether the client is inside a transaction block.
    pub fn in_transaction(&self) -> bool {
        self.transaction.begin.is_some()
    }

    /// Starts a transaction block; nodes join it when they are touched.
    pub fn begin(&mut self, text: &str) {
        self.transaction.begin = Some(text.to_owned());
    }

    /// The connection to `node` is inside the transaction block already.
    pub(super) fn mark_begun(&mut self, node: NodeId) {
        for member in self.members.iter_mut().filter(|member| member.node == node) {
            member.begun = true;
        }
    }

    /// Leaves a transaction block that has touched no node.
    pub fn forget_block(&mut self) {
        self.transaction.begin = None;
        self.transaction.failed = false;
        self.release();
    }

    /// The text of the client's BEGIN, inside its transaction block.
    pub fn begin_text(&self) -> Option<String> {
        self.transaction.begin.clone()
    }

    /// A node that joins the transaction later must run `text` after BEGIN.
    pub fn remember(&mut self, text: &str) {
        self.transaction.prelude.push(text.to_owned());
    }

    /// What a node that joins the transaction later must run after BEGIN.
    pub(super) fn prelude(&self) -> impl Iterator<Item = &str> {
        self.transaction.prelude.iter().map(String::as_str)
    }

    /// A savepoint was gone back to: the transaction goes on.
    pub fn unfail(&mut self) {
        self.transaction.failed = false;
    }

    /// The nodes on which the transaction has begun.
    pub fn begun_nodes(&self) -> SmallVec<[NodeId; 4]> {
        self.members.iter().filter(|member| member.begun).map(|member| member.node).collect()
    }

    /// Some node has reported that the transaction failed, not only the proxy.
    pub fn failed_on_node(&self) -> bool {
        let failed = Some(TransactionStatus::Failed);
        self.members.iter().any(|member| member.begun && member.guard.status == failed)
    }

    /// The connections that state keeps the session on.
    pub fn pinned(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter(|member| member.pinned)
    }

    /// From now on only ROLLBACK helps, if there is a transaction block.
    pub fn fail(&mut self) {
        self.transaction.failed = self.in_transaction();
    }

    /// Errors with 25P02 in a failed transaction block.
    pub fn check_not_failed(&self) -> Result<(), ServerError> {
        if !self.transaction.failed {
            return Ok(());
        }
        let message =
            "current transaction is aborted, commands ignored until end of transaction block";
        Err(ServerError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message))
    }

    /// The node that statements of no particular node go to.
    pub fn any_node(&self) -> NodeId {
        let home = self.engine.live_map.load().home();
        if self.holds(home) { home } else { self.members.first().map_or(home, |m| m.node) }
    }

    /// Whether it holds a connection to `node`.
    pub fn holds(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node)
    }

    /// The connection to `node`, if it holds one.
    pub(super) fn held(&mut self, node: NodeId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.node == node)
    }

    /// The nodes that it holds connections to.
    pub fn nodes(&self) -> SmallVec<[NodeId; 4]> {
        self.members.iter().map(|member| member.node).collect()
    }

    /// The connection to `node`, checked out if need be, with the session's settings, in the
    /// session's transaction. Its statements come after [`Member::preface`].
    pub async fn member(&mut self, node: NodeId) -> Result<&mut Member, Fault> {
        let index = match self.members.iter().position(|member| member.node == node) {
            Some(index) => index,
            None => self.join(node).await?,
        };
        let member = &mut self.members[index];
        if !member.begun
            && let Some(begin) = &self.transaction.begin
        {
            put_query(begin, &mut member.preface);
            for text in &self.transaction.prelude {
                put_query(text, &mut member.preface);
            }
            member.answers_to_skip = 1 + self.transaction.prelude.len();
            member.begun = true;
            if self.transaction.map.is_none() {
                self.transaction.map = Some(self.engine.live_map.snapshot());
            }
        }
        Ok(member)
    }

    /// Checks a connection to `node` out; its place among the members.
    async fn join(&mut self, node: NodeId) -> Result<usize, Fault> {
        if self.transaction.begun_unseen {
            return Err(ServerError::refused(
                "this transaction can't touch another node",
                "A text of several statements began it, and its modes are not known.",
                "Send BEGIN as a statement of its own.",
            )
            .into());
        }
        let mut guard = self.pools[node.index()].checkout().await?;
        guard.adopt(&self.settings).await?;
        self.cancel.add(node, guard.key);
        self.members.push(Member {
            node,
            guard,
            pinned: false,
            begun: false,
            answers_to_skip: 0,
            preface: BytesMut::new(),
        });
        Ok(self.members.len() - 1)
    }

    /// Another connection to `node`, with the session's settings, outside of its transaction.
    pub(super) async fn checkout_beside(&self, node: NodeId) -> Result<Guard, Fault> {
        let mut guard = self.pools[node.index()].checkout().await?;
        guard.adopt(&self.settings).await?;
        Ok(guard)
    }

    /// Keeps a session on the connection to `node`: a statement leaves state there.
    pub fn pin(&mut self, node: NodeId) {
        for member in self.members.iter_mut().filter(|member| member.node == node) {
            if !member.pinned {
                metrics::gauge!("foreshard_executor_pinned_sessions_count").increment(1.0);
            }
            member.pinned = true;
        }
        self.transaction.settings_changed = true;
    }

    /// A statement may change settings of the session: they are read when its transaction ends.
    pub fn expect_settings_change(&mut self) {
        self.transaction.settings_changed = true;
    }

    /// Ends what a transaction held: passes, and connections that nothing pins. Those that are not
    /// clean are closed as they are dropped.
    pub(super) fn release(&mut self) {
        let (mut kept, cancel) = (SmallVec::new(), &self.cancel);
        for mut member in self.members.drain(..) {
            member.begun = false;
            if member.pinned && member.guard.status.is_some() {
                kept.push(member);
            } else {
                release_member(cancel, member);
            }
        }
        self.members = kept;
        self.transaction = Transaction::default();
    }

    /// Gives up the connection to `node`, which broke. A transaction that it was in has failed.
    pub fn lose(&mut self, node: NodeId) {
        if let Some(at) = self.members.iter().position(|member| member.node == node) {
            let member = self.members.remove(at);
            unpin(&member);
            self.cancel.remove(member.node, member.guard.key);
            member.guard.close();
            self.fail();
        }
    }

    /// Ends the session: what pins its connections goes with them.
    pub fn end(&mut self) {
        for member in self.members.drain(..) {
            unpin(&member);
            self.cancel.remove(member.node, member.guard.key);
            if member.pinned {
                member.guard.close();
            }
        }
        self.transaction = Transaction::default();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns a connection to its pool; closes it if a cancel request may still be on its way to it.
fn release_member(cancel: &CancelTarget, member: Member) {
    unpin(&member);
    if cancel.remove(member.node, member.guard.key) {
        member.guard.close();
    }
}

fn unpin(member: &Member) {
    if member.pinned {
        metrics::gauge!("foreshard_executor_pinned_sessions_count").decrement(1.0);
    }
}
