//! UPDATE of the shard key → its steps: rows that get another key are deleted and inserted, the
//! others are updated where they are.

use crate::router::Rekey;
use crate::sql::{Ident, Literal, TableName};

/// The statements of an UPDATE that may move rows, with the client's parameters where they stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeySteps {
    /// Locks the rows first, if that is needed.
    pub lock: Option<String>,
    /// A row where one changes its key.
    pub changes: String,
    /// Takes the rows away whose key changes, and gives them as they are to be.
    pub take: String,
    /// Which of its columns are bare strings, which have no type.
    pub untyped: Vec<bool>,
    /// Updates the others.
    pub update: String,
    /// What stands before the rows that are inserted.
    pub insert_head: String,
    /// What stands behind them.
    pub insert_tail: String,
    /// Asks a node what of the table forbids to delete and insert instead: a word for each.
    pub obstacles: String,
}

/// The steps.
pub fn rekey(rekey: &Rekey) -> RekeySteps {
    let alias = rekey.layout.alias.as_deref().unwrap_or(&rekey.table.name);
    let alias = Ident::new(alias).to_string();
    let part = |span: &std::ops::Range<usize>| rekey.text.get(span.clone()).unwrap_or_default();
    let target = named(&rekey.table, rekey.layout.alias.as_ref());
    let own = |column: &String| format!("{alias}.{}", Ident::new(column));
    let differs = |(column, value, kind): &(String, String, crate::shard_map::KeyType)| {
        format!("{} IS DISTINCT FROM CAST(({value}) AS {})", own(column), kind.name())
    };
    let changed = rekey.key.iter().map(differs).collect::<Vec<_>>().join(" OR ");
    let condition = rekey.layout.condition.as_ref();
    let condition = condition.map_or("true".to_owned(), |span| format!("({})", part(span)));
    let from = rekey.layout.from.as_ref().map(part);
    let behind = |word: &str| from.map_or_else(String::new, |from| format!(" {word} {from}"));
    let is_key = |column: &String| rekey.key.iter().any(|(key, ..)| key == column);
    let value = |(column, value): &(String, Option<String>)| match value {
        Some(value) => format!("({value})"),
        None => own(column),
    };
    let values: Vec<_> = rekey.columns.iter().map(value).collect();
    let untyped = |(_, value): &(String, Option<String>)| {
        value.as_ref().is_some_and(|value| is_bare_string(value))
    };
    let assign = |(column, value): &(String, String)| {
        let value = if is_key(column) { own(column) } else { value.clone() };
        format!("{} = {value}", Ident::new(column))
    };
    let assignments: Vec<_> = rekey.layout.assignments.iter().map(assign).collect();
    let returning = rekey.layout.returning.as_ref().map(part).unwrap_or_default();
    let names: Vec<_> =
        rekey.columns.iter().map(|(column, _)| Ident::new(column).to_string()).collect();
    let others = from.map_or_else(String::new, |from| format!(", {from}"));
    let lock = || format!("SELECT FROM {target}{others} WHERE {condition} FOR UPDATE OF {alias}");
    RekeySteps {
        lock: rekey.locks.then(lock),
        changes: format!("SELECT FROM {target}{others} WHERE {condition} AND ({changed}) LIMIT 1"),
        take: format!(
            "DELETE FROM {target}{} WHERE {condition} AND ({changed}) RETURNING {}",
            behind("USING"),
            values.join(", ")
        ),
        untyped: rekey.columns.iter().map(untyped).collect(),
        update: format!(
            "UPDATE {target} SET {}{} WHERE {condition} AND NOT ({changed}) {returning}",
            assignments.join(", "),
            behind("FROM")
        ),
        insert_head: format!(
            "INSERT INTO {target} ({}) OVERRIDING SYSTEM VALUE ",
            names.join(", ")
        ),
        insert_tail: format!(" {returning}"),
        obstacles: obstacles(rekey),
    }
}

/// A table under the name by which the statement knows it: without an alias its schema may stand before
/// columns.
pub(super) fn named(table: &TableName, alias: Option<&String>) -> String {
    alias.map_or_else(|| table.to_string(), |alias| format!("{table} AS {}", Ident::new(alias)))
}

/// A string that stands alone takes the type of what it is assigned to.
fn is_bare_string(expression: &str) -> bool {
    let inside = expression.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    inside.is_some_and(|inside| !inside.replace("''", "").contains('\''))
}

/// Triggers that would see an UPDATE, row security, and keys of other rows that would follow.
fn obstacles(rekey: &Rekey) -> String {
    let table = Literal(&rekey.table.to_string()).to_string();
    format!(
        "SELECT 'a trigger' FROM pg_catalog.pg_trigger WHERE NOT tgisinternal \
         AND tgrelid = {table}::pg_catalog.regclass \
         AND tgfoid IS DISTINCT FROM pg_catalog.to_regprocedure('foreshard.note_lookup()') \
         UNION SELECT 'row security' FROM pg_catalog.pg_class \
         WHERE relrowsecurity AND oid = {table}::pg_catalog.regclass \
         UNION SELECT 'a foreign key of other rows that follows their changes' \
         FROM pg_catalog.pg_constraint WHERE contype = 'f' \
         AND (confdeltype NOT IN ('a', 'r') OR confupdtype NOT IN ('a', 'r')) \
         AND (confrelid = {table}::pg_catalog.regclass OR confrelid IN \
         (SELECT inhrelid FROM pg_catalog.pg_inherits \
         WHERE inhparent = {table}::pg_catalog.regclass))"
    )
}
