//! Lookup tables of the policy: global secondary indexes, each a sharded table in a group of its own.

use std::collections::HashSet;

use super::group::read_shards;
use super::policy::{GroupPolicy, TablePolicy, is_new, table_name};
use super::section::Cursor;
use crate::shard_map::{Bounds, KeyType, LOOKUP_COUNT};
use crate::sql::TableName;

/// Types that a looked-up column may have: those whose values are written alike everywhere.
const TYPES: [KeyType; 6] =
    [KeyType::Int2, KeyType::Int4, KeyType::Int8, KeyType::Text, KeyType::Uuid, KeyType::Date];

/// A table that says in which shard the rows with a value of a column are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupPolicy {
    /// Its schema and name, as stored. Its group has the name that the policy gives it.
    pub name: TableName,
    /// The group that it is sharded in.
    pub group: String,
    /// The sharded table whose rows it finds.
    pub table: TableName,
    /// The column of that table.
    pub column: String,
    /// No two rows have the same value.
    pub unique: bool,
}

/// `users_by_email: {table: users, column: email, type: text, unique: true, shards: 8}`; each adds
/// a group.
pub(super) fn read_lookups(
    all: &Cursor<'_>,
    groups: &mut Vec<GroupPolicy>,
    names: &mut HashSet<TableName>,
) -> Vec<LookupPolicy> {
    let entries = all.entries();
    entries.iter().filter_map(|(name, lookup)| read_lookup(name, lookup, groups, names)).collect()
}

fn read_lookup(
    own: &str,
    lookup: &Cursor<'_>,
    groups: &mut Vec<GroupPolicy>,
    names: &mut HashSet<TableName>,
) -> Option<LookupPolicy> {
    let fields = lookup.fields(&["table", "column", "type", "unique", "shards"]);
    let column = fields.required("column").and_then(Cursor::text);
    let key_type = fields.required("type").and_then(read_type);
    let shards = fields.required("shards").and_then(read_shards);
    let unique = fields.or("unique", false);
    let place = fields.required("table")?;
    let named = table_name(&place.text()?).map_err(|message| place.fault(message)).ok()?;
    let tables = || groups.iter().flat_map(|group| &group.tables);
    let Some(table) = tables().find(|table| table.name == named) else {
        place.fault(format!("{named} is not a sharded table of the policy"));
        return None;
    };
    let column = column?;
    if table.key == [column.clone()] {
        lookup.fault(format!("{column:?} is the shard key: nothing has to be looked up"));
        return None;
    }
    if table.key.contains(&column) || table.key.iter().any(|key| key == LOOKUP_COUNT) {
        lookup.fault("a column of the shard key can't be looked up");
        return None;
    }
    let name = table_name(own).map_err(|message| lookup.fault_of_key(message)).ok()?;
    let twice = || lookup.fault_of_key("the table stands twice in the policy");
    let name = is_new(&name, names, twice)?;
    if groups.iter().any(|group| group.name == own) {
        lookup.fault_of_key("a group has this name");
        return None;
    }
    let (key_type, modulus) = (key_type?, shards?);
    groups.push(GroupPolicy {
        name: own.to_owned(),
        key: vec![key_type],
        bounds: (0..modulus).map(|remainder| Bounds::Hash { modulus, remainder }).collect(),
        tables: vec![TablePolicy { name: name.clone(), key: vec![column.clone()] }],
    });
    Some(LookupPolicy { name, group: own.to_owned(), table: named, column, unique })
}

fn read_type(place: &Cursor<'_>) -> Option<KeyType> {
    let name = place.text()?;
    let found = KeyType::from_name(&name.to_ascii_lowercase()).filter(|it| TYPES.contains(it));
    if found.is_none() {
        let known = "smallint, integer, bigint, text, varchar, uuid, date";
        place.fault(format!("{name:?} can't be looked up; known are {known}"));
    }
    found
}
