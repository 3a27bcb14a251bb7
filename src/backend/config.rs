//! Limits of the connections to the nodes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

/// Limits of the connections to the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most connections to one node for one user and database, over all workers.
    pub pool_size: u32,
    /// How long a statement waits for a connection of its pool, in milliseconds.
    pub checkout_timeout_ms: u64,
    /// How long opening a connection and logging in may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a connection may be idle before it is closed, in seconds.
    pub idle_timeout_s: u64,
    /// How old a connection may become before it is closed between two transactions, in seconds;
    /// 0 for no limit.
    pub lifetime_s: u64,
    /// A connection that was idle for this long is asked for a sign of life before its next use, in
    /// milliseconds.
    pub check_after_ms: u64,
    /// Most connections to one node, of all users and databases.
    pub node_connections_max: u32,
    /// Most connections to all nodes.
    pub connections_max: u32,
    /// Prepared statements that a connection keeps; those that were used longest ago go first.
    pub prepared_statements_max: usize,
    /// How many reads of one row or few, of different sessions, may share a round trip of a connection;
    /// 1 for none.
    pub shared_reads_max: u32,
    /// When a session's connection may serve another one.
    pub pool_mode: PoolMode,
}

/// The limits in force, which a reload may change.
pub type LiveConfig = Arc<ArcSwap<Config>>;

/// When a session's connection may serve another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// After each transaction, unless it has left state there.
    #[default]
    Transaction,
    /// When the session has ended.
    Session,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pool_size: 40,
            checkout_timeout_ms: 15_000,
            connect_timeout_ms: 5_000,
            idle_timeout_s: 600,
            lifetime_s: 3_600,
            check_after_ms: 30_000,
            node_connections_max: 200,
            connections_max: 1_000,
            prepared_statements_max: 500,
            shared_reads_max: 8,
            pool_mode: PoolMode::Transaction,
        }
    }
}

impl Config {
    /// How long a statement waits for a connection.
    pub fn checkout_timeout(&self) -> Duration {
        Duration::from_millis(self.checkout_timeout_ms)
    }

    /// How long opening a connection may take.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// How long a connection may be idle.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s)
    }

    /// How old a connection may become; `None` for no limit.
    pub fn lifetime(&self) -> Option<Duration> {
        (self.lifetime_s > 0).then(|| Duration::from_secs(self.lifetime_s))
    }

    /// After how long without use a connection is asked for a sign of life.
    pub fn check_after(&self) -> Duration {
        Duration::from_millis(self.check_after_ms)
    }
}
