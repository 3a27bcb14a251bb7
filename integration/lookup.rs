//! Lookup tables: they follow every write, keep values unique over all nodes, and lead queries to one
//! node.
#![allow(unreachable_pub, reason = "what the parts of this test share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by a panic"
)]

#[path = "lookup/counted.rs"]
mod counted;
#[path = "lookup/definitions.rs"]
mod definitions;
#[path = "lookup/moves.rs"]
mod moves;
#[path = "lookup/reads.rs"]
mod reads;
#[path = "lookup/shop.rs"]
mod shop;
mod support;
#[path = "lookup/upserts.rs"]
mod upserts;
#[path = "lookup/writes.rs"]
mod writes;
