//! A running server: start, wait until it is ready, stop.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, file};
use super::{LocalNodeError, port};
use crate::backend::{NodeAddress, NodeTls};

/// How long a server may take to become ready: recovery after a crash included.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// How long a fast stop may take before it becomes an immediate one.
pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often a server is looked at while it starts or stops.
const POLL: Duration = Duration::from_millis(20);

/// A node to be run on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name in the shard map; also PostgreSQL's `cluster_name`.
    pub name: String,
    /// Its own folder: data, log and socket; made if it is not there, reused if it is.
    pub folder: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Whether commits survive a crash of the machine. Only tests do without.
    pub durable: bool,
}

impl NodeSpec {
    /// A durable node.
    pub fn new(name: impl Into<String>, folder: impl Into<PathBuf>, port: u16) -> Self {
        Self { name: name.into(), folder: folder.into(), port, durable: true }
    }
}

/// A PostgreSQL server that this process runs. Stopped (fast, without waiting) when dropped.
#[derive(Debug)]
pub struct LocalNode {
    spec: NodeSpec,
    cluster: Cluster,
    child: Child,
}

impl LocalNode {
    /// Makes the node's data if it is new, and starts nothing.
    pub async fn prepare(spec: &NodeSpec) -> Result<(), LocalNodeError> {
        Cluster::prepare(spec).await.map(drop)
    }

    /// Makes the node's data if it is new, starts the server and waits until it takes connections.
    /// A server that a crash of this program left running on the same folder is stopped first.
    /// Not cancel safe: if it is dropped midway, the server is told to stop.
    pub async fn start(spec: &NodeSpec) -> Result<Self, LocalNodeError> {
        let cluster = Cluster::prepare(spec).await?;
        stop_orphan(spec, &cluster).await?;
        if !port::is_free(spec.port) {
            return Err(LocalNodeError::PortInUse { name: spec.name.clone(), port: spec.port });
        }
        let child = spawn(spec, &cluster)?;
        let mut node = Self { spec: spec.clone(), cluster, child };
        node.wait_ready().await?;
        Ok(node)
    }

    /// What it was started with.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// How to reach it by TCP, as the superuser.
    pub fn address(&self) -> NodeAddress {
        self.address_at("127.0.0.1".to_owned())
    }

    /// How to reach it by its Unix socket, as the superuser; `None` if its folder's path is too
    /// long for a socket.
    pub fn socket_address(&self) -> Option<NodeAddress> {
        let folder = self.cluster.socket_folder()?;
        Some(self.address_at(folder.display().to_string()))
    }

    /// The process id of its postmaster.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's log file, of this start alone.
    pub fn log(&self) -> &Path {
        &self.cluster.log
    }

    /// The server's programs, for `psql` and the like.
    pub fn binaries(&self) -> &super::Binaries {
        &self.cluster.binaries
    }

    /// Whether the server still runs; if it ended by itself, its log says why.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops it: open transactions are rolled back, nothing that was committed is lost. If that
    /// takes too long, as after [`LocalNode::crash`].
    pub async fn stop(mut self) -> Result<(), LocalNodeError> {
        self.signal(Signal::SIGINT);
        if self.wait_ended(STOP_DEADLINE).await {
            return Ok(());
        }
        self.crash_now().await
    }

    /// Stops it at once and without a checkpoint: the next start recovers from the log.
    pub async fn crash(mut self) -> Result<(), LocalNodeError> {
        self.crash_now().await
    }

    async fn crash_now(&mut self) -> Result<(), LocalNodeError> {
        self.signal(Signal::SIGQUIT);
        if self.wait_ended(STOP_DEADLINE).await {
            return Ok(());
        }
        Err(not_stopped(&self.spec, self.postmaster()))
    }

    fn address_at(&self, host: String) -> NodeAddress {
        NodeAddress {
            name: self.spec.name.clone(),
            host,
            port: self.spec.port,
            user: "postgres".to_owned(),
            password: None,
            tls: NodeTls::default(),
            fence: None,
        }
    }

