//! Which of several proxies leads: the one whose entry stands, for as long as its lease is renewed.
//!
//! The lease only says who may begin. What keeps a proxy that lost it from doing harm is the term that
//! its successor begins: no commit of an older one is applied, and no node lets it in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::commit::compare_revision;
use super::gateway::{Failure, Gateway, encoded, number};
use super::{EtcdConfig, EtcdKv};
use crate::catalog::kv::{CatalogError, Kv};
use crate::runtime::Tasks;
use crate::runtime::now_unix_ms;

/// The entry of the leader.
const LEADER: &str = "etcd/leader";
/// How often one that waits looks whether there is a leader.
const LOOK: Duration = Duration::from_millis(500);
/// Renewals within the time of a lease.
const RENEWALS: u32 = 4;

/// A proxy that leads, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Names its data folder, and the host that this is on.
    pub id: String,
    /// Where it runs.
    pub host: String,
    /// Where clients connect to it.
    pub listen: String,
    /// Where its admin API is; empty if that is not known.
    #[serde(default)]
    pub admin: String,
    /// Since when it leads.
    pub since_unix_ms: u64,
}

/// What says that a process is there, for as long as its lease is renewed.
#[derive(Debug, Clone)]
pub struct Present {
    /// Its key in the catalog.
    pub key: String,
    /// What stands there.
    pub value: Vec<u8>,
}

/// A process among those of a catalog: it leads, or may come to.
#[derive(Debug, Clone)]
pub struct Lead {
    kv: EtcdKv,
    gateway: Arc<Gateway>,
    config: Arc<EtcdConfig>,
    me: Leader,
    presence: Option<Present>,
    /// The newest one; 0 before there is one.
    lease: Arc<AtomicU64>,
    leads: Arc<AtomicBool>,
}

impl Lead {
    /// A process that does not lead yet. Its presence, if it has one, is told by [`Self::announce`].
    pub fn new(config: EtcdConfig, me: Leader, presence: Option<Present>) -> Self {
        let config = Arc::new(config);
        let gateway = Arc::new(Gateway::new(Arc::clone(&config)));
        let name = format!("{}-{:08x}", me.id, rand::random::<u32>());
        let kv = EtcdKv::new(Arc::clone(&gateway), &config.prefix, &name);
        let (lease, leads) = (Arc::default(), Arc::default());
        Self { kv, gateway, config, me, presence, lease, leads }
    }

    /// Waits until no other process leads, and leads from then on. Tells `look` who leads meanwhile, or
    /// why it can't be known. A leader with the same id is a process of this data folder that has ended.
    /// Cancel safe: dropped, it may lead, and takes it at the next call.
    pub async fn take(&self, mut look: impl FnMut(Result<&Leader, &CatalogError>)) {
        loop {
            match self.try_take().await {
                Ok(None) => return,
                Ok(Some(leader)) => look(Ok(&leader)),
                Err(error) => look(Err(&error)),
            }
            sleep(LOOK).await;
        }
    }

    /// Says that this process is there, if it has a presence.
    pub async fn announce(&self) -> Result<(), CatalogError> {
        let lease = self.leased().await?;
        let Some(presence) = &self.presence else { return Ok(()) };
        let (key, value) = (self.kv.key(&presence.key), encoded(&presence.value));
        let put = json!({ "key": key, "value": value, "lease": lease.to_string() });
        self.kv.ask("kv/put", &put).await.map(drop)
    }

    /// The lease, granted if there is none.
    async fn leased(&self) -> Result<u64, CatalogError> {
        match self.lease.load(Ordering::Relaxed) {
            0 => {
                let lease = self.grant().await?;
                self.lease.store(lease, Ordering::Relaxed);
                Ok(lease)
            }
            lease => Ok(lease),
        }
    }

