//! The route of any one statement, with what it does to the session.

use std::sync::Arc;

use super::keyed::Keyed;
use super::names::{Mention, Names};
use super::part::Part;
use super::{
    Access, Control, Declared, Explained, Leaves, Route, definition, first, functions, hint,
    leaves, query, reference, views,
};
use crate::sql::{
    CopyStatement, DeclareCursor, PlanForm, Query, Statement, StatementKind, Verb, table_as,
};
use crate::wire::{ServerError, SqlState};

/// One statement, analysed.
pub(super) struct Analysis {
    pub(super) control: Control,
    pub(super) access: Access,
    pub(super) leaves: Leaves,
    pub(super) part: Result<Part, ServerError>,
}

impl Analysis {
    pub(super) fn new(access: Access, part: Result<Part, ServerError>) -> Self {
        Self { control: Control::None, access, leaves: Leaves::Nothing, part }
    }
}

/// Analyses a statement of `text`.
pub(super) fn analyse(text: &str, statement: &Statement, names: &Names<'_>) -> Analysis {
    if let Some(error) = changes_quoting(statement).filter(|_| names.active()) {
        return Analysis::new(Access::Read, Err(error));
    }
    let called = statement.call.as_deref().filter(|query| !hint::declared(query, names).is_empty());
    if let Some(query) = called {
        let part = hint::of_calls(&hint::declared(query, names), &statement.param_uses, names);
        return Analysis {
            leaves: leaves::leaves(statement),
            ..Analysis::new(Access::Write, part)
        };
    }
    let analysis = match &statement.kind {
        StatementKind::Control(control) => of_control(control),
        StatementKind::Query(query) => of_query(text, query, statement, names),
        StatementKind::Explain { analyze, form, start, query } => {
            // A write that runs is not looked up: whether it found its row is not told.
            let lookups = names.lookups && !(*analyze && access(query) == Access::Write);
            let mut inner = of_query(text, query, statement, &Names { lookups, ..*names });
            let spread = (*start, *analyze, *form);
            inner.part = inner.part.and_then(|part| explained(part, spread, names));
            let access = if *analyze { inner.access } else { Access::Read };
            Analysis { access, ..inner }
        }
        StatementKind::Declare(declare) => declared(text, declare, statement, names),
        StatementKind::UseCursor(used) => {
            let ours = || Part::Cursor(Arc::new(used.clone()));
            let part = if names.active() { ours() } else { Part::Home };
            Analysis::new(Access::Read, Ok(part))
        }
        StatementKind::Copy(copy) => of_copy(text, copy, statement, names),
        StatementKind::Ddl(ddl) => match reference::check_code(ddl, statement, names) {
            Ok(()) => definition::analyse(text, ddl, statement, names),
            Err(error) => Analysis::new(Access::Ddl, Err(error)),
        },
        StatementKind::Other { verb, fault } => {
            of_other(text, (verb, fault.as_ref()), statement, names)
        }
    };
    Analysis { leaves: leaves::leaves(statement), ..analysis }
}

/// Strings would have to be read in another way.
fn changes_quoting(statement: &Statement) -> Option<ServerError> {
    let StatementKind::Control(Control::Set { name, values, .. }) = &statement.kind else {
        return None;
    };
    let on = |values: &Vec<String>| {
        let [value] = values.as_slice() else { return false };
        matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1")
    };
    let allowed = name != "standard_conforming_strings" || values.as_ref().is_none_or(on);
    (!allowed).then(|| {
        ServerError::refused(
            "standard_conforming_strings must be on",
            "The proxy reads statements by the rules of the SQL standard.",
            "Write E'…' where backslashes are escapes.",
        )
    })
}

fn of_control(control: &Control) -> Analysis {
    let part = match control {
        Control::Listen { .. }
        | Control::Unlisten { .. }
        | Control::Prepare(_)
        | Control::Execute(_)
        | Control::Deallocate { .. } => Part::Home,
        _ => Part::Anywhere,
    };
    Analysis { control: control.clone(), ..Analysis::new(Access::Read, Ok(part)) }
}

/// Whether it writes, locks, or calls something that may.
fn access(query: &Query) -> Access {
    let writes = query.verb != Verb::Select
        || query.features.locking
        || query.features.into
        || query.levels.iter().any(|level| level.target.is_some())
        || !query.functions.iter().all(functions::reads_only);
    if writes { Access::Write } else { Access::Read }
}

