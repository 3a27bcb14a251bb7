//! A group of the policy: its key, how it is cut into shards, its tables.

use std::collections::HashSet;

use super::policy::{FunctionPolicy, GroupPolicy, TablePolicy, is_new, table_name};
use super::section::{Cursor, Fields};
use crate::shard_map::{Bounds, Cut, KeyType, KeyValue, Method};
use crate::sql::TableName;

/// Most shards of a group: beyond it each scatter and each move plans over too many partitions.
const SHARDS_MAX: u32 = 4_096;

pub(super) fn read_groups(groups: &Cursor<'_>, names: &mut HashSet<TableName>) -> Vec<GroupPolicy> {
    let entries = groups.entries().into_iter();
    entries.map(|(name, group)| read_group(name, &group, names)).collect()
}

fn read_group(name: &str, group: &Cursor<'_>, names: &mut HashSet<TableName>) -> GroupPolicy {
    let known = ["key", "method", "shards", "split_at", "values", "default", "tables"];
    let fields = group.fields(&known);
    let key = fields.required("key").map(read_key);
    let types = key.as_ref().map(|(_, types)| types.as_slice()).unwrap_or_default();
    let method = fields.optional("method").map_or(Some(Method::Hash), read_method);
    let bounds = method.and_then(|method| read_bounds(group, &fields, method, types));
    let tables = fields.required("tables").map(|tables| {
        let entries = tables.entries();
        if entries.is_empty() && tables.is_map() {
            tables.fault("must name a table at least");
        }
        let tables = entries.iter().filter_map(|(table, columns)| {
            read_table(table, columns, key.as_ref().map(|(count, _)| *count), names)
        });
        tables.collect()
    });
    GroupPolicy {
        name: name.to_owned(),
        bounds: bounds.unwrap_or_else(|| vec![Bounds::Hash { modulus: 1, remainder: 0 }]),
        key: key.map(|(_, types)| types).unwrap_or_default(),
        tables: tables.unwrap_or_default(),
    }
}

/// `place_order: {group: shop, key_argument: 1}`
pub(super) fn read_functions(all: &Cursor<'_>, groups: &[GroupPolicy]) -> Vec<FunctionPolicy> {
    let read = |(name, function): &(&str, Cursor<'_>)| {
        let fields = function.fields(&["group", "key_argument"]);
        let (of, at) = (fields.required("group"), fields.optional("key_argument"));
        let name = table_name(name).map_err(|message| function.fault_of_key(message)).ok()?;
        let of = of?;
        let group = of.text()?;
        let Some(known) = groups.iter().find(|known| known.name == group) else {
            of.fault(format!("there is no group {group:?}"));
            return None;
        };
        let Some(at) = at else {
            return Some(FunctionPolicy { name, group, arguments: Vec::new() });
        };
        let items = at.one_or_more();
        let arguments: Vec<u16> = items.iter().filter_map(Cursor::read).collect();
        if arguments.contains(&0) {
            at.fault("arguments are counted from 1");
            return None;
        }
        if arguments.len() != known.key.len() {
            at.fault(format!(
                "must have as many arguments as the key columns: {}",
                known.key.len()
            ));
            return None;
        }
        Some(FunctionPolicy { name, group, arguments })
    };
    all.entries().iter().filter_map(read).collect()
}

fn read_method(method: &Cursor<'_>) -> Option<Method> {
    match method.text()?.as_str() {
        "hash" => Some(Method::Hash),
        "range" => Some(Method::Range),
        "list" => Some(Method::List),
        _ => {
            method.fault("must be hash, range or list");
            None
        }
    }
}

/// The bounds of the first shards.
fn read_bounds(
    group: &Cursor<'_>,
    fields: &Fields<'_>,
    method: Method,
    types: &[KeyType],
) -> Option<Vec<Bounds>> {
    let own: &[&str] = match method {
        Method::Hash => &["shards"],
        Method::Range => &["split_at"],
        Method::List => &["values", "default"],
    };
    for key in ["shards", "split_at", "values", "default"] {
        if let Some(other) = fields.optional(key).filter(|_| !own.contains(&key)) {
            other.fault_of_key(format!("has no meaning with method: {}", method.word()));
        }
    }
    match method {
        Method::Hash => {
            let modulus = fields.required("shards").and_then(read_shards)?;
            Some((0..modulus).map(|remainder| Bounds::Hash { modulus, remainder }).collect())
        }
        Method::Range => read_cuts(fields.required("split_at")?, types),
        Method::List => {
            if types.len() > 1 {
                group.fault("a list has a key of one column");
                return None;
            }
            read_lists(fields, *types.first()?)
        }
    }
}

