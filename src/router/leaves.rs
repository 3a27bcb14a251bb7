//! What a statement leaves in the session of the server that runs it, beside the rows that it
//! writes: that decides whether another session may have the connection next.

use super::functions;
use crate::sql::{ConstantValue, Control, DdlStatement, Query, Statement, StatementKind, ViewVerb};

/// What a statement may leave in its server session. Of several statements the last in this order
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Leaves {
    /// Nothing.
    #[default]
    Nothing,
    /// What `currval` and `lastval` answer.
    Sequences,
    /// Not known: it calls functions that may do anything.
    Unknown,
    /// Settings, temporary tables, locks, cursors, or the like, or it takes such away: to be looked
    /// at when its transaction is over.
    State,
    /// The same, and code has run that may have left more in the server's process than can be seen.
    Code,
    /// What can't be looked at, such as a loaded library.
    Hidden,
}

/// What `statement` may leave.
pub(super) fn leaves(statement: &Statement) -> Leaves {
    let of_kind = match &statement.kind {
        StatementKind::Control(control) => of_control(control),
        StatementKind::Query(query) | StatementKind::Explain { query, .. } => of_query(query),
        StatementKind::Declare(declare) => {
            let held = if declare.hold { Leaves::State } else { Leaves::Nothing };
            of_query(&declare.query).max(held)
        }
        StatementKind::UseCursor(used) if used.closes => Leaves::State,
        StatementKind::UseCursor(_) => Leaves::Unknown,
        StatementKind::Copy(copy) if copy.from => Leaves::Sequences,
        StatementKind::Copy(copy) => copy.query.as_deref().map_or(Leaves::Unknown, of_query),
        StatementKind::Ddl(DdlStatement::CreateTable(table)) if table.temporary => Leaves::State,
        // DROP of a temporary table, for one.
        StatementKind::Ddl(DdlStatement::DropTable(_)) => Leaves::State,
        StatementKind::Ddl(DdlStatement::View(view))
            if view.temporary || view.verb != ViewVerb::Create =>
        {
            Leaves::State
        }
        StatementKind::Ddl(_) => Leaves::Nothing,
        StatementKind::Other { verb, .. } => of_other(verb, statement),
    };
    if statement.has("pg_temp") { of_kind.max(Leaves::State) } else { of_kind }
}

fn of_control(control: &Control) -> Leaves {
    match control {
        Control::Listen { .. }
        | Control::Unlisten { .. }
        | Control::Discard(_)
        | Control::Prepare(_)
        | Control::Execute(_)
        | Control::Deallocate { .. } => Leaves::State,
        _ => Leaves::Nothing,
    }
}

fn of_query(query: &Query) -> Leaves {
    let calls = query.functions.iter().map(functions::leaves).max().unwrap_or_default();
    let writes = query.levels.iter().any(|level| level.target.is_some());
    let written = if writes { Leaves::Sequences } else { Leaves::Nothing };
    let made = if query.features.into_temp { Leaves::State } else { Leaves::Nothing };
    calls.max(written).max(made)
}

/// By its first word: it was not read.
fn of_other(verb: &str, statement: &Statement) -> Leaves {
    match verb {
        "load" => Leaves::Hidden,
        "prepare" if statement.has("transaction") => Leaves::Nothing,
        "do" | "call" => Leaves::Code,
        // PostgreSQL does not prepare a transaction that has notified: see `executor::commit`.
        "prepare" | "execute" | "close" | "drop" | "set" | "notify" => Leaves::State,
        "declare" if statement.has("hold") => Leaves::State,
        "create" if statement.has("temp") || statement.has("temporary") => Leaves::State,
        "select" | "values" | "table" | "with" | "explain" | "insert" | "update" | "delete"
        | "merge" | "copy" | "fetch" | "declare" => {
            let state = ["temp", "temporary", "set_config"].iter().any(|word| statement.has(word))
                || statement.identifiers.iter().any(|name| name.contains("advisory"));
            if state { Leaves::State } else { Leaves::Unknown }
        }
        _ => Leaves::Nothing,
    }
}

/// Names of settings that the statement sets and no library knows: no server lists them.
pub(super) fn custom_settings(statement: &Statement) -> Vec<String> {
    let dotted = |name: &str| name.contains('.').then(|| name.to_ascii_lowercase());
    match &statement.kind {
        StatementKind::Control(Control::Set { name, .. }) => dotted(name).into_iter().collect(),
        StatementKind::Query(query) | StatementKind::Explain { query, .. } => {
            let calls = query.functions.iter().filter(|call| call.name == "set_config");
            calls
                .filter_map(|call| match &call.arguments.first()?.as_ref()?.value {
                    ConstantValue::String(name) => dotted(name),
                    _ => None,
                })
                .collect()
        }
        _ => Vec::new(),
    }
}
