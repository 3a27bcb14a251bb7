//! UPDATE of the shard key: which parts of it say where rows go.

use std::ops::Range;
use std::sync::Arc;

use super::bind::{Bound, Sharded};
use super::functions;
use super::scatter::SYSTEM_COLUMNS;
use crate::ids::GroupId;
use crate::shard_map::KeyType;
use crate::sql::{Query, Statement, TableName, Target, UpdateLayout};
use crate::wire::ServerError;

/// An UPDATE that may move rows to other shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekey {
    /// The statement, to the end.
    pub text: String,
    /// Where its parts stand.
    pub layout: UpdateLayout,
    /// The table.
    pub table: TableName,
    /// Its group.
    pub group: GroupId,
    /// The assigned columns of the shard key, each with what it gets and its type.
    pub key: Vec<(String, Range<usize>, KeyType)>,
    /// All columns that take values, each with what it gets, if that is written.
    pub columns: Vec<(String, Option<Range<usize>>)>,
}

/// The table whose shard key a statement may change.
pub(super) fn table<'a, 'b>(query: &Query, bound: &'a Bound<'b>) -> Option<&'a Sharded<'b>> {
    bound.sharded.iter().find(|table| {
        let target = query.levels[table.level].target.as_ref().filter(|_| table.index == 0);
        let columns = match target {
            Some(Target::Update { columns }) => columns.as_slice(),
            Some(Target::Insert(insert)) => insert.updates.as_slice(),
            _ => &[],
        };
        columns.iter().any(|column| table.key.contains(column))
    })
}

/// An UPDATE that assigns columns of the shard key.
///
/// # Errors
/// Why the rows can't be moved.
pub(super) fn plan(
    query: &Query,
    (text, statement): (&str, &Statement),
    table: &Sharded<'_>,
    types: &[KeyType],
) -> Result<Arc<Rekey>, ServerError> {
    let refuse = |why: &str| {
        ServerError::refused(
            format!("the shard key of \"{}\" can't be updated in this form", table.table.name.name),
            format!("Its rows may have to move to another node, and {why}."),
            "Update it in a statement with plain values: UPDATE … SET … WHERE … RETURNING ….",
        )
    };
    let Some(layout) = query.update.as_deref().filter(|_| query.levels.len() == 1) else {
        return Err(refuse("it has FROM, WITH, subqueries or lists of columns"));
    };
    if query.features.clock_word {
        return Err(refuse("a word such as 'now' is another time on each node"));
    }
    if table.table.columns.is_empty() {
        return Err(refuse("the table's columns are not known"));
    }
    if let Some(call) = query.functions.iter().find(|call| !functions::in_spread_write(call)) {
        return Err(refuse(&format!("what {}() does on each node is not known", call.name)));
    }
    if let Some(column) = SYSTEM_COLUMNS.iter().find(|column| statement.has(column)) {
        return Err(refuse(&format!("{column} has another meaning on each node")));
    }
    let value = |column: &String| {
        let assigned = layout.assignments.iter().find(|(name, _)| name == column);
        assigned.map(|(_, span)| span.clone())
    };
    let default = |span: &Range<usize>| {
        text.get(span.clone()).is_some_and(|value| value.eq_ignore_ascii_case("default"))
    };
    if layout.assignments.iter().any(|(_, span)| default(span)) {
        return Err(refuse("DEFAULT is not evaluated there"));
    }
    // The new key is computed twice.
    if let Some(call) = query.functions.iter().find(|call| call.name == "random") {
        return Err(refuse(&format!("{}() gives another value each time", call.name)));
    }
    let key = table.key.iter().zip(types);
    let key = key.filter_map(|(name, kind)| Some((name.clone(), value(name)?, *kind))).collect();
    let takes = table.table.columns.iter().filter(|column| !column.generated);
    let columns = takes.map(|column| (column.name.clone(), value(&column.name))).collect();
    Ok(Arc::new(Rekey {
        text: text.to_owned(),
        layout: layout.clone(),
        table: table.table.name.clone(),
        group: table.group,
        key,
        columns,
    }))
}
