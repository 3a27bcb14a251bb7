//! The nodes' side of one client session: the connections that it holds, and its transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::cancel::CancelTarget;
use super::reports::Unreported;
use super::transaction::Transaction;
use super::trips::hand_back;
use super::{Engine, Fault};
use crate::backend::{Guard, Pool, PoolMode, Ride, Settings, Ticket, share};
use crate::ids::NodeId;
use crate::load::Sample;
use crate::router::Leaves;
use crate::runtime::aside;
use crate::wire::{ServerError, SqlState, TransactionStatus, put_command};

/// The nodes' side of one client session.
#[derive(Debug)]
pub struct Session {
    /// What all sessions share.
    pub engine: Arc<Engine>,
    /// By node id: the pools of this user and database.
    pub(super) pools: Vec<Arc<Pool>>,
    /// The connections that it holds, one a node at the most.
    pub(super) members: SmallVec<[Member; 1]>,
    /// The settings that follow it.
    pub settings: Arc<Settings>,
    /// The settings of its start, which RESET goes back to.
    pub startup_settings: Arc<Settings>,
    /// The schemas that its `search_path` means.
    pub search_path: Vec<String>,
    /// Its settings are not known, so that nothing can be routed: it has to end.
    pub(super) lost: bool,
    pub(super) transaction: Transaction,
    /// Its functions may have left something on a connection that it has given back.
    pub(super) left_unknown: bool,
    /// What a cancel request for this session reaches.
    pub cancel: Arc<CancelTarget>,
    /// This session, to its connections.
    pub(super) ticket: Arc<Ticket>,
    /// The values of the reported settings that the client was told.
    pub reported: Arc<BTreeMap<String, String>>,
    /// Reported settings that have changed since, and the client was not told.
    pub(super) unreported: Vec<Unreported>,
    /// Names of settings that no server lists.
    pub(super) custom: BTreeSet<String>,
    /// The statement under way, if it is one of those that are looked at more closely.
    pub sampled: Option<Box<Sample>>,
}

/// A connection that a session holds.
#[derive(Debug)]
pub struct Member {
    /// The node that it leads to.
    pub node: NodeId,
    /// The connection.
    pub guard: Guard,
    /// What keeps the session on it between transactions.
    pub(super) pin: Pin,
    /// What the transaction's statements may leave on it.
    pub(super) leaves: Leaves,
    /// The reports of its server that the session has taken note of.
    pub(super) reports_seen: u64,
    /// It is inside the session's explicit transaction.
    begun: bool,
    /// Statements of the proxy's own that are sent with the client's next, and how many these are.
    pub(super) preface: BytesMut,
    pub(super) preface_commands: usize,
    /// Its trip, where its statement shares a round trip with those of other sessions.
    pub(super) ride: Option<Ride>,
}

/// What keeps a session on a connection between transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pin {
    /// Nothing: it goes back to its pool.
    No,
    /// The pool mode.
    Mode,
    /// State that is there now.
    State,
    /// State that does not go away.
    ToTheEnd,
}

impl Pin {
    /// How little a connection without state is pinned.
    fn least(mode: PoolMode) -> Self {
        match mode {
            PoolMode::Transaction => Self::No,
            PoolMode::Session => Self::Mode,
        }
    }
}

impl Member {
    /// How little it is pinned when it has no state.
    pub(super) fn least_pin(&self) -> Pin {
        Pin::least(self.guard.pool().config().pool_mode)
    }

    /// Whether state keeps the session on it.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self.pin, Pin::State | Pin::ToTheEnd)
    }

    /// Pins it, or lets go of it.
    pub(super) fn pin_for(&mut self, pin: Pin) {
        let by_state = |pin| matches!(pin, Pin::State | Pin::ToTheEnd);
        let gauge = || metrics::gauge!("foreshard_executor_pinned_sessions_count");
        match (by_state(self.pin), by_state(pin)) {
            (false, true) => gauge().increment(1.0),
            (true, false) => gauge().decrement(1.0),
            _ => {}
        }
        self.pin = pin;
    }

    /// Whether it is inside the session's explicit transaction.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// It joined the transaction, but nothing was sent: it never began.
    pub(super) fn forget_preface(&mut self) {
        self.preface.clear();
        self.preface_commands = 0;
        self.begun = false;
    }
}

impl Session {
    /// A session that has touched no node yet.
    pub fn new(engine: Arc<Engine>, pools: Vec<Arc<Pool>>, settings: Settings) -> Self {
        let custom = settings.0.keys().filter(|name| name.contains('.')).cloned().collect();
        let settings = Arc::new(settings);
        Self {
            engine,
            pools,
            members: SmallVec::new(),
            startup_settings: Arc::clone(&settings),
            settings,
            search_path: Vec::new(),
            lost: false,
            transaction: Transaction::default(),
            left_unknown: false,
            cancel: Arc::default(),
            ticket: Arc::default(),
            reported: Arc::default(),
            unreported: Vec::new(),
            custom,
            sampled: None,
        }
    }

