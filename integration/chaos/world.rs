//! Three nodes, a wire to each, a process of the program that is started again whenever it ends, and
//! its admin API.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use foreshard::backend::NodeAddress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::disk::TinyDisk;
use super::ledger::{PURSE, TENANTS};
use super::process_support::Deployment;
use super::support::{TestDatabase, TestNodes, connect, eventually, rows, temp_folder};
use crate::support::link::Link;

/// The database.
pub const DATABASE: &str = "chaos";
/// How many shards the group has at first.
const SHARDS: u32 = 9;

const TABLES: [&str; 4] = [
    "CREATE TABLE accounts (tenant_id bigint PRIMARY KEY, version bigint NOT NULL DEFAULT 0, \
     weight bigint NOT NULL)",
    "CREATE TABLE entries (tenant_id bigint NOT NULL REFERENCES accounts (tenant_id), \
     writer int NOT NULL, n bigint NOT NULL, note text DEFAULT 'a note')",
    "CREATE INDEX entries_tenant ON entries (tenant_id)",
    "CREATE TABLE purse (tenant_id bigint, slot int, amount bigint NOT NULL, \
     PRIMARY KEY (tenant_id, slot))",
];

/// Everything that can be broken.
pub struct World {
    pub deployment: Deployment,
    pub links: Vec<Link>,
    pub disks: Vec<Option<TinyDisk>>,
    nodes: TestNodes,
    process: Option<Process>,
}

struct Process {
    child: Child,
    /// Whether its end is no surprise.
    may_end: bool,
    served: bool,
}

