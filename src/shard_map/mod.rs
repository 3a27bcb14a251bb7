//! The shard map: groups, tables, keys, bounds and placement, as one immutable value an epoch.
//!
//! It answers *where* (key → shard → node); it never talks to a node and never changes: a change
//! is a new map with the next epoch.

mod bounds;
mod declared;
mod derived;
mod directory;
mod hash;
mod time;
mod key;
mod map;
mod node;

#[cfg(test)]
mod tests;

pub use bounds::{Bounds, Cut, OTHERS_CHECK};
pub use declared::{Declared, KeyedFunction, LOOKUP_COUNT, Lookup, LookupStanding};
pub use derived::{Derived, Through, View};
pub use directory::{Directory, Limit, Method};
pub use hash::{hash_key, row_hash};
pub use key::{InvalidKey, KeyType, KeyValue};
pub use map::{
    Column, Group, Identity, InvalidMap, MapParts, NewGroup, NewKey, Shard, ShardMap, Table,
    TableKind, arriving, leaf_name,
};
pub use node::{Node, Standing};
