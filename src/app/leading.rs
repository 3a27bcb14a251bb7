//! The catalog of a process: its own file, or the one in etcd that it shares with others, of which
//! one leads. The others wait, and listen for no client, so that drivers and load balancers go on to
//! the one that does; or they serve too, once the one that leads has enrolled them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::peers::copy_past;
use super::running::RunError;
use super::stored_map::fits;
use super::term::Turn;
use super::terminal::story;
use super::{Proxy, StartError};
use crate::admin::{AdminServer, Metrics};
use crate::catalog::{
    Catalog, CatalogError, EmbeddedKv, EtcdConfig, Expect, Kv, Lead, Leader, Mirror, Op, Present,
    Record, is_local,
};
use crate::cluster::{Presence, Roll};
use crate::config::Serve;
use crate::runtime::{Tasks, now_unix_ms};
use crate::shard_map::ShardMap;

/// The catalog of a process that shares none.
const FILE: &str = "catalog.redb";
/// What is the process's own beside a catalog in etcd.
const LOCAL_FILE: &str = "local.redb";
/// How long a renewal under way may take.
const RENEWAL_ENDS: Duration = Duration::from_secs(5);
/// When a process that should lead and can't tries again.
const AGAIN: Duration = Duration::from_secs(1);
/// Entries of one commit while a catalog goes over to etcd.
const BATCH: usize = 50;

/// The catalog, and why this process may change it.
pub(super) struct Opened {
    pub(super) catalog: Catalog,
    pub(super) turn: Turn,
    pub(super) leading: Option<Leading>,
    /// The process's own store beside a catalog that is shared.
    pub(super) local: Option<EmbeddedKv>,
}

/// The place among the other processes of a catalog, while it is renewed.
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
        return Ok(Opened { catalog, turn: Turn::Alone, leading: None, local: None });
    };
    let own = EmbeddedKv::open(&folder.join(LOCAL_FILE)).map_err(StartError::from)?;
    let local: Arc<dyn Kv> = Arc::new(own.clone());
    let id = process_id(&Catalog::new(Arc::clone(&local))).await.map_err(StartError::from)?;
    // One that could not serve should say so now, not when it is needed.
    let reader = Catalog::new(Arc::new(Lead::reader(etcd.clone())));
    if let Ok(Some(map)) = reader.get::<ShardMap>("").await {
        fits(&map.record, &config.policy, &config.nodes)?;
    }
    let seat = Seat::new(config, etcd, &id);
    let tasks = Tasks::new();
    let catalog = Catalog::beside(Arc::new(seat.lead.kv().clone()), Arc::clone(&local));
    let copies = copy_past(seat.lead.clone(), Arc::clone(&local), tasks.clone());
    tasks.spawn("past", copies);
    let turn = seat.wait(&catalog, (config.admin_listen, metrics), &tasks).await?;
    tasks.spawn("lead", seat.lead.clone().renew_forever(tasks.clone()));
    let leads = !matches!(turn, Turn::Enrolled { .. });
    metrics::gauge!("foreshard_catalog_leads").set(if leads { 1.0 } else { 0.0 });
    let leading = Leading { lead: seat.lead, tasks };
    let brought =
        if leads { bring_over(folder, &catalog, leading.lead.kv(), &*local).await } else { Ok(()) };
    match brought {
        Ok(()) => Ok(Opened { catalog, turn, leading: Some(leading), local: Some(own) }),
        Err(error) => {
            leading.give_up().await;
            Err(error)
        }
    }
}

/// A process that waits for its turn.
struct Seat {
    lead: Lead,
    /// What it tells the others, if all of them serve.
    presence: Option<Presence>,
}

