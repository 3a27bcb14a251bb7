//! A new configuration for a running proxy: what can be changed at once, and what needs a restart.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Serialize;

use crate::config::{Faults, Policy, Serve};
use crate::frontend::{self, Admission};

/// Reads the configuration again.
#[derive(Debug)]
pub(super) struct Reloader {
    file: PathBuf,
    /// What is in force, as far as it can be changed, and what the proxy was started with.
    current: Mutex<Serve>,
    admission: Arc<ArcSwap<Admission>>,
}

/// What came of it: keys of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reloaded {
    /// In force from now on, for clients who come from now on.
    pub(super) changed: Vec<&'static str>,
    /// Not in force: the proxy goes on with what it was started with.
    pub(super) needs_restart: Vec<&'static str>,
}

impl Reloader {
    pub(super) fn new(
        file: PathBuf,
        started_with: Serve,
        admission: Arc<ArcSwap<Admission>>,
    ) -> Self {
        Self { file, current: Mutex::new(started_with), admission }
    }

    /// Reads the configuration and takes over what can be. With a fault in it nothing changes.
    pub(super) fn reload(&self) -> Result<Reloaded, Faults> {
        let new = Serve::load(&self.file)?;
        let mut current = self.current.lock();
        let reloaded = compare(&current, &new);
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
        self.admission.store(Arc::new(current.admission()));
        Ok(reloaded)
    }

    /// Reloads, and tells the log.
    pub(super) fn reload_and_log(&self) -> Result<Reloaded, Faults> {
        let reloaded = self.reload();
        match &reloaded {
            Err(faults) => {
                tracing::error!(%faults, "the configuration was not reloaded: it has faults");
            }
            Ok(Reloaded { changed, needs_restart }) => {
                tracing::info!(?changed, "the configuration was reloaded");
                if !needs_restart.is_empty() {
                    tracing::warn!(?needs_restart, "these changes need a restart");
                }
            }
        }
        reloaded
    }
}

/// What differs.
fn compare(old: &Serve, new: &Serve) -> Reloaded {
    let limits = |config: &frontend::Config| {
        let frontend::Config { max_clients, reserved_clients, .. } = config;
        (*max_clients, *reserved_clients, config.login_timeout(), config.shutdown_grace())
    };
    let changed = [
        ("authentication", old.authentication != new.authentication),
        ("users", old.users != new.users),
        ("user_lookup", old.user_lookup != new.user_lookup),
        ("tls", old.tls != new.tls),
        ("frontend", limits(&old.frontend) != limits(&new.frontend)),
    ];
    let doors = |config: &frontend::Config| {
        (config.listen, config.workers, config.unix_socket_folder.clone())
    };
    let (was, is) = (&old.policy, &new.policy);
    let sharded = |policy: &Policy| {
        let Policy { database, home, groups, reference_tables, .. } = policy.clone();
        (database, home, groups, reference_tables)
    };
    let needs_restart = [
        (
            "frontend.listen, workers or unix_socket_folder",
            doors(&old.frontend) != doors(&new.frontend),
        ),
        ("admin_listen", old.admin_listen != new.admin_listen),
        ("data_folder", old.data_folder != new.data_folder),
        ("nodes", old.nodes != new.nodes),
        ("backend", old.backend != new.backend),
        ("executor", old.executor != new.executor),
        ("policy: what is sharded", sharded(was) != sharded(is)),
        ("policy.controller", was.controller != is.controller),
        ("policy.load", was.load != is.load),
        ("policy.forecast", was.forecast != is.forecast),
        ("policy.placement", was.placement != is.placement),
        ("policy.mover", was.mover != is.mover),
    ];
    let keys = |differences: &[(&'static str, bool)]| {
        differences.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
    };
    Reloaded { changed: keys(&changed), needs_restart: keys(&needs_restart) }
}