fn of_query(text: &str, query: &Query, statement: &Statement, names: &Names<'_>) -> Analysis {
    if query.features.into
        && let Some(Mention::Sharded(_)) = names.mentioned(statement)
        && let Some(made) = text.get(statement.span.clone())
        && let Some(made) = table_as(made, names.strings())
    {
        return Analysis::new(Access::Write, Ok(Part::TableAs(Arc::new(made))));
    }
    let part = match query::route(text, query, statement, names) {
        Err(error) if error.code == SqlState::FEATURE_NOT_SUPPORTED => {
            first::first(text, query, statement, names, error).map(Part::First)
        }
        Ok(Part::Keyed(keyed)) => Ok(Part::Keyed(stuck(keyed, (text, query), statement, names))),
        part => part,
    };
    Analysis::new(access(query), part)
}

/// A write of several shards whose nodes can't run it as it is.
fn stuck(
    mut keyed: Keyed,
    (text, query): (&str, &Query),
    statement: &Statement,
    names: &Names<'_>,
) -> Keyed {
    let more = query.levels.len() > 1 || query.levels.iter().any(|it| it.tables.len() > 1);
    let writes = query.levels.iter().any(|level| level.target.is_some());
    let changes = writes || query.features.locking;
    if keyed.is_stuck() && more && changes && query.layout.is_none() {
        let refusal = ServerError::refused(
            "this write needs several nodes",
            "Its rows are of several shards, and what it reads is not stored with each of them.",
            "Bind the shard key to one value, or join all sharded tables on it.",
        );
        if let Ok(first) = first::first(text, query, statement, names, refusal) {
            keyed.set_otherwise(Route::First(first));
        }
    }
    keyed
}

/// A cursor stands where its query's rows are: on one node, or where they are brought together.
fn declared(
    text: &str,
    declare: &DeclareCursor,
    statement: &Statement,
    names: &Names<'_>,
) -> Analysis {
    let names = Names { together: true, ..names.plain() };
    let part = query::route(text, &declare.query, statement, &names);
    let made = |route| {
        let DeclareCursor { name, hold, start, .. } = declare;
        Route::Declare(Arc::new(Declared { name: name.clone(), hold: *hold, start: *start, route }))
    };
    let part = part.and_then(|part| match part {
        Part::Pull(pull) => Ok(Part::Declare(made(Route::Pull(pull)))),
        Part::Anywhere | Part::Home => Ok(Part::Home),
        Part::Keyed(keyed) => {
            let mut keyed = keyed.on_one_node();
            if let Route::Declare(declared) = made(Route::Home) {
                keyed.declare(declared);
            }
            Ok(Part::Keyed(keyed))
        }
        _ => Err(ServerError::refused(
            "this cursor can't be declared",
            "Its query needs several nodes, and does not only read.",
            "Run the query without a cursor.",
        )),
    });
    Analysis::new(access(&declare.query), part)
}

/// EXPLAIN of a statement that goes to several nodes: the proxy says how. Given are where the statement
/// starts, whether it is to run, as it may where each node does its part by itself, and the answer's form.
fn explained(
    part: Part,
    (start, analyzes, form): (usize, bool, PlanForm),
    names: &Names<'_>,
) -> Result<Part, ServerError> {
    let wrap = |route| {
        let may_run = matches!(
            route,
            Route::Scatter(_)
                | Route::ScatterOver(_)
                | Route::Pull(_)
                | Route::Write(_)
                | Route::Insert(..)
        );
        let known = form != PlanForm::Unknown && (may_run || !analyzes);
        known.then(|| Arc::new(Explained { start, analyzes, form, route }))
    };
    let route = match part {
        Part::Keyed(keyed) => {
            let plain = form == PlanForm::Text && !analyzes;
            let in_steps = analyzes && !keyed.splits_rows();
            let mut keyed = if in_steps { keyed.on_one_node() } else { keyed.explainable() };
            keyed.explain_lookups(plain, names.lookups);
            keyed.explain_otherwise(|route| wrap(route).map(Route::Explain));
            return Ok(Part::Keyed(keyed));
        }
        Part::Scatter(group) => Route::Scatter(group),
        Part::Pull(pull) => Route::Pull(pull),
        Part::EveryNode => Route::EveryNode,
        Part::Write(group) => {
            let of_group = names.map.shards().filter(|(_, shard)| shard.group == group);
            Route::Write(of_group.map(|(id, _)| id).collect())
        }
        Part::Evaluate(first) => Route::Evaluate(first),
        Part::Select(rows) => Route::Select(rows),
        Part::Rekey(rekey) => Route::Rekey(rekey),
        Part::Merge(merge) => Route::Merge(merge),
        Part::Lock(pull) => Route::Lock(pull),
        Part::First(first) => Route::First(first),
        Part::TableAs(made) => Route::TableAs(made),
        Part::Materialized(made) => Route::Materialized(made),
        other => return Ok(other),
    };
    wrap(route).map(Part::Explain).ok_or_else(|| not_explained(form))
}

