//! Samples in, a picture of each shard out.

use std::time::Duration;

use proptest::prelude::*;
use smallvec::smallvec;

use super::super::Access;
use super::super::samples::{Class, Held, Sample};
use super::{HALF_LIFE_S, Sketch};
use crate::ids::ShardId;
use crate::shard_map::{Bounds, KeyValue, hash_key};

fn sample(key: i64, text: &str, busy_ms: u64, inserts: bool) -> Sample {
    let key = KeyValue::Int(key);
    let hash = hash_key(std::slice::from_ref(&key));
    Sample {
        shards: smallvec![ShardId(3)],
        class: Class::Point,
        access: Access::Read,
        inserts,
        text: text.into(),
        key: Some((key, hash)),
        busy: Duration::from_millis(busy_ms),
    }
}

/// Numbers from 0 to 1 that look random.
fn chance() -> impl FnMut() -> f64 {
    let mut state = 0x9E37_79B9u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state) / f64::from(u32::MAX)
    }
}

fn held(statements: Vec<Sample>) -> Held {
    Held { statements, together: Vec::new() }
}

#[test]
fn a_key_that_has_a_tenth_of_the_statements_is_hot_and_its_share_is_known() {
    let (mut sketch, mut chance) = (Sketch::default(), chance());
    for turn in 0..200 {
        let keys = (0..100).map(|at| if at % 10 == 0 { 7 } else { 1_000 + turn * 100 + at });
        sketch.take(
            &held(keys.map(|key| sample(key, "q", 1, false)).collect()),
            1_000,
            &mut chance,
        );
    }
    let detail = sketch.of(ShardId(3)).unwrap();
    assert_eq!(detail.hot_keys.len(), 1, "{:?}", detail.hot_keys);
    let (key, share) = &detail.hot_keys[0];
    assert_eq!(key, "7");
    assert!((0.08..=0.1).contains(share), "{share}");
}

#[test]
fn a_few_samples_make_no_key_the_hottest() {
    let (mut sketch, mut chance) = (Sketch::default(), chance());
    let mut take = |keys: &[i64]| {
        let samples = keys.iter().map(|key| sample(*key, "q", 1, false)).collect();
        sketch.take(&held(samples), 1_000, &mut chance);
        sketch.hottest(ShardId(3)).map(|(share, ..)| share)
    };
    // Three of eight say little, 30 of 80 are no chance.
    let keys = [1, 1, 1, 2, 3, 4, 5, 6];
    assert_eq!(take(&keys), None);
    assert_eq!(take(&keys.repeat(9)), Some(0.375));
}

#[test]
fn the_split_key_halves_the_load_not_the_keys() {
    let (mut sketch, mut chance) = (Sketch::default(), chance());
    // Half of the load is on keys up to 100 of 10000.
    let keys = (0..20_000i64).map(|at| if at % 2 == 0 { at % 100 } else { at / 2 });
    sketch.take(&held(keys.map(|key| sample(key, "q", 1, false)).collect()), 1_000, &mut chance);
    let split: i64 = sketch.of(ShardId(3)).unwrap().split_key.unwrap().parse().unwrap();
    assert!((60..1500).contains(&split), "{split}");
    let half = sketch.first_half(ShardId(3), 4, 1).unwrap();
    assert!(half < 0.3, "keys of all remainders are here: {half}");
}

#[test]
fn keys_that_rise_are_told_from_those_that_come_in_any_order() {
    let direction = |keys: &mut dyn Iterator<Item = i64>| {
        let mut sketch = Sketch::default();
        let samples = keys.map(|key| sample(key, "INSERT", 1, true)).collect();
        sketch.take(&held(samples), 1_000, chance());
        sketch.of(ShardId(3)).unwrap().insert_direction
    };
    assert!(direction(&mut (0..300)) > 0.9);
    assert!(direction(&mut (0..300).rev()) < -0.9);
    assert!(direction(&mut (0..300).map(|at| at * 500 % 1009)).abs() < 0.6);
}

#[test]
fn statements_have_their_share_of_the_busy_time_and_what_is_old_fades() {
    let (mut sketch, mut chance) = (Sketch::default(), chance());
    let half_life_ms = Duration::from_secs_f64(HALF_LIFE_S).as_millis();
    let half_life_ms = u64::try_from(half_life_ms).unwrap();
    sketch.take(&held((0..100).map(|key| sample(key, "old", 1, false)).collect()), 1, &mut chance);
    let new = (0..50).map(|key| sample(key, "new", 3, false)).collect();
    sketch.take(&held(new), 1 + half_life_ms, &mut chance);
    let detail = sketch.of(ShardId(3)).unwrap();
    assert!((detail.samples - 100.0).abs() < 1e-6, "{}", detail.samples);
    let new = &detail.statements[0];
    assert_eq!(new.text, "new");
    assert!((new.share - 0.5).abs() < 1e-6 && (new.busy_share - 0.75).abs() < 1e-6, "{new:?}");
    assert!((detail.classes["point"] - 1.0).abs() < 1e-9);
    // A hundred half lives later nothing is left of it.
    let late = held(vec![sample(1, "late", 1, false)]);
    sketch.take(&late, 200 * half_life_ms, &mut chance);
    assert!((sketch.of(ShardId(3)).unwrap().samples - 1.0).abs() < 1e-6);
}

