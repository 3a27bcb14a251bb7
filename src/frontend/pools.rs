//! The pools of one worker: one a node, user and database.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::backend::{Config, Login, NodeAddress, Pool};
use crate::ids::NodeId;

/// The pools of one worker.
#[derive(Debug)]
pub(super) struct Pools {
    nodes: Vec<NodeAddress>,
    config: Config,
    /// Connections to a node that fall to this worker.
    size: u32,
    by_login: Mutex<HashMap<LoginKey, Vec<Arc<Pool>>>>,
}

/// User and database.
type LoginKey = (String, String);

impl Pools {
    /// Pools that share the configured size with those of `workers` workers in all.
    pub(super) fn new(nodes: Vec<NodeAddress>, config: Config, workers: usize) -> Self {
        let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
        let size = config.pool_size.div_ceil(workers);
        Self { nodes, config, size, by_login: Mutex::default() }
    }

    /// The pools of a login, by node id.
    pub(super) fn of(&self, login: &Login) -> Vec<Arc<Pool>> {
        let key = (login.user.clone(), login.database.clone());
        let make = || {
            let node_ids = (0u16..).map(NodeId);
            let pools = node_ids.zip(&self.nodes).map(|(id, address)| {
                Pool::new(id, address.clone(), login.clone(), self.config.clone(), self.size)
            });
            pools.collect()
        };
        let pools = self.by_login.lock().entry(key).or_insert_with(make).clone();
        pools.iter().for_each(|pool| pool.renew(&login.credential));
        pools
    }
}
