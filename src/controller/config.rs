//! What can be set about the loop.

use serde::{Deserialize, Serialize};

/// How often the controller looks, and what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two forecasts with a decision after each.
    pub forecast_interval_ms: u64,
    /// Time between two publications of the status.
    pub status_interval_ms: u64,
    /// Decisions kept in the catalog.
    pub decisions_kept: u64,
    /// Finished moves kept in the catalog.
    pub moves_kept: usize,
    /// A decision that nobody approves for this long is no longer possible.
    pub approval_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            forecast_interval_ms: 60_000,
            status_interval_ms: 5_000,
            decisions_kept: 500,
            moves_kept: 500,
            approval_timeout_ms: 900_000,
        }
    }
}

impl Config {
    /// What is wrong with it: the key and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (key, ms) in [
            ("forecast_interval_ms", self.forecast_interval_ms),
            ("status_interval_ms", self.status_interval_ms),
        ] {
            if !(100..=3_600_000).contains(&ms) {
                faults.push((key, "must be 100 to 3600000".to_owned()));
            }
        }
        if !(10..=100_000).contains(&self.decisions_kept) {
            faults.push(("decisions_kept", "must be 10 to 100000".to_owned()));
        }
        if !(10..=100_000).contains(&self.moves_kept) {
            faults.push(("moves_kept", "must be 10 to 100000".to_owned()));
        }
        if self.approval_timeout_ms == 0 {
            faults.push(("approval_timeout_ms", "must be at least 1".to_owned()));
        }
        faults
    }
}
