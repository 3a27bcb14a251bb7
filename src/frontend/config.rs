//! Where clients connect, and limits on them.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where clients connect, and limits on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address and port that clients connect to.
    pub listen: SocketAddr,
    /// Threads that serve clients; 0 for one every two processors.
    pub workers: usize,
    /// The folder of a Unix socket that clients can connect to as well; its name is that of
    /// PostgreSQL's, with the port of `listen`.
    pub unix_socket_folder: Option<PathBuf>,
    /// Most clients at a time.
    pub max_clients: usize,
    /// How many of these are kept for superusers of the home node.
    pub reserved_clients: usize,
    /// How long a client may take to log in, in milliseconds.
    pub login_timeout_ms: u64,
    /// How long transactions under way may go on when the proxy stops, in milliseconds.
    pub shutdown_grace_ms: u64,
    /// The database that operators connect to for the console; nothing turns it off.
    pub console_database: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 6432)),
            workers: 0,
            unix_socket_folder: None,
            max_clients: 10_000,
            reserved_clients: 3,
            login_timeout_ms: 60_000,
            shutdown_grace_ms: 10_000,
            console_database: "foreshard".to_owned(),
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
            0 => available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2),
            count => count,
        }
    }
}