    /// The error with which it has to end: what its settings are was lost with a connection. Without
    /// its search path, no table's name tells which table it is.
    pub fn check_not_lost(&self) -> Result<(), ServerError> {
        if !self.lost {
            return Ok(());
        }
        let message = "the connection to a node broke, and the session's settings with it";
        Err(ServerError::fatal(SqlState::CONNECTION_FAILURE, message).with_hint("Connect again."))
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
    pub fn mark_begun(&mut self, node: NodeId) {
        for member in self.members.iter_mut().filter(|member| member.node == node) {
            member.begun = true;
        }
    }

    /// The connection to `node` does not get a statement that it was about to.
    pub fn forget_given(&mut self, node: NodeId, number: u64) {
        if let Some(member) = self.held(node) {
            member.guard.prepared.remove(number);
        }
    }

    /// Leaves a transaction block that has touched no node.
    pub fn forget_block(&mut self) {
        self.transaction.begin = None;
        self.transaction.failed = false;
        self.release();
    }

    /// A node that joins the transaction later must run `text`, one statement, after BEGIN.
    pub fn remember(&mut self, text: &str) {
        self.transaction.prelude.push(text.to_owned());
    }

    /// What a node that joins the transaction later must run after BEGIN.
    pub(super) fn prelude(&self) -> impl Iterator<Item = &str> {
        self.transaction.prelude.iter().map(String::as_str)
    }

    /// A savepoint was gone back to: the transaction goes on, if it is whole.
    pub fn unfail(&mut self) {
        self.transaction.failed = self.transaction.broken;
    }

    /// Errors with 25P02 if a node's part of the transaction is gone, so that no savepoint helps.
    pub fn check_whole(&self) -> Result<(), ServerError> {
        if !self.transaction.broken {
            return Ok(());
        }
        let message = "the transaction can't go on from a savepoint: a node's part of it is gone";
        Err(ServerError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message)
            .with_detail("The connection to the node broke, and the node has rolled back.")
            .with_hint("Roll the whole transaction back, and run it again."))
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

    /// The one node of a transaction that has failed there: its own answers are the best.
    pub fn failed_node(&self) -> Option<NodeId> {
        let mut begun = self.members.iter().filter(|member| member.begun);
        let only = begun.next().filter(|_| begun.next().is_none())?;
        let failed = only.guard.status == Some(TransactionStatus::Failed);
        (failed && self.transaction.failed).then_some(only.node)
    }

    /// The connections that state keeps the session on.
    pub fn pinned(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter(|member| member.pin != Pin::No)
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

    /// Whether it holds a connection at all.
    pub fn holds_any(&self) -> bool {
        !self.members.is_empty()
    }

    /// The connection to `node`, if it holds one.
    pub(super) fn held(&mut self, node: NodeId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.node == node)
    }

    /// Whether the connection to `node` owes an answer.
    pub(super) fn is_busy(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node && member.guard.status.is_none())
    }

    /// Gives up the connections that owe an answer: after an error of the proxy's nobody will take it.
    pub(super) fn lose_busy(&mut self) {
        for node in self.nodes() {
            if self.is_busy(node) {
                self.lose(node);
            }
        }
    }

    /// The nodes that it holds connections to.
    pub fn nodes(&self) -> SmallVec<[NodeId; 4]> {
        self.members.iter().map(|member| member.node).collect()
    }

    /// The connection to `node`, checked out if need be, with the session's settings, in the
    /// session's transaction. Its statements come after [`Member::preface`].
    pub async fn member(&mut self, node: NodeId) -> Result<&mut Member, Fault> {
        let at = match self.place_at_once(node) {
            Some(at) => at,
            None => self.place_of(node).await?,
        };
        Ok(&mut self.members[at])
    }

    /// The place of a connection that the session holds already, and that needs nothing.
    pub(super) fn ready_place(&self, node: NodeId) -> Option<usize> {
        let at = self.members.iter().position(|member| member.node == node)?;
        let in_block = self.members[at].begun || self.transaction.begin.is_none();
        (in_block && self.has_settings_at(at) && !self.engine.doubts.any()).then_some(at)
    }