fn read_cuts(split_at: &Cursor<'_>, types: &[KeyType]) -> Option<Vec<Bounds>> {
    let mut cuts: Vec<Cut> = Vec::new();
    for item in split_at.items() {
        let columns = item.one_or_more();
        if columns.is_empty() || columns.len() > types.len() {
            item.fault(format!("must have as many values as the key columns: {}", types.len()));
            return None;
        }
        let values = columns.iter().zip(types).map(|(column, key_type)| {
            let value = read_value(column, *key_type)?;
            if value == KeyValue::Null {
                column.fault("must not be null: a row with NULL in its key has no range");
                return None;
            }
            Some(value)
        });
        let cut: Cut = values.collect::<Option<_>>()?;
        if cuts.last().is_some_and(|last| *last >= cut) {
            item.fault("must be greater than the one before");
            return None;
        }
        cuts.push(cut);
    }
    if !is_few(cuts.len() + 1, split_at) {
        return None;
    }
    let ends = |at: usize| (at.checked_sub(1).and_then(|at| cuts.get(at)).cloned(), cuts.get(at));
    let bounds = (0..=cuts.len()).map(|at| {
        let (from, to) = ends(at);
        Bounds::Range { from, to: to.cloned() }
    });
    Some(bounds.collect())
}

fn read_lists(fields: &Fields<'_>, key_type: KeyType) -> Option<Vec<Bounds>> {
    let lists = fields.required("values")?;
    let (mut bounds, mut all) = (Vec::new(), Vec::new());
    for list in lists.items() {
        let mut values = Vec::new();
        for item in list.one_or_more() {
            let value = read_value(&item, key_type)?;
            if all.contains(&value) {
                item.fault("stands twice");
                return None;
            }
            all.push(value.clone());
            values.push(value);
        }
        if values.is_empty() {
            list.fault("must have a value at least");
            return None;
        }
        bounds.push(Bounds::List(values));
    }
    if fields.or("default", false) {
        bounds.push(Bounds::Others(all));
    }
    if bounds.is_empty() {
        lists.fault("must have a list of values at least");
        return None;
    }
    is_few(bounds.len(), lists).then_some(bounds)
}

fn is_few(shards: usize, place: &Cursor<'_>) -> bool {
    let few = u32::try_from(shards).is_ok_and(|shards| shards <= SHARDS_MAX);
    if !few {
        place.fault(format!("makes more than {SHARDS_MAX} shards"));
    }
    few
}

/// A number, a text or null as a value of the key's type.
fn read_value(item: &Cursor<'_>, key_type: KeyType) -> Option<KeyValue> {
    let text = match item.read::<serde_yaml::Value>()? {
        serde_yaml::Value::Null => return Some(KeyValue::Null),
        serde_yaml::Value::String(text) => text,
        serde_yaml::Value::Number(number) => number.to_string(),
        _ => {
            item.fault("must be a number, a text or null");
            return None;
        }
    };
    let read = key_type.parse(text.as_bytes());
    read.map_err(|invalid| item.fault(invalid.to_string())).ok()
}

/// How many types the key has, and those that are known.
fn read_key(key: &Cursor<'_>) -> (usize, Vec<KeyType>) {
    let items = key.one_or_more();
    if items.is_empty() {
        key.fault("must name a type at least");
    }
    let types = items.iter().filter_map(|item| {
        let name = item.text()?;
        let found = KeyType::from_name(&name.to_ascii_lowercase());
        if found.is_none() {
            let known = "smallint, integer, bigint, text, varchar, uuid, date, timestamptz";
            item.fault(format!("{name:?} can't be a shard key's type; known are {known}"));
        }
        found
    });
    (items.len(), types.collect())
}

pub(super) fn read_shards(shards: &Cursor<'_>) -> Option<u32> {
    let count: u32 = shards.read()?;
    if !(1..=SHARDS_MAX).contains(&count) {
        shards.fault(format!("must be from 1 to {SHARDS_MAX}"));
        return None;
    }
    Some(count)
}

fn read_table(
    name: &str,
    columns: &Cursor<'_>,
    key_columns: Option<usize>,
    names: &mut HashSet<TableName>,
) -> Option<TablePolicy> {
    let items = columns.one_or_more();
    let key: Vec<String> = items.iter().filter_map(Cursor::text).collect();
    if key_columns.is_some_and(|count| count != items.len()) {
        let (has, needs) = (items.len(), key_columns.unwrap_or_default());
        columns.fault(format!("names {has} column(s), but the group's key has {needs}"));
    }
    for (index, column) in key.iter().enumerate() {
        if key[..index].contains(column) {
            columns.fault(format!("names the column {column:?} twice"));
        }
    }
    let name = table_name(name).map_err(|message| columns.fault_of_key(message)).ok()?;
    let twice = || columns.fault_of_key("the table stands twice in the policy");
    let name = is_new(&name, names, twice)?;
    Some(TablePolicy { name, key })
}
