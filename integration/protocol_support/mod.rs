//! A client at the level of bytes: it sends messages as they are told and keeps every answer.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary compiles its own copy, and uses some of it"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small test data")]

mod message;
mod wire;

pub use message::*;
pub use wire::{RawClient, answers_of, without_source};
