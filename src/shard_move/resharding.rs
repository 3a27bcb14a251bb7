//! How far a change of a shard key is, with what has to be the same for another process to go on
//! with it.
//!
//! | stage     | what is done in it                                  | goes on with                      |
//! |-----------|-----------------------------------------------------|-----------------------------------|
//! | making    | empty twins, replica identities, publications        | what is not there                 |
//! | copying   | slots, and the rows of their snapshots, by segments  | the segments that are left        |
//! | building  | keys, indexes, constraints; statistics               | the nodes that are left           |
//! | following | streams, comparison, the last step                   | the stored position of each stream |
//! | undoing   | all of that is taken away                            | what is still there               |
//!
//! After the last step is decided the map has the new key: then it is only tidied up.

use serde::{Deserialize, Serialize};

use super::record::Part;
use crate::ids::NodeId;

/// How far it is. Stored before it is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Twins, replica identities and publications; there is no slot yet.
    Making,
    /// Slots and rows.
    Copying,
    /// Keys, indexes, constraints, statistics.
    Building,
    /// The streams, the comparison, and the last step.
    Following,
    /// It was given up; what it made is being removed.
    Undoing,
}

impl Stage {
    /// The word for logs and users.
    pub fn word(self) -> &'static str {
        match self {
            Self::Making => "making the new tables",
            Self::Copying => "copying",
            Self::Building => "building indexes and constraints",
            Self::Following => "following what is written",
            Self::Undoing => "undoing",
        }
    }
}

/// A change of a shard key that has begun. All names that it makes come from its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resharding {
    /// How far it is.
    pub stage: Stage,
    /// Every node that has the tables' definitions.
    pub members: Vec<NodeId>,
    /// The group's shards when it began.
    pub sources: Vec<Part>,
    /// Its new ones.
    pub targets: Vec<Part>,
    /// Fingerprints of the tables' definitions, in the order of `members`.
    pub shapes: Vec<String>,
    /// Whether both sides were found equal.
    pub verified: bool,
    /// Why it is being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
