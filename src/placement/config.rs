//! What can be set about placement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is done with a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is proposed.
    Off,
    /// It is recorded.
    #[default]
    Advise,
    /// It waits until somebody approves it.
    Approve,
    /// It is carried out.
    Auto,
}

/// When a move is worth it, and how many there may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is done with a proposal.
    pub mode: Mode,
    /// The load that a node can bear, in busy seconds a second.
    pub node_capacity: f64,
    /// The same for single nodes, by name.
    pub node_capacities: BTreeMap<String, f64>,
    /// The share of its capacity that a node is planned to use at the most.
    pub target_utilization: f64,
    /// How long a move takes, as long as none was seen.
    pub expected_move_ms: u64,
    /// The share of a node's capacity that a move costs source and destination while it runs.
    pub move_overhead: f64,
    /// How long after the end of a move its benefit counts.
    pub window_ms: u64,
    /// What a move costs beside its overhead, in overload-seconds; the hysteresis.
    pub price_overload_seconds: f64,
    /// A node whose load stays below its planned capacity with all but this probability is left
    /// alone.
    pub risk_min: f64,
    /// How much the forecast errors of shards go together: 0 not at all, 1 entirely.
    pub error_correlation: f64,
    /// A shard may be split whose load has at least this share of its node's capacity; above 1,
    /// none is.
    pub split_share_min: f64,
    /// Two halves of a former shard are merged whose load together stays below this share of their
    /// node's capacity for a day; with 0, none are.
    pub merge_share_max: f64,
    /// No shard is split for which a node would have more shards than this: each costs planning time
    /// and memory.
    pub shards_per_node_max: usize,
    /// Moves under way at once.
    pub concurrent_moves_max: usize,
    /// Moves under way at once of which a node is source or destination.
    pub concurrent_moves_per_node_max: usize,
    /// A shard that moved is left where it is for this long.
    pub shard_rest_ms: u64,
    /// With less history than this, proposals are advice only.
    pub warm_up_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        const MINUTE_MS: u64 = 60_000;
        Self {
            mode: Mode::Advise,
            node_capacity: 4.0,
            node_capacities: BTreeMap::new(),
            target_utilization: 0.95,
            expected_move_ms: 15 * MINUTE_MS,
            move_overhead: 0.1,
            window_ms: 60 * MINUTE_MS,
            price_overload_seconds: 18.0,
            risk_min: 0.1,
            error_correlation: 0.25,
            split_share_min: 0.2,
            merge_share_max: 0.02,
            shards_per_node_max: 64,
            concurrent_moves_max: 2,
            concurrent_moves_per_node_max: 1,
            shard_rest_ms: 60 * MINUTE_MS,
            warm_up_ms: 0,
        }
    }
}

impl Config {
    /// The capacity of the node of this name, in busy seconds a second.
    pub fn capacity_of(&self, node: &str) -> f64 {
        self.node_capacities.get(node).copied().unwrap_or(self.node_capacity)
    }

    /// What is wrong with it: the key and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.node_capacity) {
            faults.push(("node_capacity", "must be above 0".to_owned()));
        }
        for (node, capacity) in &self.node_capacities {
            if !positive(*capacity) {
                faults.push(("node_capacities", format!("{node:?} must be above 0")));
            }
        }
        let shares = [
            ("move_overhead", self.move_overhead),
            ("risk_min", self.risk_min),
            ("error_correlation", self.error_correlation),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                faults.push((key, "must be from 0 to 1".to_owned()));
            }
        }
        if !positive(self.target_utilization) || self.target_utilization > 2.0 {
            faults.push(("target_utilization", "must be above 0 and 2 at the most".to_owned()));
        }
        if !(0.01..=10.0).contains(&self.split_share_min) {
            faults.push(("split_share_min", "must be from 0.01 to 10".to_owned()));
        }
        if !(0.0..=0.5).contains(&self.merge_share_max) {
            faults.push(("merge_share_max", "must be from 0 to 0.5".to_owned()));
        }
        if !self.price_overload_seconds.is_finite() || self.price_overload_seconds < 0.0 {
            faults.push(("price_overload_seconds", "must be a number from 0 up".to_owned()));
        }
        for (key, limit) in [
            ("concurrent_moves_max", self.concurrent_moves_max),
            ("concurrent_moves_per_node_max", self.concurrent_moves_per_node_max),
            ("shards_per_node_max", self.shards_per_node_max),
        ] {
            if limit == 0 {
                faults.push((key, "must be at least 1".to_owned()));
            }
        }
        faults
    }
}
