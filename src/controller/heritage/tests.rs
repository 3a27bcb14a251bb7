//! Splits, merges and new tables.

use parking_lot::Mutex;

use super::super::insight::Insight;
use super::super::planning::Past;
use super::{Heritage, from_siblings};
use crate::ids::{GroupId, MoveId, NodeId, ShardId};
use crate::load::{Ladder, LadderPlan, Rates, Recorder, ShardRates, Snapshot};
use crate::shard_map::{Bounds, Group, KeyType, MapParts, Shard, ShardMap};
use crate::shard_move::{Cause, Lane, Move, Part};

/// Shard 0 had a load of 4 for 100 seconds.
fn recorder() -> Mutex<Recorder> {
    let mut ladder = Ladder::new(&LadderPlan {
        step_ms: 1000,
        steps: 400,
        day_ms: 40_000,
        sample_ms: 1000,
        samples_kept_ms: 0,
        ten_minutes_kept_ms: 600_000,
        hours_kept_ms: 0,
    });
    let busy = ShardRates { busy: 4.0, ..ShardRates::default() };
    (0..100).for_each(|step| ladder.push(step, &Rates { shards: vec![busy], nodes: vec![0.0] }));
    Mutex::new(Recorder::new(ladder, 100_000, Snapshot::default()))
}

/// Shard 0 becomes 1 and 2; not switched yet.
fn split() -> Move {
    let part = |shard, modulus, remainder| Part {
        shard: ShardId(shard),
        node: NodeId(0),
        bounds: Bounds::Hash { modulus, remainder },
    };
    let lane = |target| Lane { source: part(0, 1, 0), target, tables: Vec::new() };
    let lanes = vec![lane(part(1, 2, 0)), lane(part(2, 2, 1))];
    Move::of_lanes(MoveId(7), lanes, Cause::Operator, 50_000)
}

#[test]
fn children_inherit_once_and_only_after_the_switch() {
    let (recorder, mut heritage, mut split) = (recorder(), Heritage::default(), split());
    let insight = Insight::default();
    let mut settle =
        |moves: &[Move]| (heritage.settle(moves, &recorder, &insight), heritage.clone());
    assert!(settle(&[split.clone()]).0.is_empty());
    split.switched_unix_ms = Some(80_000);
    let (heirs, known) = settle(&[split.clone()]);
    assert_eq!(heirs, [ShardId(1), ShardId(2)]);
    let past: Vec<f32> = recorder.lock().history().shards()[2].busy.clone();
    assert_eq!((past[79], past[80]), (2.0, 0.0));
    assert!(settle(&[split]).0.is_empty(), "a second look changes nothing");
    let again: Heritage = serde_json::from_slice(&serde_json::to_vec(&known).unwrap()).unwrap();
    assert_eq!(again, known);
    let (heirs, known) = settle(&[]);
    assert!(heirs.is_empty());
    assert_eq!(known, Heritage::default(), "moves that are gone are forgotten");
}

#[test]
fn a_new_shard_gets_the_shape_of_its_siblings_at_its_own_level() {
    let shard = |(group, remainder)| Shard {
        group: GroupId(group),
        bounds: Bounds::Hash { modulus: 2, remainder },
        node: NodeId(0),
    };
    let group = |name: &str| Group { name: name.to_owned(), key: vec![KeyType::Int8] };
    let map: ShardMap = MapParts {
        groups: vec![group("old"), group("new")],
        shards: [(0, 0), (0, 1), (1, 0), (1, 1)].map(shard).to_vec(),
        ..MapParts::of("shop", ["n1"])
    }
    .try_into()
    .unwrap();
    let wave = |step: u32| if step % 10 < 5 { 1.0 } else { 3.0 };
    let old: Vec<f64> = (0..100).map(wave).collect();
    let young = |factor: f64| -> Vec<f64> {
        old.iter().enumerate().map(|(at, v)| if at < 80 { 0.0 } else { factor * v }).collect()
    };
    let shards = vec![old.clone(), young(2.0), young(0.5), vec![0.0; 100]];
    let mut past = Past { shards, steps: 100, ..Past::default() };
    from_siblings(&mut past, &map);
    let times = |factor: f64| old.iter().map(|v| factor * v).collect::<Vec<_>>();
    assert_eq!(past.shards[0], old);
    assert_eq!(past.shards[1], times(2.0));
    assert_eq!(past.shards[2], times(0.5), "all of its group is new: the others are its siblings");
    assert_eq!(past.shards[3], vec![0.0; 100], "what never did anything stays idle");
}