    /// The process that leads, if it is another one.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn other_leader(&self) -> Result<Option<Leader>, CatalogError> {
        let leader = self.leader().await?.map(|(leader, _)| leader);
        Ok(leader.filter(|leader| leader.id != self.me.id))
    }

    /// Whether it leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// The catalog of whoever leads, only to be read.
    pub fn reader(config: EtcdConfig) -> EtcdKv {
        let prefix = config.prefix.clone();
        EtcdKv::new(Arc::new(Gateway::new(Arc::new(config))), &prefix, "reader")
    }

    /// The catalog, for as long as this proxy leads.
    pub fn kv(&self) -> &EtcdKv {
        &self.kv
    }

    /// Ends once another proxy leads.
    pub fn lost(&self) -> &CancellationToken {
        &self.kv.replaced
    }

    /// Stays there, and the leader if it is, until the tasks end. If the lease ran out, and nobody else
    /// has led since, it leads again.
    pub async fn renew_forever(self, tasks: Tasks) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = tasks.token().cancelled() => return,
                () = self.lost().cancelled() => return,
                () = sleep(self.config.lease / RENEWALS) => {}
            }
            let renewed = match self.renew(self.lease.load(Ordering::Relaxed)).await {
                Ok(true) => Ok(()),
                Ok(false) => self.come_again().await,
                Err(error) => Err(error),
            };
            match renewed {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("the lead is renewed again");
                    }
                }
                Err(CatalogError::Replaced) => self.lost().cancel(),
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the lead was not renewed"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// Leads for the whole time of a lease from now on, if it still does.
    pub async fn renew_once(&self) {
        let lease = self.lease.load(Ordering::Relaxed);
        if let Err(error) = self.renew(lease).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the lead was not renewed");
        }
    }

    /// Is not there any more: another proxy may lead at once.
    pub async fn give_up(&self) {
        if let Some(presence) = &self.presence {
            let request = json!({ "key": self.kv.key(&presence.key) });
            if let Err(error) = self.kv.ask("kv/deleterange", &request).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "it is missed later");
            }
        }
        let leader = self.kv.get(LEADER).await;
        let mine = |value: &[u8]| {
            serde_json::from_slice(value).is_ok_and(|it: Leader| it.id == self.me.id)
        };
        let Ok(Some(entry)) = leader else { return };
        if !mine(&entry.value) {
            return;
        }
        let key = self.kv.key(LEADER);
        let request = json!({
            "compare": [compare_revision(&key, entry.revision.0)],
            "success": [{ "request_delete_range": { "key": key } }],
        });
        if let Err(error) = self.kv.ask("kv/txn", &request).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the lead runs out by itself");
        }
    }

    /// Leads now, or says who does.
    async fn try_take(&self) -> Result<Option<Leader>, CatalogError> {
        let revision = match self.leader().await? {
            Some((leader, _)) if leader.id != self.me.id => return Ok(Some(leader)),
            Some((_, revision)) => revision,
            None => 0,
        };
        // The one of a look before may have run out: with a presence it is renewed all the while.
        let known = self.presence.is_some().then(|| self.lease.load(Ordering::Relaxed));
        let lease = match known.filter(|lease| *lease != 0) {
            Some(lease) => lease,
            None => self.grant().await?,
        };
        if self.put_leader(revision, lease, None).await? {
            self.lease.store(lease, Ordering::Relaxed);
            self.leads.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        // Its entry may be there although the answer was lost: the next look says so.
        Ok(self
            .leader()
            .await?
            .map(|(leader, _)| leader)
            .filter(|it| it.id != self.me.id)
            .or(Some(self.me.clone())))
    }

    async fn leader(&self) -> Result<Option<(Leader, u64)>, CatalogError> {
        let Some(entry) = self.kv.get(LEADER).await? else { return Ok(None) };
        let leader = serde_json::from_slice(&entry.value);
        let leader = leader.map_err(|source| CatalogError::Corrupt { key: entry.key, source })?;
        Ok(Some((leader, entry.revision.0)))
    }

    /// A lease that ends by itself.
    async fn grant(&self) -> Result<u64, CatalogError> {
        let request = json!({ "TTL": self.config.lease.as_secs().max(1).to_string() });
        Ok(number(&self.kv.ask("lease/grant", &request).await?["ID"]))
    }

    /// Whether the lease went on.
    async fn renew(&self, lease: u64) -> Result<bool, CatalogError> {
        let request = json!({ "ID": lease.to_string() });
        let answer = self.gateway.call("lease/keepalive", &request).await;
        let answer =
            answer.map_err(|failure: Failure| super::store("renewing the lead", failure))?;
        Ok(number(&answer["result"]["TTL"]) > 0)
    }

    /// Writes the leader's entry, if the one that stands is still of this revision, and the held one
    /// too; whether it did.
    async fn put_leader(
        &self,
        revision: u64,
        lease: u64,
        held: Option<Value>,
    ) -> Result<bool, CatalogError> {
        let key = self.kv.key(LEADER);
        let mut compare = vec![compare_revision(&key, revision)];
        compare.extend(held);
        let me = Leader { since_unix_ms: now_unix_ms(), ..self.me.clone() };
        let value = serde_json::to_vec(&me)
            .map_err(|source| CatalogError::Corrupt { key: LEADER.to_owned(), source })?;
        let put = json!({ "key": key, "value": encoded(value), "lease": lease.to_string() });
        let request = json!({ "compare": compare, "success": [{ "request_put": put }] });
        Ok(self.kv.ask("kv/txn", &request).await?["succeeded"] == true)
    }

    /// The lease ran out: it is there by another one.
    async fn come_again(&self) -> Result<(), CatalogError> {
        if self.leads() {
            self.take_again().await?;
        } else {
            self.lease.store(0, Ordering::Relaxed);
        }
        self.announce().await
    }

    /// Leads again if nobody else has begun to since.
    async fn take_again(&self) -> Result<(), CatalogError> {
        let revision = match self.leader().await? {
            Some((leader, _)) if leader.id != self.me.id => return Err(CatalogError::Replaced),
            Some((_, revision)) => revision,
            None => 0,
        };
        let held = self.kv.state.lock().held.clone();
        let held = held.map(|held| compare_revision(&self.kv.key(&held.key), held.revision.0));
        let lease = self.grant().await?;
        if self.put_leader(revision, lease, held).await? {
            tracing::info!("the lead had run out; nobody else led meanwhile");
        } else {
            // Somebody else was faster, or the answer to the first attempt was lost.
            match self.leader().await? {
                Some((leader, _)) if leader.id == self.me.id => {}
                _ => return Err(CatalogError::Replaced),
            }
        }
        self.lease.store(lease, Ordering::Relaxed);
        Ok(())
    }
}
