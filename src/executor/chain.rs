//! What `AND CHAIN` hands on to the next transaction block: its modes, as PostgreSQL itself tells them.

use super::{Fault, Session, query_message};
use crate::wire::TransactionStatus;

/// The modes of a transaction, in an order.
const MODES: &str =
    "SHOW transaction_isolation; SHOW transaction_read_only; SHOW transaction_deferrable";

/// Makes what a block fails with on a node where nothing has failed yet.
const FAIL: &str = "ROLLBACK TO SAVEPOINT \"failed on another node\"";

impl Session {
    /// A BEGIN with the modes that a block chained to this one has, which is not over yet. What is set
    /// in a block that has failed since is taken back by PostgreSQL, what it was chained with is not:
    /// so that a node is asked, which joins the block where none has.
    pub async fn begin_of_next(&mut self) -> Result<String, Fault> {
        let node = match self.begun_nodes().first() {
            Some(node) => *node,
            None => self.any_node(),
        };
        let mut ask = MODES.to_owned();
        if self.status() == TransactionStatus::Failed {
            let member = self.member(node).await?;
            if member.guard.status != Some(TransactionStatus::Failed) {
                self.run_unseen(node, &query_message(FAIL)).await?;
            }
            ask.insert_str(0, "ROLLBACK AND CHAIN; ");
        }
        let rows = self.rows_of(node, &query_message(&ask)).await?;
        let on = |at: usize| rows.get(at).and_then(|row| row.first()) == Some(&Some("on".into()));
        let level = rows.first().and_then(|row| row.first()).cloned().flatten().unwrap_or_default();
        Ok(format!(
            "BEGIN ISOLATION LEVEL {level} {}, {}",
            if on(1) { "READ ONLY" } else { "READ WRITE" },
            if on(2) { "DEFERRABLE" } else { "NOT DEFERRABLE" },
        ))
    }

    /// Begins a block that is chained to another one. On the nodes that join it its modes are not set
    /// but inherited, so that a failure does not take them back.
    pub fn begin_chained(&mut self, begin: &str) {
        self.begin(begin);
        self.remember("COMMIT AND CHAIN");
    }
}
