//! UPDATE of the shard key: which parts of it say where rows go.

use std::sync::Arc;

use super::bind::{Bound, Sharded};
use super::insert;
use super::names::{Meaning, Names};
use super::scatter::SYSTEM_COLUMNS;
use crate::ids::GroupId;
use crate::shard_map::{Column, KeyType, Table};
use crate::sql::{Query, Statement, TableName, Target, UpdateLayout};
use crate::wire::{FIRST_USER_OID, ServerError};

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
    pub key: Vec<(String, String, KeyType)>,
    /// All columns that take values, each with what it gets, if that is written.
    pub columns: Vec<(String, Option<String>)>,
    /// The new key depends on the rows: these are locked first, so that each is seen once.
    pub locks: bool,
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
    (table, meanings, names): (&Sharded<'_>, &[Vec<Option<Meaning<'_>>>], &Names<'_>),
    types: &[KeyType],
) -> Result<Arc<Rekey>, ServerError> {
    let refuse = |why: &str| {
        ServerError::refused(
            format!("the shard key of \"{}\" can't be updated in this form", table.table.name.name),
            format!("Its rows may have to move to another node, and {why}."),
            "Update it in a statement with plain values: UPDATE … SET … WHERE … RETURNING ….",
        )
    };
    let Some(layout) = query.update.as_deref() else {
        return Err(refuse("it has WITH, or is not of a known form"));
    };
    if table.table.columns.is_empty() {
        return Err(refuse("the table's columns are not known"));
    }
    if let Some(why) = not_the_same(query, statement, (meanings, names)) {
        return Err(refuse(&why));
    }
    if layout.from.is_some() && !returns_own(layout, table.table) {
        return Err(refuse("RETURNING names more than its own columns"));
    }
    let column = |name: &String| table.table.columns.iter().find(|column| column.name == *name);
    let mut values = Vec::with_capacity(layout.assignments.len());
    for (name, value) in &layout.assignments {
        let default = column(name).filter(|_| value.eq_ignore_ascii_case("default"));
        let value = match default {
            None => value.clone(),
            Some(column) if column.generated => continue,
            Some(column) => given_by_default(column)
                .ok_or_else(|| refuse("DEFAULT may be another value on each node"))?,
        };
        values.push((name, value));
    }
    let value = |column: &String| {
        let assigned = values.iter().find(|(name, _)| *name == column);
        assigned.map(|(_, value)| value.clone())
    };
    let key = table.key.iter().zip(types);
    let key: Vec<_> =
        key.filter_map(|(name, kind)| Some((name.clone(), value(name)?, *kind))).collect();
    let takes = table.table.columns.iter().filter(|column| !column.generated);
    let columns = takes.map(|column| (column.name.clone(), value(&column.name))).collect();
    Ok(Arc::new(Rekey {
        text: text.to_owned(),
        layout: layout.clone(),
        table: table.table.name.clone(),
        group: table.group,
        locks: !key.iter().all(|(_, value, _)| is_plain(value)),
        key,
        columns,
    }))
}

/// Why what it reads and computes is not the same on every node.
fn not_the_same(
    query: &Query,
    statement: &Statement,
    (meanings, names): (&[Vec<Option<Meaning<'_>>>], &Names<'_>),
) -> Option<String> {
    let features = &query.features;
    let read = meanings.iter().flatten().skip(1).flatten();
    let mut read = read.into_iter().peekable();
    let reads = read.peek().is_some();
    if read.any(|meaning| !matches!(meaning, Meaning::Reference(_))) {
        return Some("it reads a table of which not every node has all rows".to_owned());
    }
    let ordered = features.limit || features.window || features.distinct || features.set_operation;
    if features.cte || features.sample || features.locking || reads && ordered {
        return Some("what a query in it gives may depend on the node".to_owned());
    }
    if features.clock_word {
        return Some("a word such as 'now' is another time on each node".to_owned());
    }
    if let Some(call) = query.functions.iter().find(|call| !names.in_spread_write(call)) {
        return Some(format!("what {}() does on each node is not known", call.name));
    }
    // The new key is computed twice, and parts of it for the rows of each node.
    let once = super::write::computed_once(query);
    let again = query.functions.iter().find(|call| call.name == "random");
    if let Some(call) = once.or(again) {
        return Some(format!("{}() gives another value each time", call.name));
    }
    let column = SYSTEM_COLUMNS.iter().find(|column| statement.has(column))?;
    Some(format!("{column} has another meaning on each node"))
}

/// Words in RETURNING that are no columns.
const WORDS: [&str; 20] = [
    "and", "between", "case", "cast", "date", "distinct", "else", "end", "false", "from", "ilike",
    "in", "interval", "is", "like", "not", "null", "or", "then", "true",
];

/// Whether RETURNING is of the table's own columns: what else is in FROM is not there any more when
/// a row arrives.
pub(super) fn returns_own(layout: &UpdateLayout, table: &Table) -> bool {
    let alias = layout.alias.as_ref().unwrap_or(&table.name.name);
    let column = |name: &String| table.columns.iter().any(|column| column.name == *name);
    layout.returned.iter().all(|(before, name)| match before {
        Some(before) => before == alias && (name == "*" || column(name)),
        None => column(name) || name == "when" || WORDS.contains(&name.as_str()),
    })
}

/// What DEFAULT stands for, if that is the same on every node.
fn given_by_default(column: &Column) -> Option<String> {
    let Some(default) = &column.default else {
        return (column.type_oid < FIRST_USER_OID).then(|| "NULL".to_owned());
    };
    let same = !insert::takes_number(default) && !insert::varies(default);
    same.then(|| default.clone())
}

/// A number, a string or a parameter.
fn is_plain(value: &str) -> bool {
    let inside = |quoted: &str| !quoted.replace("''", "").contains('\'');
    let string = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let digits = value.strip_prefix(['$', '-']).unwrap_or(value);
    string.is_some_and(inside) || !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}
