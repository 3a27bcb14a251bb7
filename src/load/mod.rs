//! Load of each shard and node: counters on the hot path, rates, bounded history.
//!
//! *Busy time* is the unit that adds up and that capacity is given in: seconds that a backend
//! connection worked for a shard, per second. This room keeps its history in memory, in several
//! resolutions; the controller stores it in the catalog, chunk by chunk.

mod config;
mod counters;
mod exporter;
mod history;
mod http;
mod keys;
mod ladder;
mod recorder;
mod samples;
mod sketch;

pub use config::Config;
pub use counters::{Access, Counters, NodeTotals, ShardTotals, Snapshot, Work};
pub use exporter::{Exported, Machine};
pub use history::{CHUNK_STEPS, Chunk, Columns, History};
pub use http::{FetchError, get, parts};
pub use keys::KeyRange;
pub use ladder::{Ladder, LadderPlan, Resolution};
pub use recorder::{Rates, Recorder, ShardRates, sample};

pub use samples::{Class, Held, SAMPLED_ONE_IN, Sample, Samples, Sieve};
pub use sketch::{Pair, ShardDetail, Sketch, StatementShare};

/// A count as a real number; exact up to 2^52.
fn real(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).map_or(f64::MAX, f64::from);
    let low = u32::try_from(count & 0xFFFF_FFFF).map_or(f64::MAX, f64::from);
    high * 4_294_967_296.0 + low
}

#[cfg(test)]
mod tests;
