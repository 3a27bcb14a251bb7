//! Samples in, rates and history out.

use super::{
    CHUNK_STEPS, Chunk, History, Ladder, LadderPlan, NodeTotals, Rates, Recorder, ShardTotals,
    Snapshot,
};

/// Totals of one shard and one node after so many statements of a millisecond.
fn totals(statements: u64) -> Snapshot {
    Snapshot {
        shards: vec![ShardTotals {
            reads: statements,
            writes: 0,
            busy_nanos: statements * 1_000_000,
            rows: statements * 3,
            bytes: statements * 100,
        }],
        nodes: vec![NodeTotals { statements, busy_nanos: statements * 500_000 }],
    }
}

fn rates(busy: f64) -> Rates {
    let shard = super::ShardRates { busy, ..super::ShardRates::default() };
    Rates { shards: vec![shard], nodes: vec![busy] }
}

/// Steps of a second, sampled once in each.
fn seconds() -> Ladder {
    Ladder::new(&LadderPlan {
        step_ms: 1000,
        steps: 400,
        day_ms: 40_000,
        sample_ms: 1000,
        samples_kept_ms: 0,
        ten_minutes_kept_ms: 0,
        hours_kept_ms: 0,
    })
}

fn busy(history: &History) -> &[f32] {
    &history.shards()[0].busy
}

#[test]
fn totals_become_rates_of_each_step() {
    let mut recorder = Recorder::new(seconds(), 10_000, totals(0));
    recorder.sample(10_500, totals(50));
    assert!((recorder.now().shards[0].reads - 100.0).abs() < 1e-9);
    assert!(recorder.history().is_empty());
    recorder.sample(11_000, totals(60));
    assert!((recorder.now().shards[0].reads - 20.0).abs() < 1e-9);
    assert_eq!(busy(recorder.history()), [0.06]);
    assert_eq!(recorder.history().nodes()[0], [0.03]);
    assert_eq!(recorder.history().first_step(), 10);
}

#[test]
fn a_late_sample_spreads_what_was_counted_over_the_steps() {
    let mut recorder = Recorder::new(seconds(), 10_000, totals(0));
    recorder.sample(11_000, totals(100));
    recorder.sample(14_000, totals(400));
    assert_eq!(busy(recorder.history()), [0.1; 4]);
}

#[test]
fn a_clock_that_is_set_back_does_no_harm() {
    let mut recorder = Recorder::new(seconds(), 10_000, totals(0));
    recorder.sample(12_000, totals(200));
    recorder.sample(5_000, totals(300));
    recorder.sample(6_000, totals(400));
    assert_eq!(busy(recorder.history()), [0.1, 0.1]);
    recorder.sample(13_000, totals(1100));
    assert_eq!(recorder.history().end_step(), 13);
}

#[test]
fn a_gap_is_filled_from_the_day_before() {
    let mut history = History::new(1000, 4, 100);
    for (step, value) in (20..).zip([1.0, 2.0, 3.0, 4.0, 5.0]) {
        history.push(step, &rates(value));
    }
    history.push(28, &rates(9.0));
    assert_eq!(busy(&history), [1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 3.0, 4.0, 9.0]);
    let mut young = History::new(1000, 4, 100);
    young.push(20, &rates(1.0));
    young.push(23, &rates(2.0));
    assert_eq!(busy(&young), [1.0, 1.0, 1.0, 2.0]);
}

#[test]
fn history_is_bounded_and_a_gap_longer_than_it_starts_anew() {
    let mut history = History::new(1000, 4, 16);
    for step in 0..1000u32 {
        history.push(u64::from(step), &rates(f64::from(step)));
        assert!(history.len() <= 18);
    }
    assert_eq!(history.end_step(), 1000);
    assert_eq!(busy(&history).last(), Some(&999.0));
    history.push(2000, &rates(1.0));
    assert_eq!(busy(&history), [1.0]);
}

#[test]
fn history_comes_back_from_its_chunks() {
    let mut history = History::new(1000, 40, 1000);
    for step in 50..250u32 {
        history.push(u64::from(step), &rates(f64::from(step) / 7.0));
    }
    let chunks: Vec<Chunk> = history
        .chunks_from(0)
        .map(|number| history.chunk(number).unwrap())
        .map(|chunk| serde_json::from_slice(&serde_json::to_vec(&chunk).unwrap()).unwrap())
        .collect();
    assert_eq!(chunks.len(), 5);
    assert_eq!(chunks[1].first_step, CHUNK_STEPS);
    let mut restored = History::new(1000, 40, 1000);
    assert!(chunks.iter().all(|chunk| restored.restore(chunk)));
    assert_eq!(restored, history);
    assert!(!History::new(2000, 40, 1000).restore(&chunks[0]));
    assert_eq!(history.chunks_from(249), 4..5);
    assert!(History::new(1000, 40, 10).chunks_from(0).is_empty());
}
