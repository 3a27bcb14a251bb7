//! A map in which tables are on their way to another group, and the policy that says where they go.

use std::path::Path;

use super::super::Policy;
use crate::ids::GroupId;
use crate::shard_map::{Column, MapParts, Shard, ShardMap, TableKind};
use crate::sql::TableName;

fn parsed(text: &str) -> Policy {
    Policy::parse(Path::new("p.yaml"), text, None).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn map(policy: &Policy, nodes: &[&str]) -> ShardMap {
    policy.shard_map(&names(nodes)).try_into().unwrap()
}

#[test]
fn a_table_on_its_way_to_a_group_is_no_mismatch() {
    let text = "groups: {shop: {key: bigint, shards: 2, tables: {users: t, notes: t}}}";
    let (notes, whole) = (TableName::new("public", "notes"), parsed(text));
    let before = map(&whole.without(&[], std::slice::from_ref(&notes)), &["n1"]);
    let arriving = text.replace("shop", "\"shop (arriving)\"").replace("users: t, ", "");
    let arriving = parsed(&arriving).shard_map(&names(&["n1"]));
    let mut parts = MapParts::from(before);
    parts.groups.extend(arriving.groups);
    let moved = |shard: &Shard| Shard { group: GroupId(1), ..shard.clone() };
    parts.shards.extend(arriving.shards.iter().map(moved));
    parts.tables.extend(arriving.tables.into_iter().map(|mut table| {
        table.kind = TableKind::Sharded { group: GroupId(1), key: vec!["t".to_owned()] };
        table
    }));
    for table in &mut parts.tables {
        table.columns.push(Column::default());
    }
    let stored = ShardMap::try_from(parts).unwrap();
    assert!(whole.extend(&stored, &names(&["n1"]), &[]).is_err());
    assert_eq!(whole.with_arriving(&stored).extend(&stored, &names(&["n1"]), &[]).unwrap(), None);
    assert!(whole.waiting_keys(&stored).is_empty());
}

#[test]
fn a_table_that_does_not_exist_may_leave_the_policy_or_become_another_one() {
    let nodes = names(&["n1"]);
    let text = "groups: {shop: {key: bigint, shards: 2, tables: {users: t, notes: t, tags: t}}}";
    let column = vec![Column { name: "t".to_owned(), ..Column::default() }];
    let users = TableName::new("public", "users");
    let stored = map(&parsed(text), &["n1"]).with_columns(&users, column);
    let (tags, notes) = (TableName::new("public", "tags"), TableName::new("public", "notes"));
    let changed = parsed(
        "{reference_tables: [tags], groups: {shop: {key: bigint, shards: 2, tables: {users: t}}}}",
    );
    let mut idle = changed.idle_tables(&stored);
    idle.sort();
    assert_eq!(idle, [notes.clone(), tags.clone()]);
    // Whether they exist was not looked at.
    assert_eq!(changed.extend(&stored, &nodes, &[]), Ok(None));
    assert!(changed.waiting_keys(&stored).is_empty());
    let next = changed.extend(&stored, &nodes, std::slice::from_ref(&tags)).unwrap().unwrap();
    let next = ShardMap::try_from(next).unwrap();
    assert_eq!(next.table(&tags).unwrap().kind, TableKind::Reference);
    assert!(next.table(&notes).is_some());
    let next = changed.extend(&stored, &nodes, &[tags, notes.clone()]).unwrap().unwrap();
    assert!(ShardMap::try_from(next).unwrap().table(&notes).is_none());
    // What exists stays.
    let without = parsed("groups: {shop: {key: bigint, shards: 2, tables: {notes: t, tags: t}}}");
    assert!(without.idle_tables(&stored).is_empty());
    assert!(without.extend(&stored, &nodes, &[]).is_err());
}
