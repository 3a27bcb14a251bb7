//! Statements about the session itself: transaction blocks, savepoints, settings, DISCARD.
//!
//! A transaction block exists on a node only once a statement needs that node; until then the proxy
//! answers for it.

use std::sync::Arc;

use super::announce;
use super::session::ClientSession;
use super::simple::is_ours;
use crate::executor::Fault;
use crate::ids::NodeId;
use crate::router::{Control, Discard, Leaves, Params, Route, Template};
use crate::sql::Literal;
use crate::wire::{Reply, ServerError, SqlState, TransactionStatus};

impl ClientSession {
    /// Does what a control statement says; leaves `ReadyForQuery` to the caller.
    pub(super) async fn control(&mut self, control: &Control, text: &str) -> Result<(), Fault> {
        match control {
            Control::Begin => self.begin(text).await,
            Control::Commit { chain } => self.end_block(text, *chain, true).await,
            Control::Rollback { chain } => self.end_block(text, *chain, false).await,
            Control::Savepoint { name } => self.savepoint(name, text).await,
            Control::Release { name } => self.release_savepoint(name, text).await,
            Control::RollbackTo { name } => self.back_to_savepoint(name, text).await,
            Control::SetTransaction { text } => {
                let constraints = text.trim_start().get(4..15).is_some_and(|word| {
                    word.trim_start().to_ascii_lowercase().starts_with("constraint")
                });
                if constraints {
                    self.set_constraints(text).await
                } else {
                    self.in_block(text, "SET").await
                }
            }
            Control::Set { name, values: Some(values), .. } if name == announce::SETTING => {
                self.announce(values).await
            }
            Control::Set { name, local: false, values: None, .. } => {
                self.reset(Some(name), text, "SET").await
            }
            Control::Set { name, local, values, .. } => {
                self.session.will_set(name);
                if *local && !is_surely_valid(name, values.as_deref()) {
                    self.join_to_check().await?;
                }
                self.set(Some(name), text, *local).await
            }
            Control::Reset { name } => self.reset(name.as_deref(), text, "RESET").await,
            Control::Discard(discard) => self.discard(*discard, text).await,
            Control::Prepare(prepare) => self.prepare(prepare, text).await,
            Control::Execute(execute) => Box::pin(self.execute(execute, text)).await,
            Control::Deallocate { name } => self.deallocate(name.as_deref(), text).await,
            Control::None
            | Control::Show { .. }
            | Control::Listen { .. }
            | Control::Unlisten { .. } => self.pass(text).await,
        }
    }

    /// Sends a statement to a node that the session has, or the home node.
    async fn pass(&mut self, text: &str) -> Result<(), Fault> {
        let node = self.session.any_node();
        self.session.run_text(node, text, &mut self.client).await
    }

