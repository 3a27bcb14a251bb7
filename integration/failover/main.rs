//! Several proxies on a catalog in a real etcd, of which one serves or all do: one is killed, stopped
//! and woken again, cut off, stopped in order; and etcd itself goes away and comes back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod access;
mod catalog;
mod jobs;
#[path = "../login_support/certificates.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of logging in")]
mod certificates;
mod pair;
#[path = "../process_support/mod.rs"]
mod process_support;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod together;
