//! Ranges, lists and keys of every type: the proxy puts each row where PostgreSQL does, answers as one
//! server does, and moves, splits and merges such shards.
#![allow(unreachable_pub, reason = "what the parts of this test share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic"
)]

#[path = "keys/bounds.rs"]
mod bounds;
#[path = "keys/hints.rs"]
mod hints;
#[path = "keys/shop.rs"]
mod shop;
#[path = "keys/splits.rs"]
mod splits;
#[path = "keys/statements.rs"]
mod statements;
mod support;
