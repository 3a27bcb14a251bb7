//! foreshard: a PostgreSQL proxy that shards, forecasts the load of each shard, and moves shards
//! online before a node is overloaded.
//!
//! This list is the architecture: a room may import only the rooms above it. `tidy` holds it.

// A statement may run in steps that are statements: their futures nest deeper than the default.
#![recursion_limit = "256"]

// Pure rooms: no I/O, clock, task, log or randomness
pub mod ids;
pub mod wire;
pub mod merge;
pub mod sql;
pub mod shard_map;
pub mod router;
pub mod planner;
pub mod forecast;
pub mod placement;
pub mod shard_move;

// I/O rooms
pub mod runtime;
pub mod load;
pub mod backend;
pub mod catalog;
pub mod cluster;
pub mod executor;
pub mod mover;
pub mod controller;
pub mod frontend;
pub mod admin;
pub mod config;
pub mod local_nodes;
pub mod app;

#[cfg(test)]
mod tidy;
