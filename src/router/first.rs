//! Writes that need rows of several nodes at once: parts of them run first, and the statement goes on
//! with their rows in their places, until it can be routed.

use std::ops::Range;
use std::sync::Arc;

use super::names::{Meaning, Names};
use super::pull::{Place, PullTable};
use super::scatter::SYSTEM_COLUMNS;
use super::{Once, Upsert};
use crate::ids::GroupId;
use crate::sql::{Early, EarlyUse, Level, Query, Source, Statement, Target, Verb, early, locked};
use crate::wire::{ServerError, SqlState};

/// A statement of which something runs first.
#[derive(Debug, Clone)]
pub struct First {
    /// The statement, to the end.
    pub text: String,
    /// What it does.
    pub verb: Verb,
    /// Its parts.
    pub early: Option<Early>,
    /// Tables whose rows can be put in their places, where no part runs on its own.
    pub tables: Vec<(EarlyUse, PullTable)>,
    /// A write in WITH runs before others, which must not notice.
    pub before: Option<Before>,
    /// It runs as it is on every node, if each row meets one other.
    pub once: Option<Once>,
    /// Its rows conflict by what a lookup knows.
    pub upsert: Option<Upsert>,
    /// Why it can't run as it is.
    pub refusal: ServerError,
}

/// A write that runs before the others of its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// What runs.
    pub write: Written,
    /// What is written afterwards.
    pub others: Vec<Written>,
    /// All that is left adds rows to one table, and reads none.
    pub adds: bool,
}

/// A table that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name as SQL.
    pub name: String,
    /// Its group, if it is sharded.
    pub group: Option<GroupId>,
    /// It is on the home node only.
    pub home: bool,
    /// Rows are added.
    pub inserts: bool,
    /// Rows are deleted.
    pub deletes: bool,
    /// The columns that are set.
    pub sets: Vec<String>,
}

impl First {
    /// Nothing runs before it, but it is looked up what conflicts with its rows.
    pub(super) fn of_upsert(upsert: Upsert) -> Self {
        let text = upsert.rows.text.clone();
        let refusal = ServerError::new(SqlState::INTERNAL_ERROR, "rows were not looked up");
        let (early, tables, before, once) = (None, Vec::new(), None, None);
        let (verb, upsert) = (Verb::Insert, Some(upsert));
        Self { text, verb, early, tables, before, once, upsert, refusal }
    }
}

/// What of a statement can run before it; `refusal` says why it can't run as it is.
pub(super) fn first(
    text: &str,
    query: &Query,
    statement: &Statement,
    names: &Names<'_>,
    refusal: ServerError,
) -> Result<Arc<First>, ServerError> {
    let writes = query.levels.iter().any(|level| level.target.is_some());
    let features = &query.features;
    let odd = features.only || features.into || features.sample || features.clock_word;
    if !names.active() || !(writes || features.locking) || odd || query.verb == Verb::Merge {
        return Err(refusal);
    }
    let text = text.get(..statement.span.end).unwrap_or(text);
    let mut early = early(text, names.strings(), query);
    let (mut tables, mut before) = (Vec::new(), None);
    let body = match &early {
        Some(Early::With(with)) => with.write.clone(),
        _ => None,
    };
    if let Some(body) = body {
        let quiet = query.functions.iter().all(|call| names.in_spread_write(call));
        if reads_elsewhere(query, &body) {
            if features.locking || !quiet {
                return Err(refusal);
            }
            early = None;
            tables = read_tables((text, query), statement, names, &body)?;
        } else {
            before = written_before(query, names, &body)?;
            if before.as_ref().is_some_and(|before| !before.adds && !quiet) {
                return Err(refusal);
            }
        }
    } else if !features.cte && query.verb != Verb::Select {
        tables = read_tables((text, query), statement, names, &(0..0))?;
    } else if !features.cte && !writes {
        tables = beside_locked((text, query), statement, names)?;
    }
    if early.is_none() && tables.is_empty() {
        return Err(refusal);
    }
    let text = text.to_owned();
    Ok(Arc::new(First {
        text,
        verb: query.verb,
        early,
        tables,
        before,
        once: None,
        upsert: None,
        refusal,
    }))
}

/// The tables that a SELECT which locks rows reads, but for those whose rows it locks.
fn beside_locked(
    (text, query): (&str, &Query),
    statement: &Statement,
    names: &Names<'_>,
) -> Result<Vec<(EarlyUse, PullTable)>, ServerError> {
    let (Some(locked), Some(first)) = (locked(text, names.strings()), query.levels.first()) else {
        return Ok(Vec::new());
    };
    let mut own = Vec::new();
    for table in &first.tables {
        let named = table.alias.as_ref().is_some_and(|alias| locked.contains(alias));
        if !(named || locked.is_empty()) {
            continue;
        }
        let Source::Table(name) = &table.source else { return Ok(Vec::new()) };
        if matches!(names.meaning(name)?, Meaning::View(_)) {
            return Ok(Vec::new());
        }
        own.push(name.span.clone());
    }
    let mut tables = tables_but((text, query), statement, names, false)?;
    tables.retain(|(used, _)| !own.contains(&used.span));
    Ok(tables)
}

