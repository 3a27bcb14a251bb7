//! One process of the program.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Deployment;
use super::deployment::connect;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// `foreshard serve`. Killed when dropped.
pub struct Serving {
    child: Child,
}

impl Serving {
    /// Starts it, and waits until it serves.
    pub async fn start(deployment: &Deployment, variable: Option<(&str, &str)>) -> Self {
        Self::start_with(deployment, variable, &[]).await
    }

    /// The same with further arguments.
    pub async fn start_with(
        deployment: &Deployment,
        variable: Option<(&str, &str)>,
        args: &[&str],
    ) -> Self {
        let mut serving = Self::spawn_with(deployment, variable, args);
        let deadline = Instant::now() + PATIENCE;
        while connect(&deployment.driver()).await.is_err() {
            let ended = serving.child.try_wait().unwrap();
            let in_time = ended.is_none() && Instant::now() < deadline;
            assert!(in_time, "it does not serve ({ended:?}): {}", deployment.log_tail());
            sleep(Duration::from_millis(20)).await;
        }
        serving
    }

    /// Starts it without waiting for anything.
    pub fn spawn(deployment: &Deployment, variable: Option<(&str, &str)>) -> Self {
        Self::spawn_with(deployment, variable, &[])
    }

    fn spawn_with(deployment: &Deployment, variable: Option<(&str, &str)>, args: &[&str]) -> Self {
        let log = File::options().create(true).append(true).open(&deployment.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_foreshard"));
        command.arg("serve").arg("--config").arg(&deployment.config).args(args);
        command.env_remove("FORESHARD_FAILPOINT").envs(variable);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        Self { child: command.spawn().unwrap() }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, deployment: &Deployment) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it goes on: {}", deployment.log_tail())).unwrap()
    }

    /// Waits until its failpoint has ended it.
    pub async fn died(mut self, deployment: &Deployment) {
        let status = self.ended(deployment).await;
        assert_eq!(status.signal(), Some(6), "{}", deployment.log_tail());
    }

    /// Waits until its failpoint has stopped it, as `kill -STOP` would.
    pub async fn halted(&self, deployment: &Deployment) {
        let stat = format!("/proc/{}/stat", self.child.id().unwrap());
        let halted = async {
            while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let halted = timeout(PATIENCE, halted).await;
        assert!(halted.is_ok(), "it goes on: {}", deployment.log_tail());
    }

    /// `kill -9`.
    pub async fn kill(mut self, deployment: &Deployment) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.ended(deployment).await.signal(), Some(9));
    }

    /// Stops it as an operator does.
    pub async fn stop(mut self, deployment: &Deployment) {
        self.signal(Signal::SIGTERM);
        let status = self.ended(deployment).await;
        assert!(status.success(), "{status}: {}", deployment.log_tail());
    }
}
