//! The program: one process, or two on one catalog of which one stands by or both serve; started again
//! whenever it ends. And their admin API.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use foreshard::catalog::{Catalog, Lead};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::process_support::Deployment;
use super::world::{Who, World};
use crate::support::TestEtcd;
use crate::support::link::Link;

/// How long one that is not heard of stays the leader.
pub const LEASE: Duration = Duration::from_secs(2);

/// A place where the program runs.
pub struct Proxy {
    pub deployment: Deployment,
    process: Option<Process>,
}

struct Process {
    child: Child,
    /// Whether its end is no surprise.
    may_end: bool,
    served: bool,
}

/// What two proxies share.
pub struct Shared {
    pub etcd: TestEtcd,
    /// From each proxy to it.
    pub wires: Vec<Link>,
}

impl Proxy {
    pub fn new(deployment: Deployment) -> Self {
        Self { deployment, process: None }
    }

    /// Starts the program, unless it runs.
    fn start(&mut self, failpoint: Option<&str>) {
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

    async fn serves(&self) -> bool {
        let request = "GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n";
        self.http(request).await.is_some_and(|(status, _)| status == 200)
    }

    /// Starts the program again if it has ended; an end that nobody caused is a story.
    async fn keep_alive(&mut self, failpoint: Option<&str>) -> Option<String> {
        let serves = self.serves().await;
        let Some(process) = &mut self.process else {
            self.start(failpoint);
            return None;
        };
        process.served |= serves;
        let status = process.child.try_wait().unwrap()?;
        let tail = self.deployment.log_tail();
        let explained = is_explained(status, process, &tail);
        self.process = None;
        let story = format!("the program ended: {status}\n{tail}");
        self.start(failpoint);
        (!explained).then_some(story)
    }

    fn signal(&mut self, signal: Signal) {
        let Some(process) = &mut self.process else { return };
        if let Some(pid) = process.child.id() {
            process.may_end |= signal == Signal::SIGKILL;
            let _gone = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
        }
    }

    async fn stop(&mut self) -> Option<()> {
        self.signal(Signal::SIGTERM);
        let mut process = self.process.take()?;
        let ended = timeout(Duration::from_secs(30), process.child.wait()).await.ok()?.ok()?;
        let replaced = was_replaced(ended, &self.deployment.log_tail());
        (ended.success() || replaced).then_some(())
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
}

/// Killed by us or by its failpoint; or it could not start, as its nodes were not there; or the other
/// one serves.
fn is_explained(status: ExitStatus, process: &Process, tail: &str) -> bool {
    match status.signal() {
        Some(6 | 9) => process.may_end,
        Some(_) => false,
        None => status.code() == Some(1) && (!process.served || was_replaced(status, tail)),
    }
}

fn was_replaced(status: ExitStatus, tail: &str) -> bool {
    status.code() == Some(1) && tail.contains("another proxy serves now")
}

impl World {
    /// Starts the program wherever it does not run.
    pub fn start(&mut self, failpoint: Option<&str>) {
        let failpoints = self.failpoints(failpoint);
        for (proxy, failpoint) in self.proxies.iter_mut().zip(failpoints) {
            proxy.start(failpoint);
        }
    }

    /// Starts the program again where it has ended; an end that nobody caused is a story.
    pub async fn keep_alive(&mut self, failpoint: Option<&str>) -> Option<String> {
        let failpoints = self.failpoints(failpoint);
        for (proxy, failpoint) in self.proxies.iter_mut().zip(failpoints) {
            if let Some(story) = proxy.keep_alive(failpoint).await {
                return Some(story);
            }
        }
        None
    }

    /// Where each proxy is to die. One that stands by would come there much later.
    fn failpoints<'a>(&self, failpoint: Option<&'a str>) -> [Option<&'a str>; 2] {
        [failpoint, failpoint.filter(|_| self.who == Who::Both)]
    }

    /// One that serves and is to be done harm to.
    pub async fn victim(&self, random: &mut StdRng) -> usize {
        match self.who {
            Who::Both => random.random_range(0..2),
            _ => self.leader().await,
        }
    }

    /// Which proxy serves, as far as can be seen.
    pub async fn leader(&self) -> usize {
        for (index, proxy) in self.proxies.iter().enumerate() {
            if proxy.serves().await {
                return index;
            }
        }
        0
    }

    /// Sends a signal to one process of the program, if it runs.
    pub fn signal(&mut self, proxy: usize, signal: Signal) {
        self.proxies[proxy].signal(signal);
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
        panic!("it does not serve: {}", self.log_tails());
    }

    /// Stops the program as an operator does; `None` if it does not end in order.
    pub async fn stop(&mut self) -> Option<()> {
        let mut stopped = Some(());
        // The one that stands by first, or it would begin to serve.
        let leader = self.leader().await;
        for index in (0..self.proxies.len()).filter(|index| *index != leader).chain([leader]) {
            stopped = stopped.and(self.proxies[index].stop().await);
        }
        stopped
    }

    /// The last that each process has said.
    pub fn log_tails(&self) -> String {
        let tails = self.proxies.iter().map(|proxy| proxy.deployment.log_tail());
        tails.collect::<Vec<_>>().join("\n--\n")
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

    /// What the proxy that serves answers.
    async fn http(&self, request: &str) -> Option<(u16, String)> {
        let proxy = &self.proxies[self.leader().await];
        // One that stands by says so.
        proxy.http(request).await.filter(|(status, _)| *status != 503)
    }

    /// The catalog, which no process has open.
    pub async fn catalog(&self) -> (Catalog, Option<Lead>) {
        let Some(shared) = &self.shared else {
            return (foreshard::app::catalog_in(&self.deployment.data_folder).unwrap(), None);
        };
        let lead = shared.etcd.lead("chaos/", "audit").await;
        (Catalog::new(std::sync::Arc::new(lead.kv().clone())), Some(lead))
    }
}
