//! Who is connected, and how the pools are filled, for whoever looks from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::cancel::Cancels;
use super::pools::Pools;
use crate::executor::Party;
use crate::ids::NodeId;

/// Sees all sessions and pools. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Of the nodes, by id.
    names: Vec<String>,
    cancels: Arc<Cancels>,
    /// Of each worker.
    pools: Vec<Arc<Pools>>,
}

/// A client.
#[derive(Debug, Clone, Serialize)]
pub struct ClientInfo {
    /// The process number that it was given for cancel requests.
    pub client: i32,
    /// Who has logged in.
    pub user: String,
    /// The database that it uses.
    pub database: String,
    /// Its address; none for the Unix socket.
    pub address: Option<String>,
    /// How long it has been connected, in seconds.
    pub connected_s: u64,
    /// `idle`, `active` (a statement or a transaction is under way), or `pinned` (state keeps it on its
    /// connections between transactions).
    pub state: &'static str,
    /// The server's processes that work for it now, as `node:pid`.
    pub servers: Vec<String>,
}

/// The connections to a node for one user and database, of all workers.
#[derive(Debug, Clone, Serialize)]
pub struct PoolInfo {
    /// The node.
    pub node: String,
    /// Whom they are logged in as.
    pub user: String,
    /// Their database.
    pub database: String,
    /// Those that sessions hold.
    pub in_use: usize,
    /// Those that nobody holds.
    pub idle: usize,
    /// Statements that wait for one.
    pub waiting: usize,
    /// How many there may be.
    pub size: usize,
}

impl Directory {
    pub(super) fn new(names: Vec<String>, cancels: Arc<Cancels>, pools: Vec<Arc<Pools>>) -> Self {
        Self { names, cancels, pools }
    }

    /// The clients, by their numbers.
    pub fn clients(&self) -> Vec<ClientInfo> {
        let node = |id: NodeId| self.names.get(id.index()).map_or("?", String::as_str);
        let mut clients = self.cancels.list(node);
        clients.sort_by_key(|client| client.client);
        clients
    }

    /// The sessions that hold connections to several nodes.
    pub fn of_several_nodes(&self) -> Vec<Party> {
        self.cancels.of_several_nodes()
    }

    /// The pools, by user, database and node.
    pub fn pools(&self) -> Vec<PoolInfo> {
        let mut all: BTreeMap<_, PoolInfo> = BTreeMap::new();
        for info in self.pools.iter().flat_map(|pools| pools.list()) {
            let key = (info.user.clone(), info.database.clone(), info.node.clone());
            match all.get_mut(&key) {
                None => drop(all.insert(key, info)),
                Some(sum) => {
                    sum.in_use += info.in_use;
                    sum.idle += info.idle;
                    sum.waiting += info.waiting;
                    sum.size += info.size;
                }
            }
        }
        all.into_values().collect()
    }
}
