//! Maps whose shards are split and merged.

use proptest::prelude::*;

use super::{Bounds, Group, KeyType, KeyValue, Limit, MapParts, Method, NewGroup, Shard, ShardMap};
use crate::ids::{Epoch, GroupId, NodeId, ShardId};
use crate::sql::TableName;

fn map(shards: u32) -> ShardMap {
    let shard = |remainder| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus: shards, remainder },
        node: NodeId(0),
    };
    let parts = MapParts {
        groups: vec![Group { name: "shop".to_owned(), key: vec![KeyType::Int8] }],
        shards: (0..shards).map(shard).collect(),
        ..MapParts::of("shop", ["n1"])
    };
    parts.try_into().unwrap()
}

fn split(map: &ShardMap, shard: ShardId, into: u32) -> (ShardMap, Vec<ShardId>) {
    let old = map.shard(shard).unwrap().clone();
    let bounds = old.bounds.split(into).unwrap();
    let ids = map.free_shards(bounds.len(), |_| false);
    let new: Vec<_> = ids.iter().copied().zip(bounds).collect();
    let new: Vec<_> =
        new.into_iter().map(|(id, bounds)| (id, Shard { bounds, ..old.clone() })).collect();
    (map.with_shards(&[shard], &new).unwrap(), ids)
}

#[test]
fn a_split_shard_is_gone_and_its_keys_are_its_childrens() {
    let (after, children) = split(&map(4), ShardId(1), 2);
    assert_eq!(children, [ShardId(4), ShardId(5)]);
    assert_eq!(after.epoch(), Epoch(2));
    assert!(after.shard(ShardId(1)).is_none());
    let live: Vec<u32> = after.shards().map(|(id, _)| id.0).collect();
    assert_eq!(live, [0, 2, 3, 4, 5]);
    assert_eq!(after.shard_of_hash(GroupId(0), 1), ShardId(4));
    assert_eq!(after.shard_of_hash(GroupId(0), 5), ShardId(5));
    assert_eq!(after.shard_of_hash(GroupId(0), 6), ShardId(2));
    // The next one takes the free id first.
    let (after, children) = split(&after, ShardId(0), 2);
    assert_eq!(children, [ShardId(1), ShardId(6)]);
    assert_eq!(after.shard_of_hash(GroupId(0), 8), ShardId(1));
}

#[test]
fn only_halves_of_halves_can_be_cut_and_only_siblings_merged() {
    let whole = Bounds::Hash { modulus: 4, remainder: 3 };
    for into in [0, 1, 3, 6, 1 << 30] {
        assert_eq!(whole.split(into), None, "into {into}");
    }
    let parts = whole.split(4).unwrap();
    assert_eq!(parts[2], Bounds::Hash { modulus: 16, remainder: 11 });
    assert_eq!(Bounds::merged(&parts), Some(whole.clone()));
    assert_eq!(
        Bounds::merged(&[parts[0].clone(), parts[2].clone()]),
        Some(whole.split(2).unwrap().remove(0))
    );
    assert_eq!(Bounds::merged(&[parts[0].clone(), parts[1].clone()]), None);
    assert_eq!(Bounds::merged(&[parts[0].clone(), parts[0].clone()]), None);
    assert_eq!(Bounds::merged(&parts[..1]), None);
    let uneven =
        [Bounds::Hash { modulus: 3, remainder: 0 }, Bounds::Hash { modulus: 3, remainder: 1 }];
    assert_eq!(Bounds::merged(&uneven), None);
}

#[test]
fn a_change_that_leaves_a_gap_or_an_overlap_is_refused() {
    let map = map(4);
    let half = map.shard(ShardId(1)).unwrap().bounds.split(2).unwrap().remove(0);
    let shard = Shard { bounds: half, ..map.shard(ShardId(1)).unwrap().clone() };
    assert!(map.with_shards(&[ShardId(1)], &[(ShardId(4), shard.clone())]).is_err());
    assert!(map.with_shards(&[], &[(ShardId(4), shard)]).is_err());
    assert!(map.with_shards(&[ShardId(9)], &[]).is_err());
}

proptest! {
    #[test]
    fn every_key_has_one_shard_whatever_was_split(
        splits in prop::collection::vec((0..64u32, 1..3u32), 0..8),
        hash in any::<u64>(),
    ) {
        let mut now = map(4);
        for (which, doublings) in splits {
            let live: Vec<_> = now.shards().map(|(id, _)| id).collect();
            let shard = live[which as usize % live.len()];
            now = split(&now, shard, 1 << doublings).0;
        }
        let id = now.shard_of_hash(GroupId(0), hash);
        let Some(Shard { bounds: Bounds::Hash { modulus, remainder }, .. }) = now.shard(id) else {
            panic!("{id} is not there");
        };
        prop_assert_eq!(hash % u64::from(*modulus), u64::from(*remainder));
    }
}

