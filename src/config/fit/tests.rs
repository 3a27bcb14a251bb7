//! A map in which tables are on their way to another group, and the policy that says where they go.

use std::path::Path;

use super::super::Policy;
use crate::ids::GroupId;
use crate::shard_map::{MapParts, Shard, ShardMap, TableKind};
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
    let stored = ShardMap::try_from(parts).unwrap();
    assert!(whole.extend(&stored, &names(&["n1"])).is_err());
    assert_eq!(whole.with_arriving(&stored).extend(&stored, &names(&["n1"])).unwrap(), None);
    assert!(whole.waiting_keys(&stored).is_empty());
}
