//! The catalog of a process: its own file, or the one in etcd that it shares with others, of which
//! one leads. The others wait; they listen for no client, so that drivers and load balancers go on to
//! the one that does.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::running::RunError;
use super::stored_map::fits;
use super::terminal::story;
use crate::admin::{AdminServer, Metrics};
use crate::catalog::{
    Catalog, CatalogError, EmbeddedKv, Expect, Kv, Lead, Leader, Op, Record, is_local,
};
use crate::config::Serve;
use crate::runtime::Tasks;
use crate::shard_map::ShardMap;

/// The catalog of a process that shares none.
const FILE: &str = "catalog.redb";
/// What is the process's own beside a catalog in etcd.
const LOCAL_FILE: &str = "local.redb";
/// Entries of one commit while a catalog goes over to etcd.
const BATCH: usize = 50;

/// The catalog, and why this process may change it.
pub(super) struct Opened {
    pub(super) catalog: Catalog,
    pub(super) leading: Option<Leading>,
}

/// The lead over the other processes of a catalog, while it is renewed.
pub(super) struct Leading {
    lead: Lead,
    tasks: Tasks,
}

/// Names a data folder among the processes of a catalog.
#[derive(Debug, Serialize, Deserialize)]
struct ProcessId {
    id: String,
}

impl Record for ProcessId {
    const PREFIX: &'static str = "process";

    fn id(&self) -> String {
        String::new()
    }
}

/// The catalog in a data folder.
///
/// # Errors
/// The file can't be read, or another process has it open.
pub fn catalog_in(data_folder: &Path) -> Result<Catalog, CatalogError> {
    Ok(Catalog::new(Arc::new(EmbeddedKv::open(&data_folder.join(FILE))?)))
}

/// Opens the catalog; waits until this process leads, if it is shared. The data folder exists.
pub(super) async fn open(config: &Serve, metrics: &Metrics) -> Result<Opened, RunError> {
    let folder = &config.data_folder;
    let Some(etcd) = &config.catalog else {
        if folder.join(LOCAL_FILE).exists() {
            return Err(RunError::CatalogIsInEtcd(folder.clone()));
        }
        let catalog = catalog_in(folder).map_err(StartError::from)?;
        return Ok(Opened { catalog, leading: None });
    };
    let local: Arc<dyn Kv> =
        Arc::new(EmbeddedKv::open(&folder.join(LOCAL_FILE)).map_err(StartError::from)?);
    let id = process_id(&Catalog::new(Arc::clone(&local))).await.map_err(StartError::from)?;
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let listen = config.frontend.listen.to_string();
    // With the host: a copy of the folder elsewhere is another process.
    let me = Leader { id: format!("{id}@{host}"), host, listen, since_unix_ms: 0 };
    // One that could not serve should say so now, not when it is needed.
    let reader = Catalog::new(Arc::new(Lead::reader(etcd.clone())));
    if let Ok(Some(map)) = reader.get::<ShardMap>("").await {
        fits(&map.record, &config.policy, &config.nodes)?;
    }
    let lead = wait(etcd.clone(), me, config.admin_listen, metrics).await?;
    let tasks = Tasks::new();
    tasks.spawn("lead", lead.clone().renew_forever(tasks.clone()));
    metrics::gauge!("foreshard_catalog_leads").set(1.0);
    let leading = Leading { lead, tasks };
    let catalog = Catalog::beside(Arc::new(leading.lead.kv().clone()), Arc::clone(&local));
    match bring_over(folder, &catalog, leading.lead.kv(), &*local).await {
        Ok(()) => Ok(Opened { catalog, leading: Some(leading) }),
        Err(error) => {
            leading.give_up().await;
            Err(error)
        }
    }
}

/// Waits until this process leads. Health and metrics answer meanwhile.
async fn wait(
    etcd: crate::catalog::EtcdConfig,
    me: Leader,
    admin: SocketAddr,
    metrics: &Metrics,
) -> Result<Lead, RunError> {
    metrics::gauge!("foreshard_catalog_leads").set(0.0);
    let (told, shown) = watch::channel("standby: looks for the leader".to_owned());
    let standby = AdminServer::start_standby(admin, shown, metrics.clone())?;
    let take = Lead::take(etcd, me, |seen| {
        let now = match seen {
            Ok(leader) => format!("standby: {} serves at {}", leader.host, leader.listen),
            Err(error) => format!("standby: {}", story(error)),
        };
        if *told.borrow() != now {
            tracing::info!("{now}");
        }
        told.send_replace(now);
    });
    let lead = take.await;
    drop(standby);
    Ok(lead)
}

/// A catalog that stands in the data folder goes over to etcd: all of it, before anything else is
/// stored there. The file stays under another name.
async fn bring_over(
    folder: &Path,
    catalog: &Catalog,
    etcd: &dyn Kv,
    local: &dyn Kv,
) -> Result<(), RunError> {
    let file = folder.join(FILE);
    if !file.exists() {
        return Ok(());
    }
    let there = catalog.get::<ShardMap>("").await.map_err(StartError::from)?.is_some();
    if there {
        return Err(RunError::TwoCatalogs(file));
    }
    let bring = async {
        let old = EmbeddedKv::open(&file)?;
        let (own, mut shared): (Vec<_>, Vec<_>) =
            old.range("").await?.into_iter().partition(|entry| is_local(&entry.key));
        // The map comes last: without it, nothing is there.
        shared.sort_by_key(|entry| entry.key == ShardMap::PREFIX);
        for (store, entries) in [(local, own), (etcd, shared)] {
            for entries in entries.chunks(BATCH) {
                let put = |entry: &crate::catalog::Entry| Op {
                    key: entry.key.clone(),
                    value: Some(entry.value.clone()),
                    expect: Expect::Anything,
                };
                store.commit(entries.iter().map(put).collect()).await?;
            }
        }
        Ok::<_, CatalogError>(())
    };
    bring.await.map_err(StartError::from)?;
    let moved = folder.join(format!("{FILE}.moved"));
    std::fs::rename(&file, &moved)
        .map_err(|source| RunError::Folder { folder: folder.to_owned(), source })?;
    tracing::info!(kept = %moved.display(), "the catalog stands in etcd now");
    Ok(())
}

/// The name of this data folder, made at its first start.
async fn process_id(local: &Catalog) -> Result<String, CatalogError> {
    if let Some(stored) = local.get::<ProcessId>("").await? {
        return Ok(stored.record.id);
    }
    let made = ProcessId { id: format!("{:016x}", rand::random::<u64>()) };
    local.put(&made, Expect::Absent).await?;
    Ok(made.id)
}

impl Leading {
    /// Ends once another process leads.
    pub(super) fn lost(&self) -> &CancellationToken {
        self.lead.lost()
    }

    /// Lets another process lead at once.
    pub(super) async fn give_up(self) {
        self.end_renewals().await.give_up().await;
    }

    /// Leaves the lead to the process that takes over this one's data folder: it has the time of a
    /// lease for that.
    pub(super) async fn keep(self) {
        self.end_renewals().await.renew_once().await;
    }

    async fn end_renewals(self) -> Lead {
        self.tasks.stop(std::time::Duration::from_secs(5)).await;
        self.lead
    }
}
