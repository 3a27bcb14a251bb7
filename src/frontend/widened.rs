//! The implicit transaction of the extended protocol, over several nodes.
//!
//! What is executed up to `Sync` outside of a transaction block is one transaction. While one node does
//! all of it, that is the node's own. Once another node is needed it becomes a block that the session
//! ends at `Sync`: a BEGIN that comes before a node's `Sync` takes what was executed before it in.

use std::time::Duration;

use tokio::time::timeout;

use super::batch::Due;
use super::control::warning;
use super::session::ClientSession;
use super::simple::is_ours;
use crate::executor::Fault;
use crate::router::Control;
use crate::wire::{Reply, ServerError, SqlState, put_command, put_frame};

/// How long the message behind an `Execute` is waited for; most are there already.
const NEXT: Duration = Duration::from_secs(1);

impl ClientSession {
    /// Outside of a transaction block what was executed since the last `Sync`, and what comes up to the
    /// next one, gets a block. An error of the node's leaves the batch skipping.
    pub(super) async fn widen(&mut self) -> Result<(), Fault> {
        if self.session.in_transaction() {
            return Ok(());
        }
        let node = self.batch.node.filter(|_| self.batch.executed && self.batch.has_exchange());
        if let Some(node) = node {
            self.put_begin();
            self.drain().await?;
            self.batch.in_exchange = false;
            self.batch.unnamed = None;
            if self.batch.skipping {
                return Ok(());
            }
            self.session.begin("BEGIN");
            self.session.mark_begun(node);
        } else {
            self.session.begin("BEGIN");
        }
        self.batch.widened = true;
        Ok(())
    }

    /// The same before a statement that the proxy runs in steps of its own, unless it is alone. What the
    /// proxy does itself needs it only behind others, but for settings: these are taken back if one that
    /// follows fails.
    ///
    /// # Errors
    /// 0A000: it is about transactions, and not the first.
    pub(super) async fn widen_for_steps(&mut self, control: &Control) -> Result<(), Fault> {
        let open = self.session.in_transaction() && !self.batch.widened;
        let follows = self.batch.executed || self.batch.widened;
        let sets = matches!(control, Control::Set { .. } | Control::Reset { .. });
        if open || !follows && is_ours(control) && !sets {
            return Ok(());
        }
        let about =
            control.moves_transaction() || matches!(control, Control::SetTransaction { .. });
        if follows && about {
            return Err(not_first().into());
        }
        if follows || !self.is_last().await? { self.widen().await } else { Ok(()) }
    }

    /// BEGIN behind others up to Sync takes what they did into its block; COMMIT and ROLLBACK end that.
    /// Whether it was one of these, which is done then.
    pub(super) async fn moves_widened(
        &mut self,
        control: &Control,
        text: &str,
    ) -> Result<bool, Fault> {
        let follows = self.batch.executed || self.batch.widened;
        if !follows || self.session.in_transaction() && !self.batch.widened {
            return Ok(false);
        }
        if !matches!(control, Control::Begin | Control::Commit { .. } | Control::Rollback { .. }) {
            return Ok(false);
        }
        self.widen().await?;
        self.end_exchange().await?;
        if self.batch.skipping {
            return Ok(true);
        }
        self.move_implicit(control, text).await?;
        self.batch.widened = false;
        self.batch.executed &= matches!(control, Control::Begin);
        Ok(true)
    }

