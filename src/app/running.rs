//! A proxy with its admin server: what `dev` and `serve` have in common.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;

use super::leading::{self, Leading, Opened};
use super::preflight::{Needed, NodesDown, check_nodes};
use super::reload::{ReloadDesk, Source};
use super::term::Turn;
use super::{Proxy, ProxyConfig, StartError};
use crate::admin::{AdminError, AdminServer, Metrics, MetricsError, Readiness, Reload, Service};
use crate::catalog::{Catalog, EmbeddedKv};
use crate::config::Serve;
use crate::shard_map::ShardMap;

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
    /// The catalog is said to be in the data folder, where it was once.
    #[error(
        "the catalog of {0} is in etcd: the configuration needs catalog.etcd. To start anew with an \
         empty catalog, choose another data_folder"
    )]
    CatalogIsInEtcd(PathBuf),
    /// There are two, and one must be old.
    #[error(
        "{0} is a catalog, but etcd has one under the same prefix. If that is the one in use, move the \
         file away; else give catalog.etcd.prefix another value"
    )]
    TwoCatalogs(PathBuf),
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
    reload: ReloadDesk,
    leading: Option<Leading>,
}

impl Running {
    /// Opens the catalog, for which it may have to wait, looks at the nodes, then starts the proxy
    /// and the admin server. `source` is what the configuration is read from again.
    pub(super) async fn start(
        serve: Serve,
        source: Source,
        inherited: Vec<OwnedFd>,
    ) -> Result<Self, RunError> {
        let folder = serve.data_folder.clone();
        std::fs::create_dir_all(&folder)
            .map_err(|source| RunError::Folder { folder: folder.clone(), source })?;
        let metrics = Metrics::install()?;
        let Opened { catalog, turn, leading, local } = leading::open(&serve, &metrics).await?;
        let serve = match &source {
            Source::Config(file) if leading.is_some() => as_it_is_now(serve, file),
            _ => serve,
        };
        let waits = turn.is_enrolled();
        let catalog = (catalog, turn, local);
        let started = Box::pin(Self::start_with(serve, source, inherited, metrics, catalog)).await;
        match (started, leading) {
            (Ok(running), leading) => {
                if let Some(leading) = &leading {
                    leading.watch_over(&running.proxy, waits);
                }
                Ok(Self { leading, ..running })
            }
            (Err(error), Some(leading)) => {
                leading.give_up().await;
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn start_with(
        serve: Serve,
        source: Source,
        inherited: Vec<OwnedFd>,
        metrics: Metrics,
        (catalog, turn, local): (Catalog, Turn, Option<EmbeddedKv>),
    ) -> Result<Self, RunError> {
        // What runs goes on where a node is away; what begins needs all.
        let map = catalog.get::<ShardMap>("").await.map_err(StartError::from)?;
        let known = |name: &str| {
            map.as_ref().is_some_and(|map| map.record.nodes().any(|(_, node)| node.name == name))
        };
        let all_known = serve.nodes.iter().all(|node| known(&node.name));
        let needed = if all_known { Needed::WhoAnswers } else { Needed::All };
        let warnings = check_nodes(&serve.nodes, &serve.policy.database, needed).await?;
        let admission = Arc::new(ArcSwap::from_pointee(serve.admission()));
        let started_with = serve.clone();
        let nodes: Arc<[_]> = serve.nodes.clone().into();
        let admin_listen = serve.admin_listen;
        let proxy = Proxy::start(ProxyConfig {
            catalog,
            turn,
            policy: serve.policy,
            nodes: serve.nodes,
            admission: Arc::clone(&admission),
            inherited,
            backend: serve.backend,
            executor: serve.executor,
        })
        .await?;
        let parts = (proxy.steering.clone(), proxy.tasks());
        let reload = ReloadDesk::open(source, started_with, admission, parts);
        let (readiness, receiver) = watch::channel(Readiness::Ready);
        let service = Service {
            catalog: proxy.engine.catalog.clone(),
            live_map: proxy.engine.live_map.clone(),
            nodes,
            status: status_of(&proxy),
            insight: proxy.insight.clone(),
            counters: proxy.engine.counters.clone(),
            samples: proxy.engine.samples.clone(),
            local,
            cluster: proxy.engine.cluster.clone(),
            directory: proxy.directory(),
            progress: proxy.mover.progress.clone(),
            imports: proxy.steering.imports(),
            reload: Some(reload_by(reload.clone())),
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
        Ok(Self { proxy, admin, warnings, readiness, reload, leading: None })
    }

    /// Reads the configuration again; the log tells what came of it.
    pub(super) fn reload(&self) {
        self.reload.request();
    }

    /// Ends once another process has the catalog.
    pub(super) async fn replaced(&self) {
        match &self.leading {
            Some(leading) => leading.lost().cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Refuses new clients, lets transactions under way end, stops moves at a stored state. Another
    /// process may lead then; with `keeps_lead` only the one that takes over the data folder.
    pub(super) async fn stop(self, keeps_lead: bool) {
        self.readiness.send_replace(Readiness::Stopping);
        self.proxy.stop().await;
        match self.leading {
            Some(leading) if keeps_lead => leading.keep().await,
            Some(leading) => leading.give_up().await,
            None => {}
        }
        drop(self.admin);
    }
}

/// A process that waited for its turn serves by what the file says then: the one that served may have
/// been told to reload it.
fn as_it_is_now(was: Serve, file: &Path) -> Serve {
    match Serve::load(file) {
        Ok(new) => Serve { data_folder: was.data_folder, catalog: was.catalog, ..new },
        Err(faults) => {
            tracing::error!(%faults, "the configuration can't be read again: the older one is used");
            was
        }
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
