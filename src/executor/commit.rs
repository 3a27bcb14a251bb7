//! The end of a transaction on one node or several: plain, or in two phases with a durable decision.

use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::columns::ask;
use super::session::Member;
use super::{Fault, Session};
use crate::backend::{Command, CommandError};
use crate::catalog::{CatalogError, Change, Expect, Record};
use crate::ids::NodeId;
use crate::sql::Literal;
use crate::wire::{ServerError, SqlState};

/// The decision to commit a transaction that is prepared on several nodes. While the record exists,
/// its prepared parts may only be committed; without it, only rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitDecision {
    /// The name of its prepared transactions.
    pub gid: String,
    /// A part that can't be prepared, if there is one: what came of it decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastPart>,
}

/// A part of a transaction that is committed plainly once all others are prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPart {
    /// Its node.
    pub node: NodeId,
    /// Its `pg_current_xact_id()`.
    pub xid: String,
}

impl Record for CommitDecision {
    const PREFIX: &'static str = "transactions/";

    fn id(&self) -> String {
        self.gid.clone()
    }
}

/// How long nodes may take to roll back; closing the connection does the same.
const ROLLBACK_DEADLINE: Duration = Duration::from_secs(10);

/// Asks whether a transaction has written on this node, and for its number.
const HAS_WRITTEN: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned() \
    WHERE pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL";

/// Gives a transaction a number, and asks for it.
const NUMBER: &str = "SELECT pg_catalog.pg_current_xact_id()";

/// What others wait for must not be lost by a crash of its node.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
    WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";

/// A number of a transaction that is not on disk may be given again after a crash of its node, to one
/// that commits; after this a higher one is there.
const HIGHER_NUMBER: &str = "BEGIN; SET LOCAL synchronous_commit = on; \
    SELECT pg_catalog.pg_logical_emit_message(true, 'foreshard number', ''); COMMIT";

impl Session {
    /// Commits the session's transaction on every node that it has touched. One writing node
    /// commits plainly; several commit in two phases. Afterwards the transaction is over, committed
    /// or, with an error, rolled back everywhere.
    pub async fn commit(&mut self) -> Result<(), Fault> {
        let committed = self.try_commit().await;
        if committed.is_err() {
            self.rollback_members().await;
        }
        self.finish().await?;
        committed
    }

    /// Rolls the session's transaction back on every node. The transaction is over.
    pub async fn rollback(&mut self) -> Result<(), Fault> {
        self.rollback_members().await;
        self.finish().await
    }

    async fn try_commit(&mut self) -> Result<(), Fault> {
        let written = on_all(self.members_in_transaction(), HAS_WRITTEN).await;
        let (mut writers, mut last) = (Vec::new(), None);
        let home = self.engine.live_map.load().home();
        for (node, command) in written {
            if let Some(xid) = command?.rows.into_iter().flatten().flatten().next() {
                writers.push(node);
                last = last.or((node == home).then_some(LastPart { node, xid }));
            }
        }
        if !writers.is_empty() && last.is_none() && self.may_have_temporary(home) {
            // What it tells by NOTIFY must not be heard before the others are committed.
            let part = self.members_in_transaction().filter(|member| member.node == home);
            for (node, command) in on_all(part, NUMBER).await {
                if let Some(xid) = command?.rows.into_iter().flatten().flatten().next() {
                    writers.push(node);
                    last = Some(LastPart { node, xid });
                }
            }
        }
        if writers.len() < 2 {
            let readers = self.members_in_transaction().filter(|m| !writers.contains(&m.node));
            for (_, done) in on_all(readers, "COMMIT").await {
                done?;
            }
            let writer = self.members_in_transaction().filter(|m| writers.contains(&m.node));
            for (_, done) in on_all(writer, "COMMIT").await {
                done?;
            }
            return Ok(());
        }
        // PostgreSQL prepares nothing that has to do with temporary tables.
        let last = last.filter(|_| self.may_have_temporary(home));
        self.commit_in_two_phases(&writers, last).await
    }