    /// What was run outside of a block is taken into one by BEGIN, and ended by COMMIT and ROLLBACK.
    ///
    /// # Errors
    /// 25P01 with AND CHAIN, as PostgreSQL has it; it is no transaction any more if its end fails.
    pub(super) async fn move_implicit(
        &mut self,
        control: &Control,
        text: &str,
    ) -> Result<(), Fault> {
        let (tag, chained) = match control {
            Control::Commit { chain } => ("COMMIT", *chain),
            Control::Rollback { chain } => ("ROLLBACK", *chain),
            _ => {
                let (tag, modes) = began(text).ok_or_else(not_first)?;
                if !modes.is_empty() {
                    self.session.set_on_all(&format!("SET TRANSACTION {modes}")).await?;
                }
                self.client.put(Reply::CommandComplete(tag));
                return Ok(());
            }
        };
        if chained {
            let message = format!("{tag} AND CHAIN can only be used in transaction blocks");
            return Err(ServerError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, message).into());
        }
        self.client.put_error(&warning("25P01", "there is no transaction in progress"));
        self.cursors.clear();
        if tag == "COMMIT" {
            self.session.commit().await?;
        } else {
            self.session.rollback().await?;
        }
        self.renew_templates();
        self.client.put(Reply::CommandComplete(tag));
        Ok(())
    }

    /// Whether the client's next message is `Sync`, perhaps after some that close portals; or nothing more
    /// comes: EXECUTE in the simple protocol is an exchange of the proxy's own.
    async fn is_last(&mut self) -> Result<bool, Fault> {
        if self.batch.quiet {
            return Ok(true);
        }
        let mut at = 0;
        loop {
            let next = timeout(NEXT, self.client.frame_after(at)).await;
            match next.ok().transpose()?.flatten() {
                Some(frame) if frame.tag == b'C' => at += frame.len,
                frame => return Ok(frame.is_some_and(|frame| frame.tag == b'S')),
            }
        }
    }

    /// BEGIN, and the end of the node's part of the exchange.
    fn put_begin(&mut self) {
        let batch = &mut self.batch;
        put_command("BEGIN", &mut batch.out);
        put_frame(b'S', &mut batch.out, |_| ());
        batch.due.extend([b'P', b'B', b'E', b'S'].map(Due::unseen));
    }

    /// `Sync` ends the block; `false` if it was swallowed by a COPY.
    pub(super) async fn sync_widened(&mut self) -> Result<bool, Fault> {
        if self.batch.has_exchange() {
            put_frame(b'S', &mut self.batch.out, |_| ());
            self.batch.due.push_back(Due::unseen(b'S'));
        }
        let drained = self.drain().await;
        if drained.is_ok() && std::mem::take(&mut self.batch.sync_is_lost) {
            return Ok(false);
        }
        self.batch.widened = false;
        self.batch.in_exchange = false;
        let whole =
            drained.is_ok() && !self.batch.skipping && self.session.check_not_failed().is_ok();
        let ended = if !self.session.in_transaction() {
            Ok(())
        } else if whole {
            self.session.commit().await
        } else {
            self.session.rollback().await
        };
        drained?;
        ended?;
        self.end_batch().await.map(|()| true)
    }
}

/// What BEGIN or START TRANSACTION is answered, and the modes that it asks for; `None` if it can't be told
/// apart.
fn began(text: &str) -> Option<(&'static str, &str)> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let text = text.trim().trim_end_matches(';').trim_end();
    let (first, rest) = text.split_at(word(text));
    let rest = rest.trim_start();
    let (second, modes) = rest.split_at(word(rest));
    let is = |given: &str, known: &str| given.eq_ignore_ascii_case(known);
    let noise = is(second, "transaction") || is(second, "work");
    let modes = if noise { modes.trim_start() } else { rest };
    match first {
        _ if is(first, "begin") => Some(("BEGIN", modes)),
        _ if is(first, "start") && noise => Some(("START TRANSACTION", modes)),
        _ => None,
    }
}

fn not_first() -> ServerError {
    ServerError::refused(
        "a statement about transactions can't follow others up to Sync",
        "Outside of a transaction block what is executed up to Sync is a transaction of its own.",
        "Send Sync before it.",
    )
}

#[cfg(test)]
mod tests {
    use super::began;

    #[test]
    fn the_modes_of_a_block_are_told_from_how_it_begins() {
        for (text, told) in [
            ("BEGIN", Some(("BEGIN", ""))),
            (" begin work ; ", Some(("BEGIN", ""))),
            ("begin read only", Some(("BEGIN", "read only"))),
            (
                "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY;",
                Some(("BEGIN", "ISOLATION LEVEL SERIALIZABLE, READ ONLY")),
            ),
            ("start transaction", Some(("START TRANSACTION", ""))),
            ("START TRANSACTION DEFERRABLE", Some(("START TRANSACTION", "DEFERRABLE"))),
            ("/* x */ BEGIN", None),
        ] {
            assert_eq!(began(text), told, "{text}");
        }
    }
}
