//! Steps in, coarser steps out.

use super::super::{CHUNK_STEPS, Chunk, Rates, ShardRates};
use super::{Ladder, LadderPlan, Resolution};
use crate::ids::ShardId;

const HOUR: u64 = 3_600_000;

fn plan() -> LadderPlan {
    LadderPlan {
        step_ms: 60_000,
        steps: 1_000,
        day_ms: 24 * HOUR,
        sample_ms: 5_000,
        samples_kept_ms: HOUR,
        ten_minutes_kept_ms: 24 * HOUR,
        hours_kept_ms: 400 * 24 * HOUR,
    }
}

fn rates(busy: [f64; 2]) -> Rates {
    let shard = |busy: f64| ShardRates { busy, reads: 10.0 * busy, ..ShardRates::default() };
    Rates { shards: busy.map(shard).to_vec(), nodes: vec![busy[0]] }
}

/// So many samples of a load that rises by one each sample; the second shard has twice that.
fn filled(samples: std::ops::Range<u32>) -> Ladder {
    let mut ladder = Ladder::new(&plan());
    for sample in samples {
        ladder.push(u64::from(sample), &rates([f64::from(sample), 2.0 * f64::from(sample)]));
    }
    ladder
}

fn chunks(ladder: &Ladder) -> Vec<Chunk> {
    let all = ladder.histories().flat_map(|history| {
        history.chunks_from(0).map(|number| history.chunk(number).unwrap()).collect::<Vec<_>>()
    });
    all.collect()
}

#[test]
fn each_coarser_step_is_the_mean_of_the_finer_ones_in_it() {
    let ladder = filled(0..1500);
    let minute = ladder.of(Resolution::Step).unwrap();
    assert_eq!(minute.len(), 125);
    assert_eq!(minute.shards()[0].busy[..3], [5.5, 17.5, 29.5]);
    let ten = ladder.of(Resolution::TenMinutes).unwrap();
    assert_eq!(ten.shards()[1].busy[..2], [119.0, 359.0]);
    assert_eq!(ten.len(), 12);
    let hour = ladder.of(Resolution::Hour).unwrap();
    assert_eq!(hour.shards()[0].reads, [3595.0, 10795.0]);
    assert_eq!(hour.nodes()[0], [359.5, 1079.5]);
    assert!(ladder.of(Resolution::Sample).unwrap().len() <= 720 + 90);
}

#[test]
fn a_restart_in_the_middle_of_an_hour_loses_nothing_of_it() {
    let whole = filled(0..1000);
    let mut restarted = Ladder::new(&plan());
    assert!(restarted.restore(chunks(&whole)).is_empty());
    assert_eq!(restarted, whole);
    let mut goes_on = whole.clone();
    for ladder in [&mut goes_on, &mut restarted] {
        (1000..1500u32).for_each(|s| ladder.push(u64::from(s), &rates([f64::from(s), 0.0])));
    }
    assert_eq!(goes_on.of(Resolution::Hour), restarted.of(Resolution::Hour));
    assert_eq!(restarted.of(Resolution::Hour).unwrap().len(), 2);
}

#[test]
fn chunks_of_a_step_length_that_is_not_kept_are_given_back() {
    let mut other = Ladder::new(&LadderPlan { sample_ms: 10_000, ..plan() });
    let stored = chunks(&filled(0..100));
    assert!(stored.iter().all(|chunk| chunk.number < CHUNK_STEPS));
    let useless = other.restore(stored);
    assert!(useless.iter().all(|chunk| chunk.step_ms == 5_000) && !useless.is_empty());
    assert_eq!(other.base().len(), 8);
}

#[test]
fn rungs_that_do_not_fit_are_left_out() {
    let day_of_seconds =
        Ladder::new(&LadderPlan { step_ms: 1_000, sample_ms: 500, day_ms: 40_000, ..plan() });
    assert_eq!(day_of_seconds.finest_ms(), 500);
    assert_eq!(day_of_seconds.base().step_ms(), 1_000);
    let odd = Ladder::new(&LadderPlan { step_ms: 7_000, ..plan() });
    assert_eq!(odd.histories().count(), 1);
    let hourly = Ladder::new(&LadderPlan { step_ms: HOUR, sample_ms: HOUR, ..plan() });
    assert_eq!(hourly.histories().count(), 1);
    assert_eq!(hourly.of(Resolution::Hour), None);
}

#[test]
fn the_children_of_a_split_get_its_past_by_share_and_a_merged_shard_the_sum() {
    let mut ladder = filled(0..600);
    let parent: Vec<f32> = ladder.base().shards()[1].busy.clone();
    for child in [2, 3] {
        ladder.inherit(ShardId(child), &[(ShardId(1), 0.5)], 20 * 60_000);
    }
    for child in [2, 3] {
        let busy = &ladder.base().shards()[child].busy;
        assert_eq!(busy[..20], parent[..20].iter().map(|v| v / 2.0).collect::<Vec<_>>());
        assert!(busy[20..].iter().all(|after| *after == 0.0), "after it they count themselves");
    }
    let parts = [(ShardId(2), 1.0), (ShardId(3), 1.0)];
    ladder.inherit(ShardId(4), &parts, 50 * 60_000);
    assert_eq!(ladder.base().shards()[4].busy[..20], parent[..20]);
    let hour = ladder.of(Resolution::TenMinutes).unwrap();
    assert_eq!(hour.shards()[4].reads[..2], hour.shards()[1].reads[..2]);
}
