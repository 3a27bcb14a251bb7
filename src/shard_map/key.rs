//! Shard-key types and values: from a literal's text or a parameter's bytes to what is hashed.

use serde::{Deserialize, Serialize};

/// A type that can be (a column of) a hash shard key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `text` and `varchar`, of a deterministic collation
    Text,
    /// `uuid`
    Uuid,
}

/// A value of a shard-key column, coerced to the column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyValue {
    /// SQL NULL; does not take part in the hash.
    Null,
    /// Of any of the integer types: equal values hash alike.
    Int(i64),
    /// In the server's encoding.
    Text(Vec<u8>),
    /// Sixteen bytes, most significant first.
    Uuid([u8; 16]),
}

/// A text or byte string that is not a value of the key's type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid input syntax for type {type_name}: {input:?}")]
pub struct InvalidKey {
    /// PostgreSQL's name of the type.
    pub type_name: &'static str,
    /// What was given, shortened.
    pub input: String,
}
