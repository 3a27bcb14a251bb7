//! Point statements that a leaf partition answers exactly as its parent does: PostgreSQL plans a
//! partitioned table afresh each time, but keeps the plan of a prepared statement on a leaf.

use std::ops::Range;

use super::names::{Meaning, Names};
use crate::ids::ShardId;
use crate::shard_map::leaf_name;
use crate::sql::{Ident, Query, Source, Statement, TableName, Target, Verb};

/// Where a point statement names its only table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafSite {
    /// The sharded table.
    pub table: TableName,
    /// The bytes of its name.
    pub at: Range<usize>,
    /// The statement reads, and calls no function.
    pub brief: bool,
    /// What the statement's columns call it, where the name itself does that.
    alias: Option<String>,
}

impl LeafSite {
    /// The statement on the leaf that holds `shard`.
    pub fn text(&self, text: &str, shard: ShardId) -> String {
        let (before, after) = (&text[..self.at.start], &text[self.at.end..]);
        format!("{before}{}{after}", self.name(shard))
    }

    /// What stands where the table was named.
    pub fn name(&self, shard: ShardId) -> String {
        let leaf = leaf_name(&self.table, shard);
        match &self.alias {
            Some(alias) => format!("{leaf} AS {}", Ident::new(alias)),
            None => leaf.to_string(),
        }
    }
}

/// Where `query` names its only table, if a leaf could stand there: nothing in it would mean
/// something else then, or be checked in another way. What only the nodes know of the table (its
/// policies, triggers, privileges) is left to them.
pub(super) fn site(
    text: &str,
    query: &Query,
    statement: &Statement,
    names: &Names<'_>,
) -> Option<LeafSite> {
    let ([level], true) = (query.levels.as_slice(), query.verb != Verb::Insert) else {
        return None;
    };
    let [table] = level.tables.as_slice() else { return None };
    let Source::Table(name) = &table.source else { return None };
    let Ok(Meaning::Sharded(sharded, _, key)) = names.meaning(name) else { return None };
    let features = &query.features;
    let plain = !(features.only
        || features.sample
        || features.into
        || features.cte
        || features.set_operation
        || features.locking);
    let keeps_key = match &level.target {
        // The default of a leaf's column is its own.
        Some(Target::Update { columns }) => {
            !columns.iter().any(|column| key.contains(column)) && !statement.has("default")
        }
        Some(Target::Insert(_) | Target::Merge(_)) => false,
        Some(Target::Delete) | None => true,
    };
    let called = table.alias.as_ref()?;
    // The row type of a leaf is another one.
    let columns = &query.columns;
    let whole_rows = columns.rows || !columns.qualifiers.is_empty() || has_row_star(text);
    if !plain || !keeps_key || whole_rows || table.renamed {
        return None;
    }
    let alias = (!table.aliased).then(|| called.clone());
    let brief = query.verb == Verb::Select && query.functions.is_empty();
    Some(LeafSite { table: sharded.name.clone(), at: name.span.clone(), brief, alias })
}

/// The same for an INSERT that wants to know of each row whether it is a new one, which PostgreSQL says of
/// the rows of a leaf only.
pub(super) fn insert_site(
    query: &Query,
    statement: &Statement,
    names: &Names<'_>,
) -> Option<LeafSite> {
    let level = query.levels.first()?;
    let (Some(Target::Insert(_)), Some(table)) = (&level.target, level.tables.first()) else {
        return None;
    };
    let Source::Table(name) = &table.source else { return None };
    let Ok(Meaning::Sharded(sharded, ..)) = names.meaning(name) else { return None };
    let columns = &query.columns;
    // A constraint of a leaf has a name of its own.
    let by_name = statement.has("constraint") || columns.rows || !columns.qualifiers.is_empty();
    if !statement.has("xmax") || by_name || query.features.cte {
        return None;
    }
    let alias = (!table.aliased).then(|| name.name.clone());
    Some(LeafSite { table: sharded.name.clone(), at: name.span.clone(), brief: false, alias })
}

/// Whether `table.*` may stand in it, which can mean a whole row, or a comment that could hide it.
fn has_row_star(text: &str) -> bool {
    let bytes = text.as_bytes();
    let stars = memchr::memchr_iter(b'*', bytes);
    let behind_dot = |at: usize| bytes[..at].trim_ascii_end().ends_with(b".");
    let comment = memchr::memmem::find(bytes, b"/*").or(memchr::memmem::find(bytes, b"--"));
    comment.is_some() || stars.into_iter().any(behind_dot)
}
