//! Counters → rates: of the last sample, and of each step that is over.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::counters::{Counters, Snapshot};
use super::history::History;
use super::ladder::Ladder;
use super::real;
use crate::ids::ShardId;
use crate::runtime::now_unix_ms;

/// What one shard did, per second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ShardRates {
    /// Statements that only read.
    pub reads: f64,
    /// Statements that may write.
    pub writes: f64,
    /// Rows returned or changed.
    pub rows: f64,
    /// Bytes relayed.
    pub bytes: f64,
    /// Busy seconds.
    pub busy: f64,
}

/// What all shards and nodes did, per second.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Rates {
    /// By shard id.
    pub shards: Vec<ShardRates>,
    /// The busy time of no shard, by node id.
    pub nodes: Vec<f64>,
}

impl ShardRates {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            busy: self.busy + other.busy,
        }
    }

    /// So many times as much.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            reads: self.reads * factor,
            writes: self.writes * factor,
            rows: self.rows * factor,
            bytes: self.bytes * factor,
            busy: self.busy * factor,
        }
    }
}

impl Rates {
    /// Adds others, shard by shard and node by node.
    pub(super) fn add(&mut self, others: &Self) {
        let shards = self.shards.len().max(others.shards.len());
        self.shards.resize(shards, ShardRates::default());
        let nodes = self.nodes.len().max(others.nodes.len());
        self.nodes.resize(nodes, 0.0);
        for (sum, other) in self.shards.iter_mut().zip(&others.shards) {
            *sum = sum.plus(*other);
        }
        self.nodes.iter_mut().zip(&others.nodes).for_each(|(sum, other)| *sum += other);
    }

    /// Makes everything so many times as much.
    pub(super) fn scale(&mut self, factor: f64) {
        self.shards.iter_mut().for_each(|rates| *rates = rates.times(factor));
        self.nodes.iter_mut().for_each(|busy| *busy *= factor);
    }
}

/// Turns totals into rates and history. Time is an argument.
#[derive(Debug)]
pub struct Recorder {
    ladder: Ladder,
    /// Of the finest steps, those that a late sample is spread over at the most.
    spread_max: u64,
    /// At the end of the last full step.
    step_begin: (u64, Snapshot),
    /// At the last sample.
    last: (u64, Snapshot),
    now: Rates,
}

impl Recorder {
    /// Goes on with the past from now.
    pub fn new(ladder: Ladder, now_unix_ms: u64, totals: Snapshot) -> Self {
        let now = rates(&totals, &totals, 1);
        let finer = ladder.base().step_ms() / ladder.finest_ms().max(1);
        Self {
            ladder,
            spread_max: SPREAD_STEPS_MAX * finer.max(1),
            step_begin: (now_unix_ms, totals.clone()),
            last: (now_unix_ms, totals),
            now,
        }
    }

    /// The rates since the sample before the last one.
    pub fn now(&self) -> &Rates {
        &self.now
    }

    /// All steps that are over, as long as those of the forecasts.
    pub fn history(&self) -> &History {
        self.ladder.base()
    }

    /// The past in all resolutions.
    pub fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// Gives a shard the past of others, by their shares, of the time before `unix_ms`.
    pub fn inherit(&mut self, heir: ShardId, from: &[(ShardId, f64)], unix_ms: u64) {
        self.ladder.inherit(heir, from, unix_ms);
    }

    /// Takes a sample. If a step has ended it goes into the history; if several have, because the
    /// sample was late, what was counted is spread over them.
    pub fn sample(&mut self, now_unix_ms: u64, totals: Snapshot) {
        let (last_ms, last) = &self.last;
        let Some(elapsed_ms) = now_unix_ms.checked_sub(*last_ms).filter(|ms| *ms > 0) else {
            // The clock stands or was set back: count on from here.
            self.last = (now_unix_ms, totals.clone());
            self.step_begin = (now_unix_ms, totals);
            return;
        };
        self.now = rates(last, &totals, elapsed_ms);
        let step_ms = self.ladder.finest_ms();
        let (begin_ms, begin) = &self.step_begin;
        let (first, end) = (begin_ms / step_ms, now_unix_ms / step_ms);
        if end > first {
            let rates = rates(begin, &totals, now_unix_ms - begin_ms);
            for step in first.max(end.saturating_sub(self.spread_max))..end {
                self.ladder.push(step, &rates);
            }
            self.step_begin = (now_unix_ms, totals.clone());
        }
        self.last = (now_unix_ms, totals);
    }
}

/// A sample that is later than so many steps of the forecasts leaves a gap, which the history
/// fills.
const SPREAD_STEPS_MAX: u64 = 10;

fn rates(before: &Snapshot, after: &Snapshot, elapsed_ms: u64) -> Rates {
    let seconds = Duration::from_millis(elapsed_ms).as_secs_f64();
    let rate = |before: u64, after: u64| real(after.saturating_sub(before)) / seconds;
    let shards = after.shards.iter().enumerate().map(|(index, after)| {
        let before = before.shards.get(index).copied().unwrap_or_default();
        ShardRates {
            reads: rate(before.reads, after.reads),
            writes: rate(before.writes, after.writes),
            rows: rate(before.rows, after.rows),
            bytes: rate(before.bytes, after.bytes),
            busy: rate(before.busy_nanos, after.busy_nanos) / 1e9,
        }
    });
    let nodes = after.nodes.iter().enumerate().map(|(index, after)| {
        let before = before.nodes.get(index).copied().unwrap_or_default();
        rate(before.busy_nanos, after.busy_nanos) / 1e9
    });
    Rates { shards: shards.collect(), nodes: nodes.collect() }
}

/// Samples the counters at each whole multiple of the interval, until the token is cancelled.
pub async fn sample(
    recorder: Arc<Mutex<Recorder>>,
    counters: Counters,
    interval: Duration,
    token: CancellationToken,
) {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    loop {
        let wait_ms = interval_ms - now_unix_ms() % interval_ms;
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
        }
        let totals = counters.snapshot();
        publish(&totals);
        let mut recorder = recorder.lock();
        recorder.sample(now_unix_ms(), totals);
        for (shard, rates) in recorder.now().shards.iter().enumerate() {
            metrics::gauge!("foreshard_load_busy_ratio", "shard" => shard.to_string())
                .set(rates.busy);
        }
        for (node, busy) in recorder.now().nodes.iter().enumerate() {
            metrics::gauge!("foreshard_load_node_busy_ratio", "node" => node.to_string())
                .set(*busy);
        }
    }
}

fn publish(totals: &Snapshot) {
    for (shard, totals) in totals.shards.iter().enumerate() {
        let shard = shard.to_string();
        for (access, count) in [("read", totals.reads), ("write", totals.writes)] {
            let labels = [("shard", shard.clone()), ("access", access.to_owned())];
            metrics::counter!("foreshard_load_statements_total", &labels).absolute(count);
        }
        metrics::counter!("foreshard_load_rows_total", "shard" => shard.clone())
            .absolute(totals.rows);
        metrics::counter!("foreshard_load_bytes_total", "shard" => shard).absolute(totals.bytes);
    }
    for (node, totals) in totals.nodes.iter().enumerate() {
        metrics::counter!("foreshard_load_node_statements_total", "node" => node.to_string())
            .absolute(totals.statements);
    }
}
