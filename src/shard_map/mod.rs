//! The shard map: groups, tables, keys, bounds and placement, as one immutable value an epoch.
//!
//! It answers *where* (hash → shard → node); it never talks to a node and never changes: a change
//! is a new map with the next epoch.

mod derived;
mod hash;
mod key;
mod map;

#[cfg(test)]
mod tests;

pub use derived::{Derived, View};
pub use hash::{hash_key, row_hash};
pub use key::{InvalidKey, KeyType, KeyValue};
pub use map::{
    Bounds, Column, Group, Identity, InvalidMap, MapParts, Node, Shard, ShardMap, Table, TableKind,
    leaf_name,
};
