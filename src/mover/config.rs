//! What an operator can set about moves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shard_move::Cause;

/// How moves are made. Every key is optional in the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many moves are under way at the same time.
    pub concurrent_moves: usize,
    /// How many shards move together, by one stream and one switch, when a node is drained.
    pub batch_shards: usize,
    /// The most that a copy sends, in bytes a second; 0 is no limit.
    pub copy_bytes_per_second: u64,
    /// About how much of a table is copied in one go, in bytes: a copy that is cut off goes on with
    /// what is left after that. Tables without a primary key are always copied in one go.
    pub copy_segment_bytes: u64,
    /// Changes of the stream after which a transaction at the destination ends; the transactions of the
    /// source stay whole.
    pub apply_batch_changes: usize,
    /// The stream counts as caught up when no more than this is left of it, in bytes of WAL, whoever
    /// wrote that; or when it gets within 100 ms to where the source was: on a server whose other databases
    /// are written to, more than this may always be left.
    pub lag_threshold_bytes: u64,
    /// How long a switch waits with a closed gate for statements under way, in ms.
    pub drain_deadline_ms: u64,
    /// How long a switch waits for its locks on the source with a closed gate, in ms.
    pub lock_timeout_ms: u64,
    /// How long a switch waits for the rest of the stream after the source gave up the shard, in
    /// ms; past it the source takes the shard back.
    pub marker_deadline_ms: u64,
    /// How often a switch tries to drain and lock, the gate open between, before it is put off.
    pub switch_tries: u32,
    /// The first wait after a switch was put off, in ms; doubles each time.
    pub switch_backoff_ms: u64,
    /// The longest wait between two tries of anything, in ms.
    pub backoff_max_ms: u64,
    /// How often a switch may be put off before the move is given up.
    pub postponements_max: u32,
    /// How often in a row an action may fail for a passing reason before the move is given up.
    pub failures_max: u32,
    /// How long the making of a slot waits for the transactions that run on the source, in ms.
    pub slot_deadline_ms: u64,
    /// How long the old copies are kept current after a switch that a person asked for, so that it
    /// can be reversed without loss, in ms; 0 for not at all.
    pub reversible_ms: u64,
    /// The same after a switch that the controller decided: the node that was to be relieved goes on
    /// applying the shard's writes meanwhile.
    pub reversible_automatic_ms: u64,
    /// How long a start waits for the nodes of a move that was being switched, in ms.
    pub recovery_deadline_ms: u64,
    /// What all databases of a node may come to, in bytes, by its name. A shard that would go beyond
    /// is not moved there.
    pub node_bytes_max: BTreeMap<String, u64>,
    /// Whether `df` is run on a node without such a limit, where the proxy's role may do that, so
    /// that a shard for which there is no room is not moved there.
    pub ask_free_space: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrent_moves: 1,
            batch_shards: 8,
            copy_bytes_per_second: 0,
            copy_segment_bytes: 256 << 20,
            apply_batch_changes: 5_000,
            lag_threshold_bytes: 256 << 10,
            drain_deadline_ms: 250,
            lock_timeout_ms: 20,
            marker_deadline_ms: 2_000,
            switch_tries: 5,
            switch_backoff_ms: 500,
            backoff_max_ms: 30_000,
            postponements_max: 100,
            failures_max: 10,
            slot_deadline_ms: 60_000,
            reversible_ms: 600_000,
            reversible_automatic_ms: 0,
            recovery_deadline_ms: 10_000,
            node_bytes_max: BTreeMap::new(),
            ask_free_space: true,
        }
    }
}

impl Config {
    /// The wait before try `tries` + 1 of something: doubles from `first_ms`, up to the most.
    pub(super) fn backoff(&self, first_ms: u64, tries: u32) -> Duration {
        let doubled = first_ms.saturating_mul(1u64 << tries.min(20));
        Duration::from_millis(doubled.min(self.backoff_max_ms))
    }

    /// How long the old copies of a move are kept, in ms.
    pub(super) fn kept_ms(&self, cause: &Cause) -> u64 {
        match cause {
            Cause::Operator => self.reversible_ms,
            Cause::Controller { .. } => self.reversible_automatic_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn an_empty_policy_gives_the_defaults_and_an_unknown_key_is_refused() {
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
        assert!(serde_json::from_str::<Config>("{\"drain_deadline\": 1}").is_err());
    }

    #[test]
    fn the_wait_doubles_up_to_the_most() {
        let config = Config { backoff_max_ms: 3_000, ..Config::default() };
        let waits: Vec<_> = (0..4).map(|tries| config.backoff(500, tries).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 3_000]);
        assert_eq!(config.backoff(500, u32::MAX).as_millis(), 3_000);
    }
}