/// The tables that a statement reads, but for those inside of `body`, which runs before the rest.
fn read_tables(
    (text, query): (&str, &Query),
    statement: &Statement,
    names: &Names<'_>,
    body: &Range<usize>,
) -> Result<Vec<(EarlyUse, PullTable)>, ServerError> {
    if query.features.locking {
        return Ok(Vec::new());
    }
    let targets = query.levels.iter().filter_map(target);
    let mut targets = targets.map(|(name, _)| names.meaning(name));
    let everywhere = targets.any(|meaning| matches!(meaning, Ok(Meaning::Reference(_))));
    let mut tables = tables_but((text, query), statement, names, everywhere)?;
    tables.retain(|(used, _)| !body.contains(&used.span.start));
    Ok(tables)
}

/// All tables that a statement reads, with its reference tables if `everywhere` says that they are written.
fn tables_but(
    (text, query): (&str, &Query),
    statement: &Statement,
    names: &Names<'_>,
    everywhere: bool,
) -> Result<Vec<(EarlyUse, PullTable)>, ServerError> {
    let mut found = Vec::new();
    let odd = !query.columns.qualifiers.is_empty();
    if odd || SYSTEM_COLUMNS.iter().any(|column| statement.has(column)) {
        return Ok(found);
    }
    for level in &query.levels {
        for (index, table) in level.tables.iter().enumerate() {
            let Source::Table(name) = &table.source else { continue };
            let meaning = names.meaning(name)?;
            let target = level.target.is_some() && index == 0;
            // Every node has it, and nothing of the statement changes it.
            let same = matches!(meaning, Meaning::Reference(_)) && !everywhere;
            if target || same {
                continue;
            }
            let command = text.get(..name.span.start).unwrap_or_default().trim_end().as_bytes();
            if command.len() >= 5 && command[command.len() - 5..].eq_ignore_ascii_case(b"table") {
                return Ok(Vec::new());
            }
            let alias = (!table.aliased).then(|| name.name.clone());
            let place = Place { query, statement, level, index, meanings: &[] };
            let used = EarlyUse { span: name.span.clone(), alias };
            found.push((used, place.table(table, name, &meaning)));
        }
    }
    Ok(found)
}

/// The table that a level writes.
fn target(level: &Level) -> Option<(&crate::sql::Name, &Target)> {
    match (&level.target, &level.tables.first()?.source) {
        (Some(target), Source::Table(name)) => Some((name, target)),
        _ => None,
    }
}

/// Whether any table is read outside of `body`: a view, a foreign key or a trigger may lead from it
/// to what `body` writes.
fn reads_elsewhere(query: &Query, body: &Range<usize>) -> bool {
    query.levels.iter().any(|level| {
        level.tables.iter().enumerate().any(|(index, table)| match &table.source {
            Source::Table(name) => {
                let target = level.target.is_some() && index == 0;
                !target && !body.contains(&name.span.start)
            }
            _ => false,
        })
    })
}

/// The write in `body` and what is written after it; `None` where that is nothing.
fn written_before(
    query: &Query,
    names: &Names<'_>,
    body: &Range<usize>,
) -> Result<Option<Before>, ServerError> {
    let (mut write, mut others) = (None, Vec::new());
    for (name, target) in query.levels.iter().filter_map(target) {
        let meaning = names.meaning(name)?;
        if let Meaning::View(view) = meaning {
            return Err(ServerError::refused(
                format!("the view \"{}\" can't be written beside another write", view.name.name),
                "What triggers and foreign keys of its table do is not known here.",
                "Write the table that it reads.",
            ));
        }
        let mut written = Written {
            name: match meaning {
                Meaning::Sharded(table, ..) | Meaning::Reference(table) => table.name.to_string(),
                Meaning::View(_) | Meaning::Home => name_as_sql(name),
            },
            group: if let Meaning::Sharded(_, group, _) = meaning { Some(group) } else { None },
            home: matches!(meaning, Meaning::View(_) | Meaning::Home),
            inserts: false,
            deletes: false,
            sets: Vec::new(),
        };
        match target {
            Target::Insert(insert) => {
                (written.inserts, written.sets) = (true, insert.updates.clone());
            }
            Target::Update { columns } => written.sets.clone_from(columns),
            Target::Delete | Target::Merge(_) => written.deletes = true,
        }
        if body.contains(&name.span.start) {
            write = Some(written);
        } else {
            others.push(written);
        }
    }
    let adds = query.verb == Verb::Insert && others.len() == 1;
    Ok(write.filter(|_| !others.is_empty()).map(|write| Before { write, others, adds }))
}

fn name_as_sql(name: &crate::sql::Name) -> String {
    let table = crate::sql::Ident::new(&name.name);
    match &name.schema {
        Some(schema) => format!("{}.{table}", crate::sql::Ident::new(schema)),
        None => table.to_string(),
    }
}
