//! Named tasks that a stop drains. Every task of the proxy is spawned here.

mod tasks;

pub use tasks::Tasks;
