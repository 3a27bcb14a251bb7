//! SELECTs whose result is the concatenation of what each node gives.

use std::sync::Arc;

use super::bind::{Bound, KeyColumn, Sharded};
use super::names::Meaning;
use super::part::Part;
use super::{functions, pull, system};
use crate::sql::{Call, JoinKind, Level, Query, Source, Statement, TableRef, Verb};
use crate::wire::ServerError;

/// Columns whose values tell where a row is stored.
pub(super) const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"];

/// A scatter, for a query in which `free` is not bound to a shard.
///
/// # Errors
/// Why not.
pub(super) fn route(
    query: &Query,
    (text, statement): (&str, &Statement),
    bound: &Bound<'_>,
    meanings: &[Vec<Option<Meaning<'_>>>],
    free: &Sharded<'_>,
) -> Result<Part, ServerError> {
    let versions = system::gives_versions(text, query, statement);
    let allowed = Allowed { locks: false, order: false, versions };
    check(query, statement, (bound, meanings), free, allowed).map(|()| Part::Scatter(free.group))
}

/// The same for a SELECT that locks rows: each node locks its own, one node after the other, or
/// row by row where their order or number counts.
///
/// # Errors
/// Why not.
pub(super) fn locked(
    query: &Query,
    statement: &Statement,
    bound: &Bound<'_>,
    meanings: &[Vec<Option<Meaning<'_>>>],
    free: &Sharded<'_>,
) -> Result<Part, ServerError> {
    let meant = (bound, meanings);
    let error = match check(query, statement, meant, free, NO_ORDER) {
        Ok(()) => return Ok(Part::Write(free.group)),
        Err(error) => error,
    };
    check(query, statement, meant, free, IN_ORDER)?;
    let reduction = pull::reduction(query, meanings, free.group).ok_or(error)?;
    Ok(Part::Lock(Arc::new(pull::locked(reduction))))
}

/// What besides a filter may be in a query.
#[derive(Clone, Copy)]
struct Allowed {
    locks: bool,
    /// ORDER BY, LIMIT
    order: bool,
    /// Its system columns only say of each row which version it is.
    versions: bool,
}

const NO_ORDER: Allowed = Allowed { locks: true, order: false, versions: false };
const IN_ORDER: Allowed = Allowed { order: true, ..NO_ORDER };

/// What a query's result is bound to, and what its names mean.
type Meant<'a, 'b> = (&'a Bound<'b>, &'a [Vec<Option<Meaning<'b>>>]);

fn check(
    query: &Query,
    statement: &Statement,
    (bound, meanings): Meant<'_, '_>,
    free: &Sharded<'_>,
    allowed: Allowed,
) -> Result<(), ServerError> {
    let key = free.key.join(", ");
    let refuse = |why: &str| {
        ServerError::refused(
            format!("the statement needs all shards of \"{}\"", free.table.name.name),
            format!(
                "The shard key ({key}) is not bound to constants at its query level, and {why}."
            ),
            format!("Add {} = … to WHERE.", free.key.join(" = … AND ")),
        )
    };
    if query.features.only
        || meanings.iter().flatten().flatten().any(|meaning| matches!(meaning, Meaning::Home))
    {
        return Err(refuse("it reads more than whole sharded tables"));
    }
    let join = Whole { query, meanings, bound };
    // What locks rows can't be brought together: it may have queries that any node answers alike.
    let local = if allowed.locks { join.local() } else { Vec::new() };
    if let Some(why) = not_plain((query, &local), statement, allowed) {
        return Err(refuse(&why));
    }
    match apart_but(&join, local.len(), free) {
        Some(why) => Err(refuse(why)),
        None => Ok(()),
    }
}

/// Why not every row of the query's one join is made on one node.
pub(super) fn apart(
    query: &Query,
    bound: &Bound<'_>,
    meanings: &[Vec<Option<Meaning<'_>>>],
    free: &Sharded<'_>,
) -> Option<&'static str> {
    apart_but(&Whole { query, meanings, bound }, 0, free)
}

/// The same, where that many levels are left out of account.
fn apart_but(join: &Whole<'_>, local: usize, free: &Sharded<'_>) -> Option<&'static str> {
    if join.bound.sharded.iter().any(|table| table.group != free.group) {
        return Some("tables of different groups are not stored together");
    }
    if join.inner(0).len() + 1 + local != join.query.levels.len() {
        return Some("a query with others inside of it is not yet spread over nodes");
    }
    (!join.is_joined(0)).then_some("its tables are not joined on the whole shard key")
}