impl World {
    pub async fn new() -> Self {
        let nodes = TestNodes::start(3).await;
        let (mut links, mut disks, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for address in nodes.addresses() {
            let client = connect(&address, "postgres").await;
            client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await.unwrap();
            if std::env::var_os("CHAOS_TALK").is_some() {
                client.batch_execute("ALTER SYSTEM SET log_statement = 'all'").await.unwrap();
                client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
            }
            disks.push(TinyDisk::give(&client, &temp_folder("disk")).await);
            let link = Link::to(address.port).await;
            addresses.push(NodeAddress { port: link.port, ..address });
            links.push(link);
        }
        let database = TestDatabase { name: DATABASE.to_owned(), nodes: addresses };
        let deployment = Deployment::over(database);
        let mut world = Self { deployment, links, disks, nodes, process: None };
        world.configure();
        world.start(None);
        world.until_it_serves().await;
        world.load().await;
        world
    }

    fn configure(&self) {
        let text = std::fs::read_to_string(&self.deployment.config).unwrap();
        let (before, _) = text.split_once("policy:").unwrap();
        let policy = format!(
            "policy:\n  database: {DATABASE}\n  groups:\n    shop:\n      key: bigint\n      \
             shards: {SHARDS}\n      \
             tables: {{ accounts: tenant_id, entries: tenant_id, purse: tenant_id }}\n  \
             placement: {{ mode: 'off' }}\n  \
             mover: {{ switch_backoff_ms: 50, backoff_max_ms: 1000, concurrent_moves: 4, reversible_ms: 4000 }}\n"
        );
        std::fs::write(&self.deployment.config, format!("{before}{policy}")).unwrap();
    }

    async fn load(&self) {
        let client = self.deployment.client().await;
        for sql in TABLES {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        let accounts = (1..=TENANTS).map(|tenant| format!("{tenant}\t0\t{tenant}\n")).collect();
        self.deployment.copy_in("COPY accounts FROM STDIN", accounts).await.unwrap();
        let purses = (1..=TENANTS).map(|tenant| format!("{tenant}\t0\t0\n{tenant}\t1\t{PURSE}\n"));
        self.deployment.copy_in("COPY purse FROM STDIN", purses.collect()).await.unwrap();
    }

    /// The last lines of all nodes' logs, for a story.
    pub fn logs(&self) -> Vec<PathBuf> {
        (0..3).map(|index| self.nodes.node(index).log().to_owned()).collect()
    }

    /// A client of a node, beside the wire; `None` if the node does not answer.
    pub async fn node_client(&self, index: usize) -> Option<Client> {
        let address = self.nodes.node(index).address();
        let mut config = address.service_config(DATABASE);
        config.application_name("chaos");
        let connected = timeout(Duration::from_secs(10), config.connect(tokio_postgres::NoTls));
        let (client, connection) = connected.await.ok()?.ok()?;
        drop(foreshard::runtime::Tasks::new().spawn("client", connection));
        Some(client)
    }

    /// `kill -9` of a node's postmaster, and its next start after a while.
    pub async fn kill_node(&mut self, index: usize, down: Duration) {
        self.nodes.kill_and_restart(index, down).await;
    }

    /// Starts the program, unless it runs.
    pub fn start(&mut self, failpoint: Option<&str>) {
        if self.process.is_some() {
            return;
        }
        let deployment = &self.deployment;
        let log = File::options().create(true).append(true).open(&deployment.log).unwrap();
        let program = std::env::var_os("CHAOS_PROGRAM");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_foreshard").into());
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&deployment.config);
        command.env_remove("FORESHARD_FAILPOINT");
        command.envs(failpoint.map(|name| ("FORESHARD_FAILPOINT", name)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let child = command.spawn().unwrap();
        self.process = Some(Process { child, may_end: failpoint.is_some(), served: false });
    }

    /// Starts the program again if it has ended; an end that nobody caused is a story.
    pub async fn keep_alive(&mut self, failpoint: Option<&str>) -> Option<String> {
        let serves = self.admin("/readyz").await.is_some();
        let Some(process) = &mut self.process else {
            self.start(failpoint);
            return None;
        };
        process.served |= serves;
        let status = process.child.try_wait().unwrap()?;
        let explained = is_explained(status, process);
        self.process = None;
        let story = format!("the program ended: {status}\n{}", self.deployment.log_tail());
        self.start(failpoint);
        (!explained).then_some(story)
    }

    /// Sends the program a signal, if it runs.
    pub fn signal(&mut self, signal: Signal) {
        let Some(process) = &mut self.process else { return };
        if let Some(pid) = process.child.id() {
            process.may_end |= signal == Signal::SIGKILL;
            let _gone = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
        }
    }

    /// Waits until it serves, starting it again should it end.
    pub async fn until_it_serves(&mut self) {
        for _ in 0..600 {
            if let Some(story) = self.keep_alive(None).await {
                panic!("{story}");
            }
            let ready = self.admin("/readyz").await.is_some();
            if ready && super::process_support::connect(&self.deployment.driver()).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not serve: {}", self.deployment.log_tail());
    }

    /// Stops the program as an operator does; `None` if it does not end in order.
    pub async fn stop(&mut self) -> Option<()> {
        self.signal(Signal::SIGTERM);
        let mut process = self.process.take()?;
        let ended = timeout(Duration::from_secs(30), process.child.wait()).await.ok()?.ok()?;
        ended.success().then_some(())
    }

    /// What the proxy, and each node, says of the clients that are connected.
    pub async fn clients(&self) -> String {
        let mut story = format!("{:?}", self.admin("/api/v1/clients").await);
        let sql = "SELECT pid, state, wait_event, xact_start, left(query, 60) FROM pg_stat_activity \
                   WHERE datname = current_database() AND backend_type = 'client backend'";
        for index in 0..self.links.len() {
            let Some(client) = self.node_client(index).await else { continue };
            story += &format!("\nn{}: {:?}", index + 1, rows(&client, sql).await);
        }
        story
    }

    /// What the admin API answers to a GET; `None` if it does not.
    pub async fn admin(&self, path: &str) -> Option<Value> {
        let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        let (status, body) = self.http(&request).await?;
        let text = Value::String(body.clone());
        (status == 200).then(|| serde_json::from_str(&body).unwrap_or(text))
    }

    /// Whether the admin API takes this.
    pub async fn post(&self, path: &str, body: &Value) -> Option<(u16, String)> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.http(&request).await
    }

    async fn http(&self, request: &str) -> Option<(u16, String)> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.deployment.port + 1)).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(Duration::from_secs(5), exchange).await.ok()?.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// All moves, newest first; `None` if the program does not answer.
    pub async fn moves(&self) -> Option<Vec<Value>> {
        let moves = self.admin("/api/v1/moves?limit=1000").await?;
        moves["moves"].as_array().cloned()
    }

    /// Everything is whole again, and everything that was begun ends.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.links.iter().for_each(Link::heal);
        self.disks.iter().flatten().for_each(TinyDisk::empty);
        self.signal(Signal::SIGCONT);
        for _ in 0..900 {
            if let Some(story) = self.keep_alive(None).await {
                return Err(story);
            }
            let moves = self.moves().await.unwrap_or_default();
            if !moves.is_empty() && moves.iter().all(|mv| mv["finished"] == true) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        let moves = self.moves().await.unwrap_or_default();
        let stuck: Vec<_> = moves.iter().filter(|mv| mv["finished"] != true).collect();
        Err(format!("moves do not end: {stuck:#?}\n{}", self.deployment.log_tail()))
    }

    /// Ends all of it.
    pub async fn end(mut self) {
        self.stop().await;
        for link in &self.links {
            link.stop().await;
        }
    }

    /// Waits until no transaction is left prepared on any node.
    pub async fn until_nothing_is_prepared(&self) {
        for index in 0..3 {
            let sql = "SELECT FROM pg_prepared_xacts WHERE database = current_database()";
            let none = async || {
                let client = self.node_client(index).await?;
                client.query(sql, &[]).await.ok()?.is_empty().then_some(())
            };
            eventually("nothing is prepared", Duration::from_secs(40), none).await;
        }
    }
}

/// Killed by us or by its failpoint; or it could not start, as its nodes were not there.
fn is_explained(status: ExitStatus, process: &Process) -> bool {
    match status.signal() {
        Some(6 | 9) => process.may_end,
        Some(_) => false,
        None => status.code() == Some(1) && !process.served,
    }
}
