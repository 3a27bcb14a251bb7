//! The real program as a process in front of test nodes, clients that know what they wrote, and what
//! must be true afterwards.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary compiles its own copy and uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

mod aftermath;
mod deployment;
mod pgbench;
mod process;
mod writers;

pub use aftermath::Aftermath;
pub use deployment::{Deployment, connect, said};
pub use pgbench::{Mode, Pgbench};
pub use process::Serving;
pub use writers::{Writers, Written};

/// Tenants 1 to this many have an account.
pub const TENANTS: i64 = 160;
/// How many shards the group has.
pub const SHARDS: u32 = 8;
