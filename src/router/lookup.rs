//! What a statement means for lookup tables: whether they have to be told of it.

use super::hint;
use super::names::{Meaning, Names};
use crate::sql::{Level, Query, Source, Statement, StatementKind, Target};
use crate::wire::ServerError;

/// Whether a statement may change what a lookup says: it runs in a transaction then, at the end of
/// which the lookup is told.
pub(super) fn keeps(statement: &Statement, names: &Names<'_>) -> bool {
    if !names.active() || names.map.declared().lookups.is_empty() {
        return false;
    }
    if let Some(called) = &statement.call {
        return calls(called, names);
    }
    match &statement.kind {
        StatementKind::Query(query) | StatementKind::Explain { analyze: true, query, .. } => {
            changes(query, names)
        }
        // By a hint it may write anything.
        StatementKind::Other { .. } => names.map.declared().lookups.iter().any(|lookup| {
            names.map.kept_lookups(&lookup.table).any(|kept| kept.name == lookup.name)
        }),
        _ => false,
    }
}

fn changes(query: &Query, names: &Names<'_>) -> bool {
    calls(query, names) || query.levels.iter().any(|level| level_changes(level, names))
}

/// A function that runs where a key is may write all tables of the group.
fn calls(query: &Query, names: &Names<'_>) -> bool {
    let declared = hint::declared(query, names);
    declared.iter().any(|(_, function)| names.map.keeps_lookups(function.group))
}

fn level_changes(level: &Level, names: &Names<'_>) -> bool {
    let (Some(target), Some(Source::Table(name))) =
        (&level.target, level.tables.first().map(|table| &table.source))
    else {
        return false;
    };
    let Ok(Meaning::Sharded(table, group, key)) = names.meaning(name) else { return false };
    let mut lookups = names.map.kept_lookups(&table.name);
    match target {
        Target::Insert(_) => lookups.next().is_some(),
        Target::Update { columns } => lookups.any(|lookup| {
            columns.iter().any(|column| *column == lookup.column || key.contains(column))
        }),
        // Rows of other tables may go with these.
        Target::Delete | Target::Merge(_) => names.map.keeps_lookups(group),
    }
}

/// Refuses a query that writes a lookup.
pub(super) fn check_targets(
    query: &Query,
    meanings: &[Vec<Option<Meaning<'_>>>],
    names: &Names<'_>,
) -> Result<(), ServerError> {
    for (level, meanings) in query.levels.iter().zip(meanings) {
        let target = meanings.first().and_then(Option::as_ref);
        check_target(target.filter(|_| level.target.is_some()), names)?;
    }
    Ok(())
}

/// Refuses to write a lookup otherwise than by what it finds.
pub(super) fn check_target(
    meaning: Option<&Meaning<'_>>,
    names: &Names<'_>,
) -> Result<(), ServerError> {
    let Some(Meaning::Sharded(table, ..)) = meaning else { return Ok(()) };
    let Some(lookup) = names.map.lookup(&table.name) else { return Ok(()) };
    Err(ServerError::refused(
        format!("the lookup table \"{}\" can't be written", table.name.name),
        format!("It follows the rows of {}.", lookup.table),
        "Write that table.",
    ))
}
