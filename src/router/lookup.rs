//! What a statement means for lookup tables: whether they have to be told of it.

use super::bind::{Bound, Sharded};
use super::names::{Meaning, Names};
use super::operand::{self, Operand, Use};
use super::{Params, functions, hint, scatter, write};
use crate::shard_map::{KeyType, KeyValue, LookupStanding, Table};
use crate::sql::{
    Constant, Level, Query, Source, Statement, StatementKind, TableName, Target, Verb,
};
use crate::wire::ServerError;

/// What has to be looked up before a statement is routed.
#[derive(Debug, Clone)]
pub struct LookUp {
    /// In the order of [`Params::looked_up`]; none if the values can't be told: the statement is then
    /// routed as if there was no lookup.
    pub reads: Vec<LookUpRead>,
    /// Each entry stands for one row of the answer, so that an answer with all of them is right.
    pub sure: bool,
    /// It is an UPDATE or DELETE.
    pub writes: bool,
    /// It is behind EXPLAIN, which is to say where it goes, also without lookups.
    pub explains: bool,
}

/// Values of one lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookUpRead {
    /// The lookup table.
    pub lookup: TableName,
    /// What is looked up.
    pub values: Vec<KeyValue>,
}

/// The lookups of a statement, before its parameters are known.
#[derive(Debug, Clone)]
pub(super) struct Lookups {
    reads: Vec<(TableName, KeyType, Vec<Constant>)>,
    sure: bool,
    writes: bool,
    explains: bool,
}

impl Lookups {
    /// What is to be looked up.
    pub(super) fn wanted(&self, params: &Params<'_>, alone: impl Fn(u16) -> bool) -> LookUp {
        let read = |(lookup, kind, constants): &(TableName, KeyType, Vec<Constant>)| {
            let mut values = Vec::new();
            for constant in constants {
                match operand::read(constant, *kind, Use::Compare, params, &alone) {
                    Operand::Value(value) => values.push(value),
                    Operand::NoRow => {}
                    Operand::Invalid | Operand::Unknown(_) => return None,
                }
            }
            values.sort_by_key(KeyValue::text);
            values.dedup();
            Some(LookUpRead { lookup: lookup.clone(), values })
        };
        let reads = self.reads.iter().map(read).collect::<Option<_>>().unwrap_or_default();
        LookUp { reads, sure: self.sure, writes: self.writes, explains: self.explains }
    }

    /// Nothing, behind EXPLAIN.
    pub(super) fn none_explained() -> Self {
        Self { reads: Vec::new(), sure: false, writes: false, explains: true }
    }

    /// It is behind EXPLAIN.
    pub(super) fn explain(&mut self, as_text: bool) {
        (self.sure, self.writes, self.explains) = (false, false, as_text);
    }
}

/// What a query is bound to, by lookups too where they may say where rows are: in a SELECT that does
/// nothing but read, and an UPDATE or DELETE of one table. They may run twice.
pub(super) fn bound<'a>(
    query: &'a Query,
    meanings: &[Vec<Option<Meaning<'a>>>],
    names: &Names<'a>,
) -> Bound<'a> {
    let targets = query.levels.iter().any(|level| level.target.is_some());
    let reads = query.verb == Verb::Select && !targets && !query.features.into;
    let changes = write::is_change(query) && is_single(query);
    let pure = query.functions.iter().all(functions::reads_only);
    if !names.lookups || !(reads || changes) || !pure || query.features.only {
        return Bound::new(query, meanings);
    }
    Bound::with_lookups(query, meanings, |table| {
        let lookups = names.map.kept_lookups(&table.name);
        lookups.filter(|lookup| lookup.standing == LookupStanding::Whole).collect()
    })
}

fn is_single(query: &Query) -> bool {
    query.levels.len() == 1 && query.levels[0].tables.len() == 1
}

/// The lookups by which a query is bound; `None` if they are of no use.
pub(super) fn lookups(
    (query, statement): (&Query, &Statement),
    bound: &Bound<'_>,
    meanings: &[Vec<Option<Meaning<'_>>>],
    (names, free): (&Names<'_>, Option<Sharded<'_>>),
) -> Option<Lookups> {
    let first = bound.sharded.first().filter(|_| free.is_none())?;
    let writes = write::is_change(query);
    let unique = bound.looked_up.iter().all(|(lookup, _)| lookup.unique);
    let plain = || {
        if query.features.locking {
            return scatter::locked(query, statement, bound, meanings, first).is_ok();
        }
        // System columns make it no plain one.
        scatter::route(query, ("", statement), bound, meanings, first).is_ok()
    };
    let one = bound.looked_up.iter().all(|(_, constants)| constants.len() == 1);
    // A function that gives several rows could hide that one is missing.
    let counted = one || query.functions.is_empty();
    let sure = unique && counted && is_single(query) && !query.features.limit;
    let sure = sure && (writes || plain());
    if writes && !(sure && one) {
        return None;
    }
    let read = |(lookup, constants): &(&crate::shard_map::Lookup, Vec<Constant>)| {
        let group = names.map.table(&lookup.name)?.group()?;
        let kind = *names.map.groups()[group.index()].key.first()?;
        Some((lookup.name.clone(), kind, constants.clone()))
    };
    let reads = bound.looked_up.iter().map(read).collect::<Option<_>>()?;
    Some(Lookups { reads, sure, writes, explains: false })
}

/// What a lookup gave for a column of the key; `None` if that can't be told.
pub(super) fn values(
    params: &Params<'_>,
    (lookup, column): (usize, usize),
    kind: KeyType,
) -> Option<Vec<KeyValue>> {
    let rows = params.looked_up?.get(lookup)?;
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        match row.get(column)? {
            KeyValue::Null => {}
            value if kind.has(value) => values.push(value.clone()),
            // A number that the column can't hold.
            KeyValue::Int(_) if kind.is_integer() => {}
            _ => return None,
        }
    }
    values.sort_by_key(KeyValue::text);
    values.dedup();
    Some(values)
}

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
    let meaning = names.meaning(name);
    if let Ok(Meaning::View(view)) = meaning {
        // Its columns have other names than the lookup's.
        let base = names.map.table(names.map.base(&view.name)).and_then(Table::group);
        return base.is_some_and(|group| names.map.keeps_lookups(group));
    }
    let Ok(Meaning::Sharded(table, group, key)) = meaning else { return false };
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
