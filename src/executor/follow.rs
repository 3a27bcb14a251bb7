//! What this proxy does because another one asks for it: closes gates, holds writes back, forgets; and
//! puts the maps of others in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::gate::BarredLeaves;
use super::{ClosedGate, Engine, Exclusive};
use crate::catalog::{CatalogError, Record};
use crate::cluster::{Barred, Barrier};
use crate::runtime::Tasks;
use crate::shard_map::ShardMap;

/// When the catalog is asked again that did not take an answer.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a writer of reference tables may keep others waiting.
const STILL: Duration = Duration::from_millis(300);

/// How soon it is looked again whether a map may be put in force.
const SHORTLY: Duration = Duration::from_millis(5);
/// How often requests to change definitions are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// While it lives another proxy may change definitions.
#[derive(Debug)]
pub struct Granted {
    who: (u64, u64),
    _lock: Exclusive,
}

/// What is held for a barrier of another proxy, until that goes.
#[derive(Debug)]
pub(super) struct Held {
    _gates: Vec<Arc<ClosedGate>>,
    _leaves: Arc<BarredLeaves>,
    _part: DropGuard,
}

impl Engine {
    /// Does what other proxies ask for now, and from now on until it is stopped.
    pub fn follow_others(self: &Arc<Self>, tasks: &Tasks) {
        let Some(mirror) = self.cluster.mirror() else { return };
        let mut changes = mirror.watch();
        changes.mark_unchanged();
        self.follow(tasks);
        let (engine, stopping) = (Arc::clone(self), tasks.clone());
        let go_on = async move {
            loop {
                tokio::select! {
                    () = stopping.token().cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                changes.mark_unchanged();
                engine.follow(&stopping);
            }
        };
        tasks.spawn("others", go_on);
    }

    /// The proxy that may change definitions since an older leader said so; moves are kept away from
    /// now on. For one that begins to lead.
    pub async fn granted_before(&self) -> Option<Granted> {
        let (who, granted) = self.cluster.wanted_definitions()?;
        if !granted || Some(who.0) == self.cluster.me() {
            return None;
        }
        let lock = self.ddl_lock.exclusive(self.config().ddl_timeout()).await?;
        Some(Granted { who, _lock: lock })
    }

    /// Lets one proxy after the other change definitions while no move is under way, until it is
    /// stopped. For the proxy that leads.
    pub async fn grant_forever(self: Arc<Self>, mut granted: Option<Granted>, tasks: Tasks) {
        let Some(mirror) = self.cluster.mirror() else { return };
        let mut changes = mirror.watch();
        loop {
            changes.mark_unchanged();
            let wanted = self.cluster.wanted_definitions().map(|(who, _)| who);
            granted = granted.filter(|it| Some(it.who) == wanted);
            if let Some(who) = wanted.filter(|_| granted.is_none()) {
                granted = self.grant(who).await;
            }
            tokio::select! {
                () = tasks.token().cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn grant(&self, who: (u64, u64)) -> Option<Granted> {
        // It gives up by itself; then another one's turn may have come.
        let lock = self.ddl_lock.exclusive(LOOK).await?;
        match self.cluster.grant_definitions(who).await {
            Ok(()) => Some(Granted { who, _lock: lock }),
            Err(error) => {
                tracing::warn!(%error, "a proxy that wants to change definitions waits");
                None
            }
        }
    }

    /// One look at what the others ask for.
    fn follow(self: &Arc<Self>, tasks: &Tasks) {
        let barriers = self.cluster.barriers();
        // A barrier speaks of the map as it was when it was put up, or of a newer one.
        let is_current = self.adopt_map();
        // It stays when this is stopped: what was answered holds until the process ends.
        let mut held = self.held_for_others.lock();
        for barrier in &barriers {
            held.entry(barrier.id()).or_insert_with(|| self.hold(barrier, tasks));
        }
        if is_current {
            held.retain(|id, _| barriers.iter().any(|barrier| barrier.id() == *id));
        }
    }

    /// Puts the newest map that other proxies have stored in force; whether it is. If not, what it says is
    /// still being committed.
    pub fn adopt_map(&self) -> bool {
        let Some(mirror) = self.cluster.mirror() else { return true };
        let at = mirror.revision::<ShardMap>().0;
        if self.adopted.load(Ordering::SeqCst) >= at {
            return true;
        }
        let Some(map) = mirror.get::<ShardMap>() else { return true };
        if self.cluster.keeps_map() || !self.knows_nodes_of(&map.record) {
            return false;
        }
        if map.record.epoch() > self.live_map.epoch() {
            self.live_map.publish(map.record);
            self.direct.forget();
            self.forget_learned();
        }
        self.adopted.fetch_max(map.revision.0, Ordering::SeqCst);
        true
    }

    /// Waits until the map in force is the newest; whether it is within `deadline`.
    pub(super) async fn is_current(&self, deadline: Duration) -> bool {
        let current = async {
            while !self.adopt_map() {
                sleep(SHORTLY).await;
            }
        };
        timeout(deadline, current).await.is_ok()
    }

    /// Whether all nodes of a map are those that this proxy was started with.
    pub fn knows_nodes_of(&self, map: &ShardMap) -> bool {
        map.nodes().all(|(id, node)| {
            self.nodes.get(id.index()).is_some_and(|known| known.name == node.name)
        })
    }

    /// Definitions have changed: waits until the other proxies know nothing of the older ones.
    pub(super) async fn tell_definitions(&self) {
        let told = async {
            let closing = self.cluster.close(Barred::Definitions).await?;
            closing.passed().await;
            Ok::<_, CatalogError>(())
        };
        match timeout(self.config().ddl_timeout(), told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "other proxies do not know of a definition"),
            Err(_) => tracing::warn!("another proxy did not hear of a definition in time"),
        }
    }

    /// Begins to do what a barrier asks for, and answers it once that is done.
    fn hold(self: &Arc<Self>, barrier: &Barrier, tasks: &Tasks) -> Held {
        let shards: &[_] = if let Barred::Shards(shards) = &barrier.barred { shards } else { &[] };
        let gates: Vec<_> = shards.iter().map(|shard| Arc::new(self.gates.close(*shard))).collect();
        let leaves: &[_] = if let Barred::Leaves(shards) = &barrier.barred { shards } else { &[] };
        let leaves = Arc::new(self.gates.bar_leaves(leaves));
        let over = CancellationToken::new();
        let part = {
            let (engine, barrier) = (Arc::clone(self), barrier.clone());
            let (behind, over) = ((gates.clone(), Arc::clone(&leaves)), over.clone());
            async move {
                tokio::select! {
                    () = engine.play_part(&barrier, behind, &over) => {}
                    () = over.cancelled() => {}
                }
                if let Barred::Doubt(node) = barrier.barred {
                    engine.doubts.dispel(node, &barrier.id());
                }
            }
        };
        tasks.spawn("barrier", part);
        Held { _gates: gates, _leaves: leaves, _part: over.drop_guard() }
    }

    async fn play_part(
        &self,
        barrier: &Barrier,
        (gates, leaves): (Vec<Arc<ClosedGate>>, Arc<BarredLeaves>),
        over: &CancellationToken,
    ) {
        let mut still = None;
        match &barrier.barred {
            Barred::Shards(_) => drop(join_all(gates.iter().map(|gate| gate.drained())).await),
            Barred::Leaves(_) => leaves.left().await,
            Barred::Elsewhere => self.gates.elsewhere_ended().await,
            Barred::References => {
                while still.is_none() {
                    still = self.reference_lock.still(STILL).await;
                    sleep(STILL).await;
                }
            }
            Barred::Definitions => {
                self.direct.forget();
                self.forget_learned();
                self.relations.write().clear();
            }
            Barred::Doubt(node) => self.doubts.share(*node, barrier.id()),
            Barred::Map => {}
        }
        // Only the gates themselves stay closed.
        drop((gates, leaves));
        while let Err(error) = self.cluster.pass(barrier).await {
            tracing::debug!(%error, "another proxy is answered later");
            sleep(AGAIN).await;
        }
        over.cancelled().await;
        drop(still);
    }
}
