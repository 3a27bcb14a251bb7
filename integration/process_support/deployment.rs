//! What a process serves: a database on some nodes, a data folder, a configuration.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use foreshard::backend::NodeAddress;
use foreshard::local_nodes::free_ports;
use foreshard::runtime::Tasks;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::{SHARDS, Serving, TENANTS};
use crate::support::{TestDatabase, eventually, temp_folder};

/// A group of two tables over some nodes, and where their proxy runs.
#[derive(Clone)]
pub struct Deployment {
    pub database: TestDatabase,
    /// Where clients connect.
    pub port: u16,
    /// Where they connect if nobody is there.
    pub other_port: Option<u16>,
    /// Whether they connect to either, as it comes.
    pub balanced: bool,
    /// Where its processes keep the catalog.
    pub data_folder: PathBuf,
    pub config: PathBuf,
    /// What the processes say.
    pub log: PathBuf,
}

const TABLES: &str = "
    CREATE TABLE accounts (tenant_id bigint PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
    CREATE TABLE entries (tenant_id bigint NOT NULL REFERENCES accounts (tenant_id),
        writer int NOT NULL, n bigint NOT NULL, note text DEFAULT 'a note');
    CREATE INDEX entries_tenant ON entries (tenant_id);";

impl Deployment {
    /// Before its first start: empty databases on `nodes` shared nodes, and a configuration.
    pub async fn new(nodes: usize) -> Self {
        Self::over(TestDatabase::create(nodes).await)
    }

    /// The same in front of nodes of its own.
    pub fn over(database: TestDatabase) -> Self {
        let folder = temp_folder("deployment");
        let deployment = Self {
            port: port(),
            other_port: None,
            balanced: false,
            data_folder: folder.join("data"),
            config: folder.join("foreshard.yaml"),
            log: folder.join("log"),
            database,
        };
        deployment.configure("authentication: trust\n");
        deployment
    }

    /// Writes the configuration, with `more` keys at its top.
    pub fn configure(&self, more: &str) {
        let mut nodes = String::new();
        for NodeAddress { name, host, port, user, password, .. } in &self.database.nodes {
            let password = password.as_ref().map(foreshard::backend::Password::reveal);
            let password = password.map(|it| format!(", password: {it}")).unwrap_or_default();
            let line = format!(
                "  - {{ name: {name}, host: {host}, port: {port}, user: {user}{password} }}"
            );
            writeln!(nodes, "{line}").unwrap();
        }
        let text = format!(
            "{more}nodes:\n{nodes}\
             frontend: {{ listen: '127.0.0.1:{}', workers: 2, shutdown_grace_ms: 3000 }}\n\
             admin_listen: 127.0.0.1:{}\n\
             data_folder: {}\n\
             executor: {{ resolve_interval_s: 1 }}\n\
             policy:\n  database: {}\n  groups:\n    shop:\n      key: bigint\n      \
             shards: {SHARDS}\n      tables: {{ accounts: tenant_id, entries: tenant_id }}\n  \
             placement: {{ mode: 'off' }}\n  mover: {{ switch_backoff_ms: 100, reversible_ms: 0 }}\n",
            self.port,
            self.port + 1,
            self.data_folder.display(),
            self.database.name,
        );
        std::fs::write(&self.config, text).unwrap();
    }

    /// Sets keys of a section of the configuration that is there, from its next start on.
    pub fn set(&self, section: &str, keys: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        let begin = format!("{section}: {{");
        assert!(text.contains(&begin), "{text}");
        let text = text.replacen(&begin, &format!("{begin} {keys},"), 1);
        std::fs::write(&self.config, text).unwrap();
    }

    /// From its next start on, no statement is sent to a partition itself.
    pub fn without_leaf_plans(&self) {
        self.set("executor", "leaf_plans: false");
    }

    /// From its next start on, a switch waits so long for its locks that it detaches plainly on a busy
    /// machine too.
    pub fn detaches_plainly(&self) {
        self.set("mover", "lock_timeout_ms: 5000");
    }

    /// Makes the tables and an account for every tenant, through the proxy.
    pub async fn load(&self) {
        let client = self.client().await;
        for sql in TABLES.split_inclusive(';') {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        let values: Vec<_> = (1..=TENANTS).map(|tenant| format!("{tenant}\t0\n")).collect();
        self.copy_in("COPY accounts FROM STDIN", values).await.unwrap();
    }

    /// Sends rows with COPY.
    pub async fn copy_in(
        &self,
        sql: &str,
        rows: Vec<String>,
    ) -> Result<u64, tokio_postgres::Error> {
        use futures_util::SinkExt;
        let client = self.client().await;
        let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>(sql).await?);
        for row in rows {
            sink.feed(row.into()).await?;
        }
        sink.as_mut().finish().await
    }

    /// How a driver connects to the proxy.
    pub fn driver(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").dbname(&self.database.name);
        for port in [self.port].into_iter().chain(self.other_port) {
            config.host("127.0.0.1").port(port);
        }
        if self.balanced {
            config.load_balance_hosts(tokio_postgres::config::LoadBalanceHosts::Random);
        }
        config
    }

    /// The same, where clients know of no other proxy.
    pub fn alone(mut self) -> Self {
        self.other_port = None;
        self
    }

    /// A client of the proxy.
    pub async fn client(&self) -> Client {
        connect(&self.driver()).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// Runs the program with a command of its own.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_foreshard"));
        command.args(args).env("FORESHARD_ADMIN", format!("http://127.0.0.1:{}", self.port + 1));
        command.kill_on_drop(true);
        timeout(Duration::from_secs(90), command.output()).await.unwrap().unwrap()
    }

    /// `foreshard move SHARD NODE --wait`, which must succeed; the pause in ms.
    pub async fn move_shard(&self, shard: u32, node: &str) -> f64 {
        self.pause_of(&["move", &shard.to_string(), node, "--wait"]).await
    }

    /// The same of several shards together.
    pub async fn move_shards(&self, shards: &[u32], node: &str) -> f64 {
        let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
        self.pause_of(&["move", &shards.join(","), node, "--wait"]).await
    }

    /// `foreshard split SHARD --to n1,n2 --wait`, which must succeed; the pause in ms.
    pub async fn split_shard(&self, shard: u32) -> f64 {
        let nodes = &self.database.nodes;
        let to = format!("{},{}", nodes[0].name, nodes[1].name);
        self.pause_of(&["split", &shard.to_string(), "--to", &to, "--wait"]).await
    }

    /// `foreshard merge SHARDS --wait`, which must succeed; the pause in ms.
    pub async fn merge_shards(&self, shards: &[u32]) -> f64 {
        let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
        let mut args = vec!["merge", "--wait"];
        args.extend(shards.iter().map(String::as_str));
        self.pause_of(&args).await
    }

    async fn pause_of(&self, args: &[&str]) -> f64 {
        let output = self.run(args).await;
        let said = said(&output);
        assert!(output.status.success(), "{said}\n{}", self.log_tail());
        let pause = said.split("pause ").nth(1).and_then(|rest| rest.split(' ').next());
        pause.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("no pause in {said}"))
    }

    /// `foreshard move SHARD NODE`, which must be taken.
    pub async fn ask_for_move(&self, shard: u32, node: &str) {
        let output = self.run(&["move", &shard.to_string(), node]).await;
        assert!(output.status.success(), "{}", said(&output));
    }

    /// What the admin API says.
    pub async fn admin(&self, path: &str) -> Value {
        let body = self.page(path).await;
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// The text of a page of the admin API.
    pub async fn page(&self, path: &str) -> String {
        self.page_if_there(path).await.unwrap()
    }

    /// The same, unless nobody answers.
    pub async fn page_if_there(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port + 1)).await?;
        let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        body.ok_or_else(|| std::io::Error::other(answer))
    }

    /// The name of a node that does not have the shard: the next one.
    pub async fn other_node(&self, shard: u32) -> String {
        let shards = self.admin("/api/v1/shards").await;
        let shards = shards["shards"].as_array().unwrap();
        let here = shards.iter().find(|it| it["shard"] == shard).unwrap()["node"].clone();
        let nodes = &self.database.nodes;
        let at = nodes.iter().position(|node| here == *node.name).unwrap();
        nodes[(at + 1) % nodes.len()].name.clone()
    }

    /// Waits until no move is under way; all of them, newest first.
    pub async fn until_moves_are_finished(&self) -> Vec<Value> {
        let finished = || async {
            let moves = self.admin("/api/v1/moves?limit=1000").await;
            let moves = moves["moves"].as_array().unwrap().clone();
            moves.iter().all(|mv| mv["finished"] == true).then_some(moves)
        };
        eventually("all moves are finished", Duration::from_mins(1), finished).await
    }

    /// Starts the program.
    pub async fn serve(&self) -> Serving {
        Serving::start(self, None).await
    }

    /// Starts the program so that it dies at a failpoint.
    pub async fn serve_until(&self, failpoint: &str) -> Serving {
        Serving::start(self, Some(("FORESHARD_FAILPOINT", failpoint))).await
    }

    /// Starts the program so that its log has everything from this level on.
    pub async fn serve_talking(&self, level: &str) -> Serving {
        Serving::start(self, Some(("FORESHARD_LOG", level))).await
    }

    /// The last lines of what the processes said.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// What a program wrote, both streams.
pub fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A client; its connection ends with it.
pub async fn connect(config: &tokio_postgres::Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    drop(Tasks::new().spawn("client", connection));
    Ok(client)
}

/// A free port whose next one is free too, apart from those of the nodes.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let place = u16::try_from(std::process::id() % 50).unwrap() * 40;
    loop {
        let first = 30_600 + place + NEXT.fetch_add(2, Ordering::Relaxed) % 40;
        if free_ports(first, 2) == [first, first + 1] {
            return first;
        }
    }
}
