//! What a transaction leaves in its servers' sessions: settings follow the client, what can't be
//! moved keeps the client on its connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::reports::Unreported;
use super::session::{Member, Pin};
use super::transaction::Transaction;
use super::{Client, Fault, Session, query_message};
use crate::backend::{Connection, Settings, share};
use crate::ids::NodeId;
use crate::router::Leaves;
use crate::sql::Strings;
use crate::wire::TransactionStatus;

impl Session {
    /// A statement that is about to run on `node` may leave this there.
    pub fn will_leave(&mut self, node: NodeId, leaves: Leaves, custom: &[String]) {
        self.custom.extend(custom.iter().cloned());
        let several_nodes = self.several_nodes();
        if let Some(member) = self.held(node) {
            // Another node would have to get what was left: it is not looked for later.
            let unknown = leaves == Leaves::Unknown && several_nodes;
            member.leaves = member.leaves.max(if unknown { Leaves::State } else { leaves });
        }
    }

    /// The session sets a setting of this name, which perhaps no server lists.
    pub fn will_set(&mut self, name: &str) {
        if name.contains('.') {
            self.custom.insert(name.to_ascii_lowercase());
        }
    }

    /// Whether there is more than one node that statements could go to.
    fn several_nodes(&self) -> bool {
        self.engine.live_map.load().members().count() > 1
    }

    /// Ends the transaction on the session's side: it is over on the nodes.
    pub async fn finish(&mut self) -> Result<(), Fault> {
        if self.may_have_left_something() {
            self.look().await;
            self.read_changed_columns().await;
            if self.transaction.ddl.is_some() || self.transaction.moves_names {
                self.engine.tell_definitions().await;
            }
        }
        // What its end has set back too.
        self.note_members();
        self.release();
        Ok(())
    }

    /// Whether there is anything to look at once the transaction is over.
    pub(super) fn may_have_left_something(&self) -> bool {
        let Transaction { settings_changed, changed_tables, ddl, moves_names, .. } =
            &self.transaction;
        *settings_changed
            || !changed_tables.is_empty()
            || ddl.is_some()
            || *moves_names
            || self.members.iter().any(|member| member.leaves >= Leaves::State)
    }

    /// Looks at what the transaction has left, where it may have left something. If a connection
    /// breaks meanwhile, what the session's settings are is not known: it is lost.
    async fn look(&mut self) {
        let changed = std::mem::take(&mut self.transaction.settings_changed);
        let mut newest: Option<(Leaves, Arc<Settings>, Vec<String>)> = None;
        let mut broken = Vec::new();
        for member in &mut self.members {
            if member.guard.status != Some(TransactionStatus::Idle) {
                continue;
            }
            if !changed && member.leaves < Leaves::State {
                continue;
            }
            let leaves = member.leaves;
            match look_at(member, &self.custom).await {
                Ok((settings, path)) => {
                    if newest.as_ref().is_none_or(|(before, ..)| leaves > *before) {
                        newest = Some((leaves, settings, path));
                    }
                }
                Err(node) => broken.push(node),
            }
        }
        self.lost |= !broken.is_empty() || changed && newest.is_none();
        if let Some((_, settings, path)) = newest {
            (self.settings, self.search_path) = (settings, path);
        }
        for node in broken {
            self.lose(node);
        }
    }

    /// Reads the search path in the middle of a transaction.
    pub async fn refresh_search_path(&mut self) -> Result<(), Fault> {
        let open = |member: &&mut Member| {
            member.preface.is_empty() && member.guard.status == Some(TransactionStatus::Open)
        };
        if let Some(member) = self.members.iter_mut().find(open) {
            self.search_path = member.guard.search_path().await?;
        }
        Ok(())
    }

    /// Gives the session other settings, on a connection that it holds or gets; the client hears of
    /// those that a server reports.
    pub async fn change_settings(
        &mut self,
        settings: Arc<Settings>,
        client: &mut Client,
    ) -> Result<(), Fault> {
        let node = self.any_node();
        self.member(node).await?;
        if let Some(member) = self.members.iter_mut().find(|member| member.node == node) {
            member.guard.adopt(&settings).await?;
            self.search_path = member.guard.search_path().await?;
            note_reports(&mut self.reported, &mut self.unreported, &mut member.guard);
            member.reports_seen = member.guard.reports;
        }
        self.settings = settings;
        self.tell_reports(client);
        self.finish().await
    }

    /// After a statement of the proxy's on `node` that the client has not seen: it hears of the
    /// reported settings that have changed.
    pub async fn settle_unseen(&mut self, node: NodeId, client: &mut Client) -> Result<(), Fault> {
        if let Some(member) = self.members.iter_mut().find(|member| member.node == node) {
            note_reports(&mut self.reported, &mut self.unreported, &mut member.guard);
            member.reports_seen = member.guard.reports;
        }
        self.tell_reports(client);
        self.settle(node).await
    }

