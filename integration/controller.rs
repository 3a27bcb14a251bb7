//! The controller in the program as its users run it: it splits, sets apart and merges shards by
//! itself and says why; its forecasts are scored, distrusted when they are bad, and kept over a crash.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "controller/accuracy.rs"]
mod accuracy;
#[path = "controller/load.rs"]
mod load;
#[path = "controller/placement.rs"]
mod placement;
mod process_support;
mod support;
