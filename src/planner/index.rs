//! Definitions of indexes that PostgreSQL has for those of one table alone.

use super::ddl::{DdlPlan, Scope, Step};
use crate::sql::{Literal, Name};

/// A plan for all nodes, refused by any of them where `index`, whose storage parameters it changes, is of
/// a sharded table: only the indexes of its partitions have any.
pub(super) fn altered(index: Option<&Name>, scope: &Scope<'_>, plan: DdlPlan) -> DdlPlan {
    let Some(index) = index else { return plan };
    let name = scope.slice(&index.span);
    let body = format!(
        "BEGIN IF (SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({})) = 'I' \
         THEN RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = {}, DETAIL = {}, HINT = {}; END IF; END",
        Literal(name),
        Literal(&format!("storage parameters of the index {name} can't be changed")),
        Literal("PostgreSQL has none for an index of a sharded table, which is partitioned."),
        Literal("Make it anew: CREATE INDEX CONCURRENTLY … WITH (…), then drop this one."),
    );
    let checked = |step| match step {
        Step::HomeAndOthers { home, others } => {
            // Whichever node answers first.
            let check = format!("DO {}", Literal(&body));
            let (home, others) = (format!("{check}; {home}"), format!("{check}; {others}"));
            Step::HomeAndOthers { home, others }
        }
        step => step,
    };
    DdlPlan { steps: plan.steps.into_iter().map(checked).collect(), ..plan }
}
