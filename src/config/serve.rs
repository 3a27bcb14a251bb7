//! What `foreshard serve` runs with: where it listens, which nodes there are, who may log in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::nodes::{read_nodes, read_users};
use super::section::{Cursor, Source};
use super::{Faults, Network, Policy};
use crate::backend;
use crate::backend::{NodeAddress, Password};

/// The keys of a serve configuration.
const KEYS: [&str; 9] = [
    "listen",
    "admin_listen",
    "data_folder",
    "stop_grace_ms",
    "nodes",
    "users",
    "trust",
    "backend",
    "policy",
];

/// The configuration of a proxy in front of existing nodes. `Debug` hides the passwords.
#[derive(Debug, Clone, PartialEq)]
pub struct Serve {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where metrics, health and the admin API are.
    pub admin_listen: SocketAddr,
    /// Where the catalog is kept.
    pub data_folder: PathBuf,
    /// How long a stop waits for transactions under way, in milliseconds.
    pub stop_grace_ms: u64,
    /// The nodes; the first is the home node unless the policy names another.
    pub nodes: Vec<NodeAddress>,
    /// Who logs in with a password (SCRAM-SHA-256), here and with the same password at the nodes.
    pub users: BTreeMap<String, Password>,
    /// Clients of these networks are let in under any name without a password.
    pub trust: Vec<Network>,
    /// The connections to the nodes.
    pub backend: backend::Config,
    /// What is sharded, and how load is forecast and placed.
    pub policy: Policy,
}

impl Default for Serve {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            listen: loopback(6432),
            admin_listen: loopback(6433),
            data_folder: PathBuf::from("foreshard-data"),
            stop_grace_ms: 10_000,
            nodes: Vec::new(),
            users: BTreeMap::new(),
            trust: Vec::new(),
            backend: backend::Config::default(),
            policy: Policy::default(),
        }
    }
}

impl Serve {
    /// Reads a configuration file, and the policy file that it may name.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let source = Source::read(file);
        let tree = source.parse();
        let serve = Self::read(&source.root(&tree));
        source.finish(serve)
    }

    /// How long a stop waits for transactions under way.
    pub fn stop_grace(&self) -> Duration {
        Duration::from_millis(self.stop_grace_ms)
    }

    fn read(root: &Cursor<'_>) -> Self {
        let fields = root.fields(&KEYS);
        let default = Self::default();
        let nodes = fields.required("nodes").map(read_nodes).unwrap_or_default();
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        let names = (!names.is_empty()).then_some(names.as_slice());
        let serve = Self {
            listen: fields.or("listen", default.listen),
            admin_listen: fields.or("admin_listen", default.admin_listen),
            data_folder: fields.or("data_folder", default.data_folder),
            stop_grace_ms: fields.or("stop_grace_ms", default.stop_grace_ms),
            users: fields.optional("users").map(read_users).unwrap_or_default(),
            trust: fields.optional("trust").map(read_trust).unwrap_or_default(),
            backend: fields
                .optional("backend")
                .map(|section| section.room(backend_faults))
                .unwrap_or_default(),
            policy: fields
                .optional("policy")
                .map(|policy| read_policy(policy, names))
                .unwrap_or_default(),
            nodes,
        };
        if serve.listen == serve.admin_listen {
            root.fault("listen and admin_listen are the same address");
        }
        if serve.users.is_empty() && serve.trust.is_empty() {
            root.fault("nobody could log in: give users, or networks to trust");
        }
        serve
    }
}

fn read_trust(trust: &Cursor<'_>) -> Vec<Network> {
    let items = trust.items();
    let networks = items.iter().filter_map(|item| {
        item.text()?
            .parse()
            .map_err(|error: super::network::InvalidNetwork| item.fault(error.to_string()))
            .ok()
    });
    networks.collect()
}

/// A policy stands in the configuration itself, or in a file that is named there.
fn read_policy(policy: &Cursor<'_>, nodes: Option<&[String]>) -> Policy {
    if policy.is_map() {
        return Policy::read(policy, nodes);
    }
    let Some(name) = policy.text() else { return Policy::default() };
    let folder = policy.source().file().parent().unwrap_or(Path::new(""));
    let source = Source::read(&folder.join(name));
    let tree = source.parse();
    let read = Policy::read(&source.root(&tree), nodes);
    policy.source().absorb(source);
    read
}

fn backend_faults(config: &backend::Config) -> Vec<(&'static str, String)> {
    let positive = [
        ("pool_size", u64::from(config.pool_size)),
        ("checkout_timeout_ms", config.checkout_timeout_ms),
        ("connect_timeout_ms", config.connect_timeout_ms),
        ("idle_timeout_s", config.idle_timeout_s),
    ];
    let zero = positive.into_iter().filter(|(_, value)| *value == 0);
    zero.map(|(key, _)| (key, "must be at least 1".to_owned())).collect()
}
