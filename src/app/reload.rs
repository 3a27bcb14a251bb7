//! A new configuration for a running proxy: what can be changed at once, and what needs a restart.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::StartError;
use super::data_folder::{DataFolderError, keep_policy};
use super::steering::Steering;
use super::terminal::story;
use crate::config::{Faults, Policy, Serve};
use crate::frontend::{self, Admission};
use crate::runtime::Tasks;

/// Requests that wait while a reload is under way.
const REQUESTS: usize = 16;

/// What the configuration is read from again.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// All of it.
    Config(PathBuf),
    /// The policy, which the data folder keeps for the next start. The rest stays as it is.
    Policy { file: PathBuf, folder: PathBuf },
}

/// Reads the configuration again.
#[derive(Debug)]
struct Reloader {
    source: Source,
    /// What is in force, as far as it can be changed, and what the proxy was started with.
    current: Serve,
    admission: Arc<ArcSwap<Admission>>,
    steering: Steering,
}

/// Has the configuration read again, by a task of the proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ReloadDesk(mpsc::Sender<oneshot::Sender<Result<Reloaded, String>>>);

/// What came of it: keys of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reloaded {
    /// In force from now on; who is let in and how, for clients who come from now on.
    pub(super) changed: Vec<&'static str>,
    /// Not in force: the proxy goes on with what it was started with.
    pub(super) needs_restart: Vec<&'static str>,
    /// Groups with another shard key, which stay as they are until `foreshard reshard`.
    pub(super) needs_reshard: Vec<String>,
    /// Groups with plain tables that have rows, which stay as they are until `foreshard import`.
    pub(super) needs_import: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// The configuration has faults.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The policy can't be put in force.
    #[error(transparent)]
    Policy(#[from] StartError),
    /// The policy is in force, but the next start may not find it.
    #[error(transparent)]
    Kept(#[from] DataFolderError),
}

impl Source {
    fn read(&self, current: &Serve) -> Result<Serve, Faults> {
        match self {
            Self::Config(file) => Serve::load(file),
            Self::Policy { file, .. } => {
                let names: Vec<_> = current.nodes.iter().map(|node| node.name.clone()).collect();
                let policy = Policy::load(file, Some(&names))?;
                Ok(Serve { policy, ..current.clone() })
            }
        }
    }

    /// Keeps what is in force now.
    fn keep(&self) -> Result<(), DataFolderError> {
        match self {
            Self::Config(_) => Ok(()),
            Self::Policy { file, folder } => keep_policy(folder, file),
        }
    }
}

impl ReloadDesk {
    /// Starts the task.
    pub(super) fn open(
        source: Source,
        started_with: Serve,
        admission: Arc<ArcSwap<Admission>>,
        (steering, tasks): (Steering, &Tasks),
    ) -> Self {
        let reloader = Reloader { source, current: started_with, admission, steering };
        let (sender, requests) = mpsc::channel(REQUESTS);
        tasks.spawn("reload", reloader.serve(requests, tasks.clone()));
        Self(sender)
    }

    /// Asks for a reload; what comes of it the log tells.
    pub(super) fn request(&self) {
        if self.0.try_send(oneshot::channel().0).is_err() {
            tracing::warn!("a reload was not begun: too many are waiting, or the proxy stops");
        }
    }

    /// Asks for a reload and waits for what comes of it; an error says why nothing was changed.
    pub(super) async fn reload(&self) -> Result<Reloaded, String> {
        let (answer, told) = oneshot::channel();
        let stopping = || "the proxy is stopping".to_owned();
        self.0.send(answer).await.map_err(|_| stopping())?;
        told.await.unwrap_or_else(|_| Err(stopping()))
    }
}

impl Reloader {
    async fn serve(
        mut self,
        mut requests: mpsc::Receiver<oneshot::Sender<Result<Reloaded, String>>>,
        tasks: Tasks,
    ) {
        loop {
            let request = tokio::select! {
                () = tasks.token().cancelled() => return,
                request = requests.recv() => request,
            };
            let Some(request) = request else { return };
            let reloaded = self.reload().await;
            match &reloaded {
                Err(error) => {
                    tracing::error!(error = story(error), "the configuration was not reloaded");
                }
                Ok(Reloaded { changed, needs_restart, .. }) => {
                    tracing::info!(?changed, "the configuration was reloaded");
                    if !needs_restart.is_empty() {
                        tracing::warn!(?needs_restart, "these changes need a restart");
                    }
                }
            }
            // Whoever asked by a signal does not wait for it.
            drop(request.send(reloaded.map_err(|error| story(&error))));
        }
    }

    /// Reads the configuration and takes over what can be. With a fault in it, or a policy that does
    /// not fit the data, nothing changes.
    async fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let new = self.source.read(&self.current)?;
        self.steering.follow(&new.policy, &self.current.nodes).await?;
        let mut reloaded = compare(&self.current, &new);
        reloaded.needs_reshard = self.steering.waiting_keys(&new.policy);
        reloaded.needs_import = self.steering.waiting_imports(&new.policy);
        self.steering.limit(&new);
        let current = &mut self.current;
        let frontend = frontend::Config {
            listen: current.frontend.listen,
            workers: current.frontend.workers,
            unix_socket_folder: current.frontend.unix_socket_folder.clone(),
            ..new.frontend
        };
        current.frontend = frontend;
        current.authentication = new.authentication;
        current.users = new.users;
        current.user_lookup = new.user_lookup;
        current.tls = new.tls;
        current.backend = new.backend;
        current.executor = new.executor;
        current.policy = new.policy;
        self.admission.store(Arc::new(current.admission()));
        self.source.keep()?;
        Ok(reloaded)
    }
}

