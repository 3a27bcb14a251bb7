//! `foreshard dev` as a child process, and its admin API.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use foreshard::app::AdminClient;
use foreshard::local_nodes::free_ports;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls};

use crate::screen::say;

/// How many nodes.
const NODES: &str = "3";
/// The database of the policy.
pub(crate) const DATABASE: &str = "shop";
/// Where clients connect to, if the port is free.
const PORT: u16 = 6432;
/// How long the start may take, with a slow disk.
const READY_DEADLINE: Duration = Duration::from_mins(2);
/// How long a clean stop may take.
const STOP_DEADLINE: Duration = Duration::from_mins(1);

/// The proxy and its nodes, in a folder of their own.
pub(crate) struct Foreshard {
    child: Child,
    folder: PathBuf,
    pub(crate) port: u16,
}

/// A node, to be asked directly.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) home: bool,
}

impl Foreshard {
    /// Starts it; does not wait until it is ready.
    pub(crate) fn spawn() -> anyhow::Result<Self> {
        let program = program()?;
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.yaml");
        let folder = std::env::temp_dir().join(format!("foreshard-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let log = std::fs::File::create(folder.join("foreshard.log"))?;
        let port = free_ports_from(PORT)?;
        say(format!(
            "starting foreshard dev with {NODES} PostgreSQL nodes in {}",
            folder.display()
        ));
        let mut command = Command::new(&program);
        command.arg("dev").args(["--nodes", NODES, "--port", &port.to_string()]);
        command.arg("--data").arg(&folder).arg("--policy").arg(&policy);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C in the terminal is for this program, which stops the proxy after the clients.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child, folder, port })
    }

    /// Waits until it serves clients.
    pub(crate) async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let admin = self.admin()?;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("foreshard dev ended while it started ({status})");
            }
            if let Ok(status) = admin.get("/api/v1/status").await
                && status["ready"] == true
            {
                say(format!("  ready after {:.1} s", began.elapsed().as_secs_f64()));
                return Ok(());
            }
            if began.elapsed() > READY_DEADLINE {
                bail!("foreshard dev was not ready within {} s", READY_DEADLINE.as_secs());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Its admin API.
    pub(crate) fn admin(&self) -> anyhow::Result<AdminClient> {
        Ok(AdminClient::new(&format!("http://127.0.0.1:{}", self.port + 1))?)
    }

    /// Where the run may put files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A client of the proxy.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        connect(self.port).await.context("connecting through the proxy")
    }

    /// The nodes that it says it has.
    pub(crate) async fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        let answer = self.admin()?.get("/api/v1/nodes").await?;
        let node = |node: &Value| {
            let port = u16::try_from(node["port"].as_u64()?).ok()?;
            let name = node["node"].as_str()?.to_owned();
            Some(Node { name, port, home: node["home"] == true })
        };
        let nodes = answer["nodes"].as_array().into_iter().flatten().map(node);
        nodes.collect::<Option<_>>().context("the list of nodes can't be read")
    }

    /// Prints the end of what it said, for a run that ended early.
    pub(crate) fn show_log(&self) {
        let text = std::fs::read_to_string(self.folder.join("foreshard.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        say("\nthe last lines of foreshard's log:");
        lines[lines.len().saturating_sub(15)..].iter().for_each(|line| say(format!("  {line}")));
    }

    /// Leaves it running when this program ends, and says how to reach and to stop it.
    pub(crate) async fn leave(self) -> anyhow::Result<()> {
        let pid = self.child.id().context("foreshard dev has ended")?;
        say(format!("\nKEEP=1: it goes on running (data and log in {}).", self.folder.display()));
        let psql = |port| format!("psql -h 127.0.0.1 -p {port} -U postgres {DATABASE}");
        say(format!("  clients   {}", psql(self.port)));
        for node in self.nodes().await? {
            say(format!("  {:<9} {}", format!("node {}", node.name), psql(node.port)));
        }
        let admin = format!("http://127.0.0.1:{}", self.port + 1);
        say(format!("  live      target/release/foreshard watch --admin {admin}"));
        say(format!("  stop      kill {pid}; rm -r {}", self.folder.display()));
        Ok(())
    }

    /// Stops it as Ctrl-C does, and removes its data.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            // One that has ended by itself is gone already.
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT).ok();
        }
        match timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(ended) => ended?,
            Err(_) => bail!("foreshard dev did not stop within {} s", STOP_DEADLINE.as_secs()),
        };
        let folder = &self.folder;
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("removing {}", folder.display()))?;
        say("everything is stopped and removed; KEEP=1 would leave it running");
        Ok(())
    }
}

/// A client of a server on this machine.
pub(crate) async fn connect(port: u16) -> anyhow::Result<Client> {
    let config = format!("host=127.0.0.1 port={port} user=postgres dbname={DATABASE}");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    #[expect(clippy::disallowed_methods, reason = "the program ends with it")]
    tokio::spawn(connection);
    Ok(client)
}

/// The release build of the proxy, beside this example.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("no folder of programs")?;
    let program = folder.join("foreshard");
    if !program.exists() {
        bail!("{} is not there; cargo build --release makes it", program.display());
    }
    Ok(program)
}

/// The first port from `first` on that is free together with the next one, for the admin API.
fn free_ports_from(first: u16) -> anyhow::Result<u16> {
    let mut candidates = (first..first + 1_000).step_by(10);
    let is_free = |port: &u16| free_ports(*port, 2) == [*port, *port + 1];
    candidates.find(is_free).with_context(|| format!("no free ports above {first}"))
}