impl Seat {
    fn new(config: &Serve, etcd: &EtcdConfig, id: &str) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let listen = config.frontend.listen.to_string();
        // With the host: a copy of the folder elsewhere is another process.
        let folder = format!("{id}@{host}");
        let presence = etcd.all_serve.then(|| Presence {
            id: format!("{folder}-{:08x}", rand::random::<u32>()),
            folder: folder.clone(),
            host: host.clone(),
            listen: listen.clone(),
            admin: config.admin_listen.to_string(),
            nodes: config.nodes.iter().map(|node| node.name.clone()).collect(),
            since_unix_ms: now_unix_ms(),
        });
        let present = presence.as_ref().and_then(|presence| {
            let value = serde_json::to_vec(presence).ok()?;
            Some(Present { key: format!("{}{}", Presence::PREFIX, presence.id), value })
        });
        let admin = config.admin_listen.to_string();
        let me = Leader { id: folder, host, listen, admin, since_unix_ms: 0 };
        Self { lead: Lead::new(etcd.clone(), me, present), presence }
    }

    /// Waits until this process leads, or is enrolled by the one that does. Health and metrics answer
    /// meanwhile.
    async fn wait(
        &self,
        catalog: &Catalog,
        (admin, metrics): (SocketAddr, &Metrics),
        tasks: &Tasks,
    ) -> Result<Turn, RunError> {
        metrics::gauge!("foreshard_catalog_leads").set(0.0);
        let (told, shown) = watch::channel("standby: looks for the leader".to_owned());
        let _standby = AdminServer::start_standby(admin, shown, metrics.clone())?;
        let tell = |now: String| {
            if *told.borrow() != now {
                tracing::info!("{now}");
            }
            told.send_replace(now);
        };
        let take = self.lead.take(|seen| {
            tell(match seen {
                Ok(leader) => format!("standby: {} serves at {}", leader.host, leader.listen),
                Err(error) => format!("standby: {}", story(error)),
            });
        });
        let Some(presence) = &self.presence else {
            take.await;
            return Ok(Turn::Alone);
        };
        while let Err(error) = self.lead.announce().await {
            tell(format!("standby: {}", story(&error)));
        }
        let mirror = Mirror::default();
        let hears = catalog.clone();
        let follow = self.lead.kv().clone().follow_forever(
            mirror.clone(),
            move |key| hears.heard(key),
            tasks.clone(),
        );
        tasks.spawn("catalog", follow);
        // The presence has to be renewed while it waits.
        let waiting = Tasks::new();
        waiting.spawn("presence", self.lead.clone().renew_forever(waiting.clone()));
        let turn = tokio::select! {
            () = take => Turn::Leads { mirror: mirror.clone(), presence: presence.clone() },
            number = enrolled(&mirror, &presence.id) => {
                Turn::Enrolled { mirror: mirror.clone(), number }
            }
        };
        waiting.stop(RENEWAL_ENDS).await;
        let mut changes = mirror.watch();
        // What is written by now is there.
        drop(changes.wait_for(|at| at.0 > 0).await);
        Ok(turn)
    }
}

/// Waits until a process is enrolled; its number.
async fn enrolled(mirror: &Mirror, id: &str) -> u64 {
    let mut changes = mirror.watch();
    loop {
        changes.mark_unchanged();
        let roll = mirror.get::<Roll>().map(|roll| roll.record).unwrap_or_default();
        if let Some(me) = roll.proxies.iter().find(|proxy| proxy.id == id) {
            return me.number;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
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
    /// Ends once this process may not serve any more.
    pub(super) fn lost(&self) -> &CancellationToken {
        self.lead.lost()
    }

    /// Takes care of who may serve, and leads once nobody else does. `waits` says that another one leads.
    pub(super) fn watch_over(&self, proxy: &Proxy, waits: bool) {
        let (leadership, tasks) = (proxy.leadership(), proxy.tasks());
        let following = proxy.following();
        let roll = leadership.clone().keep_roll(self.lost().clone(), following.clone());
        following.spawn("roll", roll);
        if !waits {
            return;
        }
        let (lead, tasks) = (self.lead.clone(), tasks.clone());
        let wait = async move {
            tokio::select! {
                () = tasks.token().cancelled() => return,
                () = lead.take(|_| {}) => {}
            }
            while let Err(error) = leadership.take_over(&tasks).await {
                let error = story(&error);
                tracing::error!(error, "this proxy can't lead yet");
                tokio::select! {
                    () = tasks.token().cancelled() => return,
                    () = lead.lost().cancelled() => return,
                    () = sleep(AGAIN) => {}
                }
            }
        };
        self.tasks.spawn("turn", wait);
    }

    /// Lets another process lead at once.
    pub(super) async fn give_up(self) {
        self.end_renewals().await.give_up().await;
    }

    /// Leaves the lead to the process that takes over this one's data folder: it has the time of a
    /// lease for that. Who does not lead is gone, and that process is another one.
    pub(super) async fn keep(self) {
        let lead = self.end_renewals().await;
        if lead.leads() {
            lead.renew_once().await;
        } else {
            lead.give_up().await;
        }
    }

    async fn end_renewals(self) -> Lead {
        self.tasks.stop(RENEWAL_ENDS).await;
        self.lead
    }
}
