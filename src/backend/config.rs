//! Limits of the connections to the nodes.

use std::time::Duration;

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pool_size: 40,
            checkout_timeout_ms: 15_000,
            connect_timeout_ms: 5_000,
            idle_timeout_s: 600,
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
}