#[test]
fn shards_that_share_transactions_are_found() {
    let mut sketch = Sketch::default();
    let together =
        vec![smallvec![ShardId(2), ShardId(1)], smallvec![ShardId(1), ShardId(2), ShardId(5)]];
    sketch.take(&Held { statements: Vec::new(), together }, 1, chance());
    let pairs = sketch.pairs();
    assert_eq!(pairs.len(), 3);
    assert_eq!((pairs[0].first, pairs[0].second), (ShardId(1), ShardId(2)));
    assert!((pairs[0].transactions - 2.0).abs() < 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_it_stays_bounded_and_shares_stay_shares(
        keys in prop::collection::vec((any::<i64>(), 0u64..1000, any::<bool>()), 0..600),
        pauses in prop::collection::vec(0u64..100_000_000, 1..20),
    ) {
        let (mut sketch, mut chance) = (Sketch::default(), chance());
        let mut now = 1;
        for (chunk, pause) in keys.chunks(50).zip(pauses.iter().cycle()) {
            now += pause;
            let samples = chunk.iter().map(|(key, busy, inserts)| {
                sample(*key, &format!("q{}", key % 200), *busy, *inserts)
            });
            sketch.take(&held(samples.collect()), now, &mut chance);
        }
        let Some(detail) = sketch.of(ShardId(3)) else { return Ok(()) };
        prop_assert!(detail.statements.len() <= 20);
        let shares = detail.statements.iter().flat_map(|s| [s.share, s.busy_share]);
        prop_assert!(shares.chain(detail.hot_keys.iter().map(|(_, share)| *share))
            .all(|share| (-1e-9..=1.0 + 1e-9).contains(&share)), "{:?}", detail);
        prop_assert!(detail.insert_direction.abs() <= 1.0 && detail.samples.is_finite());
    }
}

#[test]
fn the_children_of_a_split_know_their_keys_and_a_later_shard_of_the_old_id_knows_nothing() {
    let (mut sketch, mut chance) = (Sketch::default(), chance());
    for turn in 0..100 {
        // Key 7 has half of the load.
        let keys = (0..20).map(|at| if at % 2 == 0 { 7 } else { turn * 20 + at });
        let samples = keys.map(|key| sample(key, "q", 1, false)).collect();
        sketch.take(&held(samples), 1_000, &mut chance);
    }
    let half = |remainder| Bounds::Hash { modulus: 2, remainder };
    let hot = hash_key(&[KeyValue::Int(7)]) % 2;
    let bounds = [half(0), half(1)];
    let heirs = [ShardId(8), ShardId(9)];
    let lanes: Vec<_> = heirs.iter().zip(&bounds).map(|(to, b)| (ShardId(3), *to, b)).collect();
    let shares: Vec<f64> = sketch.inherit(&lanes).into_iter().flatten().collect();
    assert!((shares[0] + shares[1] - 1.0).abs() < 1e-9, "{shares:?}");
    let (hot, cold) = if hot == 0 { (0, 1) } else { (1, 0) };
    assert!((0.65..0.85).contains(&shares[hot]), "{shares:?}");
    assert!(sketch.of(ShardId(3)).is_none());
    let (share, ..) = sketch.hottest(heirs[hot]).unwrap();
    assert!((0.55..0.8).contains(&share), "{share}");
    let others = sketch.of(heirs[cold]).unwrap();
    assert!(others.hot_keys.iter().all(|(key, _)| key != "7"), "{others:?}");
    // Merged again they know what they knew before.
    let whole = Bounds::Hash { modulus: 1, remainder: 0 };
    let lanes = heirs.map(|from| (from, ShardId(4), &whole));
    assert_eq!(sketch.inherit(&lanes), [Some(1.0), Some(1.0)]);
    let (share, ..) = sketch.hottest(ShardId(4)).unwrap();
    assert!((0.45..0.55).contains(&share), "{share}");
}

#[test]
fn ranges_and_lists_are_divided_by_their_keys() {
    let (mut sketch, mut chance) = (Sketch::default(), chance());
    let samples = (0..100).map(|key| sample(key, "q", 1, false)).collect();
    sketch.take(&held(samples), 1_000, &mut chance);
    let cut = |key: i64| Some(vec![KeyValue::Int(key)]);
    let bounds = [
        Bounds::Range { from: None, to: cut(25) },
        Bounds::Range { from: cut(25), to: None },
        Bounds::List((0..10).map(KeyValue::Int).collect()),
        Bounds::Others((0..10).map(KeyValue::Int).collect()),
    ];
    for (bounds, expected) in bounds.iter().zip([0.25, 0.75, 0.1, 0.9]) {
        let share = sketch.clone().inherit(&[(ShardId(3), ShardId(5), bounds)])[0].unwrap();
        assert!((share - expected).abs() < 1e-9, "{bounds:?}: {share}");
    }
}

#[test]
fn ranges_of_keys_have_about_equal_shares_and_a_hot_key_is_told_apart() {
    let (mut sketch, mut chance) = (Sketch::default(), chance());
    let keys = (0..240).map(|at| if at % 3 == 0 { 50 } else { at % 100 });
    sketch.take(&held(keys.map(|key| sample(key, "q", 1, false)).collect()), 1_000, &mut chance);
    let ranges = sketch.ranges(ShardId(3));
    let sum: f64 = ranges.iter().map(|range| range.share).sum();
    assert!((sum - 1.0).abs() < 1e-9 && (6..=10).contains(&ranges.len()), "{ranges:?}");
    let hot = ranges.iter().find(|range| range.first == "50").unwrap();
    assert!(hot.last == "50" && hot.share > 0.33, "{ranges:?}");
    let numbers: Vec<i64> = ranges.iter().map(|range| range.first.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{ranges:?}");
    assert_eq!(sketch.ranges(ShardId(4)), []);
}
