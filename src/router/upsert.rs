//! INSERT … ON CONFLICT into a table with unique lookups: what conflicts may be a row of another node,
//! which only the lookup knows.

use super::bind::Sharded;
use super::functions;
use super::insert::InsertRows;
use super::names::Names;
use crate::shard_map::{LookupStanding, Table};
use crate::sql::{ConflictLayout, Query, TableName, Target};
use crate::wire::ServerError;

/// An INSERT whose rows are looked up first.
#[derive(Debug, Clone)]
pub struct Upsert {
    /// The statement.
    pub rows: InsertRows,
    /// Where the parts behind the rows stand.
    pub conflict: ConflictLayout,
    /// The table.
    pub table: Table,
    /// The columns that the rows have.
    pub columns: Vec<String>,
    /// The lookups in which a value must be free, each with its column.
    pub lookups: Vec<(TableName, String)>,
}

/// What an INSERT does whose conflicts a unique lookup knows; `None` where none counts.
///
/// # Errors
/// It is of a form in which they would not be found.
pub(super) fn plan(
    query: &Query,
    text: &str,
    table: &Sharded<'_>,
    names: &Names<'_>,
) -> Result<Option<Upsert>, ServerError> {
    let target = query.levels.first().and_then(|level| level.target.as_ref());
    let (Some(Target::Insert(insert)), Some(layout), Some(conflict)) =
        (target, &query.layout, query.conflict.as_deref())
    else {
        return Ok(None);
    };
    let unique = names.map.kept_lookups(&table.table.name);
    let unique = unique.filter(|it| it.unique && it.standing == LookupStanding::Whole);
    let counts =
        |column: &String| conflict.columns.is_empty() || conflict.columns == [column.clone()];
    let lookups = unique.filter(|lookup| counts(&lookup.column));
    let lookups: Vec<_> = lookups.map(|it| (it.name.clone(), it.column.clone())).collect();
    if (table.level, table.index) != (0, 0) || lookups.is_empty() {
        return Ok(None);
    }
    let refuse = |why: &str| {
        ServerError::refused(
            format!("ON CONFLICT can't go by the lookup table \"{}\" here", lookups[0].0.name),
            format!("The row that conflicts may be on another node, and {why}."),
            "Write plain values and expressions, or look the row up in a statement of its own.",
        )
    };
    if query.levels.len() > 1 || layout.rows.is_empty() {
        return Err(refuse("a query is among the values"));
    }
    let again =
        |call: &crate::sql::Call| !names.in_spread_write(call) || functions::is_volatile(call);
    if let Some(call) = query.functions.iter().find(|call| again(call)) {
        return Err(refuse(&format!("{}() may give another value each time", call.name)));
    }
    let all = table.table.columns.iter().map(|it| it.name.clone());
    let columns = insert.columns.clone();
    let columns = columns.unwrap_or_else(|| all.take(layout.rows[0].cells.len()).collect());
    for (column, value) in conflict.update.iter().flat_map(|update| &update.assignments) {
        let looked_up = lookups.iter().any(|(_, own)| own == column);
        let same = *value == format!("excluded.{column}");
        if table.key.contains(column) || looked_up && !same {
            return Err(refuse(&format!("it sets \"{column}\", by which rows are found")));
        }
    }
    Ok(Some(Upsert {
        rows: InsertRows { text: text.to_owned(), layout: layout.clone(), leaf: None },
        conflict: conflict.clone(),
        table: table.table.clone(),
        columns,
        lookups,
    }))
}
