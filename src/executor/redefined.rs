//! A pull in a transaction that has changed definitions: the merge session does not see them, and would
//! wait for their locks. It gets empty tables of the definitions that the transaction itself sees, and
//! touches no other; or, where types, functions or views count, it takes the connection of the
//! transaction itself for as long as it lasts.

use super::finish::Ending;
use super::merge_session::{Described, MergeSession};
use super::pull::{Prepared, PullMode, PullRun};
use super::run::query_message;
use super::stand_in::definitions;
use super::{Fault, Session};
use crate::planner::{self, More, PullInput};
use crate::router::{Leaves, Pull, PullKind};
use crate::shard_map::ShardMap;
use crate::sql::{Literal, TableName};
use crate::wire::ServerError;

/// What is behind it is the merge session's.
const SAVEPOINT: &str = "foreshard_merge";

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
            return self.prepare_own(run, merge).await;
        }
        let home = self.engine.live_map.load().home();
        let mut plan = planner::pull(run.text, &without_columns(&run.pull), &run.params, true);
        for input in &mut plan.inputs {
            let ask = query_message(&definition(input));
            let rows = self.evaluate_here(home, &ask, 1).await?;
            for definition in rows.into_iter().flatten().flatten() {
                // A type of its columns may be the transaction's own.
                if merge.guard.command(&definition).await.is_err() {
                    return self.prepare_own(run, merge).await;
                }
            }
            input.is_made = true;
        }
        let statement = plan.text.get(run.start..).unwrap_or_default();
        let described: Described = merge.describe(statement, run.params.types).await?;
        merge.check_functions(&run.pull.unknown_functions).await?;
        Ok(Prepared { described, plan, all: true })
    }

    /// Plans a pull whose rows come together on the transaction's own connection to the home node,
    /// behind a savepoint: there all is seen that it has defined, and its rows are where they are.
    async fn prepare_own(
        &mut self,
        run: &PullRun<'_>,
        merge: &mut MergeSession,
    ) -> Result<Prepared, Fault> {
        if run.mode != PullMode::All {
            return Err(in_portions().into());
        }
        let home = merge.node;
        let savepoint = query_message(&format!("SAVEPOINT {SAVEPOINT}"));
        self.evaluate_here(home, &savepoint, 1).await?;
        self.swap_home(merge);
        merge.is_exchanged = true;
        let text = run.expanded_text();
        if let Some(expanded) = &run.pull.expanded {
            let map = self.engine.live_map.snapshot();
            merge.check_unchanged(&expanded.views, &map).await?;
        }
        let statement = text.get(run.start..).unwrap_or_default();
        let described = merge.describe(statement, run.params.types).await?;
        merge.check_functions(&run.pull.unknown_functions).await?;
        if let Some(expanded) = &run.pull.expanded {
            merge.check_views(run, expanded, &described).await?;
        }
        let plan = planner::pull(text, &without_columns(&run.pull), &run.params, false);
        Ok(Prepared { described, plan, all: false })
    }

    /// Gives the transaction the merge session's connection to the home node for its own.
    fn swap_home(&mut self, merge: &mut MergeSession) {
        let Some(member) = self.held(merge.node) else {
            merge.guard.status = None;
            return self.lose_part();
        };
        // What has to do with temporary tables can't be prepared.
        member.leaves = member.leaves.max(Leaves::Unknown);
        std::mem::swap(&mut member.guard, &mut merge.guard);
    }

    /// Takes the transaction's own connection back, if the merge session has it; whether it had.
    pub(super) fn exchange_back(&mut self, merge: &mut MergeSession) -> bool {
        let had = std::mem::take(&mut merge.is_exchanged);
        if had {
            self.swap_home(merge);
        }
        had
    }

    /// The same; what the merge session has made there goes. Without an ending it has failed.
    pub(super) async fn take_back(
        &mut self,
        merge: &mut MergeSession,
        ending: Option<Ending>,
    ) -> Result<(), Fault> {
        if !self.exchange_back(merge) {
            return Ok(());
        }
        match ending {
            Some(Ending::Done) => {
                let back = format!("ROLLBACK TO {SAVEPOINT}; RELEASE {SAVEPOINT}");
                self.evaluate_here(merge.node, &query_message(&back), 1).await?;
            }
            // The request to cancel it may still be on its way.
            Some(Ending::Late) => self.lose(merge.node),
            Some(Ending::Failed) | None => self.fail(),
        }
        Ok(())
    }
}

impl MergeSession {
    /// Views have the queries that the map has.
    async fn check_unchanged(&mut self, views: &[TableName], map: &ShardMap) -> Result<(), Fault> {
        for name in views {
            // The names in it are shown with their schemas, as they are where the map is made.
            let ask = format!(
                "SAVEPOINT foreshard_view; SET LOCAL search_path = ''; \
                 SELECT pg_catalog.pg_get_viewdef({}::pg_catalog.regclass); \
                 ROLLBACK TO foreshard_view; RELEASE foreshard_view",
                Literal(&name.to_string())
            );
            let rows = self.guard.command(&ask).await?.rows;
            let query = rows.into_iter().flatten().flatten().next().unwrap_or_default();
            let known = map.view(name).map(|view| view.definition.as_str());
            if known != Some(query.trim().trim_end_matches(';')) {
                return Err(of_view(name).into());
            }
        }
        Ok(())
    }
}

fn refused(why: &str, hint: &str) -> ServerError {
    ServerError::refused(
        "rows of several nodes can't be brought together after such definitions in a transaction",
        why,
        hint,
    )
}

fn of_view(view: &TableName) -> ServerError {
    refused(
        &format!("The query of the view {view} is another one by them."),
        "Commit the definitions first, or write the view's query.",
    )
}

fn in_portions() -> ServerError {
    refused(
        "The connection that gives rows in portions sees its tables, but no new types, functions or \
         views.",
        "Commit the definitions first, or fetch all rows at once, without a cursor.",
    )
}