/// A query's joins, with the plain subqueries among their tables.
pub(super) struct Whole<'a> {
    pub(super) query: &'a Query,
    pub(super) meanings: &'a [Vec<Option<Meaning<'a>>>],
    pub(super) bound: &'a Bound<'a>,
}

impl Whole<'_> {
    /// The levels that are subqueries in FROM of this level, at any depth.
    fn inner(&self, level: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for table in &self.query.levels[level].tables {
            if let Source::Derived(derived) = &table.source {
                found.push(derived.level);
                found.extend(self.inner(derived.level));
            }
        }
        found
    }

    /// The levels outside of FROM that read nothing but what every node has.
    fn local(&self) -> Vec<usize> {
        let inner = self.inner(0);
        let same = |(index, table): (usize, &TableRef), level: usize| match &table.source {
            Source::Derived(_) | Source::Rows => true,
            _ => matches!(self.meanings[level][index], Some(Meaning::Reference(_))),
        };
        let alike = |level: &usize| {
            let tables = self.query.levels[*level].tables.iter().enumerate();
            { tables }.all(|table| same(table, *level))
        };
        let outside = (1..self.query.levels.len()).filter(|level| !inner.contains(level));
        outside.filter(alike).collect()
    }

    /// Whether a table of a level has rows of sharded tables.
    fn is_sharded(&self, level: usize, table: usize) -> bool {
        match &self.query.levels[level].tables[table].source {
            Source::Derived(derived) => {
                let inside = [derived.level].into_iter().chain(self.inner(derived.level));
                let inside: Vec<usize> = inside.collect();
                self.bound.sharded.iter().any(|sharded| inside.contains(&sharded.level))
            }
            _ => matches!(self.meanings[level][table], Some(Meaning::Sharded(..))),
        }
    }

    /// Whether every row of a level is made on one node, those of its subqueries, too.
    pub(super) fn is_joined(&self, level: usize) -> bool {
        let tables = &self.query.levels[level].tables;
        let holds = |(index, table): (usize, &TableRef)| match &table.source {
            Source::Derived(derived) if self.is_sharded(level, index) => {
                self.is_plain(derived.level) && self.is_joined(derived.level)
            }
            Source::Derived(_) | Source::Rows => true,
            _ => self.meanings[level][index].is_some(),
        };
        tables.iter().enumerate().all(holds) && joined(self, level)
    }

    /// Neither grouped nor aggregated: each row comes of one row of its join.
    fn is_plain(&self, level: usize) -> bool {
        let level = &self.query.levels[level];
        let calls = self.query.functions.get(level.calls.clone()).unwrap_or_default();
        !level.groups && calls.iter().all(functions::is_pure)
    }
}

/// What in a query makes its result more than a concatenation.
fn not_plain(
    (query, local): (&Query, &[usize]),
    statement: &Statement,
    allowed: Allowed,
) -> Option<String> {
    let features = &query.features;
    if query.verb != Verb::Select || query.levels.iter().any(|level| level.target.is_some()) {
        return Some("writes are not yet spread over nodes".to_owned());
    }
    let clauses = [
        (features.group, "GROUP BY"),
        (features.order && !allowed.order, "ORDER BY"),
        (features.limit && !allowed.order, "LIMIT"),
        (features.distinct, "DISTINCT"),
        (features.window, "a window function"),
        (features.set_operation, "a set operation"),
        (features.cte, "WITH"),
        (features.locking && !allowed.locks, "a row lock"),
        (features.sample && allowed.locks, "TABLESAMPLE"),
    ];
    if let Some((_, clause)) = clauses.iter().find(|(used, _)| *used) {
        return Some(format!("{clause} is not yet merged over nodes"));
    }
    let is_local = |at: usize| local.iter().any(|level| query.levels[*level].calls.contains(&at));
    let differs = |(at, call): &(usize, &Call)| {
        let alike = is_local(*at) && functions::is_same_everywhere(call);
        !(functions::is_pure(call) || alike)
    };
    if let Some((_, call)) = query.functions.iter().enumerate().find(differs) {
        return Some(format!("{}() is not yet merged over nodes", call.name));
    }
    if features.clock_word {
        return Some("a word such as 'now' is another time on each node".to_owned());
    }
    let column = SYSTEM_COLUMNS.iter().find(|column| statement.has(column))?;
    (!allowed.versions).then(|| format!("{column} has another meaning on each node"))
}

