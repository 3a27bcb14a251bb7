//! `foreshard dev`: nodes on this machine, the proxy in front of them, all in one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use super::cli;
use super::data_folder::{DataFolder, DataFolderError, POLICY, keep_policy};
use super::logging;
use super::reload::Source;
use super::running::{RunError, Running};
use super::signals::Signals;
use super::terminal::{complain, say, story};
use crate::backend::NodeAddress;
use crate::config::{Faults, Policy, Serve, UserLookup};
use crate::frontend::{self, Method, Rule};
use crate::local_nodes::{LocalNode, LocalNodeError, NodeSpec, free_ports};
use crate::sql::Ident;

/// How many nodes a new data folder gets.
const NODES: u16 = 2;
/// How often the nodes are looked after.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why `dev` does not start.
#[derive(Debug, thiserror::Error)]
enum DevError {
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    #[error(transparent)]
    Policy(#[from] Faults),
    #[error(transparent)]
    Node(#[from] LocalNodeError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("port {0} of 127.0.0.1 is in use by another program; --port chooses another one")]
    PortInUse(u16),
    #[error("there are not enough free ports above {0}")]
    NoPorts(u16),
    #[error("the data folder has {has} nodes; --nodes {wanted} would leave out their data")]
    FewerNodes { has: usize, wanted: u16 },
    #[error("the database {database:?} can't be made on node {node}")]
    Database {
        database: String,
        node: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("signals can't be received")]
    Signals(#[source] std::io::Error),
}

/// Nodes and proxy, ready for clients.
struct Dev {
    folder: DataFolder,
    policy: Option<PathBuf>,
    nodes: Vec<LocalNode>,
    running: Running,
    database: String,
}

/// Runs until a signal stops it.
pub(super) async fn dev(args: cli::Dev) -> ExitCode {
    logging::start("warn", cli::LogFormat::Text);
    let ended = match Signals::new().map_err(DevError::Signals) {
        Ok(mut signals) => Box::pin(run(&args, &mut signals)).await,
        Err(error) => Err(error),
    };
    ended.unwrap_or_else(|error| {
        complain(format!("foreshard: {}", story(&error)));
        ExitCode::FAILURE
    })
}

async fn run(args: &cli::Dev, signals: &mut Signals) -> Result<ExitCode, DevError> {
    let mut dev = tokio::select! {
        dev = Dev::start(args) => dev?,
        // Nodes that run already are told to stop as they are dropped.
        () = signals.any() => return Ok(ExitCode::FAILURE),
    };
    dev.welcome(args);
    tokio::select! {
        () = look_after(&mut dev.nodes) => {}
        () = signals.any() => {}
    }
    say("\nstopping; Ctrl-C again does not wait for transactions");
    tokio::select! {
        code = dev.stop() => Ok(code),
        () = signals.any() => Ok(ExitCode::FAILURE),
    }
}

impl Dev {
    async fn start(args: &cli::Dev) -> Result<Self, DevError> {
        let folder = DataFolder::open(args.data.as_deref())?;
        let admin_port = args.port + 1;
        for port in [args.port, admin_port] {
            if free_ports(port, 1) != [port] {
                return Err(DevError::PortInUse(port));
            }
        }
        let ports = choose_ports(args, &folder)?;
        let names: Vec<String> = ports.keys().cloned().collect();
        let policy_file = args.policy.clone().or_else(|| folder.policy());
        let policy = policy_file.as_deref().map(|file| Policy::load(file, Some(&names)));
        let policy = policy.transpose()?.unwrap_or_default();
        let database = policy.database.clone();

        let nodes = start_nodes(&folder, &ports).await?;
        folder.store_ports(&ports)?;
        let addresses: Vec<NodeAddress> = nodes.iter().map(LocalNode::address).collect();
        try_join_all(addresses.iter().map(|node| make_database(node, &database))).await?;
        let serve = Serve {
            frontend: frontend::Config {
                listen: loopback(args.port),
                ..frontend::Config::default()
            },
            admin_listen: loopback(admin_port),
            authentication: Rule::for_all(Method::Trust),
            user_lookup: UserLookup { enabled: false, ..UserLookup::default() },
            data_folder: folder.path.clone(),
            nodes: addresses,
            policy,
            ..Serve::default()
        };
        let file = policy_file.clone().unwrap_or_else(|| folder.path.join(POLICY));
        let source = Source::Policy { file, folder: folder.path.clone() };
        let running = Box::pin(Running::start(serve, source, Vec::new())).await?;
        if let Some(file) = &policy_file {
            keep_policy(&folder.path, file)?;
        }
        Ok(Self { folder, policy: policy_file, nodes, running, database })
    }

    /// Says how to connect to what.
    fn welcome(&self, args: &cli::Dev) {
        let database = &self.database;
        let psql = |port| format!("psql -h 127.0.0.1 -p {port} -U postgres {database}");
        say(format!("\nforeshard is ready.\n\n  clients   {}", psql(args.port)));
        let map = self.running.proxy.engine.live_map.snapshot();
        for (id, node) in map.nodes() {
            let local = self.nodes.iter().find(|local| local.spec().name == node.name);
            let Some(port) = local.map(|local| local.spec().port) else { continue };
            let home = if id == map.home() { "  (home node)" } else { "" };
            say(format!("  {:<9} {}{home}", format!("node {}", node.name), psql(port)));
        }
        let admin = format!("http://{}", self.running.admin.address());
        say(format!("  admin     {admin}  (metrics, health, API)"));
        say(format!("  data      {}", self.folder.path.display()));
        match &self.policy {
            Some(file) => say(format!(
                "  policy    {}: {} shards, {} tables",
                file.display(),
                map.shard_count(),
                map.tables().len()
            )),
            None => say("  policy    none: every table lives on the home node (see --policy)"),
        }
        let option = if args.port == 6432 { String::new() } else { format!(" --admin {admin}") };
        say(format!("\nforeshard watch{option}   shows load, forecast, decisions and moves"));
        say("Ctrl-C stops all of it; the data stays.");
    }

    async fn stop(self) -> ExitCode {
        self.running.stop(false).await;
        let mut code = ExitCode::SUCCESS;
        for stopped in join_all(self.nodes.into_iter().map(LocalNode::stop)).await {
            if let Err(error) = stopped {
                complain(story(&error));
                code = ExitCode::FAILURE;
            }
        }
        say("stopped");
        code
    }
}

/// The port of each node: that of the last start if it is free, else the next free one.
fn choose_ports(args: &cli::Dev, folder: &DataFolder) -> Result<BTreeMap<String, u16>, DevError> {
    let mut ports = folder.ports()?;
    if let Some(wanted) = args.nodes
        && usize::from(wanted) < ports.len()
    {
        return Err(DevError::FewerNodes { has: ports.len(), wanted });
    }
    let has = u16::try_from(ports.len()).unwrap_or(NODES);
    let count = args.nodes.unwrap_or(if has == 0 { NODES } else { has });
    let first = args.port + 2;
    let mut free = free_ports(first, 64).into_iter();
    for index in 1..=count {
        let port = ports.entry(format!("n{index}")).or_default();
        if *port == args.port || *port == args.port + 1 || free_ports(*port, 1) != [*port] {
            *port = 0;
        }
    }
    // All that keep their port first, then those that need one.
    let kept: Vec<u16> = ports.values().copied().collect();
    for port in ports.values_mut().filter(|port| **port == 0) {
        *port = free.find(|port| !kept.contains(port)).ok_or(DevError::NoPorts(first))?;
    }
    Ok(ports)
}

/// Starts all nodes at the same time and says how far they are.
async fn start_nodes(
    folder: &DataFolder,
    ports: &BTreeMap<String, u16>,
) -> Result<Vec<LocalNode>, DevError> {
    let mut specs = Vec::new();
    for (name, port) in ports {
        specs.push(NodeSpec::new(name, folder.node(name)?, *port));
    }
    let is_new = |spec: &NodeSpec| !spec.folder.join("data").exists();
    let what = if specs.iter().any(is_new) { "making and starting" } else { "starting" };
    say(format!("{what} {} PostgreSQL nodes in {}", specs.len(), folder.path.display()));
    let starts = specs.iter().map(|spec| async move {
        let began = Instant::now();
        let node = LocalNode::start(spec).await?;
        let seconds = began.elapsed().as_secs_f64();
        say(format!("  node {} is ready on port {} ({seconds:.1} s)", spec.name, spec.port));
        Ok::<_, LocalNodeError>(node)
    });
    Ok(try_join_all(starts).await?)
}

/// Makes the policy's database on a node that does not have it yet.
async fn make_database(node: &NodeAddress, database: &str) -> Result<(), DevError> {
    let connect = async {
        let (client, connection) =
            node.service_config("postgres").connect(node.tls.clone()).await?;
        let work = async {
            let known = "SELECT 1 FROM pg_database WHERE datname = $1";
            if client.query_opt(known, &[&database]).await?.is_none() {
                client.batch_execute(&format!("CREATE DATABASE {}", Ident::new(database))).await?;
            }
            Ok(())
        };
        tokio::select! {
            done = work => done,
            closed = connection => closed,
        }
    };
    connect.await.map_err(|source| DevError::Database {
        database: database.to_owned(),
        node: node.name.clone(),
        source,
    })
}

/// Ends when a node has ended by itself.
async fn look_after(nodes: &mut [LocalNode]) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(node) = nodes.iter_mut().find_map(|node| (!node.is_running()).then_some(node))
        else {
            continue;
        };
        let (name, log) = (&node.spec().name, node.log().display());
        return complain(format!("node {name} ended by itself; {log} says why"));
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
