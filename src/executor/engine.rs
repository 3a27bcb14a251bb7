//! What all sessions of the proxy share.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::doubt::Doubts;
use super::follow::Held;
use super::learned::{AllLearned, Learned};
use super::sorting::Sorting;
use super::{DdlLock, DirectLeaves, Gates, LiveMap, ReferenceLock};
use crate::backend::{NodeAddress, Oids};
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::load::{Counters, Samples};
use crate::runtime::Failpoints;
use crate::sql::TableName;

/// Deadlines of what the executor does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a statement waits for a shard that is being switched, in milliseconds.
    pub gate_timeout_ms: u64,
    /// How long DDL waits for moves under way, and for transactions at leaf partitions, in
    /// milliseconds.
    pub ddl_timeout_ms: u64,
    /// How often left-over prepared transactions are looked for, in seconds.
    pub resolve_interval_s: u64,
    /// How often transactions of several nodes that wait for each other are looked for, in
    /// milliseconds; 0 for never.
    pub deadlock_check_ms: u64,
    /// Most rows that one statement may pass on from several nodes; 0 for no limit.
    pub scatter_rows_max: u64,
    /// Most bytes of them; 0 for no limit.
    pub scatter_bytes_max: u64,
    /// How long passing them on may take, in milliseconds; 0 for no limit.
    pub scatter_timeout_ms: u64,
    /// Most rows that one statement may bring together from several nodes.
    pub pull_rows_max: u64,
    /// Most bytes of them.
    pub pull_bytes_max: u64,
    /// How long bringing them together, and the statement on them, may take, in milliseconds.
    pub pull_timeout_ms: u64,
    /// Prepared statements on one row by its key are sent to the leaf partition itself, where
    /// PostgreSQL keeps their plans.
    pub leaf_plans: bool,
    /// Queries of the system catalog show sharded tables as plain ones, without their partitions.
    pub hide_partitions: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gate_timeout_ms: 10_000,
            ddl_timeout_ms: 30_000,
            resolve_interval_s: 30,
            deadlock_check_ms: 1_000,
            scatter_rows_max: 0,
            scatter_bytes_max: 0,
            scatter_timeout_ms: 0,
            pull_rows_max: 10_000_000,
            pull_bytes_max: 1 << 30,
            pull_timeout_ms: 300_000,
            leaf_plans: true,
            hide_partitions: true,
        }
    }
}

impl Config {
    /// How long a statement waits for a shard that is being switched.
    pub fn gate_timeout(&self) -> Duration {
        Duration::from_millis(self.gate_timeout_ms)
    }

    /// How long a pull may take.
    pub fn pull_timeout(&self) -> Duration {
        Duration::from_millis(self.pull_timeout_ms)
    }

    /// How long DDL waits for moves under way, and for transactions at leaf partitions.
    pub fn ddl_timeout(&self) -> Duration {
        Duration::from_millis(self.ddl_timeout_ms)
    }
}

/// What all sessions share: the map in force, the gates, the catalog, the counters.
#[derive(Debug)]
pub struct Engine {
    /// The map in force.
    pub live_map: LiveMap,
    /// The gates of its shards.
    pub gates: Gates,
    /// Keeps DDL and moves apart.
    pub ddl_lock: DdlLock,
    /// Keeps writes to reference tables and the arrival of nodes apart.
    pub reference_lock: ReferenceLock,
    /// Decisions of two-phase commits, and the map after DDL.
    pub catalog: Catalog,
    /// The other proxies that serve.
    pub cluster: Cluster,
    /// What statements cost.
    pub counters: Counters,
    /// One statement in many.
    pub samples: Samples,
    /// By node id.
    pub nodes: Vec<NodeAddress>,
    /// By node id: its object ids, by those of the home node.
    pub oids: Vec<Arc<Oids>>,
    /// Leaves that statements may be sent to instead of their parents.
    pub direct: DirectLeaves,
    /// What nodes said of statements of which they do a part.
    pub(super) learned: AllLearned<Learned>,
    /// The same of statements whose rows are merged in their order, or can't be.
    pub(super) sorted: AllLearned<Option<Arc<Sorting>>>,
    /// Deadlines.
    config: Arc<ArcSwap<Config>>,
    /// Begins the name of every prepared transaction: unique to this catalog.
    pub gid_prefix: String,
    /// This proxy's number on the catalog.
    pub number: u64,
    /// When this process started, in Unix milliseconds, and how many transactions it has named
    /// since: both are in their names.
    started_unix_ms: u128,
    gid_count: AtomicU64,
    /// Where a test wants the process to die.
    pub(super) failpoints: Failpoints,
    /// Nodes that have not finished what is committed.
    pub(super) doubts: Doubts,
    /// The newest commit of a map that was looked at.
    pub(super) adopted: AtomicU64,
    /// What other proxies ask this one to hold, by their barriers.
    pub(super) held_for_others: Mutex<HashMap<String, Held>>,
    /// The prepared transactions that a session is at work on.
    pub(super) live_gids: Mutex<HashSet<String>>,
    /// The tables for which the views of the system catalog were last made, and whether the home node
    /// has them.
    pub(super) catalog_views: tokio::sync::Mutex<(Vec<TableName>, bool)>,
    /// Names of tables and views of the home node that were looked at: the map says what it must of
    /// them.
    pub(super) relations: RwLock<HashSet<String>>,
    /// Which schema of a search path has a name, as the home node said.
    pub(super) places: AllLearned<Option<String>>,
}

impl Engine {
    /// Definitions have changed, or may have: what the nodes said of statements counts no more.
    pub fn forget_learned(&self) {
        self.learned.forget();
        self.sorted.forget();
        self.places.forget();
    }