    /// Prepares on every writing node but the last, if there is such a part, records the decision, and
    /// commits. From the record on, the resolver finishes what this can't.
    async fn commit_in_two_phases(
        &mut self,
        writers: &[NodeId],
        last: Option<LastPart>,
    ) -> Result<(), Fault> {
        if self.engine.catalog.is_away() {
            // What is prepared would hold its locks until it answers.
            return Err(CatalogError::Away.into());
        }
        let readers = self.members_in_transaction().filter(|m| !writers.contains(&m.node));
        for (_, done) in on_all(readers, "COMMIT").await {
            done?;
        }
        let gid = self.engine.next_gid();
        let live = LiveGid::new(self, gid.clone());
        let quoted = Literal(&gid).to_string();
        let is_last = |node| last.as_ref().is_some_and(|last| last.node == node);
        let prepares = |m: &&mut Member| writers.contains(&m.node) && !is_last(m.node);
        let parts = self.members.iter_mut().filter(prepares);
        let prepared = on_all(parts, &format!("PREPARE TRANSACTION {quoted}")).await;
        let mut failure = None;
        let mut in_doubt = Vec::new();
        for (node, done) in prepared {
            match done {
                Ok(_) => in_doubt.push(node),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        self.engine.failpoints.abort_at("all_prepared");
        let decision = CommitDecision { gid, last };
        let decided = match failure {
            Some(error) => Err(Undecided::No(error.into())),
            None => self.decide(&decision).await,
        };
        if let Err(undecided) = decided {
            return Err(self.not_committed(undecided, &decision, live, &in_doubt).await);
        }
        self.engine.failpoints.abort_at("decided");
        let parts = self.members.iter_mut().filter(|m| in_doubt.contains(&m.node));
        let finished = on_all(parts, &format!("COMMIT PREPARED {quoted}")).await;
        self.engine.failpoints.abort_at("committed");
        let left = unfinished(finished);
        drop(live);
        if left.is_empty() {
            self.forget(&decision).await;
        } else {
            self.engine.doubt(&left).await;
        }
        Ok(())
    }

    /// Rolls back what is prepared, if that is decided; the resolver does what is left. What the
    /// client is told.
    async fn not_committed(
        &mut self,
        undecided: Undecided,
        decision: &CommitDecision,
        live: LiveGid,
        prepared: &[NodeId],
    ) -> Fault {
        let mut all_rolled_back = false;
        if let Undecided::No(_) = &undecided {
            let parts = self.members.iter_mut().filter(|m| prepared.contains(&m.node));
            let sql = format!("ROLLBACK PREPARED {}", Literal(&decision.gid));
            all_rolled_back = unfinished(on_all(parts, &sql).await).is_empty();
        }
        // What is done about it from here on is the resolver's.
        drop(live);
        if all_rolled_back && decision.last.is_some() {
            self.forget(decision).await;
        }
        if !all_rolled_back {
            if let Undecided::Unknown(_) = &undecided {
                self.engine.doubt(prepared).await;
            }
            self.engine.doubts.raised.notify_one();
        }
        let (Undecided::No(fault) | Undecided::Unheard(fault) | Undecided::Unknown(fault)) =
            undecided;
        fault
    }

    /// Records the decision, and commits the part that it hangs on.
    async fn decide(&mut self, decision: &CommitDecision) -> Result<(), Undecided> {
        let no = |fault: Fault| Undecided::No(fault);
        let Some(last) = &decision.last else {
            return match self.engine.catalog.put(decision, Expect::Absent).await {
                Ok(_) => Ok(()),
                Err(error @ CatalogError::Unknown) => Err(Undecided::Unheard(error.into())),
                Err(error) => Err(no(error.into())),
            };
        };
        let Some(member) = self.members.iter_mut().find(|m| m.node == last.node) else {
            let lost = ServerError::new(SqlState::CONNECTION_FAILURE, "a node's part is lost");
            return Err(no(lost.into()));
        };
        member.guard.command(DURABLE).await.map_err(|error| no(error.into()))?;
        let (map, node) = (self.engine.live_map.snapshot(), &self.engine.nodes[last.node.index()]);
        let higher = ask(node, &map, async |client| client.batch_execute(HIGHER_NUMBER).await);
        higher.await.map_err(|error| {
            let message = format!("node {} does not keep its part: {error}", node.name);
            let error = ServerError::new(SqlState::CONNECTION_FAILURE, message);
            no(error.with_hint("Nothing was committed; it is safe to try again.").into())
        })?;
        // Whether or not it is there then, a part that was rolled back has decided.
        let put = self.engine.catalog.put(decision, Expect::Absent).await;
        put.map_err(|error| no(error.into()))?;
        self.engine.failpoints.abort_at("last_announced");
        match member.guard.command("COMMIT").await {
            Ok(_) => Ok(()),
            Err(error @ CommandError::Reported { .. }) if member.guard.status.is_some() => {
                Err(no(error.into()))
            }
            Err(error) => Err(Undecided::Unknown(error.into())),
        }
    }

    async fn forget(&self, decision: &CommitDecision) {
        let change = Change::new().delete(decision, Expect::Anything);
        if let Err(error) = self.engine.catalog.commit(change).await {
            tracing::warn!(%error, "a finished commit decision stays in the catalog");
        }
    }

    /// Rolls back where something was begun. A node that can't is rolled back by closing its
    /// connection.
    async fn rollback_members(&mut self) {
        self.lose_busy();
        let outcomes = {
            let rolled_back = on_all(self.members_in_transaction(), "ROLLBACK");
            timeout(ROLLBACK_DEADLINE, rolled_back).await
        };
        let Ok(outcomes) = outcomes else {
            tracing::warn!("a node does not roll back in time: its connection is closed");
            return self.lose_busy();
        };
        for (node, outcome) in outcomes {
            if outcome.is_err() {
                self.lose(node);
            }
        }
    }

    /// The members on which the transaction has really begun. What was never sent is forgotten.
    fn members_in_transaction(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter_map(|member| {
            if !member.preface.is_empty() {
                member.forget_preface();
            }
            member.has_begun().then_some(member)
        })
    }
}

/// Why a transaction is not decided to be committed.
enum Undecided {
    /// It is rolled back. What is left of it only holds locks.
    No(Fault),
    /// The catalog has not told whether it took the decision; its word stands, whatever it is.
    Unheard(Fault),
    /// The node that it hangs on did not answer.
    Unknown(Fault),
}

/// Keeps the resolver away from a transaction that is being committed.
struct LiveGid {
    engine: std::sync::Arc<super::Engine>,
    gid: String,
}

impl LiveGid {
    fn new(session: &Session, gid: String) -> Self {
        let engine = std::sync::Arc::clone(&session.engine);
        engine.live_gids.lock().insert(gid.clone());
        Self { engine, gid }
    }
}

impl Drop for LiveGid {
    fn drop(&mut self) {
        self.engine.live_gids.lock().remove(&self.gid);
    }
}

pub(super) type Outcome = (NodeId, Result<Command, CommandError>);

/// Runs a statement on all members at once.
pub(super) async fn on_all<'a>(
    members: impl Iterator<Item = &'a mut Member>,
    sql: &str,
) -> Vec<Outcome> {
    let running = members.map(|m| async { (m.node, m.guard.command(sql).await) });
    join_all(running).await
}

/// The nodes on which the resolver has to finish something.
fn unfinished(outcomes: Vec<Outcome>) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    for (node, outcome) in outcomes {
        if let Err(error) = outcome {
            tracing::warn!(%node, %error, "a prepared transaction is left to the resolver");
            nodes.push(node);
        }
    }
    nodes
}
