//! What every integration test needs: PostgreSQL nodes, a database of its own, clients, patience.
//!
//! `mod support;` in `integration/<theme>.rs` gives it. Nodes are started once a test binary and
//! end with it, however it ends. Not every theme uses all of it.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary compiles its own copy and uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod database;
mod etcd;
pub mod gap;
pub mod link;
mod nodes;
mod proxy;
mod wait;

pub use database::{TestDatabase, connect, rows};
pub use etcd::{TestEtcd, lead_at};
pub use nodes::{TestNodes, shared_nodes, temp_folder};
pub use proxy::TestProxy;
pub use wait::eventually;
