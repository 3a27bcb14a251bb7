//! What is known of functions that users made: those that are immutable may run where PostgreSQL's own may,
//! and where one that is not has the name of one of PostgreSQL's, a call may mean either.

use super::functions;
use super::names::Names;
use crate::sql::{
    Call, CopyStatement, DdlStatement, DeclareCursor, Query, Statement, StatementKind,
};

/// Stands for the schema of a call that may be of a function of PostgreSQL's or of a user's.
const EITHER: &str = "";

impl Names<'_> {
    /// Whether a call may run in a write that is spread over nodes: it gives the same on each, or differs
    /// from row to row anyway.
    pub(super) fn in_spread_write(&self, call: &Call) -> bool {
        functions::in_spread_write(call) || self.trusts(call)
    }

    /// Whether a call gives the same on every node that has the same rows, in whatever order they are.
    pub(super) fn is_same_everywhere(&self, call: &Call) -> bool {
        functions::is_same_everywhere(call) || self.trusts(call)
    }

    fn trusts(&self, call: &Call) -> bool {
        let known = &self.map.derived().immutable;
        call.schema.as_deref() != Some("pg_catalog") && known.binary_search(&call.name).is_ok()
    }

    /// The functions of users in statements that are taken for immutable ones.
    pub(super) fn trusted(&self, statements: &[Statement]) -> Vec<String> {
        if !self.active() || self.map.derived().immutable.is_empty() {
            return Vec::new();
        }
        let queries = statements.iter().filter_map(|it| query_of(&it.kind));
        let calls = queries.flat_map(|query| &query.functions);
        let mut found: Vec<_> =
            calls.filter(|call| self.trusts(call)).map(|call| call.name.clone()).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Marks calls that need not be of PostgreSQL's own functions, whose names they have.
    pub(super) fn mark_overloads(&self, statements: &mut [Statement]) {
        let overloads = &self.map.derived().overloads;
        if !self.active() || overloads.is_empty() {
            return;
        }
        for statement in statements {
            let Some(query) = query_of_mut(&mut statement.kind) else { continue };
            let unsure = |call: &&mut Call| {
                call.schema.is_none() && overloads.binary_search(&call.name).is_ok()
            };
            for call in query.functions.iter_mut().filter(unsure) {
                call.schema = Some(EITHER.to_owned());
            }
        }
    }
}

/// The schema that a call names.
pub(super) fn schema(call: &Call) -> Option<&String> {
    call.schema.as_ref().filter(|schema| *schema != EITHER)
}

/// The query of a statement, where it has one.
fn query_of(kind: &StatementKind) -> Option<&Query> {
    match kind {
        StatementKind::Query(query)
        | StatementKind::Explain { query, .. }
        | StatementKind::Declare(DeclareCursor { query, .. })
        | StatementKind::Copy(CopyStatement { query: Some(query), .. }) => Some(query),
        StatementKind::Ddl(DdlStatement::View(view)) => view.query.as_deref(),
        _ => None,
    }
}

/// The same, to change it.
fn query_of_mut(kind: &mut StatementKind) -> Option<&mut Query> {
    match kind {
        StatementKind::Query(query)
        | StatementKind::Explain { query, .. }
        | StatementKind::Declare(DeclareCursor { query, .. })
        | StatementKind::Copy(CopyStatement { query: Some(query), .. }) => Some(query),
        StatementKind::Ddl(DdlStatement::View(view)) => view.query.as_deref_mut(),
        _ => None,
    }
}
