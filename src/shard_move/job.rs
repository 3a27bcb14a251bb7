//! What else than a move an operator asks the mover for: a record that says what, how far it is, and
//! what came of it. Every job can be begun anew after a crash; a change of a shard key goes on.

use serde::{Deserialize, Serialize};

use super::{Import, Object, Resharding};
use crate::ids::{JobId, NodeId, ShardId};

/// One job, as the catalog stores it under `jobs/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Unique over all jobs ever asked for; grows.
    pub id: JobId,
    /// What is asked for.
    pub errand: Errand,
    /// How far it is.
    pub state: JobState,
    /// When it was asked for, in ms since 1970.
    pub requested_unix_ms: u64,
    /// When it ended, in ms since 1970.
    pub finished_unix_ms: Option<u64>,
    /// What it has done so far, in words, for its user.
    pub steps: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// What a verification found.
    pub report: Option<Report>,
    /// Nobody wants it any more: it is undone, or ends where it can't be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub called_off: bool,
    /// What it has changed on nodes and has to put back, beside what is named after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Object>,
    /// Of a change of a shard key, or tables that join a group: how far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resharding: Option<Box<Resharding>>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// Look whether the nodes hold what the map says.
    Verify {
        /// These shards; none for all shards, reference tables and leftovers.
        shards: Vec<ShardId>,
    },
    /// Make a configured node a member: bring it roles, schema and reference tables. A node that is
    /// being drained takes shards again.
    AddNode {
        /// The node.
        node: NodeId,
    },
    /// Move all shards off a node, so that it can leave.
    DrainNode {
        /// The node.
        node: NodeId,
    },
    /// Make sharded tables of the plain ones of a group on the home node.
    Import(Box<Import>),
    /// Give a group the shard key and the shards of the policy.
    Reshard(Box<Import>),
}

impl Errand {
    /// The word for logs and users.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Verify { .. } => "verify",
            Self::AddNode { .. } => "add node",
            Self::DrainNode { .. } => "drain node",
            Self::Import(import) if import.check_only => "check an import",
            Self::Import(_) => "import",
            Self::Reshard(wanted) if wanted.check_only => "check a change of the shard key",
            Self::Reshard(_) => "change of the shard key",
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Asked for, or under way.
    Running,
    /// Finished; the report, if there is one, says what was found.
    Done,
    /// Given up.
    Failed,
}

/// What a verification looked at, and what was not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many shards were looked at.
    pub shards: u64,
    /// How many tables: partitions, and copies of reference tables.
    pub tables: u64,
    /// How many rows.
    pub rows: u64,
    /// Whatever is not as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub kind: FindingKind,
    /// The node's name.
    pub node: String,
    /// What is wrong, for a person.
    pub what: String,
    /// Some of the rows that it is about, by their keys.
    pub rows: Vec<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Rows or tables are not where they belong, or copies differ.
    Wrong,
    /// Something of a move or a transaction is there that no record owns.
    Leftover,
    /// It could not be looked at.
    Unknown,
}

impl Job {
    /// A job that was asked for now.
    pub fn requested(id: JobId, errand: Errand, now_unix_ms: u64) -> Self {
        Self {
            id,
            errand,
            state: JobState::Running,
            requested_unix_ms: now_unix_ms,
            finished_unix_ms: None,
            steps: Vec::new(),
            error: None,
            report: None,
            called_off: false,
            objects: Vec::new(),
            resharding: None,
        }
    }

    /// Whether nothing more will happen to it.
    pub fn is_finished(&self) -> bool {
        self.state != JobState::Running
    }

    /// The job after its end: `error` says why it failed.
    #[must_use]
    pub fn finished(mut self, error: Option<String>, now_unix_ms: u64) -> Self {
        self.state = if error.is_some() { JobState::Failed } else { JobState::Done };
        self.error = error;
        self.finished_unix_ms = Some(now_unix_ms);
        self
    }
}

impl Report {
    /// Whether something of this kind was found.
    pub fn has(&self, kind: FindingKind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }
}
