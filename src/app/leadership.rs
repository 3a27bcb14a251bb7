//! What only one proxy of a catalog does: it says who may serve, finishes what dead ones left, moves
//! shards, forecasts and decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::proxy::ask_to_join;
use super::steering::Steering;
use super::term::{begin_to_lead, hold, revised, store, tell};
use crate::backend::{Fence, Term};
use crate::catalog::{CatalogError, Mirror, Revision, Versioned};
use crate::cluster::{Presence, Roll};
use crate::executor::{Engine, Granted};
use crate::mover;
use crate::mover::{JobParts, MoverContext};
use crate::runtime::Tasks;
use crate::shard_map::ShardMap;

/// How often it is looked who is there, at least.
const LOOK: Duration = Duration::from_millis(500);
/// How often a node is told who may not serve any more.
const TELLS: u32 = 10;
/// When what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a proxy needs to lead. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Leadership {
    pub(super) engine: Arc<Engine>,
    pub(super) mover: Arc<MoverContext>,
    pub(super) steering: Steering,
    pub(super) fence: Arc<Fence>,
}

impl Leadership {
    /// Finishes or undoes what was under way when the proxy ended that led before.
    pub(super) async fn recover(&self) -> Result<(), StartError> {
        self.engine.resolve().await;
        // What was decided is committed: its map is in force.
        let stored = self.engine.catalog.get::<ShardMap>("").await?;
        stored.into_iter().for_each(|stored| self.engine.live_map.publish(stored.record));
        let held = mover::recover_before_serving(&self.mover).await.map_err(StartError::Recover)?;
        if !held.is_empty() {
            tracing::warn!(?held, "statements for these shards wait until their switch is over");
        }
        Ok(())
    }

    /// Starts all that a leader does.
    pub(super) fn begin(&self, granted: Option<Granted>, tasks: &Tasks) {
        self.engine.cluster.took_over();
        let engine = &self.engine;
        tasks.spawn("grants", Arc::clone(engine).grant_forever(granted, tasks.clone()));
        tasks.spawn("mover", mover::run(Arc::clone(&self.mover), tasks.clone()));
        let parts = JobParts {
            context: Arc::clone(&self.mover),
            engine: Arc::clone(engine),
            placement: self.steering.placement(),
        };
        tasks.spawn("jobs", mover::run_jobs(parts, tasks.clone()));
        self.steering.start_controller(tasks);
    }

    /// Leads from now on, while the proxy serves: whoever led before is kept off first. To be called
    /// again if it fails.
    pub(super) async fn take_over(&self, tasks: &Tasks) -> Result<(), StartError> {
        let cluster = &self.engine.cluster;
        let Some(mirror) = cluster.mirror() else { return Ok(()) };
        let before = mirror.get::<Roll>().map(|roll| roll.record).unwrap_or_default();
        // Whether or not an answer is lost, those who are struck off are waited for.
        cluster.leaving(&before.numbers());
        let roll = begin_to_lead(&self.engine.catalog, mirror, self.fence.proxy).await?.record;
        cluster.left(&roll.numbers());
        self.strike_off(&roll).await;
        cluster.lead();
        // Gates that the other one has closed stay closed until all of this is done.
        self.recover().await?;
        ask_to_join(&self.engine.catalog, &self.engine.live_map.snapshot()).await?;
        let granted = self.engine.granted_before().await;
        self.begin(granted, tasks);
        metrics::gauge!("foreshard_catalog_leads").set(1.0);
        tracing::info!(term = roll.number, "this proxy leads now");
        Ok(())
    }

    /// The nodes let nobody in who is not on the roll, and nobody waits for who was struck off it.
    async fn strike_off(&self, roll: &Roll) {
        self.fence.learn(Term::from(roll));
        for _ in 0..TELLS {
            if tell(&self.fence, &self.engine.nodes).await {
                break;
            }
            sleep(AGAIN).await;
        }
        self.engine.inherit_doubts(&roll.numbers()).await;
        self.engine.cluster.all_left();
    }

    /// Takes note of who may serve, and says so while it leads, until the tasks end; cancels `lost` once
    /// this proxy may not.
    pub(super) async fn keep_roll(self, lost: CancellationToken, tasks: Tasks) {
        let cluster = self.engine.cluster.clone();
        let Some(mirror) = cluster.mirror() else { return };
        let mut changes = mirror.watch();
        let mut told = mirror.get::<Roll>().map_or(0, |roll| roll.record.number);
        let mut seen = Revision::default();
        loop {
            changes.mark_unchanged();
            let at = mirror.revision::<ShardMap>();
            let map = if at > seen { mirror.get::<ShardMap>() } else { None };
            seen = seen.max(at);
            if map.is_some_and(|map| !self.engine.knows_nodes_of(&map.record)) {
                tracing::error!("a node was added that the configuration of this proxy lacks");
                return lost.cancel();
            }
            if let Some(roll) = mirror.get::<Roll>() {
                if !roll.record.has(self.fence.proxy) {
                    return lost.cancel();
                }
                if cluster.leads() {
                    told = self.revise(roll, told, mirror).await;
                } else {
                    self.fence.learn(Term::from(&roll.record));
                    told = roll.record.number;
                }
            }
            tokio::select! {
                () = tasks.token().cancelled() => return,
                changed = timeout(LOOK, changes.changed()) => {
                    if matches!(changed, Ok(Err(_))) {
                        return;
                    }
                }
            }
        }
    }

    /// Says who may serve by who is there, if that has changed, and tells the nodes what they were not
    /// told; the term that they are told of.
    async fn revise(&self, roll: Versioned<Roll>, mut told: u64, mirror: &Mirror) -> u64 {
        let (cluster, catalog) = (&self.engine.cluster, &self.engine.catalog);
        if roll.record.number > told {
            let has_left = cluster.are_leaving();
            self.strike_off(&roll.record).await;
            if has_left {
                self.engine.resolve().await;
            }
            told = roll.record.number;
        }
        let there = mirror.list::<Presence>();
        let Some((next, gone)) = revised(&roll.record, &there, self.fence.proxy) else {
            cluster.left(&roll.record.numbers());
            return told;
        };
        // Until the nodes are told, whatever comes of this.
        cluster.leaving(&gone.iter().map(|proxy| proxy.number).collect::<Vec<_>>());
        match store(catalog, &next, roll.revision, &gone).await {
            Ok(revision) => {
                hold(catalog, revision, self.fence.proxy);
                tracing::info!(term = next.number, proxies = ?next.proxies, ?gone, "who may serve");
            }
            Err(CatalogError::Conflict(_)) => {}
            Err(error) => tracing::warn!(%error, "who may serve could not be stored"),
        }
        told
    }
}