    /// The same; its place among the connections that the session holds.
    pub(super) async fn place_of(&mut self, node: NodeId) -> Result<usize, Fault> {
        // In the middle of an exchange it is too late to look, and nothing new is read.
        if self.engine.doubts.any() && !self.is_busy(node) {
            aside(|| self.engine.certain(node)).await?;
        }
        let held = self.members.iter().position(|member| member.node == node);
        let index = match held {
            Some(index) if self.has_settings_at(index) => index,
            Some(index) => {
                aside(|| self.members[index].guard.adopt(&self.settings)).await?;
                index
            }
            None => self.join(node).await?,
        };
        let member = &mut self.members[index];
        if !member.begun
            && let Some(begin) = &self.transaction.begin
        {
            put_command(begin, &mut member.preface);
            for text in &self.transaction.prelude {
                put_command(text, &mut member.preface);
            }
            member.preface_commands = 1 + self.transaction.prelude.len();
            member.begun = true;
            self.note_outset();
        }
        Ok(index)
    }

    /// Whether a connection that the session has kept has the settings that the session has now, or
    /// gets none in the middle of a transaction.
    fn has_settings_at(&self, index: usize) -> bool {
        let member = &self.members[index];
        member.begun
            || member.guard.status != Some(TransactionStatus::Idle)
            || Arc::ptr_eq(&member.guard.settings, &self.settings)
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
        let pool = &self.pools[node.index()];
        let mut guard = match pool.try_checkout(&self.ticket) {
            Some(guard) => guard,
            None => self.cancel.unless_cancelled(pool.checkout(&self.ticket)).await??,
        };
        if let Some(learned) = self.ticket.learned().await {
            self.settings = learned;
        }
        if !share(&mut guard.settings, &mut self.settings) {
            aside(|| guard.adopt(&self.settings)).await?;
        }
        Ok(self.add(node, guard))
    }

    /// Holds a connection that has the session's settings; its place among the members.
    pub(super) fn add(&mut self, node: NodeId, mut guard: Guard) -> usize {
        self.note_joined(&mut guard);
        self.cancel.add(node, guard.key);
        self.members.push(Member {
            node,
            reports_seen: guard.reports,
            pin: Pin::least(guard.mode),
            guard,
            leaves: Leaves::Nothing,
            begun: false,
            preface: BytesMut::new(),
            preface_commands: 0,
            ride: None,
        });
        self.members.len() - 1
    }

    /// Another connection to `node`, with the session's settings, outside of its transaction.
    pub(super) async fn checkout_beside(&self, node: NodeId) -> Result<Guard, Fault> {
        self.engine.certain(node).await?;
        let mut guard = self.pools[node.index()].checkout(&Arc::default()).await?;
        guard.adopt(&self.settings).await?;
        guard.trace.owner = None;
        Ok(guard)
    }

    /// A statement may change settings of the session: they are read when its transaction ends.
    pub fn expect_settings_change(&mut self) {
        self.transaction.settings_changed = true;
    }

    /// Ends what a transaction held: passes, and connections that nothing pins. Those that are not
    /// clean are closed as they are dropped.
    pub(super) fn release(&mut self) {
        for at in (0..self.members.len()).rev() {
            let member = &mut self.members[at];
            member.begun = false;
            let leaves = std::mem::take(&mut member.leaves);
            member.guard.trace.sequences |= leaves >= Leaves::Sequences;
            member.guard.trace.unknown |= leaves >= Leaves::Unknown;
            self.left_unknown |= leaves >= Leaves::Unknown;
            if member.pin == Pin::No || member.guard.status.is_none() {
                hand_back(&self.cancel, self.members.remove(at));
            }
        }
        self.cancel.set_pinned(self.members.iter().any(Member::is_pinned));
        self.cancel.spare();
        if self.transaction.ddl.is_some() {
            self.engine.direct.forget();
            self.engine.forget_learned();
        } else if self.transaction.moves_names {
            self.engine.places.forget();
        }
        if self.transaction.passes.len() > 1 {
            let shards = self.transaction.passes.iter().map(|(shard, _)| *shard);
            self.engine.samples.offer_together(shards);
        }
        self.transaction.end();
    }

    /// Gives up the connection to `node`, which broke. A transaction that it was in has failed.
    pub fn lose(&mut self, node: NodeId) {
        if let Some(at) = self.members.iter().position(|member| member.node == node) {
            let mut member = self.members.remove(at);
            member.pin_for(Pin::No);
            self.cancel.remove(member.node, member.guard.key);
            member.guard.close();
            self.transaction.broken |= member.begun && self.in_transaction();
            self.fail();
        }
    }

    /// The home node's part of the transaction is gone.
    pub(super) fn lose_part(&mut self) {
        self.transaction.broken |= self.in_transaction();
        self.fail();
    }

    /// Ends the session: what pins its connections goes with them.
    pub fn end(&mut self) {
        for mut member in self.members.drain(..) {
            let hit = self.cancel.remove(member.node, member.guard.key);
            let state = member.is_pinned();
            member.pin_for(Pin::No);
            if hit || state || member.leaves > Leaves::Sequences || member.guard.trace.unknown {
                member.guard.close();
            }
        }
        for pool in &self.pools {
            pool.forget(&self.ticket);
        }
        self.transaction = Transaction::default();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}
