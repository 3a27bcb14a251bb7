//! What PostgreSQL would have checked of a view, where the view's query is run in its place.

use super::Fault;
use super::merge_session::{Described, MergeSession};
use super::pull::PullRun;
use super::reduce::fields;
use crate::router::{Expanded, PullKind};
use crate::sql::{Literal, TableName};
use crate::wire::{ServerError, SqlState};

impl MergeSession {
    /// The statement with the views' queries has the same columns as that with the views; the user
    /// may read them, and sees the rows that their owners see.
    pub(super) async fn check_views(
        &mut self,
        run: &PullRun<'_>,
        expanded: &Expanded,
        described: &Described,
    ) -> Result<(), Fault> {
        let original = run.text.get(run.start..).unwrap_or_default();
        let original = self.describe(original, run.params.types).await?;
        if fields(&original.columns) != fields(&described.columns) {
            return Err(refused(
                expanded,
                "Its columns would have other types than those of one PostgreSQL.",
                "Name the view's columns one by one.",
            )
            .into());
        }
        let regclasses = |names: Vec<&TableName>| {
            let names: Vec<_> =
                names.iter().map(|name| Literal(&name.to_string()).to_string()).collect();
            format!("ARRAY[{}]::pg_catalog.regclass[]", names.join(", "))
        };
        let tables = run.pull.tables.iter().filter_map(|table| match &table.kind {
            PullKind::Sharded(_, name) => Some(name),
            PullKind::Whole | PullKind::Catalog => None,
        });
        let sql = format!(
            "SELECT v.oid::pg_catalog.regclass, \
             NOT pg_catalog.has_table_privilege(v.oid, 'SELECT'), \
             v.relowner <> CURRENT_USER::pg_catalog.regrole \
             AND NOT coalesce('security_invoker=true' = ANY (v.reloptions), false) \
             AND EXISTS (SELECT FROM pg_catalog.pg_class t WHERE t.relrowsecurity \
             AND t.oid = ANY ({})) FROM pg_catalog.pg_class v WHERE v.oid = ANY ({})",
            regclasses(tables.collect()),
            regclasses(expanded.views.iter().collect())
        );
        for row in self.guard.command(&sql).await?.rows {
            let is = |column: usize| row.get(column).cloned().flatten().as_deref() == Some("t");
            if is(1) {
                let view = row.first().cloned().flatten().unwrap_or_default();
                let message = format!("permission denied for view {view}");
                return Err(ServerError::new(SqlState("42501"), message).into());
            }
            if is(2) {
                return Err(refused(
                    expanded,
                    "It reads a table with row security under its owner's name.",
                    "Bind the shard key, or create the view WITH (security_invoker = true).",
                )
                .into());
            }
        }
        Ok(())
    }
}

fn refused(expanded: &Expanded, why: &str, hint: &str) -> ServerError {
    let view = expanded.views.first().map(|view| view.name.as_str()).unwrap_or_default();
    ServerError::refused(
        format!("the view \"{view}\" can't be read over several nodes in this form"),
        why,
        hint,
    )
}
