//! A node of its own that asks for passwords, and a proxy in front of it.

use std::fmt::Write;

use foreshard::backend::{NodeAddress, NodeTls, Password, TlsFiles, TlsMode};
use foreshard::frontend::{self, Admission, Method, Rule, ServerTls};
use tokio_postgres::{Client, NoTls};

use super::Authority;
use crate::support::{TestDatabase, TestNodes, TestProxy, connect};

/// The service role's password.
pub const SERVICE: &str = "service-secret";

/// Nodes that ask everybody for a password.
pub struct Guarded {
    pub nodes: TestNodes,
    pub database: TestDatabase,
}

impl Guarded {
    /// Starts nodes with these lines as their `pg_hba.conf`.
    pub async fn start(count: usize, hba: &str) -> Self {
        let nodes = TestNodes::start(count).await;
        let mut addresses = Vec::new();
        for index in 0..count {
            let mut address = nodes.node(index).address();
            let client = connect(&address, "postgres").await;
            client
                .batch_execute(&format!("ALTER ROLE postgres PASSWORD '{SERVICE}'"))
                .await
                .unwrap();
            std::fs::write(nodes.node(index).spec().folder.join("data/pg_hba.conf"), hba).unwrap();
            client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
            address.password = Some(Password::new(SERVICE));
            addresses.push(address);
        }
        Self { nodes, database: TestDatabase { name: "postgres".to_owned(), nodes: addresses } }
    }

    /// Gives the nodes a certificate of this authority for `localhost`.
    pub async fn with_certificates(&self, authority: &Authority) {
        let (certificate, key) = authority.sign("node", &["localhost"]);
        for (index, address) in self.database.nodes.iter().enumerate() {
            let data = self.nodes.node(index).spec().folder.join("data");
            for (file, name) in [(&certificate, "server.crt"), (&key, "server.key")] {
                install(file, &data.join(name));
            }
            install(&authority.path("ca.crt"), &data.join("root.crt"));
            let client = connect(address, "postgres").await;
            for setting in ["ssl_ca_file = 'root.crt'", "ssl = on"] {
                client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
            }
            client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        }
    }

    /// Gives the nodes another `pg_hba.conf`, and waits until it lets nobody in without TLS.
    pub async fn ask_for_tls(&self, hba: &str) {
        for (index, address) in self.database.nodes.iter().enumerate() {
            let node = self.nodes.node(index);
            std::fs::write(node.spec().folder.join("data/pg_hba.conf"), hba).unwrap();
            let pid = nix::unistd::Pid::from_raw(i32::try_from(node.pid()).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
            let refused = || async {
                let connecting = address.service_config("postgres").connect(NoTls).await;
                connecting.is_err().then_some(())
            };
            let limit = std::time::Duration::from_secs(10);
            crate::support::eventually("the rules are in force", limit, refused).await;
        }
    }

    /// The nodes' addresses with TLS in this mode, checked against this authority.
    pub fn over_tls(&self, mode: TlsMode, host: &str, ca: Vec<u8>) -> Vec<NodeAddress> {
        self.over(mode, host, TlsFiles { authorities: ca, ..TlsFiles::default() })
    }

    /// The same with other files.
    pub fn over(&self, mode: TlsMode, host: &str, files: TlsFiles) -> Vec<NodeAddress> {
        let tls = NodeTls::new(mode, files).unwrap();
        let over = |node: &NodeAddress| NodeAddress {
            host: host.to_owned(),
            tls: tls.clone(),
            fence: None,
            ..node.clone()
        };
        self.database.nodes.iter().map(over).collect()
    }

    /// Runs statements on every node.
    pub async fn everywhere(&self, sql: &str) {
        for address in &self.database.nodes {
            connect(address, "postgres").await.batch_execute(sql).await.unwrap();
        }
    }

    /// A proxy that lets clients in by `admission`.
    pub async fn proxy(&self, admission: Admission) -> TestProxy {
        TestProxy::start_admitting(&self.database, "", admission).await
    }
}

/// A file in the server's folder, in its owner's hands.
fn install(from: &std::path::Path, to: &std::path::Path) {
    use std::os::unix::fs::MetadataExt;
    std::fs::copy(from, to).unwrap();
    let owner = std::fs::metadata(to.parent().unwrap()).unwrap();
    std::os::unix::fs::chown(to, Some(owner.uid()), Some(owner.gid())).unwrap();
    super::private(to);
}

/// Everybody by this method, with what the home node has stored; nothing is remembered.
pub fn by(method: Method) -> Admission {
    let limits = frontend::Config {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        workers: 2,
        reserved_clients: 0,
        ..frontend::Config::default()
    };
    let lookup = Some(std::time::Duration::ZERO);
    Admission { rules: Rule::for_all(method), lookup, ..Admission::trust(limits) }
}

/// TLS towards clients with a certificate of this authority for `localhost`, and what it revoked.
pub fn server_tls(authority: &Authority, revoked: Vec<u8>) -> ServerTls {
    authority.sign("proxy", &["localhost", "127.0.0.1"]);
    let files = TlsFiles {
        certificate: authority.read("proxy.crt"),
        key: authority.read("proxy.key"),
        authorities: authority.read("ca.crt"),
        revoked,
    };
    ServerTls::new(&files).unwrap()
}

/// A client of the proxy under this name and password; else the whole story of why not.
pub async fn log_in(proxy: &TestProxy, user: &str, password: &str) -> Result<Client, String> {
    let mut config = proxy.config();
    config.user(user).password(password);
    match config.connect(NoTls).await {
        Ok((client, connection)) => {
            drop(foreshard::runtime::Tasks::new().spawn("client", connection));
            Ok(client)
        }
        Err(error) => Err(story(&error)),
    }
}

/// What an error says, and its causes, with the SQLSTATE.
pub fn story(error: &tokio_postgres::Error) -> String {
    let mut text = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        write!(text, " {error}").unwrap();
        cause = error.source();
    }
    text
}
