//! What can be set about measuring load.

use serde::{Deserialize, Serialize};

/// How often load is sampled and stored. The length of a step of history is the forecast's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two samples.
    pub sample_interval_ms: u64,
    /// Time between two writes of history to the catalog: what a crash loses at the most, beside
    /// the step under way.
    pub store_interval_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { sample_interval_ms: 5_000, store_interval_ms: 10_000 }
    }
}

impl Config {
    /// What is wrong with it: the key and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !(100..=3_600_000).contains(&self.sample_interval_ms) {
            faults.push(("sample_interval_ms", "must be 100 to 3600000".to_owned()));
        }
        if !(1_000..=3_600_000).contains(&self.store_interval_ms) {
            faults.push(("store_interval_ms", "must be 1000 to 3600000".to_owned()));
        }
        faults
    }
}
