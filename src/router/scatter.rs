//! SELECTs whose result is the concatenation of what each node gives.

use super::bind::{Bound, KeyColumn, Sharded};
use super::functions;
use super::names::Meaning;
use super::part::Part;
use crate::sql::{JoinKind, Level, Query, Statement, Verb};
use crate::wire::ServerError;

/// Columns whose values tell where a row is stored.
pub(super) const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"];

/// A scatter, for a query in which `free` is not bound to a shard.
///
/// # Errors
/// Why not.
pub(super) fn route(
    query: &Query,
    statement: &Statement,
    bound: &Bound<'_>,
    meanings: &[Vec<Option<Meaning<'_>>>],
    free: &Sharded<'_>,
) -> Result<Part, ServerError> {
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
    if let Some(why) = not_plain(query, statement) {
        return Err(refuse(&why));
    }
    match apart(query, bound, meanings, free) {
        Some(why) => Err(refuse(why)),
        None => Ok(Part::Scatter(free.group)),
    }
}

/// Why not every row of the query's one join is made on one node.
pub(super) fn apart(
    query: &Query,
    bound: &Bound<'_>,
    meanings: &[Vec<Option<Meaning<'_>>>],
    free: &Sharded<'_>,
) -> Option<&'static str> {
    let ([level], [meanings]) = (query.levels.as_slice(), meanings) else {
        return Some("a query with others inside of it is not yet spread over nodes");
    };
    if bound.sharded.iter().any(|table| table.group != free.group) {
        return Some("tables of different groups are not stored together");
    }
    (!joined(level, meanings, bound)).then_some("its tables are not joined on the whole shard key")
}

/// What in a query makes its result more than a concatenation.
fn not_plain(query: &Query, statement: &Statement) -> Option<String> {
    let features = &query.features;
    if query.verb != Verb::Select || query.levels.iter().any(|level| level.target.is_some()) {
        return Some("writes are not yet spread over nodes".to_owned());
    }
    let clauses = [
        (features.group, "GROUP BY"),
        (features.order, "ORDER BY"),
        (features.limit, "LIMIT"),
        (features.distinct, "DISTINCT"),
        (features.window, "a window function"),
        (features.set_operation, "a set operation"),
        (features.cte, "WITH"),
        (features.locking, "a row lock"),
        (features.sample, "TABLESAMPLE"),
    ];
    if let Some((_, clause)) = clauses.iter().find(|(used, _)| *used) {
        return Some(format!("{clause} is not yet merged over nodes"));
    }
    if let Some(call) = query.functions.iter().find(|call| !functions::is_pure(call)) {
        return Some(format!("{}() is not yet merged over nodes", call.name));
    }
    if features.clock_word {
        return Some("a word such as 'now' is another time on each node".to_owned());
    }
    let column = SYSTEM_COLUMNS.iter().find(|column| statement.has(column))?;
    Some(format!("{column} has another meaning on each node"))
}

/// Whether every row of the join is made on one node: all sharded tables joined on the whole key,
/// and no row kept for want of a partner that another node could have.
pub(super) fn joined(level: &Level, meanings: &[Option<Meaning<'_>>], bound: &Bound<'_>) -> bool {
    let is_sharded = |table: &usize| matches!(meanings[*table], Some(Meaning::Sharded(..)));
    if level.natural || meanings.iter().any(Option::is_none) {
        return false;
    }
    let mut optional = vec![false; level.tables.len()];
    for join in &level.joins {
        match join.kind {
            JoinKind::Inner => {}
            // The kept rows must each be on one node only, and the others one table.
            JoinKind::Left
                if join.left.clone().any(|t| is_sharded(&t)) && join.right.len() == 1 =>
            {
                optional[join.right.start] = true;
            }
            JoinKind::Left | JoinKind::Right | JoinKind::Full => return false,
        }
    }
    let mut joined = Joined::new(level, bound);
    for (index, condition) in level.conditions.iter().enumerate() {
        let kind = condition.join.map_or(JoinKind::Inner, |join| level.joins[join].kind);
        if kind == JoinKind::Inner {
            joined.add(index, |_, _| true);
        }
    }
    let firm: Vec<usize> =
        (0..level.tables.len()).filter(|t| is_sharded(t) && !optional[*t]).collect();
    if !joined.all_one(&firm) {
        return false;
    }
    // Each kept side is whole by now: its optional tables come with their own conditions only.
    for (index, join) in level.joins.iter().enumerate() {
        let right = join.right.start;
        if join.kind != JoinKind::Left || !is_sharded(&right) {
            continue;
        }
        let mut own = joined.clone();
        for (at, condition) in level.conditions.iter().enumerate() {
            if condition.join == Some(index) {
                own.add(at, |a, b| (a == right) != (b == right));
            }
        }
        let with_right: Vec<usize> = firm.iter().copied().chain([right]).collect();
        if !own.all_one(&with_right) {
            return false;
        }
    }
    true
}

/// Classes of equal key columns.
#[derive(Clone)]
struct Joined<'a> {
    level: &'a Level,
    bound: &'a Bound<'a>,
    classes: Vec<Vec<KeyColumn>>,
    key_length: usize,
}

impl<'a> Joined<'a> {
    fn new(level: &'a Level, bound: &'a Bound<'a>) -> Self {
        let key_length = bound.sharded.first().map_or(0, |table| table.key.len());
        let column = |table: &Sharded<'_>, position| KeyColumn {
            level: table.level,
            table: table.index,
            position,
        };
        let columns = bound.sharded.iter();
        let classes =
            columns.flat_map(|t| (0..t.key.len()).map(move |p| vec![column(t, p)])).collect();
        Self { level, bound, classes, key_length }
    }

    /// Joins the classes that a condition equates, if `wanted` of the tables.
    fn add(&mut self, condition: usize, wanted: impl Fn(usize, usize) -> bool) {
        for (a, b) in self.bound.pairs(0, self.level, &self.level.conditions[condition]) {
            let class = |of: KeyColumn| self.classes.iter().position(|c| c.contains(&of));
            let (Some(at), Some(other)) = (class(a), class(b)) else { continue };
            if at != other && wanted(a.table, b.table) {
                let (low, high) = (at.min(other), at.max(other));
                let moved = self.classes.swap_remove(high);
                self.classes[low].extend(moved);
            }
        }
    }

    /// Whether the key columns of all of `tables` are equal, position by position.
    fn all_one(&self, tables: &[usize]) -> bool {
        (0..self.key_length).all(|position| {
            self.classes.iter().any(|class| {
                tables
                    .iter()
                    .all(|table| class.iter().any(|c| c.table == *table && c.position == position))
            })
        })
    }
}
