//! A real etcd of one member, which ends with its test.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use foreshard::catalog::{EtcdConfig, Lead, Leader};
use foreshard::local_nodes::free_ports;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::nodes::temp_folder;
use super::wait::eventually;

/// A running etcd. Killed when dropped.
pub struct TestEtcd {
    child: Child,
    pub port: u16,
    folder: PathBuf,
    args: Vec<String>,
}

impl TestEtcd {
    /// Starts one without any data; installs it first where it is missing.
    pub async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// The same with further arguments; over TLS, if these name a certificate.
    pub async fn start_with(args: Vec<String>) -> Self {
        let mut install = Command::new("bash");
        let installed = install.args(["integration/setup/install.sh", "etcd"]).status().await;
        assert!(installed.unwrap().success(), "etcd can't be installed");
        let folder = temp_folder("etcd");
        let port = port();
        let child = run(port, &folder, &args);
        let etcd = Self { child, port, folder, args };
        etcd.until_it_answers().await;
        etcd
    }

    /// Its address, as a configuration names it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Leads under this prefix once nobody else does, as a process with this id.
    pub async fn lead(&self, prefix: &str, id: &str) -> Lead {
        lead_at(vec![self.endpoint()], prefix, id).await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()), signal).unwrap();
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again with its data.
    pub async fn restart(&mut self) {
        self.child = run(self.port, &self.folder, &self.args);
        self.until_it_answers().await;
    }

    async fn until_it_answers(&self) {
        let answers = async || TcpStream::connect(("127.0.0.1", self.port)).await.ok().map(drop);
        eventually("etcd answers", Duration::from_secs(20), answers).await;
    }
}

/// The same by other ways to it.
pub async fn lead_at(endpoints: Vec<String>, prefix: &str, id: &str) -> Lead {
    let config = EtcdConfig::new(endpoints, prefix.to_owned(), Duration::from_mins(1)).unwrap();
    let (host, listen) = ("test".to_owned(), "nowhere".to_owned());
    let (id, admin) = (id.to_owned(), String::new());
    let me = Leader { id, host, listen, admin, since_unix_ms: 0 };
    let lead = Lead::new(config, me, None);
    lead.take(|_| {}).await;
    lead
}

/// A free port whose next one is free too. Other test binaries look for some at the same time.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let place = u16::try_from(std::process::id() % 40).unwrap() * 60;
    loop {
        let port = 33_600 + place + NEXT.fetch_add(2, Ordering::Relaxed) % 60;
        if free_ports(port, 2) == [port, port + 1] {
            return port;
        }
    }
}

fn run(port: u16, folder: &std::path::Path, args: &[String]) -> Child {
    let tls = args.iter().any(|arg| arg == "--cert-file");
    let clients = format!("{}://127.0.0.1:{port}", if tls { "https" } else { "http" });
    let peers = format!("http://127.0.0.1:{}", port + 1);
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(folder);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("default={peers}"), "--log-level", "error"]);
    command.args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}
