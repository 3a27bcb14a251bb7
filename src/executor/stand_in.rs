//! Temporary tables of the client's own beside rows of several nodes: the merge session does not see
//! them, and gets empty ones of the same definition, by which PostgreSQL checks the statement. Their
//! rows come to it as those of other tables of the home node do.

use super::merge_session::{MergeSession, is_unknown_table};
use super::pull::PullRun;
use super::run::query_message;
use super::session::Member;
use super::{Fault, Session};
use crate::ids::NodeId;
use crate::planner;
use crate::router::{Leaves, PullKind};
use crate::sql::Literal;
use crate::wire::ServerError;

/// A query that writes the definitions of some relations as those of temporary tables: columns and
/// primary key, all by which a query can be valid or not. `name` is what they are called, `which` says
/// which ones, both in SQL, of `pg_class` as `c`.
pub(super) fn definitions(name: &str, which: &str) -> String {
    format!(
        "SELECT pg_catalog.format('CREATE TEMP TABLE %I (%s%s)', {name}, \
         (SELECT pg_catalog.string_agg(pg_catalog.format('%I %s%s', a.attname, \
         pg_catalog.format_type(a.atttypid, a.atttypmod), \
         CASE WHEN a.attcollation <> t.typcollation THEN pg_catalog.format(' COLLATE %I.%I', \
         (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = l.collnamespace), l.collname) END), \
         ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
         (SELECT ', ' || pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k \
         WHERE k.conrelid = c.oid AND k.contype = 'p')) FROM pg_catalog.pg_class c WHERE {which}"
    )
}

impl Session {
    /// Whether something temporary may be on the session's connection to the home node.
    pub(super) fn may_have_temporary(&mut self, home: NodeId) -> bool {
        let left = |member: &mut Member| member.is_pinned() || member.leaves >= Leaves::Unknown;
        self.held(home).is_some_and(left)
    }

    /// Definitions of the session's temporary tables on the home node that the statement reads.
    pub(super) async fn stand_ins(
        &mut self,
        home: NodeId,
        run: &PullRun<'_>,
    ) -> Result<Vec<String>, Fault> {
        let text = run.expanded_text();
        let whole = run.pull.tables.iter().filter(|table| table.kind == PullKind::Whole);
        let mut names: Vec<String> = whole
            .map(|table| {
                let name = Literal(&planner::table_source(text, table)).to_string();
                format!("pg_catalog.to_regclass({name})")
            })
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let temporary = format!(
            "c.relpersistence = 't' AND c.relkind IN ('r', 'p') AND c.oid IN ({})",
            names.join(", ")
        );
        let sql = definitions("c.relname", &temporary);
        let rows = self.evaluate_here(home, &query_message(&sql), 1).await?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }
}

impl MergeSession {
    /// Makes them.
    pub(super) async fn make_stand_ins(&mut self, definitions: &[String]) -> Result<(), Fault> {
        for definition in definitions {
            // A type of its columns may be the session's own, too.
            if self.guard.command(definition).await.is_err() {
                return Err(unseen().into());
            }
        }
        Ok(())
    }
}

/// What is not there is perhaps a temporary view, if there `may_be` one.
pub(super) fn explained(fault: Fault, may_be: bool) -> Fault {
    match fault {
        Fault::Reported(frame) if may_be && is_unknown_table(&frame) => unseen().into(),
        other => other,
    }
}

fn unseen() -> ServerError {
    ServerError::refused(
        "something temporary can't be used beside rows of several nodes",
        "Another connection brings them together, to which it is not visible.",
        "Use a temporary table of ordinary types, or an ordinary one.",
    )
}
