//! A proxy with its admin server: what `dev` and `serve` have in common.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;

use super::preflight::{NodesDown, check_nodes};
use super::reload::ReloadDesk;
use super::{Proxy, ProxyConfig, StartError};
use crate::admin::{AdminError, AdminServer, Metrics, MetricsError, Readiness, Reload, Service};
use crate::config::Serve;

/// Why `dev` or `serve` does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// Nodes that can't be used.
    #[error(transparent)]
    Nodes(#[from] NodesDown),
    /// The proxy itself.
    #[error(transparent)]
    Proxy(#[from] StartError),
    /// The admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Another recorder is installed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The data folder can't be made.
    #[error("the data folder {folder} can't be made")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A proxy at work, and its admin server.
pub(super) struct Running {
    pub(super) proxy: Proxy,
    pub(super) admin: AdminServer,
    /// What the nodes can't do.
    pub(super) warnings: Vec<String>,
    readiness: watch::Sender<Readiness>,
    reload: Option<ReloadDesk>,
}

impl Running {
    /// Looks at the nodes, then starts the proxy and the admin server. `file` is what the
    /// configuration was read from and can be read from again.
    pub(super) async fn start(
        serve: Serve,
        file: Option<PathBuf>,
        inherited: Vec<OwnedFd>,
    ) -> Result<Self, RunError> {
        let warnings = check_nodes(&serve.nodes, &serve.policy.database).await?;
        let folder = serve.data_folder.clone();
        std::fs::create_dir_all(&folder)
            .map_err(|source| RunError::Folder { folder: folder.clone(), source })?;
        let metrics = Metrics::install()?;
        let admission = Arc::new(ArcSwap::from_pointee(serve.admission()));
        let started_with = serve.clone();
        let nodes: Arc<[_]> = serve.nodes.clone().into();
        let admin_listen = serve.admin_listen;
        let proxy = Proxy::start(ProxyConfig {
            data_folder: folder,
            policy: serve.policy,
            nodes: serve.nodes,
            admission: Arc::clone(&admission),
            inherited,
            backend: serve.backend,
            executor: serve.executor,
        })
        .await?;
        let parts = (proxy.steering.clone(), proxy.tasks());
        let reload = file.map(|file| ReloadDesk::open(file, started_with, admission, parts));
        let (readiness, receiver) = watch::channel(Readiness::Ready);
        let service = Service {
            catalog: proxy.engine.catalog.clone(),
            live_map: proxy.engine.live_map.clone(),
            nodes,
            status: status_of(&proxy),
            insight: proxy.insight.clone(),
            directory: proxy.directory(),
            progress: proxy.mover.progress.clone(),
            imports: proxy.steering.imports(),
            reload: reload.clone().map(reload_by),
            readiness: receiver,
        };
        let admin = match AdminServer::start(admin_listen, service, metrics) {
            Ok((admin, console)) => {
                proxy.set_console(Arc::new(console));
                admin
            }
            Err(error) => {
                proxy.stop().await;
                return Err(error.into());
            }
        };
        Ok(Self { proxy, admin, warnings, readiness, reload })
    }

    /// Reads the configuration again; the log tells what came of it.
    pub(super) fn reload(&self) {
        if let Some(desk) = &self.reload {
            desk.request();
        }
    }

    /// Refuses new clients, lets transactions under way end, stops moves at a stored state.
    pub(super) async fn stop(self) {
        self.readiness.send_replace(Readiness::Stopping);
        self.proxy.stop().await;
        drop(self.admin);
    }
}

/// What the admin API does to reload.
fn reload_by(desk: ReloadDesk) -> Reload {
    Arc::new(move || {
        let desk = desk.clone();
        Box::pin(async move {
            let reloaded = desk.reload().await?;
            Ok(serde_json::to_value(&reloaded).unwrap_or_default())
        })
    })
}

/// What the controller saw and decided last, as JSON.
fn status_of(proxy: &Proxy) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let status = proxy.status.clone();
    Arc::new(move || {
        let seen = Arc::clone(&status.borrow());
        serde_json::to_value(&*seen).unwrap_or_default()
    })
}
