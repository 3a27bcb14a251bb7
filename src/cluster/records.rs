//! What proxies tell each other.

use serde::{Deserialize, Serialize};

use crate::catalog::{Record, numbered};
use crate::ids::{NodeId, ShardId};

/// Who may serve. Each change begins a new term, which the nodes are told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// The term.
    pub number: u64,
    /// Those that may serve; where only one does, that one.
    #[serde(default)]
    pub proxies: Vec<Enrolled>,
    /// The number of the one that leads.
    #[serde(default)]
    pub leader: u64,
}

/// A proxy that may serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The term that it was enrolled in: no other process has it.
    pub number: u64,
    /// Its [`Presence`].
    pub id: String,
}

impl Roll {
    /// Whether a proxy may serve.
    pub fn has(&self, number: u64) -> bool {
        self.proxies.iter().any(|proxy| proxy.number == number)
    }

    /// The numbers of all.
    pub fn numbers(&self) -> Vec<u64> {
        self.proxies.iter().map(|proxy| proxy.number).collect()
    }
}

impl Record for Roll {
    const PREFIX: &'static str = "term";

    fn id(&self) -> String {
        String::new()
    }
}

/// A process that serves or would; gone once it is not heard of any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Names the process.
    pub id: String,
    /// Names its data folder: two processes never have it at once.
    pub folder: String,
    /// Where it runs.
    pub host: String,
    /// Where clients connect to it.
    pub listen: String,
    /// Where its admin API is.
    pub admin: String,
    /// The nodes that it can reach, by their names.
    pub nodes: Vec<String>,
    /// Since when it is there.
    pub since_unix_ms: u64,
}

impl Presence {
    /// How others reach an address that it listens on.
    pub fn reached_at(&self, listen: &str) -> String {
        let port = listen.rsplit(':').next().unwrap_or_default();
        let anywhere = listen.starts_with("0.0.0.0:") || listen.starts_with("[::]:");
        if anywhere { format!("{}:{port}", self.host) } else { listen.to_owned() }
    }
}

impl Record for Presence {
    const PREFIX: &'static str = "proxies/present/";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// What other proxies have to do before one goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Barred {
    /// Nobody is inside the gates of these shards, until the barrier goes.
    Shards(Vec<ShardId>),
    /// Who touched no shard, or was routed by an older map, has ended.
    Elsewhere,
    /// Nobody writes a reference table, until the barrier goes.
    References,
    /// Nobody is at the leaf partitions of these shards, until the barrier goes: statements go by their
    /// parents.
    Leaves(Vec<ShardId>),
    /// What was known of definitions is forgotten.
    Definitions,
    /// A newer map is not put in force, and no gate opened, until the barrier goes: what it says is still
    /// being committed on the nodes.
    Map,
    /// Nobody uses a node before what is committed there is finished: until the barrier goes.
    Doubt(NodeId),
}

/// A step that needs all proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// Who waits for the others.
    pub by: u64,
    /// Which of that proxy's.
    pub number: u64,
    /// What they have to do.
    pub barred: Barred,
}

impl Record for Barrier {
    const PREFIX: &'static str = "proxies/barriers/";

    fn id(&self) -> String {
        format!("{}-{}", numbered(self.by), numbered(self.number))
    }
}

/// A proxy has done what a barrier asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passed {
    pub(super) barrier: String,
    pub(super) proxy: u64,
}

impl Record for Passed {
    const PREFIX: &'static str = "proxies/passed/";

    fn id(&self) -> String {
        format!("{}/{}", self.barrier, numbered(self.proxy))
    }
}

/// A proxy that does not lead wants to change definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) proxy: u64,
    pub(super) number: u64,
}

impl Record for Request {
    const PREFIX: &'static str = "proxies/definitions/asked/";

    fn id(&self) -> String {
        numbered(self.proxy)
    }
}

/// No move is under way while this stands: the proxy may change definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) proxy: u64,
    pub(super) number: u64,
}

impl Record for Grant {
    const PREFIX: &'static str = "proxies/definitions/granted/";

    fn id(&self) -> String {
        numbered(self.proxy)
    }
}

/// The sessions of a proxy that hold connections to several nodes for a while, and so may wait for
/// those of another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The proxy.
    pub proxy: u64,
    /// Its sessions.
    pub sessions: Vec<HoldingSession>,
}

/// A session that holds connections to several nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingSession {
    /// The process number that its client was given.
    pub client: i32,
    /// Since when they are the same ones.
    pub since_unix_ms: u64,
    /// The nodes, and the process numbers of its connections there.
    pub held: Vec<(NodeId, i32)>,
}

impl Record for Holding {
    const PREFIX: &'static str = "proxies/holding/";

    fn id(&self) -> String {
        numbered(self.proxy)
    }
}