    fn postmaster(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Tells a server that still runs to stop.
    fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Err(errno) = kill(self.postmaster(), signal)
        {
            tracing::warn!(node = self.spec.name, %errno, "a local node can't be told to stop");
        }
    }

    pub(super) async fn wait_ended(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.is_running() {
            if Instant::now() > deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    async fn wait_ready(&mut self) -> Result<(), LocalNodeError> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let what = match self.child.try_wait() {
                Ok(Some(status)) => format!("ended while it started ({status})"),
                _ if Instant::now() > deadline => {
                    format!("was not ready within {} s", READY_DEADLINE.as_secs())
                }
                _ => {
                    if PidFile::read(&self.cluster.data)
                        .is_some_and(|found| found.pid == self.postmaster() && found.ready)
                    {
                        return Ok(());
                    }
                    sleep(POLL).await;
                    continue;
                }
            };
            let (log, tail) = (self.cluster.log.clone(), self.cluster.log_tail());
            return Err(LocalNodeError::NotReady { name: self.spec.name.clone(), what, log, tail });
        }
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
    }
}

/// Starts the server with its log in a file; the log of the start before is kept beside.
fn spawn(spec: &NodeSpec, cluster: &Cluster) -> Result<Child, LocalNodeError> {
    if cluster.log.exists() {
        let before = cluster.log.with_extension("log.1");
        fs::rename(&cluster.log, &before).map_err(file("renaming", &cluster.log))?;
    }
    let making = || file("making the log file", &cluster.log);
    let log = File::create(&cluster.log).map_err(making())?;
    let errors = log.try_clone().map_err(making())?;
    let mut command = cluster.command("postgres");
    command.arg("-D").arg(&cluster.data).stdin(Stdio::null()).stdout(log).stderr(errors);
    // Ctrl-C in the terminal is for this program, which then stops its nodes in order.
    command.process_group(0);
    command.spawn().map_err(|source| LocalNodeError::Program {
        name: spec.name.clone(),
        program: "postgres",
        output: source.to_string(),
    })
}

/// Stops a server that runs on the node's folder, or removes what a dead one left there.
async fn stop_orphan(spec: &NodeSpec, cluster: &Cluster) -> Result<(), LocalNodeError> {
    let Some(PidFile { pid, .. }) = PidFile::read(&cluster.data) else { return Ok(()) };
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut told = false;
        while runs_on(pid, &cluster.data) {
            if !told {
                tracing::info!(node = spec.name, %pid, "stopping a server left running");
                told = matches!(kill(pid, signal), Ok(()) | Err(Errno::ESRCH));
            }
            if Instant::now() > deadline {
                break;
            }
            sleep(POLL).await;
        }
    }
    if runs_on(pid, &cluster.data) {
        return Err(not_stopped(spec, pid));
    }
    let path = PidFile::path(&cluster.data);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file("removing", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether `pid` is a server on `data`, and not another program that was given the number since.
fn runs_on(pid: Pid, data: &Path) -> bool {
    if matches!(kill(pid, None), Err(Errno::ESRCH)) {
        return false;
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(folder) => folder == data,
        // No /proc: the process lives, and is more likely ours than not.
        Err(_) => !Path::new("/proc/self").exists(),
    }
}

fn not_stopped(spec: &NodeSpec, pid: Pid) -> LocalNodeError {
    let seconds = STOP_DEADLINE.as_secs();
    LocalNodeError::NotStopped { name: spec.name.clone(), pid: pid.as_raw(), seconds }
}

/// What a server says of itself in `postmaster.pid`
/// (PostgreSQL's `src/include/utils/pidfile.h`).
struct PidFile {
    pid: Pid,
    ready: bool,
}

impl PidFile {
    fn path(data: &Path) -> PathBuf {
        data.join("postmaster.pid")
    }

    fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(Self::path(data)).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)?);
        let ready = text.lines().nth(7).is_some_and(|status| status.trim() == "ready");
        Some(Self { pid, ready })
    }
}