/// What differs.
fn compare(old: &Serve, new: &Serve) -> Reloaded {
    let limits = |config: &frontend::Config| {
        let frontend::Config { max_clients, reserved_clients, console_database, .. } = config;
        let console = console_database.clone();
        (*max_clients, *reserved_clients, console, config.login_timeout(), config.shutdown_grace())
    };
    let (was, is) = (&old.policy, &new.policy);
    let sharded = |policy: &Policy| {
        let Policy { groups, functions, reference_tables, .. } = policy.clone();
        (groups, functions, reference_tables)
    };
    let changed = [
        ("authentication", old.authentication != new.authentication),
        ("users", old.users != new.users),
        ("user_lookup", old.user_lookup != new.user_lookup),
        ("tls", old.tls != new.tls),
        ("frontend", limits(&old.frontend) != limits(&new.frontend)),
        ("backend", old.backend != new.backend),
        ("executor", old.executor != new.executor),
        ("policy: what is sharded", sharded(was) != sharded(is)),
        ("policy.mover", was.mover != is.mover),
        ("policy.controller", was.controller != is.controller),
        ("policy.load", was.load != is.load),
        ("policy.forecast", was.forecast != is.forecast),
        ("policy.placement", was.placement != is.placement),
    ];
    let doors = |config: &frontend::Config| {
        (config.listen, config.workers, config.unix_socket_folder.clone())
    };
    let needs_restart = [
        (
            "frontend.listen, workers or unix_socket_folder",
            doors(&old.frontend) != doors(&new.frontend),
        ),
        ("admin_listen", old.admin_listen != new.admin_listen),
        ("data_folder", old.data_folder != new.data_folder),
        ("catalog", old.catalog != new.catalog),
        ("nodes", old.nodes != new.nodes),
    ];
    let keys = |differences: &[(&'static str, bool)]| {
        differences.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
    };
    Reloaded {
        changed: keys(&changed),
        needs_restart: keys(&needs_restart),
        needs_reshard: Vec::new(),
        needs_import: Vec::new(),
    }
}
