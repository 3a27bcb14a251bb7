//! UPDATE, DELETE and MERGE over several nodes: each changes its own rows, in one transaction.

use std::collections::HashSet;

use super::bind::{Bound, KeyColumn, Sharded};
use super::names::{Meaning, Names};
use super::{functions, scatter};
use crate::sql::{Call, JoinKind, Query, Source, Statement, Target, Verb};
use crate::wire::ServerError;

/// Whether the statement, run as it is on each node that holds shards of its target, changes what
/// one node with all rows would.
///
/// # Errors
/// Why not.
pub(super) fn check_spread(
    query: &Query,
    statement: &Statement,
    bound: &Bound<'_>,
    (meanings, names): (&[Vec<Option<Meaning<'_>>>], &Names<'_>),
) -> Result<(), ServerError> {
    let Some(target) = bound.sharded.iter().find(|table| table.level == 0 && table.index == 0)
    else {
        return Err(refused("", "what it writes is not a sharded table"));
    };
    let refuse = |why: &str| Err(refused(&target.table.name.name, why));
    if query.levels.iter().skip(1).any(|level| level.target.is_some()) {
        return refuse("a write inside of another is not spread over nodes");
    }
    let features = &query.features;
    // What is computed of the statement's own values and the target's row is the same on any node.
    let reads = reads_tables(query);
    let clauses = [
        (features.cte, "WITH"),
        (features.limit && reads, "LIMIT"),
        (features.window && reads, "a window function"),
        (features.distinct && reads, "DISTINCT"),
        (features.sample, "TABLESAMPLE"),
        (features.set_operation && reads, "a set operation"),
    ];
    if let Some((_, clause)) = clauses.iter().find(|(used, _)| *used) {
        return refuse(&format!("{clause} would look at the rows of one node only"));
    }
    if features.clock_word {
        return refuse("a word such as 'now' is another time on each node");
    }
    if let Some(call) = query.functions.iter().find(|call| !names.in_spread_write(call)) {
        return refuse(&format!("what {}() does on each node is not known", call.name));
    }
    if let Some(call) = computed_once(query) {
        return refuse(&format!("{}() in FROM or a subquery is computed once for all", call.name));
    }
    if let Some(call) = by_chance(query, meanings) {
        return refuse(&format!("{}() takes rows in another order on each node", call.name));
    }
    if let Some(column) = scatter::SYSTEM_COLUMNS.iter().find(|column| statement.has(column)) {
        return refuse(&format!("{column} has another meaning on each node"));
    }
    if bound.sharded.iter().any(|table| table.group != target.group) {
        return refuse("tables of different groups are not stored together");
    }
    if !(scatter::Whole { query, meanings, bound }).is_joined(0) {
        return refuse("its tables are not joined on the whole shard key");
    }
    if !together(query, bound, target) {
        return refuse("a subquery in it is not joined on the whole shard key");
    }
    Ok(())
}

/// Whether it reads any table besides its target.
fn reads_tables(query: &Query) -> bool {
    let read = query
        .levels
        .iter()
        .flat_map(|level| level.tables.iter().skip(usize::from(level.target.is_some())));
    read.into_iter().any(|table| !matches!(table.source, Source::Rows | Source::Derived(_)))
}

/// A call that gives another value each time, and stands where PostgreSQL may call it once for all
/// rows: each node would give its own rows another.
pub(super) fn computed_once(query: &Query) -> Option<&Call> {
    let inside = query.levels.iter().skip(1).map(|level| &level.calls);
    let inside: Vec<_> = inside.collect();
    let rows = query.levels.first()?.tables.iter().any(|table| table.source == Source::Rows);
    let calls = query.functions.iter().enumerate();
    let mut calls = calls.filter(|(at, _)| rows || inside.iter().any(|calls| calls.contains(at)));
    calls.find(|(_, call)| functions::is_volatile(call)).map(|(_, call)| call)
}

/// An aggregate whose value depends on the order of its rows, in a subquery of tables that each node has
/// whole: PostgreSQL computes it once for all rows.
fn by_chance<'a>(query: &'a Query, meanings: &[Vec<Option<Meaning<'_>>>]) -> Option<&'a Call> {
    let whole = |meaning: &Option<Meaning<'_>>| matches!(meaning, Some(Meaning::Reference(_)));
    let inside = query.levels.iter().zip(meanings).skip(1);
    let mut inside =
        inside.filter(|(_, meanings)| !meanings.is_empty() && meanings.iter().all(whole));
    inside.find_map(|(level, _)| {
        let calls = level.calls.clone().filter_map(|at| query.functions.get(at));
        { calls }.find(|call| functions::depends_on_order(call))
    })
}

fn refused(table: &str, why: &str) -> ServerError {
    ServerError::refused(
        format!("this write to \"{table}\" needs several nodes"),
        format!("Its rows are not bound to one shard, and {why}."),
        "Bind the shard key, or join all sharded tables on it.",
    )
}

/// Whether every sharded table of a subquery is joined with the target on the whole key.
fn together(query: &Query, bound: &Bound<'_>, target: &Sharded<'_>) -> bool {
    let column = |table: &Sharded<'_>, position| KeyColumn {
        level: table.level,
        table: table.index,
        position,
    };
    let mut pairs = Vec::new();
    for (index, level) in query.levels.iter().enumerate() {
        for condition in &level.conditions {
            // What MERGE finds no partner for has no row of the target either.
            let merges = query.verb == Verb::Merge && index == 0;
            let inner = condition
                .join
                .is_none_or(|join| merges || level.joins[join].kind == JoinKind::Inner);
            if inner {
                let found = bound.pairs(index, level, condition).into_iter();
                pairs.extend(found.map(|(a, b)| (a.column, b.column)));
            }
        }
    }
    (0..target.key.len()).all(|position| {
        let mut reached = HashSet::from([column(target, position)]);
        loop {
            let before = reached.len();
            for (a, b) in &pairs {
                if reached.contains(a) || reached.contains(b) {
                    reached.extend([*a, *b]);
                }
            }
            if reached.len() == before {
                break;
            }
        }
        let inner = bound.sharded.iter().filter(|table| table.level > 0);
        inner.into_iter().all(|table| reached.contains(&column(table, position)))
    })
}

/// Whether the outermost statement is an UPDATE or DELETE.
pub(super) fn is_change(query: &Query) -> bool {
    let target = query.levels.first().and_then(|level| level.target.as_ref());
    matches!(target, Some(Target::Update { .. } | Target::Delete))
}

/// A home table beside a sharded one in a write.
pub(super) fn mixed(query: &Query, meanings: &[Vec<Option<Meaning<'_>>>]) -> ServerError {
    let mut home = "a home table".to_owned();
    for (level, meanings) in query.levels.iter().zip(meanings) {
        for (table, meaning) in level.tables.iter().zip(meanings) {
            if let (Source::Table(name), Some(Meaning::Home)) = (&table.source, meaning) {
                home = format!("\"{}\"", name.name);
            }
        }
    }
    ServerError::refused(
        format!("{home} and a sharded table can't be used in one statement"),
        format!(
            "{home} is on the home node only, and the sharded table's rows are on others, too."
        ),
        "Declare it as a reference table in the policy, or use two statements.",
    )
}