    async fn begin(&mut self, text: &str) -> Result<(), Fault> {
        if self.session.in_transaction() {
            self.session.check_not_failed()?;
            if !self.session.begun_nodes().is_empty() {
                return self.pass(text).await;
            }
            let warning = warning("25001", "there is already a transaction in progress");
            self.client.put_error(&warning);
        } else {
            self.session.begin(text);
        }
        let start =
            text.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("start"));
        let tag = if start { "START TRANSACTION" } else { "BEGIN" };
        self.client.put(Reply::CommandComplete(tag));
        Ok(())
    }

    /// COMMIT or ROLLBACK, as the transaction's state allows.
    async fn end_block(&mut self, text: &str, chain: bool, commit: bool) -> Result<(), Fault> {
        if !self.session.in_transaction() {
            return self.pass(text).await;
        }
        let next = if chain { Some(self.session.begin_of_next().await?) } else { None };
        let failed = self.session.status() == TransactionStatus::Failed;
        let ended = self.end_on_nodes(text, commit && !failed, next.as_deref()).await;
        self.transaction_ended(matches!(ended, Ok(true))).await;
        if chain {
            self.batch.portals.clear();
        }
        self.renew_templates();
        ended.map(drop)
    }

    /// Ends the block on its nodes, and begins the next one; whether what it did is there now.
    async fn end_on_nodes(
        &mut self,
        text: &str,
        commit: bool,
        next: Option<&str>,
    ) -> Result<bool, Fault> {
        let nodes = self.session.begun_nodes();
        let failed = self.session.status() == TransactionStatus::Failed;
        let failed_unseen = failed && !self.session.failed_on_node();
        if let ([node], false, None) = (nodes.as_slice(), failed_unseen, next) {
            let ran = self.session.try_text(*node, text, &mut self.client).await?;
            return Ok(ran && commit);
        }
        if nodes.is_empty() {
            self.session.forget_block();
        } else if commit {
            self.session.commit().await?;
        } else {
            self.session.rollback().await?;
        }
        if let Some(begin) = next {
            self.session.begin_chained(begin);
        }
        self.client.put(Reply::CommandComplete(if commit { "COMMIT" } else { "ROLLBACK" }));
        Ok(commit)
    }

    /// A statement that holds for the transaction on each of its nodes, also on those that join it
    /// later.
    pub(super) async fn in_block(&mut self, text: &str, tag: &str) -> Result<(), Fault> {
        if !self.session.in_transaction() {
            return self.pass(text).await;
        }
        self.session.check_not_failed()?;
        let nodes = self.session.begun_nodes();
        let Some((last, others)) = nodes.split_last() else {
            self.session.remember(text);
            self.client.put(Reply::CommandComplete(tag));
            return Ok(());
        };
        self.session.run_unseen_on(others.iter().copied(), text).await?;
        self.session.run_text(*last, text, &mut self.client).await?;
        if self.session.check_not_failed().is_ok() {
            self.session.remember(text);
        }
        Ok(())
    }

    /// A node tells whether a savepoint is there, or a setting can be set, before any has joined the
    /// block.
    pub(super) async fn join_to_check(&mut self) -> Result<(), Fault> {
        if self.session.check_not_failed().is_err()
            || !self.session.in_transaction()
            || !self.session.begun_nodes().is_empty()
        {
            return Ok(());
        }
        let node = self.session.any_node();
        self.session.join_block(node).await
    }

    /// SET CONSTRAINTS: those that are named may be on some nodes only, but the home node tells
    /// whether they are there.
    async fn set_constraints(&mut self, text: &str) -> Result<(), Fault> {
        let all =
            text.split_ascii_whitespace().nth(2).is_some_and(|w| w.eq_ignore_ascii_case("all"));
        if all || !self.session.in_transaction() {
            return self.in_block(text, "SET CONSTRAINTS").await;
        }
        self.session.check_not_failed()?;
        let body = format!("BEGIN {text}; EXCEPTION WHEN undefined_object THEN NULL; END");
        let lenient = format!("DO {}", Literal(&body));
        let home = self.worker.engine.live_map.load().home();
        self.session.join_block(home).await?;
        let others = self.session.begun_nodes().into_iter().filter(|node| *node != home);
        self.session.run_unseen_on(others, &lenient).await?;
        self.session.run_text(home, text, &mut self.client).await?;
        if self.session.check_not_failed().is_ok() {
            self.session.remember(&lenient);
        }
        Ok(())
    }

    async fn set(&mut self, name: Option<&str>, text: &str, local: bool) -> Result<(), Fault> {
        if local && self.session.in_transaction() {
            if self.batch.widened {
                let message = "SET LOCAL can only be used in transaction blocks";
                self.client.put_error(&warning("25P01", message));
            }
            self.in_block(text, "SET").await?;
            return self.read_anew(name).await;
        }
        self.session.check_not_failed()?;
        self.session.expect_settings_change();
        if self.session.in_transaction() {
            let node = self.session.any_node();
            self.session.join_block(node).await?;
            self.in_block(text, "SET").await?;
        } else {
            self.pass(text).await?;
        }
        self.read_anew(name).await
    }

    /// Names or strings may mean something else now that this setting has changed, or all. In a block whose
    /// modes are still to come the question would be its first query.
    async fn read_anew(&mut self, name: Option<&str>) -> Result<(), Fault> {
        let means = ["search_path", "role", "session_authorization", "standard_conforming_strings"];
        if name.is_some_and(|name| !means.contains(&name)) {
            return Ok(());
        }
        self.session.refresh_search_path().await?;
        self.renew_templates();
        Ok(())
    }

    /// RESET goes back to what the client started with, which is not what its connection did.
    async fn reset(&mut self, name: Option<&str>, text: &str, tag: &str) -> Result<(), Fault> {
        let startup = Arc::clone(&self.session.startup_settings);
        let is_startups = name.is_none_or(|name| startup.0.contains_key(name));
        if startup.0.is_empty() || !is_startups {
            return self.set(name, text, false).await;
        }
        self.session.check_not_failed()?;
        self.session.expect_settings_change();
        let node = self.session.any_node();
        if self.session.in_transaction() {
            self.session.join_block(node).await?;
        }
        let mut statements: Vec<String> =
            name.is_none().then(|| "RESET ALL".to_owned()).into_iter().collect();
        let named = startup.0.iter().filter(|(known, _)| name.is_none_or(|name| name == *known));
        statements.extend(named.map(|(known, value)| {
            let (known, value) = (Literal(known), Literal(value));
            format!("SELECT pg_catalog.set_config({known},{value},false)")
        }));
        // Outside of a block the text is one transaction.
        let sql = statements.join(";");
        if self.session.in_transaction() {
            statements.iter().for_each(|statement| self.session.remember(statement));
            for node in self.session.begun_nodes() {
                self.run_reset(node, &sql).await?;
            }
        } else {
            self.run_reset(node, &sql).await?;
        }
        self.client.put(Reply::CommandComplete(tag));
        self.read_anew(name).await
    }

    /// Runs a reset on one node; the client gets only what it reports.
    async fn run_reset(&mut self, node: NodeId, sql: &str) -> Result<(), Fault> {
        self.session.run_unseen_on([node], sql).await?;
        self.session.settle_unseen(node, &mut self.client).await
    }

    async fn discard(&mut self, discard: Discard, text: &str) -> Result<(), Fault> {
        let node = self.session.any_node();
        if discard != Discard::All || self.session.in_transaction() {
            self.session.member(node).await?;
            self.session.will_leave(node, Leaves::State, &[]);
            return self.pass(text).await;
        }
        let nodes = self.session.nodes();
        for other in nodes.iter().filter(|other| **other != node) {
            self.session.lose(*other);
        }
        self.session.run_discard_all(node, text, &mut self.client).await?;
        self.statements.clear();
        self.cursors.clear();
        self.batch.portals.clear();
        let startup = Arc::clone(&self.session.startup_settings);
        self.session.change_settings(startup, &mut self.client).await?;
        self.renew_templates();
        self.client.put(Reply::CommandComplete("DISCARD ALL"));
        Ok(())
    }

    /// Whether no node ever sees the text as a prepared statement.
    pub(super) fn is_done_here(&self, template: &Template) -> bool {
        if matches!(template.control, Control::Execute(_)) {
            return false;
        }
        let steps = || template.route(&Params::default());
        is_ours(&template.control) && !self.goes_native(&template.control)
            || (!template.depends_on_params()
                && matches!(steps(), Ok(Route::Ddl(_) | Route::CopyIn(_) | Route::CopyOut(_))))
    }

    /// Whether the home node may run a control statement in the batch as any other statement: it is
    /// the only node of such a session.
    fn goes_native(&self, control: &Control) -> bool {
        let failed_unseen = self.session.check_not_failed().is_err();
        if !self.is_plain() || failed_unseen && self.session.failed_node().is_none() {
            return false;
        }
        let resets_here = !self.session.startup_settings.0.is_empty();
        match control {
            Control::Discard(Discard::All) | Control::Prepare(_) | Control::Deallocate { .. } => {
                false
            }
            Control::Reset { .. } | Control::Set { values: None, .. } => !resets_here,
            Control::Commit { chain } | Control::Rollback { chain } => !chain,
            _ => true,
        }
    }

    /// What a statement in the batch means for the session.
    pub(super) fn note_control(&mut self, template: &Template) {
        if let Control::Set { name, .. } = &template.control {
            self.session.will_set(name);
        }
        if matches!(template.control, Control::Set { .. } | Control::Reset { .. }) {
            self.session.expect_settings_change();
        }
        self.batch.changes_reading |= template.changes_reading;
    }
}

/// Whether no server could refuse SET LOCAL with these values: of what stands at the start of many blocks.
fn is_surely_valid(name: &str, values: Option<&[String]>) -> bool {
    let Some([value]) = values else { return false };
    match name {
        "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => {
            let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
            let digits = value.len() - unit.len();
            let most = match unit {
                "" | "ms" => 9,
                "s" => 6,
                "min" => 4,
                _ => 0,
            };
            (1..=most).contains(&digits)
        }
        _ => name.contains('.') && !name.starts_with("plpgsql."),
    }
}

pub(super) fn warning(code: &'static str, message: &str) -> ServerError {
    ServerError {
        severity: crate::wire::Severity::Warning,
        ..ServerError::new(SqlState(code), message)
    }
}
