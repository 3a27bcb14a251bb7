//! One service over the proxy's state; REST, the console, `/metrics` and health are thin skins on it.
//!
//! It runs on a thread and runtime of its own, so that a busy data plane can't starve health
//! checks. It never moves a shard: it writes the record of a move, which the mover sees.

mod console;
mod error;
mod jobs;
mod load;
mod metrics;
mod peers;
mod routes;
mod server;
mod service;
mod views;

pub use console::ApiConsole;
pub use error::ApiError;
pub use metrics::{Metrics, MetricsError};
pub use peers::Share;
pub use server::{AdminError, AdminServer};
pub use service::{Readiness, Reload, Service};

#[cfg(test)]
mod tests;