    /// Grows with each definition, in force or not, and when one was taken back.
    pub fn definitions(&self) -> u64 {
        self.direct.generation()
    }

    /// Puts the parts together. Reads the failpoint from the environment.
    pub fn new(
        parts: EngineParts,
        nodes: Vec<NodeAddress>,
        config: Config,
        (gid_prefix, number): (String, u64),
    ) -> Arc<Self> {
        let EngineParts { live_map, gates, ddl_lock, catalog, cluster, counters } = parts;
        let live_gids = Mutex::default();
        let oids = oids_of(&live_map, &nodes);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            live_map,
            gates,
            ddl_lock,
            reference_lock: ReferenceLock::default(),
            catalog,
            cluster,
            counters,
            samples: Samples::default(),
            nodes,
            oids,
            direct: DirectLeaves::default(),
            learned: AllLearned::default(),
            sorted: AllLearned::default(),
            config: Arc::new(ArcSwap::from_pointee(config)),
            gid_prefix,
            number,
            started_unix_ms: since_epoch.as_millis(),
            gid_count: AtomicU64::new(0),
            failpoints: Failpoints::from_env(),
            doubts: Doubts::default(),
            adopted: AtomicU64::new(0),
            held_for_others: Mutex::default(),
            live_gids,
            catalog_views: tokio::sync::Mutex::default(),
            relations: RwLock::default(),
            places: AllLearned::default(),
        })
    }

    /// The deadlines in force.
    pub fn config(&self) -> arc_swap::Guard<Arc<Config>> {
        self.config.load()
    }

    /// Puts other deadlines in force.
    pub fn set_config(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// A name for a transaction that is to be prepared on several nodes; no other has it.
    pub(super) fn next_gid(&self) -> String {
        let count = self.gid_count.fetch_add(1, Ordering::Relaxed);
        format!("{}_{}.{:x}_{count}", self.gid_prefix, self.number, self.started_unix_ms)
    }

    /// Whose prepared transactions this proxy finishes, as of now.
    pub(super) fn finishing(&self) -> Finishing {
        let (enrolled, leaving) = self.cluster.enrolled_and_leaving();
        let (prefix, me, leads) = (self.gid_prefix.clone(), self.number, self.cluster.leads());
        Finishing { prefix, me, leads, enrolled, leaving }
    }
}

/// Whose prepared transactions a proxy finishes: its own, and, if it leads, those of proxies that are
/// not there any more. Who is there may change at any time; what is left of one transaction is judged
/// on all nodes, and in the catalog, by the same answer.
#[derive(Debug)]
pub(super) struct Finishing {
    prefix: String,
    me: u64,
    leads: bool,
    enrolled: BTreeSet<u64>,
    leaving: BTreeSet<u64>,
}

/// What a proxy has to do with a prepared transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It finishes what is left of it.
    Finishes,
    /// Another one does.
    Leaves,
    /// Nobody does yet: its proxy was struck off, and may still be at work on it.
    Waits,
}

impl Finishing {
    /// What the proxy has to do with this one.
    pub(super) fn of(&self, gid: &str) -> Part {
        let own = gid.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('_'));
        let owner = own.and_then(|rest| rest.split_once('.'));
        let Some(owner) = owner.and_then(|(owner, _)| owner.parse::<u64>().ok()) else {
            return if self.leads { Part::Finishes } else { Part::Leaves };
        };
        if owner == self.me {
            Part::Finishes
        } else if !self.leads {
            Part::Leaves
        } else if self.leaving.contains(&owner) {
            Part::Waits
        } else if self.enrolled.contains(&owner) {
            Part::Leaves
        } else {
            Part::Finishes
        }
    }
}

fn oids_of(live_map: &LiveMap, nodes: &[NodeAddress]) -> Vec<Arc<Oids>> {
    let map = live_map.load();
    let home = &nodes[map.home().index()];
    let of = |node: &NodeAddress| Oids::new(map.database(), node.clone(), home.clone());
    nodes.iter().map(of).collect()
}

/// The values that the engine shares with the mover and the controller.
#[derive(Debug, Clone)]
pub struct EngineParts {
    /// The map in force.
    pub live_map: LiveMap,
    /// The gates of its shards.
    pub gates: Gates,
    /// Keeps DDL and moves apart.
    pub ddl_lock: DdlLock,
    /// The durable store.
    pub catalog: Catalog,
    /// The other proxies that serve.
    pub cluster: Cluster,
    /// What statements cost.
    pub counters: Counters,
}

#[cfg(test)]
mod tests {
    use super::{Finishing, Part};

    #[test]
    fn a_leader_finishes_what_is_left_of_those_that_are_gone_and_only_then() {
        let finishing = |leads| Finishing {
            prefix: "foreshard_c".to_owned(),
            me: 7,
            leads,
            enrolled: [5, 7].into(),
            leaving: [4, 5].into(),
        };
        let (leader, other) = (finishing(true), finishing(false));
        let parts = [
            ("foreshard_c_7.1a_0", Part::Finishes, Part::Finishes),
            ("foreshard_c_6.1a_0", Part::Finishes, Part::Leaves),
            ("foreshard_c_5.1a_0", Part::Waits, Part::Leaves),
            ("foreshard_c_4.1a_0", Part::Waits, Part::Leaves),
            ("foreshard_c_x", Part::Finishes, Part::Leaves),
        ];
        for (gid, led, followed) in parts {
            assert_eq!((leader.of(gid), other.of(gid)), (led, followed), "{gid}");
        }
        let there = Finishing { leaving: [].into(), ..finishing(true) };
        assert_eq!(there.of("foreshard_c_5.1a_0"), Part::Leaves);
    }
}