fn not_explained(form: PlanForm) -> ServerError {
    if form == PlanForm::Unknown {
        return ServerError::new(
            SqlState("22023"),
            "unrecognized value for EXPLAIN option \"format\"",
        )
        .with_hint("PostgreSQL has text, json, yaml and xml.");
    }
    ServerError::refused(
        "EXPLAIN ANALYZE of this statement for several nodes is not supported",
        "It is done in steps, and what a later one is depends on the rows that an earlier one finds.",
        "Use EXPLAIN alone to see the steps, and EXPLAIN ANALYZE of a query that one of them reads.",
    )
}

fn of_copy(text: &str, copy: &CopyStatement, statement: &Statement, names: &Names<'_>) -> Analysis {
    let access = if copy.from { Access::Write } else { Access::Read };
    Analysis::new(access, definition::copy(text, copy, statement, names))
}

/// What was not read: by its first words and by the names in it.
fn of_other(
    text: &str,
    (verb, fault): (&str, Option<&String>),
    statement: &Statement,
    names: &Names<'_>,
) -> Analysis {
    let query = matches!(verb, "select" | "values" | "table" | "with" | "explain");
    let writes = ["insert", "update", "delete", "merge", "into"].iter().any(|w| statement.has(w));
    let access = if query && !writes { Access::Read } else { Access::Write };
    let part = match names.mentioned(statement) {
        _ if verb == "refresh" && names.active() => refreshed(text, statement, names),
        None => match names.mentioned_of_copies(statement).filter(|_| of_code(verb)) {
            Some(view) => Err(reference::through_view(view)),
            None => match names.mentioned_code(statement).filter(|_| of_code(verb)) {
                Some(function) => Err(views::of_one_node(function)),
                None => Ok(Part::Home),
            },
        },
        // Each node has it whole, and nothing is written.
        Some(Mention::Reference(_)) if access == Access::Read => Ok(Part::Home),
        // LOCK of ONLY a table: each node locks its own part.
        Some(Mention::Reference(_)) if verb == "lock" => Ok(Part::Home),
        Some(Mention::Sharded(_)) if verb == "lock" => Ok(Part::EveryNode),
        // A view of whole tables is a view at home.
        Some(Mention::Reference(_))
            if verb == "create" && statement.has("view") && !statement.has("rule") =>
        {
            Ok(Part::Home)
        }
        Some(_) if statement.has("current") && matches!(verb, "update" | "delete") => {
            Err(at_cursor(verb))
        }
        Some(mention) => Err(unread(verb, fault, mention)),
    };
    Analysis::new(access, part)
}

/// What was not read and may write by a view.
fn of_code(verb: &str) -> bool {
    matches!(verb, "do" | "call" | "with" | "insert" | "update" | "delete" | "merge")
}

/// REFRESH of a materialized view, which may be a kept one: sent as it is, it would empty that. Without
/// data it is the home node's.
fn refreshed(text: &str, statement: &Statement, names: &Names<'_>) -> Result<Part, ServerError> {
    match definition::kept(text, statement, names) {
        Err(_) if statement.has("no") || !statement.has("materialized") => Ok(Part::Home),
        read => read,
    }
}

/// PostgreSQL looks for the cursor's row in each partition that it writes.
fn at_cursor(verb: &str) -> ServerError {
    ServerError::refused(
        format!(
            "{} WHERE CURRENT OF is not supported for tables of the policy",
            verb.to_uppercase()
        ),
        "A sharded table is partitioned, and PostgreSQL fails there for each partition that the cursor's \
         query leaves out.",
        "Let the cursor's query give the primary key, with FOR UPDATE, and write the row by it.",
    )
}

fn unread(verb: &str, fault: Option<&String>, mention: Mention<'_>) -> ServerError {
    let kind = match mention {
        Mention::Sharded(_) => "sharded",
        Mention::Reference(_) => "reference",
    };
    let detail = match fault {
        Some(fault) => format!("The statement could not be read: {fault}."),
        None => {
            format!("The proxy does not know what {} would do on each node.", verb.to_uppercase())
        }
    };
    ServerError::refused(
        format!(
            "{} that names the {kind} table \"{}\" is not supported",
            verb.to_uppercase(),
            mention.name()
        ),
        detail,
        match verb {
            "cluster" => {
                "Rows of a sharded table are in no order on disk: an index gives one, VACUUM FULL frees room."
            }
            _ => "Write it in a simpler form, or use statements that name one shard key.",
        },
    )
}