fn int(value: i64) -> KeyValue {
    KeyValue::Int(value)
}

fn range(from: Option<&[i64]>, to: Option<&[i64]>) -> Bounds {
    let cut = |cut: &[i64]| cut.iter().copied().map(int).collect();
    Bounds::Range { from: from.map(cut), to: to.map(cut) }
}

fn map_of(key: &[KeyType], bounds: &[Bounds]) -> Option<ShardMap> {
    let shard =
        |bounds: &Bounds| Shard { group: GroupId(0), bounds: bounds.clone(), node: NodeId(0) };
    let parts = MapParts {
        groups: vec![Group { name: "shop".to_owned(), key: key.to_vec() }],
        shards: bounds.iter().map(shard).collect(),
        ..map(1).into()
    };
    parts.try_into().ok()
}

#[test]
fn ranges_must_meet_and_lists_must_not_overlap() {
    let one = |bounds: &[Bounds]| map_of(&[KeyType::Int8], bounds).is_some();
    assert!(one(&[range(None, None)]));
    assert!(one(&[range(Some(&[5]), None), range(None, Some(&[5]))]));
    assert!(!one(&[range(None, Some(&[5]))]));
    assert!(!one(&[range(None, Some(&[5])), range(Some(&[6]), None)]));
    assert!(!one(&[range(None, Some(&[6])), range(Some(&[5]), None)]));
    assert!(!one(&[range(None, None), range(None, None)]));
    assert!(!one(&[range(None, Some(&[5, 1])), range(Some(&[5, 1]), None)]));
    let list = |values: &[i64]| Bounds::List(values.iter().copied().map(int).collect());
    let others = |values: &[i64]| Bounds::Others(values.iter().copied().map(int).collect());
    assert!(one(&[list(&[1, 2]), list(&[3])]));
    assert!(!one(&[list(&[1, 2]), list(&[2])]));
    assert!(one(&[list(&[1, 2]), others(&[2, 1])]));
    assert!(!one(&[list(&[1, 2]), others(&[1])]));
    assert!(!one(&[list(&[1]), others(&[1]), others(&[1])]));
    assert!(!one(&[list(&[1]), range(None, None)]));
    assert!(map_of(&[KeyType::Int8, KeyType::Int8], &[list(&[1])]).is_none());
}

#[test]
fn a_range_is_cut_inside_of_itself_and_neighbours_are_merged() {
    let whole = range(Some(&[10]), Some(&[20]));
    let cut = |at: &[i64]| whole.split_at(&at.iter().copied().map(int).collect());
    assert_eq!(cut(&[15]).unwrap()[1], range(Some(&[15]), Some(&[20])));
    assert_eq!(cut(&[10, 3]).unwrap()[0], range(Some(&[10]), Some(&[10, 3])));
    for at in [&[10][..], &[20], &[20, 1], &[9, 5], &[]] {
        assert_eq!(cut(at), None, "{at:?}");
    }
    let mut parts = cut(&[15]).unwrap();
    parts.reverse();
    assert_eq!(Bounds::merged(&parts), Some(whole.clone()));
    assert_eq!(Bounds::merged(&[whole.clone(), range(Some(&[21]), None)]), None);
    assert!(whole.is_wider_than(&parts[0]) && !parts[0].is_wider_than(&whole));
    assert!(!whole.is_wider_than(&whole));
    assert!(range(None, None).is_wider_than(&whole));
}

#[test]
fn values_leave_a_list_and_come_back() {
    let list = |values: &[i64]| Bounds::List(values.iter().copied().map(int).collect());
    let others = Bounds::Others(vec![int(1), KeyValue::Null]);
    let off = |bounds: &Bounds, values: &[i64]| {
        bounds.split_off(&values.iter().copied().map(int).collect::<Vec<_>>())
    };
    assert_eq!(off(&list(&[1, 2, 3]), &[2]).unwrap(), [list(&[1, 3]), list(&[2])]);
    assert_eq!(off(&list(&[1, 2]), &[1, 2]), None);
    assert_eq!(off(&list(&[1, 2]), &[3]), None);
    assert_eq!(off(&list(&[1, 2]), &[]), None);
    let parts = off(&others, &[7, 7]).unwrap();
    assert_eq!(parts[0], Bounds::Others(vec![int(1), KeyValue::Null, int(7)]));
    assert_eq!(off(&others, &[1]), None);
    assert_eq!(Bounds::merged(&parts), Some(others.clone()));
    assert!(others.is_wider_than(&parts[0]) && others.is_wider_than(&parts[1]));
    assert_eq!(Bounds::merged(&[list(&[1]), list(&[2])]), Some(list(&[1, 2])));
    assert_eq!(Bounds::merged(&[list(&[1]), list(&[1])]), None);
}

