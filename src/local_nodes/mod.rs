//! PostgreSQL nodes on this machine: `initdb`, start, stop. For `foreshard dev` and the tests.
//!
//! Stock binaries of the distribution, one folder a node, everything on loopback and trusted. It
//! knows nothing of shards.

mod account;
mod binaries;
mod cluster;
mod error;
mod node;
mod port;

pub use binaries::Binaries;
pub use error::LocalNodeError;
pub use node::{LocalNode, NodeSpec};
pub use port::free_ports;

#[cfg(test)]
mod tests;
