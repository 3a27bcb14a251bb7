//! A client at the level of bytes: it sends messages as they are told and keeps every answer.

#![allow(unreachable_pub, reason = "the test binary compiles its own copy")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small test data")]

mod message;
mod wire;

pub use message::*;
pub use wire::{RawClient, answers_of, without_source};