/// Whether every row of a level's join is made on one node: all sharded tables joined on the whole
/// key, and no row kept for want of a partner that another node could have.
fn joined(whole: &Whole<'_>, index: usize) -> bool {
    let level = &whole.query.levels[index];
    let is_sharded = |table: &usize| whole.is_sharded(index, *table);
    if level.natural {
        return false;
    }
    let mut optional = vec![false; level.tables.len()];
    for join in &level.joins {
        match join.kind {
            JoinKind::Inner => {}
            // The same rows on every node.
            _ if !join.left.clone().chain(join.right.clone()).any(|t| is_sharded(&t)) => {}
            // The kept rows must each be on one node only, and the others one table.
            JoinKind::Left
                if join.left.clone().any(|t| is_sharded(&t)) && join.right.len() == 1 =>
            {
                optional[join.right.start] = true;
            }
            JoinKind::Right
                if join.right.clone().any(|t| is_sharded(&t)) && join.left.len() == 1 =>
            {
                optional[join.left.start] = true;
            }
            JoinKind::Left | JoinKind::Right | JoinKind::Full => return false,
        }
    }
    let mut joined = Joined::new(whole, index);
    for (at, condition) in level.conditions.iter().enumerate() {
        let kind = condition.join.map_or(JoinKind::Inner, |join| level.joins[join].kind);
        if kind == JoinKind::Inner {
            joined.add(at, |_, _| true);
        }
    }
    let firm: Vec<usize> =
        (0..level.tables.len()).filter(|t| is_sharded(t) && !optional[*t]).collect();
    if !joined.all_one(&firm) {
        return false;
    }
    // Each kept side is whole by now: its optional tables come with their own conditions only.
    for (at, join) in level.joins.iter().enumerate() {
        let kept_out = match join.kind {
            JoinKind::Left => join.right.start,
            JoinKind::Right => join.left.start,
            JoinKind::Inner | JoinKind::Full => continue,
        };
        if !is_sharded(&kept_out) {
            continue;
        }
        let mut own = joined.clone();
        for (place, condition) in level.conditions.iter().enumerate() {
            if condition.join == Some(at) {
                own.add(place, |a, b| (a == kept_out) != (b == kept_out));
            }
        }
        let with_it: Vec<usize> = firm.iter().copied().chain([kept_out]).collect();
        if !own.all_one(&with_it) {
            return false;
        }
    }
    true
}

/// Classes of equal key columns, each with the level's table that has it.
#[derive(Clone)]
struct Joined<'a> {
    level: &'a Level,
    index: usize,
    bound: &'a Bound<'a>,
    classes: Vec<Vec<(KeyColumn, usize)>>,
    key_length: usize,
}

impl<'a> Joined<'a> {
    fn new(whole: &Whole<'a>, index: usize) -> Self {
        let (level, bound) = (&whole.query.levels[index], whole.bound);
        let key_length = bound.sharded.first().map_or(0, |table| table.key.len());
        let mut classes = Vec::new();
        for (place, table) in level.tables.iter().enumerate() {
            let inside = match &table.source {
                Source::Derived(derived) => {
                    let mut inside = whole.inner(derived.level);
                    inside.push(derived.level);
                    inside
                }
                _ => vec![index],
            };
            for sharded in bound.sharded.iter().filter(|s| inside.contains(&s.level)) {
                if sharded.level == index && sharded.index != place {
                    continue;
                }
                let column =
                    |position| KeyColumn { level: sharded.level, table: sharded.index, position };
                classes.extend((0..sharded.key.len()).map(|p| vec![(column(p), place)]));
            }
        }
        Self { level, index, bound, classes, key_length }
    }

    /// Joins the classes that a condition equates, if `wanted` of the tables.
    fn add(&mut self, condition: usize, wanted: impl Fn(usize, usize) -> bool) {
        let condition = &self.level.conditions[condition];
        for (a, b) in self.bound.pairs(self.index, self.level, condition) {
            let class =
                |of: KeyColumn| self.classes.iter().position(|c| c.iter().any(|(c, _)| *c == of));
            let (Some(at), Some(other)) = (class(a.column), class(b.column)) else { continue };
            let (Some(left), Some(right)) = (a.table, b.table) else { continue };
            if at != other && wanted(left, right) {
                let (low, high) = (at.min(other), at.max(other));
                let moved = self.classes.swap_remove(high);
                self.classes[low].extend(moved);
            }
        }
    }

    /// Whether the key columns of all of `tables` are equal, position by position.
    fn all_one(&self, tables: &[usize]) -> bool {
        (0..self.key_length).all(|position| {
            let has = |class: &Vec<(KeyColumn, usize)>, table: &usize| {
                class.iter().any(|(column, of)| of == table && column.position == position)
            };
            tables.is_empty()
                || self.classes.iter().any(|class| tables.iter().all(|table| has(class, table)))
        })
    }
}
