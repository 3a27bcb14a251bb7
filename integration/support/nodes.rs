//! PostgreSQL nodes for tests: `initdb` once a test binary, then copies of its folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use foreshard::backend::NodeAddress;
use foreshard::local_nodes::{LocalNode, LocalNodeError, NodeSpec, free_ports};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::OnceCell;
use tokio::time::sleep;

/// Some nodes that run until this value, or the test binary, ends.
pub struct TestNodes {
    nodes: Vec<LocalNode>,
}

impl TestNodes {
    /// Starts `count` nodes, named n1, n2, … For a test that stops or breaks its nodes; others
    /// share those of [`shared_nodes`].
    pub async fn start(count: usize) -> Self {
        let mut nodes = Vec::new();
        for index in 1..=count {
            nodes.push(start_node(&format!("n{index}")).await);
        }
        Self { nodes }
    }

    /// The node with this index, from 0.
    pub fn node(&self, index: usize) -> &LocalNode {
        &self.nodes[index]
    }

    /// How to reach each node.
    pub fn addresses(&self) -> Vec<NodeAddress> {
        self.nodes.iter().map(LocalNode::address).collect()
    }

    /// `kill -9` of a node's postmaster; its other processes end by themselves. Starts it again on
    /// the same port after `down`.
    pub async fn kill_and_restart(&mut self, index: usize, down: Duration) {
        let node = &mut self.nodes[index];
        let (spec, pid) = (node.spec().clone(), i32::try_from(node.pid()).unwrap());
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        while node.is_running() {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(down).await;
        let mut failure = None;
        for _ in 0..200 {
            // As long as one of them lives, the next postmaster refuses to start.
            match LocalNode::start(&spec).await {
                Ok(node) => {
                    self.nodes[index] = node;
                    return;
                }
                Err(error) => failure = Some(error),
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("node {} does not start again: {failure:?}", spec.name);
    }

    /// Crashes a node and starts it again on the same port.
    pub async fn crash_and_restart(&mut self, index: usize) {
        let node = self.nodes.remove(index);
        let spec = node.spec().clone();
        node.crash().await.unwrap();
        self.nodes.insert(index, LocalNode::start(&spec).await.unwrap());
    }
}

/// The first `count` (up to 4) of the nodes that all tests of this binary share. Tests keep apart
/// by databases of their own ([`super::TestDatabase`]).
pub async fn shared_nodes(count: usize) -> Vec<&'static LocalNode> {
    static NODES: [OnceCell<LocalNode>; 4] = [const { OnceCell::const_new() }; 4];
    let mut nodes = Vec::new();
    for (index, cell) in NODES.iter().take(count).enumerate() {
        let name = format!("n{}", index + 1);
        nodes.push(cell.get_or_init(|| async move { start_node(&name).await }).await);
    }
    assert_eq!(nodes.len(), count, "there are 4 shared nodes at the most");
    nodes
}

/// A new empty folder, removed when the test binary ends.
pub fn temp_folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = root().join(format!("{name}-{number}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Starts a node on a copy of the template. Another test binary can take the port first.
async fn start_node(name: &str) -> LocalNode {
    let folder = temp_folder(name);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(template().await.join("data"))
        .arg(&folder)
        .status()
        .unwrap();
    assert!(copied.success());
    for _ in 0..20 {
        let spec = NodeSpec { durable: false, ..NodeSpec::new(name, &folder, next_port()) };
        match LocalNode::start(&spec).await {
            Err(LocalNodeError::PortInUse { .. }) => {}
            // It lost the port between our look and its own.
            Err(LocalNodeError::NotReady { tail, .. }) if tail.contains("already in use") => {}
            result => return result.unwrap_or_else(|error| panic!("{error}")),
        }
    }
    panic!("no free port for node {name}");
}

/// A folder that `initdb` made.
async fn template() -> &'static Path {
    static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
    let template = TEMPLATE.get_or_init(|| async {
        let folder = temp_folder("template");
        let spec = NodeSpec { durable: false, ..NodeSpec::new("template", &folder, 1) };
        LocalNode::prepare(&spec).await.unwrap_or_else(|error| panic!("{error}"));
        folder
    });
    template.await
}

/// A free port below those that the system gives to outgoing connections. Parallel test binaries
/// start at different places.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let place = u16::try_from(std::process::id() % 500).unwrap() * 20;
    let first = 20_000 + place + NEXT.fetch_add(1, Ordering::Relaxed) % 20;
    free_ports(first, 1)[0]
}

/// The folder of everything that this test binary makes. A shell that reads from a pipe of this
/// process sees it end in whatever way; it then stops the servers and removes the folder.
fn root() -> &'static Path {
    // The watchdog's end of the pipe stays open as long as this lives.
    static ROOT: std::sync::OnceLock<(PathBuf, Child)> = std::sync::OnceLock::new();
    let (folder, _) = ROOT.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("foreshard-test-{}", std::process::id()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        std::fs::create_dir_all(&folder).unwrap();
        let script = "cat > /dev/null; cd / \n\
            find \"$1\" -path '*/data/postmaster.pid' | while read -r pid; do\n\
              kill -QUIT \"$(head -n 1 \"$pid\")\"\n\
            done\n\
            for try in 1 2 3 4 5; do rm -rf \"$1\" && break; sleep 1; done";
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", script, "sh"]).arg(&folder);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is for the tests; the watchdog has to outlive them.
        std::os::unix::process::CommandExt::process_group(&mut watchdog, 0);
        let watchdog = watchdog.spawn().unwrap();
        (folder, watchdog)
    });
    folder
}