proptest! {
    #[test]
    fn the_shard_of_a_key_is_the_one_whose_range_holds_it(
        mut cuts in prop::collection::vec(prop::collection::vec(-4..5_i64, 1..3), 0..6),
        key in prop::collection::vec(-5..6_i64, 2..3),
        limits in prop::collection::vec((0..3_usize, -5..6_i64), 0..3),
    ) {
        cuts.sort();
        cuts.dedup();
        let ends: Vec<Option<&[i64]>> =
            std::iter::once(None).chain(cuts.iter().map(|cut| Some(cut.as_slice()))).collect();
        let bounds: Vec<Bounds> = (0..ends.len())
            .map(|at| range(ends[at], ends.get(at + 1).copied().flatten()))
            .collect();
        let map = map_of(&[KeyType::Int8, KeyType::Int8], &bounds).unwrap();
        let holds = |at: usize| {
            ends[at].is_none_or(|from| from <= key.as_slice())
                && ends.get(at + 1).copied().flatten().is_none_or(|to| key.as_slice() < to)
        };
        let expected = (0..ends.len()).find(|at| holds(*at)).unwrap();
        let values: Vec<KeyValue> = key.iter().copied().map(int).collect();
        let shard = map.shard_of(GroupId(0), &values);
        prop_assert_eq!(shard.map(ShardId::index), Some(expected));
        let null = [values[0].clone(), KeyValue::Null];
        prop_assert_eq!(map.shard_of(GroupId(0), &null), None);
        // Limits never leave out the shard of a key that is within them.
        let limits: Vec<(Limit, KeyValue)> = limits
            .into_iter()
            .map(|(kind, value)| ([Limit::Below, Limit::AtMost, Limit::AtLeast][kind], int(value)))
            .collect();
        let within = limits.iter().all(|(limit, value)| match limit {
            Limit::Below => values[0] < *value,
            Limit::AtMost => values[0] <= *value,
            Limit::AtLeast => values[0] >= *value,
        });
        let shards = map.directory(GroupId(0)).shards_within(&limits).unwrap();
        prop_assert!(!within || shards.contains(&shard.unwrap()));
    }
}

#[test]
fn a_group_comes_with_one_shard_beside_what_is_there() {
    let before = map(2);
    let new = NewGroup {
        name: "old_tables".to_owned(),
        key: vec![KeyType::Int8],
        shard: before.free_shards(1, |shard| shard == ShardId(2))[0],
        bounds: Bounds::whole(Method::Hash),
        node: NodeId(0),
        tables: vec![(TableName::new("public", "orders"), vec!["id".to_owned()], Vec::new())],
        functions: vec![(TableName::new("public", "f"), vec![1])],
    };
    let after = before.with_group(&new).unwrap();
    let group = after.group_named("old_tables").unwrap();
    assert_eq!((group, new.shard), (GroupId(1), ShardId(3)));
    assert_eq!(after.epoch(), before.epoch().next());
    assert_eq!(after.shard_of(group, &[KeyValue::Int(7)]), Some(ShardId(3)));
    assert_eq!(after.shards().map(|(id, _)| id.0).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(after.declared().functions[0].group, group);
    assert!(after.with_group(&new).is_err(), "twice");
    assert!(before.with_group(&NewGroup { shard: ShardId(1), ..new }).is_err(), "taken");
}

#[test]
fn tables_that_join_a_group_take_its_shards_and_leave_no_group_behind() {
    let before = map(2);
    let new = |name: &str, table: &str, key, shard| NewGroup {
        name: name.to_owned(),
        key: vec![key],
        shard: ShardId(shard),
        bounds: Bounds::whole(Method::Hash),
        node: NodeId(0),
        tables: vec![(TableName::new("public", table), vec!["id".to_owned()], Vec::new())],
        functions: vec![(TableName::new("public", table), vec![1])],
    };
    let arriving = before.with_group(&new("arriving", "orders", KeyType::Int8, 2)).unwrap();
    let both = arriving.with_group(&new("later", "people", KeyType::Text, 3)).unwrap();
    let after = both.with_joined(GroupId(1), GroupId(0)).unwrap();
    assert_eq!(after.groups().iter().map(|it| &it.name).collect::<Vec<_>>(), ["shop", "later"]);
    assert_eq!(after.tables_of(GroupId(0)).count(), 1);
    assert_eq!(after.tables_of(GroupId(1)).next().unwrap().name.name, "people");
    assert_eq!(after.shards().map(|(id, _)| id.0).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(after.shard(ShardId(3)).unwrap().group, GroupId(1));
    let groups: Vec<_> = after.declared().functions.iter().map(|it| it.group.0).collect();
    assert_eq!(groups, [0, 1]);
    // Whoever looked at the map before does not see the rows.
    assert_eq!(after.joined(GroupId(0)), Some(both.epoch().next()));
    assert_eq!(after.joined(GroupId(1)), None);
    assert!(both.with_joined(GroupId(2), GroupId(0)).is_err(), "another key");
    assert!(both.with_joined(GroupId(0), GroupId(0)).is_err(), "itself");
}
