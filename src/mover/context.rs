//! What the mover works with: the catalog, the proxy's live state, the nodes, its settings.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::config::Config;
use super::error::MoveError;
use super::progress::Progress;
use crate::backend::NodeAddress;
use crate::catalog::Catalog;
use crate::cluster::{Barred, Closing, Cluster};
use crate::executor::{ClosedGate, DdlLock, EngineParts, Gates, LiveMap};
use crate::ids::{MoveId, NodeId, ShardId};
pub(super) use crate::runtime::now_unix_ms;
use crate::runtime::{Failpoints, Tasks};
use crate::shard_move::Move;

/// What the mover works with.
#[derive(Debug)]
pub struct MoverContext {
    /// Holds the moves and the map.
    pub catalog: Catalog,
    /// The other proxies that serve.
    pub cluster: Cluster,
    /// Where a switch publishes its map.
    pub live_map: LiveMap,
    /// A switch closes the gate of its shard.
    pub gates: Gates,
    /// Each move holds it shared.
    pub ddl_lock: DdlLock,
    /// How to reach each node; a node's id is its index.
    pub nodes: Vec<NodeAddress>,
    /// What the operator set.
    config: ArcSwap<Config>,
    /// How far each move under way is.
    pub progress: Progress,
    /// Where a test wants the process to die.
    pub failpoints: Failpoints,
    /// The drivers of the connections to nodes; each ends with its connection.
    pub(super) connections: Tasks,
    /// The nodes that some shard is leaving concurrently.
    hiding: Mutex<HashSet<NodeId>>,
    /// Gates that stay closed whatever happens to the task that closed them.
    held: Mutex<HashMap<ShardId, Held>>,
    /// The newest move that was seen; there may be newer ones.
    newest: AtomicU64,
}

#[derive(Debug)]
struct Held {
    gate: Arc<ClosedGate>,
    since: Instant,
    /// The same on other proxies.
    elsewhere: Option<Arc<Closing>>,
}

/// How long other proxies may take to answer what needs no one's patience.
const ANSWERS: Duration = Duration::from_secs(5);

/// A barrier that all others have answered by then.
async fn answered(
    closing: Closing,
    deadline: Duration,
    what: &'static str,
) -> Result<Closing, MoveError> {
    match timeout(deadline, closing.passed()).await {
        Ok(()) => Ok(closing),
        Err(_) => Err(MoveError::Timeout(what)),
    }
}

/// The right to detach concurrently from some nodes, until it is dropped: there, one move after the
/// other.
#[derive(Debug)]
pub(super) struct Hiding<'a> {
    context: &'a MoverContext,
    nodes: Vec<NodeId>,
}

impl Drop for Hiding<'_> {
    fn drop(&mut self) {
        self.context.hiding.lock().retain(|node| !self.nodes.contains(node));
    }
}

impl MoverContext {
    /// A context without moves under way. Reads the failpoint from the environment.
    pub fn new(parts: &EngineParts, nodes: Vec<NodeAddress>, config: Config) -> Self {
        let EngineParts { live_map, gates, ddl_lock, catalog, cluster, .. } = parts.clone();
        Self {
            catalog,
            cluster,
            live_map,
            gates,
            ddl_lock,
            nodes,
            config: ArcSwap::from_pointee(config),
            progress: Progress::default(),
            failpoints: Failpoints::from_env(),
            connections: Tasks::new(),
            hiding: Mutex::default(),
            held: Mutex::new(HashMap::new()),
            newest: AtomicU64::new(0),
        }
    }

    /// What the operator has set by now.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The operator has set something else: what is waited for or limited from now on goes by that.
    pub fn set_config(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// Notes that a move of this id was seen.
    pub(super) fn saw(&self, id: MoveId) {
        self.newest.fetch_max(id.0, Ordering::Relaxed);
    }

    /// An id that is free, if no newer move was asked for just now.
    pub(super) fn next_id(&self) -> MoveId {
        MoveId(self.newest.load(Ordering::Relaxed) + 1)
    }

    /// Passes a failpoint, unless it is armed.
    pub(super) fn pass(&self, name: &'static str) -> Result<(), MoveError> {
        Ok(self.failpoints.pass(name)?)
    }

    pub(super) fn address(&self, node: NodeId) -> Result<&NodeAddress, MoveError> {
        let missing = || MoveError::Refused(format!("node {node} is not configured"));
        self.nodes.get(node.index()).ok_or_else(missing)
    }

    /// The right to detach concurrently from these nodes; `None` if another move is at it.
    pub(super) fn hide_on(&self, nodes: Vec<NodeId>) -> Option<Hiding<'_>> {
        let mut hiding = self.hiding.lock();
        if nodes.iter().any(|node| hiding.contains(node)) {
            return None;
        }
        hiding.extend(&nodes);
        Some(Hiding { context: self, nodes })
    }

