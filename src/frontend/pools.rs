//! The pools of one worker: one a node, user and database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::directory::PoolInfo;
use crate::backend::{
    Defaults, DefaultsOf, Filling, LiveConfig, Login, NodeAddress, NodeLimit, Permits, Pool, PoolOf,
};
use crate::executor::Engine;
use crate::ids::NodeId;
use crate::runtime::Tasks;

/// How often idle connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The pools of one worker.
#[derive(Debug)]
pub(super) struct Pools {
    nodes: Vec<(PoolOf, Arc<NodeLimit>)>,
    home: NodeId,
    config: LiveConfig,
    of_all: Permits,
    /// Which worker it is, of how many.
    share: (usize, usize),
    by_login: Mutex<HashMap<LoginKey, Vec<Arc<Pool>>>>,
}

/// User and database.
type LoginKey = (String, String);

impl Pools {
    /// Pools of the worker with this index, which share the configured sizes with those of `workers`
    /// workers in all.
    pub(super) fn new(engine: &Engine, config: LiveConfig, share: (usize, usize)) -> Self {
        let limits = config.load();
        let of_all = Permits::new(share_of(limits.connections_max, share));
        let of_node = share_of(limits.node_connections_max, share);
        let limit = || NodeLimit::new(of_node, of_all.clone());
        let of = |(node, address): (NodeId, &NodeAddress)| {
            let oids = engine.oids.get(node.index()).cloned();
            let of = PoolOf { node, address: address.clone(), oids, defaults: DefaultsOf::Node };
            (of, limit())
        };
        let nodes = (0u16..).map(NodeId).zip(&engine.nodes).map(of).collect();
        let home = engine.live_map.load().home();
        drop(limits);
        Self { nodes, home, config, of_all, share, by_login: Mutex::default() }
    }

    /// The pools of a login, by node id.
    pub(super) fn of(&self, login: &Login) -> Vec<Arc<Pool>> {
        let key = (login.user.clone(), login.database.clone());
        let make = || {
            let defaults = Arc::<Defaults>::default();
            let whose = |node| {
                let defaults = Arc::clone(&defaults);
                if node == self.home {
                    DefaultsOf::Home(defaults)
                } else {
                    DefaultsOf::OfHome(defaults)
                }
            };
            let pools = self.nodes.iter().map(|(of, limit)| {
                let size = share_of(self.config.load().pool_size, self.share);
                let limits = (size, Arc::clone(limit));
                let oids = of.oids.clone().filter(|oids| oids.is_of(&login.database));
                let of = PoolOf { oids, defaults: whose(of.node), ..of.clone() };
                Pool::new(of, login.clone(), Arc::clone(&self.config), limits)
            });
            pools.collect()
        };
        let pools = self.by_login.lock().entry(key).or_insert_with(make).clone();
        pools.iter().for_each(|pool| pool.renew(&login.credential));
        pools
    }

    /// How its pools are filled.
    pub(super) fn list(&self) -> Vec<PoolInfo> {
        let info = |pool: &Arc<Pool>| {
            let (node, user, database) = pool.whose();
            let Filling { in_use, idle, waiting, size } = pool.filling();
            PoolInfo { node, user, database, in_use, idle, waiting, size }
        };
        self.by_login.lock().values().flatten().map(info).collect()
    }

    /// Closes idle connections whose time is over and follows limits that have changed, until the tasks
    /// are stopped.
    pub(super) async fn sweep_forever(&self, tasks: &Tasks) {
        loop {
            tokio::select! {
                () = tasks.token().cancelled() => return,
                () = tokio::time::sleep(SWEEP_INTERVAL) => {}
            }
            self.resize(tasks);
            self.pools().iter().for_each(|pool| pool.sweep());
        }
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.by_login.lock().values().flatten().cloned().collect()
    }

    /// Follows the limits in force.
    fn resize(&self, tasks: &Tasks) {
        let config = self.config.load_full();
        let size = share_of(config.pool_size, self.share);
        for pool in self.pools() {
            pool.resize(size);
        }
        for (_, limit) in &self.nodes {
            limit.resize(share_of(config.node_connections_max, self.share), tasks);
        }
        let all = share_of(config.connections_max, self.share);
        if self.of_all.size() != all {
            let limits: Vec<_> = self.nodes.iter().map(|(_, limit)| Arc::clone(limit)).collect();
            self.of_all.resize(all, tasks, move || {
                limits.iter().any(|limit| limit.close_one());
            });
        }
    }
}

/// What of `all` falls to a worker: the shares add up to it, but each has one at least.
fn share_of(all: u32, (index, workers): (usize, usize)) -> u32 {
    let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
    let extra = u32::try_from(index).is_ok_and(|index| index < all % workers);
    (all / workers + u32::from(extra)).max(1)
}

#[cfg(test)]
mod tests {
    use super::share_of;

    #[test]
    fn the_shares_of_the_workers_add_up() {
        for (all, workers) in [(40, 2), (41, 2), (7, 4), (3, 3)] {
            let sum: u32 = (0..workers).map(|index| share_of(all, (index, workers))).sum();
            assert_eq!(sum, all);
        }
        assert_eq!(share_of(1, (1, 2)), 1);
    }
}
