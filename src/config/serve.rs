//! What `foreshard serve` runs with: where it listens, which nodes there are, who may log in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::access::{UserLookup, read_rules, read_server_tls};
use super::catalog::read_catalog;
use super::nodes::{read_nodes, read_users};
use super::section::{Cursor, Fields, Source};
use super::{Faults, Policy};
use crate::backend;
use crate::backend::{NodeAddress, Password};
use crate::catalog::EtcdConfig;
use crate::executor;
use crate::frontend;
use crate::frontend::{Admission, Method, Rule, ServerTls};

/// The keys of a serve configuration.
pub(super) const KEYS: [&str; 12] = [
    "frontend",
    "tls",
    "authentication",
    "users",
    "user_lookup",
    "admin_listen",
    "data_folder",
    "catalog",
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
    /// TLS towards clients; `None` without a certificate.
    pub tls: Option<ServerTls>,
    /// How clients prove who they are.
    pub authentication: Vec<Rule>,
    /// Who may log in, and the passwords with which they log in, here and at the nodes.
    pub users: BTreeMap<String, Password>,
    /// Whether others may log in with the passwords that the home node has stored.
    pub user_lookup: UserLookup,
    /// Where metrics, health and the admin API are.
    pub admin_listen: SocketAddr,
    /// Where the catalog is kept; what is this process's own, if the catalog is in etcd.
    pub data_folder: PathBuf,
    /// The etcd cluster that has the catalog of several proxies.
    pub catalog: Option<EtcdConfig>,
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
            tls: None,
            authentication: Rule::for_all(Method::ScramSha256),
            users: BTreeMap::new(),
            user_lookup: UserLookup::default(),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 6433)),
            data_folder: PathBuf::from("foreshard-data"),
            catalog: None,
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

    /// Who is let in, and how.
    pub fn admission(&self) -> Admission {
        Admission {
            rules: self.authentication.clone(),
            users: self.users.clone(),
            lookup: self.user_lookup.believed(),
            tls: self.tls.clone(),
            limits: self.frontend.clone(),
        }
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
            tls: fields.optional("tls").and_then(read_server_tls),
            authentication: fields
                .optional("authentication")
                .map(read_rules)
                .unwrap_or(default.authentication),
            users: fields.optional("users").map(read_users).unwrap_or_default(),
            user_lookup: fields.room("user_lookup", |_| Vec::new()),
            admin_listen: fields.or("admin_listen", default.admin_listen),
            data_folder: fields.or("data_folder", default.data_folder),
            catalog: fields.optional("catalog").and_then(read_catalog),
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
        let method = fields.optional("authentication").filter(|place| !place.is_list());
        let is_trust = self.authentication == Rule::for_all(Method::Trust);
        if is_trust && method.is_some() && !listen.ip().is_loopback() {
            root.fault(format!(
                "authentication: trust would let in anybody who reaches {listen}; use scram, or \
                 rules, or listen on loopback"
            ));
        }
        let by_password = |rule: &Rule| matches!(rule.method, Method::ScramSha256 | Method::Md5);
        let no_passwords = fields.optional("users").is_none() && !self.user_lookup.enabled;
        if no_passwords && self.authentication.iter().all(by_password) {
            root.fault("nobody could log in: give users, or enable user_lookup");
        }
        if !self.user_lookup.enabled && self.authentication.iter().any(Rule::needs_roles) {
            root.fault(
                "rules with +role or samerole need user_lookup: roles stand on the home node",
            );
        }
        let certificates = self.authentication.iter().filter(|rule| rule.needs_certificate());
        let checks = self.tls.as_ref().is_some_and(ServerTls::checks_clients);
        if certificates.count() > 0 && !checks {
            root.fault("rules ask for client certificates: give tls with a client_ca_file");
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
    let mut faults =
        at_least_1(&[("max_clients", max_clients), ("login_timeout_ms", config.login_timeout_ms)]);
    if config.reserved_clients >= config.max_clients && config.max_clients > 0 {
        faults.push(("reserved_clients", "must be below max_clients".to_owned()));
    }
    faults
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
