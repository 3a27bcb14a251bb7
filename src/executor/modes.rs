//! `current_setting('transaction_isolation')` and the like beside rows that were brought together: the client's
//! transaction is meant, not the one in which that is done.

use super::merge_session::MergeSession;
use super::{Fault, Session, query_message};
use crate::planner::PullPlan;
use crate::sql::{ComputedName, Literal, MODES, OF_CLIENT, modes_of_client};
use crate::wire::ServerError;

impl Session {
    /// Has the merge session know what the plan's text asks of the client's transaction.
    ///
    /// # Errors
    /// 0A000: the text may ask for it by a name that it computes.
    pub(super) async fn give_modes(
        &mut self,
        plan: &mut PullPlan,
        merge: &mut MergeSession,
    ) -> Result<(), Fault> {
        if merge.is_exchanged {
            // It is the client's transaction.
            return Ok(());
        }
        let text = modes_of_client(&plan.text).map_err(|ComputedName| {
            ServerError::refused(
                "a setting of a computed name can't be read beside rows of several nodes",
                "It may be one that the transaction in which they are brought together has another value of.",
                "Write its name as a string: current_setting('app.name'), or ask for it by a statement of its own.",
            )
        })?;
        let Some(text) = text else { return Ok(()) };
        let current = |name: String| format!("pg_catalog.current_setting({})", Literal(&name));
        let asked = |of: &dyn Fn(&str) -> String| {
            let all: Vec<_> = MODES.iter().map(|mode| current(of(mode))).collect();
            format!("SELECT {}", all.join(", "))
        };
        let values = if self.in_transaction() {
            let node = self.begun_nodes().first().copied().unwrap_or_else(|| self.any_node());
            let asked = asked(&|mode: &str| mode.to_owned());
            self.rows_of(node, &query_message(&asked)).await?
        } else {
            // What a transaction of the statement's own would begin with.
            let default = |mode: &str| {
                let prefix = if mode.starts_with("transaction_") { "default_" } else { "" };
                format!("{prefix}{mode}")
            };
            merge.guard.command(&asked(&default)).await?.rows
        };
        let values = values.into_iter().next().unwrap_or_default();
        let set = MODES.iter().zip(&values).map(|(mode, value)| {
            let (name, value) =
                (format!("{OF_CLIENT}{mode}"), value.as_deref().unwrap_or_default());
            format!("pg_catalog.set_config({}, {}, true)", Literal(&name), Literal(value))
        });
        let set = format!("SELECT {}", set.collect::<Vec<_>>().join(", "));
        merge.guard.command(&set).await?;
        plan.text = text;
        Ok(())
    }
}
