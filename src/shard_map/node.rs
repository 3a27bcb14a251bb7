//! A node as the map knows it: its name, and what it may be used for.

use serde::{Deserialize, Serialize};

/// A node's name; how to reach it is configuration, not map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The name that the policy gives it.
    pub name: String,
    /// What it may be used for.
    #[serde(default)]
    pub standing: Standing,
}

/// What a node may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has the schema and the reference tables, and may own shards.
    #[default]
    Member,
    /// The same, but no shard goes there any more: it is to leave.
    Draining,
    /// It is configured, but has nothing yet.
    Joining,
    /// It has left; its place in the list is kept, since ids are places.
    Gone,
}

impl Node {
    /// A member of this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), standing: Standing::Member }
    }

    /// Whether it has the schema and the reference tables, so that DDL and writes to reference
    /// tables go there.
    pub fn is_member(&self) -> bool {
        matches!(self.standing, Standing::Member | Standing::Draining)
    }
}
