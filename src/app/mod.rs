//! Composition root: builds, wires and drains; the command line.

mod proxy;

pub use proxy::{Proxy, ProxyConfig, StartError};
