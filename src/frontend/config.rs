//! Where clients connect, and limits on them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where clients connect, and limits on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address and port that clients connect to.
    pub listen: SocketAddr,
    /// Threads that serve clients; 0 for one a processor.
    pub workers: usize,
    /// Most clients at a time.
    pub max_clients: usize,
    /// How long a client may take to log in, in milliseconds.
    pub login_timeout_ms: u64,
    /// How long transactions under way may go on when the proxy stops, in milliseconds.
    pub shutdown_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 6432)),
            workers: 0,
            max_clients: 10_000,
            login_timeout_ms: 60_000,
            shutdown_grace_ms: 10_000,
        }
    }
}

impl Config {
    /// How long a client may take to log in.
    pub fn login_timeout(&self) -> Duration {
        Duration::from_millis(self.login_timeout_ms)
    }

    /// How long transactions under way may go on when the proxy stops.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }

    /// Threads that serve clients.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            count => count,
        }
    }
}
