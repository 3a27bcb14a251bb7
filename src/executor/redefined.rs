//! A pull in a transaction that has changed definitions: the merge session does not see them, and would
//! wait for their locks. It gets empty tables of the definitions that the transaction itself sees, and
//! touches no other.

use super::merge_session::{Described, MergeSession};
use super::pull::{Prepared, PullRun};
use super::run::query_message;
use super::stand_in::definitions;
use super::{Fault, Session};
use crate::planner::{self, More, PullInput};
use crate::router::{Pull, PullKind};
use crate::sql::Literal;
use crate::wire::ServerError;

/// Writes the definition of one table or view as that of a temporary table.
fn definition(input: &PullInput) -> String {
    let which = format!("c.oid = {}::pg_catalog.regclass", Literal(&input.table));
    definitions(&Literal(&input.name).to_string(), &which)
}

/// What is known of columns may not hold any more: rows come whole.
fn without_columns(pull: &Pull) -> Pull {
    let mut pull = pull.clone();
    for table in &mut pull.tables {
        (table.columns, table.keys) = (None, None);
        table.tests.clear();
    }
    pull
}

impl Session {
    /// Notes that a statement of a transaction block may change definitions of the home node.
    pub fn note_definitions(&mut self) {
        self.note_locked();
        self.transaction.moves_names = true;
    }

    /// Notes that others would wait for a relation of the home node that the transaction block has
    /// locked, though all definitions are what they were.
    pub fn note_locked(&mut self) {
        self.transaction.defines_at_home |= self.in_transaction();
    }

    /// Whether the transaction has changed definitions of the nodes.
    pub fn defines(&self) -> bool {
        self.transaction.ddl.is_some()
    }

    /// Whether the transaction may have changed definitions.
    pub(super) fn has_redefined(&self) -> bool {
        self.transaction.ddl.is_some() || self.transaction.defines_at_home
    }

    /// The same of tables that a pull reads: sharded tables are not the home node's alone.
    pub(super) fn has_redefined_for(&self, pull: &Pull) -> bool {
        let whole = || pull.tables.iter().any(|table| table.kind == PullKind::Whole);
        self.transaction.ddl.is_some() || self.transaction.defines_at_home && whole()
    }

    /// Plans a pull by the definitions that the transaction sees.
    pub(super) async fn prepare_redefined(
        &mut self,
        run: &PullRun<'_>,
        merge: &mut MergeSession,
    ) -> Result<Prepared, Fault> {
        let of_catalog = run.pull.tables.iter().any(|table| table.kind == PullKind::Catalog);
        let more = &self.transaction.defines_more;
        // The code of a function that users made may name what is new.
        let by_code = *more != More::Nothing && !run.pull.unknown_functions.is_empty();
        let bears = by_code || more.bears_on(run.text);
        if bears || of_catalog || run.pull.expanded.is_some() {
            return Err(refused().into());
        }
        let home = self.engine.live_map.load().home();
        let mut plan = planner::pull(run.text, &without_columns(&run.pull), &run.params, true);
        for input in &mut plan.inputs {
            let ask = query_message(&definition(input));
            let rows = self.evaluate_here(home, &ask, 1).await?;
            for definition in rows.into_iter().flatten().flatten() {
                // A type of its columns may be the transaction's own.
                if merge.guard.command(&definition).await.is_err() {
                    return Err(refused().into());
                }
            }
            input.is_made = true;
        }
        let statement = plan.text.get(run.start..).unwrap_or_default();
        let described: Described = merge.describe(statement, run.params.types).await?;
        merge.check_functions(&run.pull.unknown_functions).await?;
        Ok(Prepared { described, plan, all: true })
    }
}

fn refused() -> ServerError {
    ServerError::refused(
        "rows of several nodes can't be brought together after such definitions in a transaction",
        "Another connection merges them, which sees its tables, but no new types, functions or views.",
        "Commit the definitions first.",
    )
}