    /// Runs DISCARD ALL on the session's connection to `node`: what pinned it is gone. The client
    /// sees nothing but an error.
    pub async fn run_discard_all(
        &mut self,
        node: NodeId,
        text: &str,
        client: &mut Client,
    ) -> Result<(), Fault> {
        self.member(node).await?;
        if let Some(error) = self.run_unseen(node, &query_message(text)).await? {
            return Err(Fault::Reported(error.freeze()));
        }
        let Some(member) = self.members.iter_mut().find(|member| member.node == node) else {
            return Ok(());
        };
        member.guard.prepared.clear();
        member.guard.settings = Arc::default();
        (member.guard.trace.sequences, member.guard.trace.unknown) = (false, false);
        self.left_unknown = false;
        if member.pin != Pin::ToTheEnd {
            member.pin_for(member.least_pin());
        }
        note_reports(&mut self.reported, &mut self.unreported, &mut member.guard);
        member.reports_seen = member.guard.reports;
        self.settings = Arc::clone(&member.guard.settings);
        self.custom.clear();
        self.tell_reports(client);
        Ok(())
    }

    /// Takes note of the reported settings of a connection that is new to the session.
    pub(super) fn note_joined(&mut self, connection: &mut Connection) {
        note_reports(&mut self.reported, &mut self.unreported, connection);
    }

    /// Whether what runs next runs as the role that has logged in, as far as its settings go.
    pub fn acts_as_login(&self) -> bool {
        let names_role = |text: &String| {
            let text = text.to_ascii_lowercase();
            text.contains("role") || text.contains("authorization")
        };
        let settings = &self.settings.0;
        !self.transaction.settings_changed
            && !self.transaction.begun_unseen
            && self.members.iter().all(|member| member.leaves < Leaves::Unknown)
            && (settings.is_empty()
                || !settings.contains_key("role")
                    && !settings.contains_key("session_authorization"))
            && !self.transaction.prelude.iter().any(names_role)
    }

    /// Takes note of what connections have reported that the client has not seen.
    pub(super) fn note_members(&mut self) {
        for member in &mut self.members {
            if member.reports_seen != member.guard.reports {
                note_reports(&mut self.reported, &mut self.unreported, &mut member.guard);
                member.reports_seen = member.guard.reports;
            }
        }
    }

    /// Tells the client of reported settings that have other values than it knows.
    pub fn tell_reports(&mut self, client: &mut Client) {
        self.note_members();
        for Unreported { name, value, before } in self.unreported.drain(..) {
            client.report(&name, &value, before.as_deref());
        }
    }

    /// The client has seen all that `node` has reported; the transaction's state there.
    pub(super) fn note_seen(&mut self, node: NodeId) -> Option<TransactionStatus> {
        let member = self.members.iter_mut().find(|member| member.node == node)?;
        if member.reports_seen != member.guard.reports {
            member.reports_seen = member.guard.reports;
            self.reported = Arc::clone(&member.guard.parameters);
        }
        member.guard.status
    }

    /// How the session's strings are read.
    pub fn strings(&self) -> Strings {
        match self.reported.get("standard_conforming_strings").map(String::as_str) {
            Some("off") => Strings::Escaped,
            _ => Strings::Standard,
        }
    }
}

/// Looks at one connection: its settings and its search path, or the node whose connection broke.
async fn look_at(
    member: &mut Member,
    custom: &BTreeSet<String>,
) -> Result<(Arc<Settings>, Vec<String>), NodeId> {
    let found = match member.guard.look(custom).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "what a session has left on a node could not be read");
            return Err(member.node);
        }
    };
    let hidden = member.leaves == Leaves::Hidden || member.pin == Pin::ToTheEnd;
    member.pin_for(match (hidden, &found.state) {
        (true, _) => Pin::ToTheEnd,
        (false, Some(_)) => Pin::State,
        (false, None) => member.least_pin(),
    });
    let trace = &mut member.guard.trace;
    trace.sequences |= member.leaves >= Leaves::Sequences;
    trace.unknown = member.leaves >= Leaves::Code;
    member.leaves = Leaves::Nothing;
    Ok((found.settings, found.search_path))
}

/// What the connection reports that the client does not know.
fn note_reports(
    reported: &mut Arc<std::collections::BTreeMap<String, String>>,
    unreported: &mut Vec<Unreported>,
    connection: &mut Connection,
) {
    if share(reported, &mut connection.parameters) {
        return;
    }
    for (name, value) in &*connection.parameters {
        let before = reported.get(name);
        if before != Some(value) {
            let (name, value) = (name.clone(), value.clone());
            unreported.push(Unreported { name, value, before: before.cloned() });
        }
    }
    *reported = Arc::clone(&connection.parameters);
}
