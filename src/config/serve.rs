//! What `foreshard serve` runs with: where it listens, which nodes there are, who may log in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::nodes::{read_nodes, read_users};
use super::section::{Cursor, Fields, Source};
use super::{Faults, Policy};
use crate::backend;
use crate::backend::{NodeAddress, Password};
use crate::executor;
use crate::frontend;
use crate::frontend::Authentication;

/// The keys of a serve configuration.
pub(super) const KEYS: [&str; 9] = [
    "frontend",
    "authentication",
    "users",
    "admin_listen",
    "data_folder",
    "nodes",
    "backend",
    "executor",
    "policy",
];

/// The configuration of a proxy in front of existing nodes. `Debug` hides the passwords.
#[derive(Debug, Clone)]
pub struct Serve {
    /// Where clients connect, and limits on them.
    pub frontend: frontend::Config,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// Who may log in, and the passwords with which they log in, here and at the nodes.
    pub users: BTreeMap<String, Password>,
    /// Where metrics, health and the admin API are.
    pub admin_listen: SocketAddr,
    /// Where the catalog is kept.
    pub data_folder: PathBuf,
    /// The nodes; the first is the home node unless the policy names another.
    pub nodes: Vec<NodeAddress>,
    /// The connections to the nodes.
    pub backend: backend::Config,
    /// Deadlines of statements.
    pub executor: executor::Config,
    /// What is sharded, and how load is forecast and placed.
    pub policy: Policy,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            frontend: frontend::Config::default(),
            authentication: Authentication::Scram,
            users: BTreeMap::new(),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 6433)),
            data_folder: PathBuf::from("foreshard-data"),
            nodes: Vec::new(),
            backend: backend::Config::default(),
            executor: executor::Config::default(),
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

    /// The names of the nodes, in order.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    fn read(root: &Cursor<'_>) -> Self {
        let fields = root.fields(&KEYS);
        let default = Self::default();
        let nodes = fields.required("nodes").map(read_nodes).unwrap_or_default();
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        let names = (!names.is_empty()).then_some(names.as_slice());
        let serve = Self {
            frontend: fields.room("frontend", frontend_faults),
            authentication: fields
                .optional("authentication")
                .and_then(read_authentication)
                .unwrap_or(default.authentication),
            users: fields.optional("users").map(read_users).unwrap_or_default(),
            admin_listen: fields.or("admin_listen", default.admin_listen),
            data_folder: fields.or("data_folder", default.data_folder),
            backend: fields.room("backend", backend_faults),
            executor: fields.room("executor", executor_faults),
            policy: fields
                .optional("policy")
                .map(|policy| read_policy(policy, names))
                .unwrap_or_default(),
            nodes,
        };
        serve.check(root, &fields);
        serve
    }

    /// What keys say together.
    fn check(&self, root: &Cursor<'_>, fields: &Fields<'_>) {
        let listen = self.frontend.listen;
        if listen == self.admin_listen && listen.port() != 0 {
            root.fault(format!("frontend.listen and admin_listen are both {listen}"));
        }
        match self.authentication {
            Authentication::Scram if fields.optional("users").is_none() => {
                root.fault("nobody could log in: give users, or on loopback authentication: trust");
            }
            Authentication::Trust if !listen.ip().is_loopback() => root.fault(format!(
                "authentication: trust would let in anybody who reaches {listen}; use scram, or \
                 listen on loopback"
            )),
            _ => {}
        }
    }
}

fn read_authentication(place: &Cursor<'_>) -> Option<Authentication> {
    match place.text()?.as_str() {
        "scram" => Some(Authentication::Scram),
        "trust" => Some(Authentication::Trust),
        other => {
            place.fault(format!("{other:?} is neither scram nor trust"));
            None
        }
    }
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

fn frontend_faults(config: &frontend::Config) -> Vec<(&'static str, String)> {
    let max_clients = u64::try_from(config.max_clients).unwrap_or(u64::MAX);
    at_least_1(&[("max_clients", max_clients), ("login_timeout_ms", config.login_timeout_ms)])
}

fn backend_faults(config: &backend::Config) -> Vec<(&'static str, String)> {
    at_least_1(&[
        ("pool_size", u64::from(config.pool_size)),
        ("checkout_timeout_ms", config.checkout_timeout_ms),
        ("connect_timeout_ms", config.connect_timeout_ms),
        ("idle_timeout_s", config.idle_timeout_s),
    ])
}

fn executor_faults(config: &executor::Config) -> Vec<(&'static str, String)> {
    at_least_1(&[
        ("gate_timeout_ms", config.gate_timeout_ms),
        ("ddl_timeout_ms", config.ddl_timeout_ms),
        ("resolve_interval_s", config.resolve_interval_s),
        ("pull_rows_max", config.pull_rows_max),
        ("pull_bytes_max", config.pull_bytes_max),
        ("pull_timeout_ms", config.pull_timeout_ms),
    ])
}

fn at_least_1(values: &[(&'static str, u64)]) -> Vec<(&'static str, String)> {
    let zero = values.iter().filter(|(_, value)| *value == 0);
    zero.map(|(key, _)| (*key, "must be at least 1".to_owned())).collect()
}