    /// Closes the gate of `shard`, if it is not held closed already, and holds it until
    /// [`Self::release`]. On other proxies it is closed by [`Self::close_elsewhere`].
    pub(super) fn hold(&self, shard: ShardId) -> Arc<ClosedGate> {
        let mut held = self.held.lock();
        if let Some(held) = held.get(&shard) {
            return Arc::clone(&held.gate);
        }
        let gate = Arc::new(self.gates.close(shard));
        let (since, elsewhere) = (Instant::now(), None);
        held.insert(shard, Held { gate: Arc::clone(&gate), since, elsewhere });
        gate
    }

    /// Closes the gates of all sources of `mv` and holds them, as [`Self::hold`] does.
    pub(super) fn hold_all(&self, mv: &Move) -> Vec<Arc<ClosedGate>> {
        mv.sources().iter().map(|source| self.hold(source.shard)).collect()
    }

    /// Has all other proxies close the gates of these shards, which are held here; they open with
    /// these.
    ///
    /// # Errors
    /// The catalog's.
    pub(super) async fn close_elsewhere(
        &self,
        shards: &[ShardId],
    ) -> Result<Arc<Closing>, MoveError> {
        let closing = Arc::new(self.cluster.close(Barred::Shards(shards.to_vec())).await?);
        for shard in shards {
            if let Some(held) = self.held.lock().get_mut(shard) {
                held.elsewhere = Some(Arc::clone(&closing));
            }
        }
        Ok(closing)
    }

    /// The same; waits until nobody is inside them. Give it a deadline.
    ///
    /// # Errors
    /// The catalog's.
    pub(super) async fn drain_elsewhere(&self, shards: &[ShardId]) -> Result<(), MoveError> {
        self.close_elsewhere(shards).await?.passed().await;
        Ok(())
    }

    /// Has other proxies wait with newer maps until what it answers is dropped.
    ///
    /// # Errors
    /// The catalog's, or that another proxy does not answer.
    pub(super) async fn keep_map_elsewhere(&self) -> Result<Closing, MoveError> {
        let closing = self.cluster.close(Barred::Map).await?;
        answered(closing, ANSWERS, "other proxies to hear of a map").await
    }

    /// Waits until all who touched no shard, or were routed by an older map, have ended, here and on
    /// other proxies. Give it a deadline.
    ///
    /// # Errors
    /// The catalog's.
    pub(super) async fn elsewhere_ended(&self) -> Result<(), MoveError> {
        let closing = self.cluster.close(Barred::Elsewhere).await?;
        tokio::join!(self.gates.elsewhere_ended(), closing.passed());
        Ok(())
    }

    /// Has other proxies write no reference table until what it answers is dropped; waits `deadline`
    /// at the most.
    ///
    /// # Errors
    /// The catalog's, or that a transaction elsewhere goes on.
    pub(super) async fn still_elsewhere(&self, deadline: Duration) -> Result<Closing, MoveError> {
        let closing = self.cluster.close(Barred::References).await?;
        answered(closing, deadline, "writers of reference tables on other proxies").await
    }

    /// Opens the gates of all sources of `mv` again; how long the first was closed.
    pub(super) fn release_all(&self, mv: &Move) -> Option<Duration> {
        mv.sources().iter().filter_map(|source| self.release(source.shard)).max()
    }

    /// Opens the gate again; how long it was closed. The caller keeps no gate of [`Self::hold`].
    pub(super) fn release(&self, shard: ShardId) -> Option<Duration> {
        let held = self.held.lock().remove(&shard)?;
        let since = held.since;
        drop(held);
        Some(since.elapsed())
    }
}
