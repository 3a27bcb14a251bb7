//! Maps whose shards are split and merged.

use proptest::prelude::*;

use super::{Bounds, Derived, Group, KeyType, MapParts, Node, Shard, ShardMap};
use crate::ids::{Epoch, GroupId, NodeId, ShardId};

fn map(shards: u32) -> ShardMap {
    let shard = |remainder| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus: shards, remainder },
        node: NodeId(0),
    };
    let parts = MapParts {
        epoch: Epoch(1),
        database: "shop".to_owned(),
        home: NodeId(0),
        nodes: vec![Node { name: "n1".to_owned() }],
        groups: vec![Group { name: "shop".to_owned(), key: vec![KeyType::Int8] }],
        shards: (0..shards).map(shard).collect(),
        tables: Vec::new(),
        derived: Derived::default(),
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
    assert_eq!(Bounds::merged(&parts), Some(whole));
    assert_eq!(Bounds::merged(&[parts[0], parts[2]]), Some(whole.split(2).unwrap()[0]));
    assert_eq!(Bounds::merged(&[parts[0], parts[1]]), None);
    assert_eq!(Bounds::merged(&[parts[0], parts[0]]), None);
    assert_eq!(Bounds::merged(&parts[..1]), None);
    let uneven =
        [Bounds::Hash { modulus: 3, remainder: 0 }, Bounds::Hash { modulus: 3, remainder: 1 }];
    assert_eq!(Bounds::merged(&uneven), None);
}

#[test]
fn a_change_that_leaves_a_gap_or_an_overlap_is_refused() {
    let map = map(4);
    let half = map.shard(ShardId(1)).unwrap().bounds.split(2).unwrap()[0];
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
