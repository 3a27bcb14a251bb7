//! The shard map in force, shared by everything that routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::ids::Epoch;
use crate::shard_map::ShardMap;

/// The map in force. Cheap to clone and to read.
#[derive(Debug, Clone)]
pub struct LiveMap {
    current: Arc<ArcSwap<ShardMap>>,
    /// Of the map in force, or of the one that is about to be: most statements need to know no more.
    newest: Arc<AtomicU64>,
    epoch: watch::Sender<Epoch>,
}

impl LiveMap {
    /// Starts with `map`.
    pub fn new(map: ShardMap) -> Self {
        let epoch = watch::Sender::new(map.epoch());
        let newest = Arc::new(AtomicU64::new(map.epoch().0));
        Self { current: Arc::new(ArcSwap::from_pointee(map)), newest, epoch }
    }

    /// The epoch in force, or already that of a map that is just being put in force: what was made at
    /// this epoch was made by the map in force.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.newest.load(Ordering::SeqCst))
    }

    /// The map in force, for a look-up that does not outlive the statement.
    pub fn load(&self) -> Guard<Arc<ShardMap>> {
        self.current.load()
    }

    /// The map in force, to keep.
    pub fn snapshot(&self) -> Arc<ShardMap> {
        self.current.load_full()
    }

    /// Puts `map` in force, unless a newer one is. The catalog must hold it already.
    pub fn publish(&self, map: ShardMap) {
        let epoch = map.epoch();
        let map = Arc::new(map);
        self.newest.fetch_max(epoch.0, Ordering::SeqCst);
        self.current.rcu(
            |now| {
                if now.epoch() < epoch { Arc::clone(&map) } else { Arc::clone(now) }
            },
        );
        self.epoch.send_replace(self.load().epoch());
    }

    /// Tells the epoch in force.
    pub fn watch(&self) -> watch::Receiver<Epoch> {
        self.epoch.subscribe()
    }
}
