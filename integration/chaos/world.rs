//! Three nodes, a wire to each, and what runs the program.

use std::path::PathBuf;
use std::time::Duration;

use foreshard::backend::NodeAddress;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::disk::TinyDisk;
use super::ledger::{PURSE, TENANTS};
use super::process_support::Deployment;
use super::proxies::{LEASE, Proxy, Shared};
use super::support::{TestDatabase, TestEtcd, TestNodes, connect, eventually, rows, temp_folder};
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

/// Which proxies there are, and which of them serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    One,
    StandsBy,
    Both,
}

/// Everything that can be broken.
pub struct World {
    pub who: Who,
    pub deployment: Deployment,
    pub links: Vec<Link>,
    pub disks: Vec<Option<TinyDisk>>,
    /// Those that run the program, and what they share if there are two.
    pub proxies: Vec<Proxy>,
    pub shared: Option<Shared>,
    nodes: TestNodes,
}

impl World {
    /// With a second proxy, if wanted. With `leaf_plans` statements go to partitions themselves, else by their parents.
    pub async fn new(who: Who, leaf_plans: bool) -> Self {
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
        let mut deployment = Deployment::over(database.clone());
        let (mut proxies, mut shared) = (Vec::new(), None);
        if who == Who::One {
            configure(&deployment, None);
            proxies.push(Proxy::new(deployment.clone()));
        } else {
            let (other, etcd) = (Deployment::over(database), TestEtcd::start().await);
            let wires = vec![Link::to(etcd.port).await, Link::to(etcd.port).await];
            deployment.other_port = Some(other.port);
            configure(&deployment, Some((&wires[0], who)));
            configure(&other, Some((&wires[1], who)));
            deployment.balanced = who == Who::Both;
            proxies.extend([deployment.clone(), other].map(Proxy::new));
            shared = Some(Shared { etcd, wires });
        }
        if !leaf_plans {
            proxies.iter().for_each(|proxy| proxy.deployment.without_leaf_plans());
        }
        let mut world = Self { who, deployment, links, disks, proxies, shared, nodes };
        world.start(None);
        world.until_it_serves().await;
        world.load().await;
        world
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

    /// All moves, newest first; `None` if the program does not answer.
    pub async fn moves(&self) -> Option<Vec<Value>> {
        let moves = self.admin("/api/v1/moves?limit=1000").await?;
        moves["moves"].as_array().cloned()
    }

    /// Everything is whole again, and everything that was begun ends.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.links.iter().for_each(Link::heal);
        if let Some(shared) = &self.shared {
            shared.wires.iter().for_each(Link::heal);
            shared.etcd.signal(Signal::SIGCONT);
        }
        self.disks.iter().flatten().for_each(TinyDisk::empty);
        (0..self.proxies.len()).for_each(|proxy| self.signal(proxy, Signal::SIGCONT));
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
        Err(format!("moves do not end: {stuck:#?}\n{}", self.log_tails()))
    }

    /// Ends all of it.
    pub async fn end(mut self) {
        self.stop().await;
        let wires = self.shared.iter().flat_map(|shared| &shared.wires);
        for link in self.links.iter().chain(wires) {
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

/// Writes what a proxy is started with; its catalog is where the wire leads, if there is one.
fn configure(deployment: &Deployment, etcd: Option<(&Link, Who)>) {
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let (before, _) = text.split_once("policy:").unwrap();
    let catalog = etcd.map_or_else(String::new, |(wire, who)| {
        format!(
            "catalog: {{ etcd: {{ endpoints: 'http://127.0.0.1:{}', prefix: chaos, lease_ms: {}, \
             serve: {} }} }}\n",
            wire.port,
            LEASE.as_millis(),
            if who == Who::Both { "all" } else { "one" }
        )
    });
    let policy = format!(
        "{catalog}policy:\n  database: {DATABASE}\n  groups:\n    shop:\n      key: bigint\n      \
         shards: {SHARDS}\n      \
         tables: {{ accounts: tenant_id, entries: tenant_id, purse: tenant_id }}\n  \
         placement: {{ mode: 'off' }}\n  \
         mover: {{ switch_backoff_ms: 50, backoff_max_ms: 1000, concurrent_moves: 4, reversible_ms: 4000 }}\n"
    );
    std::fs::write(&deployment.config, format!("{before}{policy}")).unwrap();
}
