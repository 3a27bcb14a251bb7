//! What the mover works with: the catalog, the proxy's live state, the nodes, its settings.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::Config;
use super::error::MoveError;
use super::progress::Progress;
use crate::backend::NodeAddress;
use crate::catalog::Catalog;
use crate::executor::ClosedGate;
use crate::executor::DdlLock;
use crate::executor::Gates;
use crate::executor::LiveMap;
use crate::ids::{MoveId, NodeId, ShardId};
pub(super) use crate::runtime::now_unix_ms;
use crate::runtime::{Failpoints, Tasks};
use crate::shard_move::Move;

/// What the mover works with.
#[derive(Debug)]
pub struct MoverContext {
    /// Holds the moves and the map.
    pub catalog: Catalog,
    /// Where a switch publishes its map.
    pub live_map: LiveMap,
    /// A switch closes the gate of its shard.
    pub gates: Gates,
    /// Each move holds it shared.
    pub ddl_lock: DdlLock,
    /// How to reach each node; a node's id is its index.
    pub nodes: Vec<NodeAddress>,
    /// What the operator set.
    pub config: Config,
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
    #[expect(clippy::too_many_arguments, reason = "the parts of the proxy that a move touches")]
    pub fn new(
        catalog: Catalog,
        live_map: LiveMap,
        gates: Gates,
        ddl_lock: DdlLock,
        nodes: Vec<NodeAddress>,
        config: Config,
    ) -> Self {
        Self {
            catalog,
            live_map,
            gates,
            ddl_lock,
            nodes,
            config,
            progress: Progress::default(),
            failpoints: Failpoints::from_env(),
            connections: Tasks::new(),
            hiding: Mutex::default(),
            held: Mutex::new(HashMap::new()),
            newest: AtomicU64::new(0),
        }
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
    /// [`Self::release`]; `None` if somebody else has closed it.
    pub(super) fn hold(&self, shard: ShardId) -> Option<Arc<ClosedGate>> {
        let mut held = self.held.lock();
        if let Some(held) = held.get(&shard) {
            return Some(Arc::clone(&held.gate));
        }
        let gate = Arc::new(self.gates.close(shard)?);
        held.insert(shard, Held { gate: Arc::clone(&gate), since: Instant::now() });
        Some(gate)
    }

    /// Closes the gates of all sources of `mv` and holds them, as [`Self::hold`] does; `None`, and
    /// none of them is held, if somebody else has closed one.
    pub(super) fn hold_all(&self, mv: &Move) -> Option<Vec<Arc<ClosedGate>>> {
        let gates: Option<Vec<_>> =
            mv.sources().iter().map(|source| self.hold(source.shard)).collect();
        if gates.is_none() {
            self.release_all(mv);
        }
        gates
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
