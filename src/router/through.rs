//! Writes through views over sharded tables. PostgreSQL does them to the view's one table, on each
//! node that has the view; where they go is told from the view's columns, as if it was that table.

use super::functions;
use super::names::{Meaning, Names};
use super::part::Part;
use super::query::Meanings;
use crate::shard_map::{LookupStanding, Through};
use crate::sql::{Query, Source, StatementKind, Strings, TableName, TableRef, Target, Verb, parse};
use crate::wire::ServerError;

/// What writes do through an updatable view with this query: which columns are those of its table. A
/// condition that could be another one on each node makes it unknown.
pub fn through(definition: &str) -> Through {
    let text = format!("SELECT * FROM ({definition}) AS v");
    let Some(statement) = parse(&text, Strings::Standard).statements.pop() else {
        return Through::Unknown;
    };
    let StatementKind::Query(query) = &statement.kind else { return Through::Unknown };
    let [outer, inner] = query.levels.as_slice() else { return Through::Unknown };
    let ([viewed], [table]) = (outer.tables.as_slice(), inner.tables.as_slice()) else {
        return Through::Unknown;
    };
    let (Source::Derived(viewed), Source::Table(name)) = (&viewed.source, &table.source) else {
        return Through::Unknown;
    };
    let plain = query.functions.iter().all(functions::in_spread_write);
    let (Some(schema), true) = (&name.schema, plain && !viewed.columns.is_empty()) else {
        return Through::Unknown;
    };
    let own = |(name, column): &(String, Option<crate::sql::ColumnRef>)| {
        (name.clone(), column.as_ref().map(|column| column.column.clone()))
    };
    Through::Table {
        base: TableName::new(schema.as_str(), name.name.as_str()),
        columns: viewed.columns.iter().map(own).collect(),
    }
}

/// Whether a table of a query is a view through which it can be written.
///
/// # Errors
/// It is a view that can't be written so.
pub(super) fn is_written(
    query: &Query,
    (level, table): (usize, &TableRef),
    names: &Names<'_>,
) -> Result<bool, ServerError> {
    let Source::Table(name) = &table.source else { return Ok(false) };
    let Meaning::View(view) = names.meaning(name)? else { return Ok(false) };
    let refuse = |why: &str, hint: &str| {
        ServerError::refused(
            format!("the view \"{}\" can't be written", view.name.name),
            format!("It reads sharded tables, and {why}."),
            hint,
        )
    };
    let table = "Write the table that it reads.";
    let Some(written) = names.map.written(&view.name) else {
        let why = "it is not a plain view of one of them, without triggers, rules and defaults";
        return Err(refuse(why, table));
    };
    if level > 0 || query.features.cte || query.verb == Verb::Merge {
        return Err(refuse("WITH or MERGE is written", table));
    }
    let base = names.map.base(&view.name);
    if names.map.lookup(base).is_some() {
        return Err(refuse("that is a lookup table, which follows another one", "Write that one."));
    }
    let target = query.levels.first().and_then(|level| level.target.as_ref());
    let sets = match target {
        Some(Target::Update { columns }) => columns.as_slice(),
        Some(Target::Insert(insert)) => insert.updates.as_slice(),
        _ => &[],
    };
    let Meaning::Sharded(_, _, key) = Meaning::of(written) else { return Ok(false) };
    if sets.iter().any(|column| key.contains(column)) {
        return Err(refuse("the shard key is set, which may move rows to another node", table));
    }
    let whole = |it: &crate::shard_map::Lookup| it.standing == LookupStanding::Whole;
    if query.conflict.is_some() && names.map.kept_lookups(base).any(whole) {
        return Err(refuse("what conflicts is told by a lookup table", table));
    }
    Ok(true)
}

/// A write that PostgreSQL refuses: the home node says so.
pub(super) fn refused(query: &Query, names: &Names<'_>) -> Option<Part> {
    let level = query.levels.first().filter(|level| level.target.is_some())?;
    let Source::Table(name) = &level.tables.first()?.source else { return None };
    match names.meaning(name) {
        Ok(Meaning::View(view)) if view.through == Through::Refused && !view.materialized => {
            Some(Part::Home)
        }
        _ => None,
    }
}

/// Makes sharded tables of views that a query writes.
pub(super) fn resolve<'a>(query: &Query, meanings: &mut Meanings<'a>, names: &Names<'a>) {
    for (level, meanings) in query.levels.iter().zip(meanings) {
        if let (Some(_), Some(Some(meaning))) = (&level.target, meanings.first_mut())
            && let Meaning::View(view) = *meaning
            && let Some(written) = names.map.written(&view.name)
        {
            *meaning = Meaning::of(written);
        }
    }
}
