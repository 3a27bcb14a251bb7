//! One proxy, put together: catalog, map, engine, mover, listener.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::leadership::Leadership;
use super::peers::add_up;
use super::steering::Steering;
use super::stored_map::stored_map;
use super::term::{Turn, fence_off};
use crate::backend;
use crate::backend::{Fence, NodeAddress, NodeTls};
use crate::catalog::{Catalog, CatalogError, Expect, Mirror, Record};
use crate::cluster::{Barred, Barrier, Cluster};
use crate::config::{Policy, PolicyMismatch};
use crate::controller::{Insight, Status};
use crate::executor;
use crate::executor::{DdlLock, Engine, EngineParts, Gates, LiveMap};
use crate::frontend::{Admission, Console, Directory, Frontend, Listening, MockSecret};
use crate::load::Counters;
use crate::mover;
use crate::mover::{MoveError, MoverContext};
use crate::runtime::Tasks;
use crate::runtime::now_unix_ms;
use crate::shard_map::{InvalidMap, ShardMap, Standing};
use crate::shard_move::{Errand, Job};

/// What a proxy is started with.
#[derive(Debug)]
pub struct ProxyConfig {
    /// The catalog.
    pub catalog: Catalog,
    /// Whether other proxies serve from it too.
    pub turn: Turn,
    /// What is sharded.
    pub policy: Policy,
    /// By node id.
    pub nodes: Vec<NodeAddress>,
    /// Who is let in where, and how; can be changed while it runs.
    pub admission: Arc<ArcSwap<Admission>>,
    /// The sockets that another process has left open for this one; none at an ordinary start.
    pub inherited: Vec<OwnedFd>,
    /// The connections to the nodes.
    pub backend: backend::Config,
    /// Deadlines of statements.
    pub executor: executor::Config,
}

/// A proxy at work.
#[derive(Debug)]
pub struct Proxy {
    /// The address that clients connect to.
    pub address: SocketAddr,
    /// What all sessions share.
    pub engine: Arc<Engine>,
    /// What the mover works with.
    pub mover: Arc<MoverContext>,
    /// What the controller sees and decides.
    pub status: watch::Receiver<Arc<Status>>,
    /// Load and forecasts.
    pub insight: Insight,
    /// Who is let in, and how.
    pub admission: Arc<ArcSwap<Admission>>,
    /// What a reload changes beside.
    pub(super) steering: Steering,
    leadership: Leadership,
    tasks: Tasks,
    /// What other proxies may ask for, as long as there are sessions.
    following: Tasks,
    listening: Listening,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalog can't be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The policy is not the one that the data was sharded by.
    #[error(transparent)]
    Policy(#[from] PolicyMismatch),
    /// Tables are there already that are not as the policy says.
    #[error("the policy has tables that are there already, as something else:\n  {0}")]
    Existing(String),
    /// The policy or the catalog makes no map.
    #[error("the shard map is not valid")]
    Map(#[from] InvalidMap),
    /// A move that a crash interrupted can be neither finished nor undone now.
    #[error("a move that was being switched could not be taken up again")]
    Recover(#[source] MoveError),
    /// The port can't be listened on.
    #[error("clients can't be listened for on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Names this catalog, so that what it leaves on nodes is known to be its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Identity {
    /// When it was made, in Unix milliseconds, and something random.
    pub(super) name: String,
}

impl Record for Identity {
    const PREFIX: &'static str = "identity";

    fn id(&self) -> String {
        String::new()
    }
}

impl Proxy {
    /// Starts a proxy. Statements are served when it returns.
    pub async fn start(mut config: ProxyConfig) -> Result<Self, StartError> {
        let catalog = config.catalog.clone();
        let gid_prefix = format!("foreshard_{}", identity(&catalog).await?.name);
        let secret = mock_secret(&catalog).await?;
        let leads = !config.turn.is_enrolled();
        let leadership = Box::pin(Self::assemble(&mut config, gid_prefix)).await?;
        let (engine, steering) = (Arc::clone(&leadership.engine), leadership.steering.clone());
        if leads {
            leadership.recover().await?;
        }
        refresh(&engine).await;
        let tasks = Tasks::new();
        tasks.spawn("resolver", Arc::clone(&engine).resolve_forever(tasks.clone()));
        let following = Tasks::new();
        following.spawn("tend", engine.cluster.clone().tend_forever(following.clone()));
        engine.follow_others(&following);
        let every_ms = config.policy.load.sample_interval_ms;
        tasks.spawn("shares", add_up(Arc::clone(&engine), every_ms, tasks.clone()));
        if leads {
            let granted = engine.granted_before().await;
            leadership.begin(granted, &tasks);
        }
        let address = config.admission.load().limits.listen;
        let frontend = Frontend {
            engine: Arc::clone(&engine),
            admission: Arc::clone(&config.admission),
            backend: steering.backend(),
            secret,
        };
        let listening = frontend
            .listen(config.inherited, &tasks)
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let directory = listening.directory.clone();
        let parties = move || directory.of_several_nodes();
        let deadlocks = Arc::clone(&engine).end_deadlocks_forever(parties, tasks.clone());
        tasks.spawn("deadlocks", deadlocks);
        let (address, admission) = (listening.address, config.admission);
        let mover = Arc::clone(&leadership.mover);
        let (status, insight) = (steering.status(), steering.insight());
        Ok(Self {
            address,
            engine,
            mover,
            status,
            insight,
            admission,
            steering,
            leadership,
            tasks,
            following,
            listening,
        })
    }

    /// The parts, put together; nothing is at work yet.
    async fn assemble(
        config: &mut ProxyConfig,
        gid_prefix: String,
    ) -> Result<Leadership, StartError> {
        let catalog = config.catalog.clone();
        let (map, fence) = Box::pin(map_of_new_term(&catalog, config)).await?;
        let cluster = match config.turn.mirror() {
            Some(mirror) => Cluster::shared(catalog.clone(), mirror.clone(), fence.proxy),
            None => Cluster::alone(catalog.clone()),
        };
        if !config.turn.is_enrolled() {
            cluster.lead();
        }
        ask_to_join(&catalog, &map).await?;
        let nodes = by_id(&map, &config.nodes);
        let parts = EngineParts {
            gates: Gates::default(),
            counters: Counters::new(map.shard_count(), nodes.len()),
            live_map: LiveMap::new(map),
            ddl_lock: DdlLock::default(),
            catalog,
            cluster,
        };
        let mover = MoverContext::new(&parts, nodes.clone(), config.policy.mover.clone());
        let name = (gid_prefix, fence.proxy);
        let engine = Engine::new(parts, nodes, config.executor.clone(), name);
        let mover = Arc::new(mover);
        let backend = config.backend.clone();
        let steering = Steering::new((&engine, &mover), backend, &config.policy);
        Ok(Leadership { engine, mover, steering, fence })
    }

    /// What it needs to lead, if it does not.
    pub(super) fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Who is connected, and how the pools are filled.
    pub fn directory(&self) -> Directory {
        self.listening.directory.clone()
    }

    /// Answers those who connect to the console from now on.
    pub fn set_console(&self, console: Arc<dyn Console>) {
        self.listening.console.fill(console);
    }

    /// What goes on until the last session has ended.
    pub(super) fn following(&self) -> &Tasks {
        &self.following
    }

    /// The proxy's tasks, for what is to stop with it.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The sockets that clients connect to, for another process.
    pub fn sockets(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.listening.sockets()
    }

    /// Stops accepting clients: another process has the sockets.
    pub fn leave(&self) {
        self.listening.leave();
    }

    /// Refuses new clients, lets transactions under way end, stops moves at a stored state.
    pub async fn stop(self) {
        let grace = self.admission.load().limits.shutdown_grace();
        if !self.tasks.stop(grace + Duration::from_secs(1)).await {
            tracing::warn!("some tasks did not end in time");
        }
        let joined = tokio::task::spawn_blocking(|| self.listening.join());
        if tokio::time::timeout(grace + Duration::from_secs(2), joined).await.is_err() {
            tracing::warn!("some workers did not end in time");
        }
        self.following.stop(Duration::from_secs(1)).await;
    }
}

/// Begins a new term; the map as it is then.
async fn map_of_new_term(
    catalog: &Catalog,
    config: &mut ProxyConfig,
) -> Result<(ShardMap, Arc<Fence>), StartError> {
    let waits = || {
        let barriers = config.turn.mirror().map(Mirror::list::<Barrier>);
        barriers.into_iter().flatten().any(|barrier| barrier.record.barred == Barred::Map)
    };
    // A map of which something is still being committed is not served by yet.
    while config.turn.is_enrolled() && waits() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let map = stored_map(catalog, &config.policy, &config.nodes).await?;
    let fence = fence_off(catalog, &map, &mut config.nodes, &config.turn).await?;
    // One that led before may have changed it until now.
    let stored = catalog.get::<ShardMap>("").await?;
    if stored.is_some_and(|stored| stored.record.epoch() == map.epoch()) {
        return Ok((map, fence));
    }
    Ok((stored_map(catalog, &config.policy, &config.nodes).await?, fence))
}

/// Reads what is known of tables besides the map. A node that does not answer is asked again later.
async fn refresh(engine: &Engine) {
    let known: Vec<_> =
        engine.live_map.load().tables().iter().map(|table| table.name.clone()).collect();
    if let Err(error) = engine.refresh_columns(&known).await {
        tracing::error!(%error, "the columns of sharded tables could not be read");
    }
    if let Err(error) = engine.refresh_derived().await {
        tracing::error!(%error, "views over sharded tables could not be read");
    }
    if let Err(error) = engine.refresh_lookups().await {
        tracing::error!(%error, "which lookups there are could not be read");
    }
}

/// The addresses in the order of the stored map, which says what id a node has; a node that has left
/// keeps a place. Those that other proxies do not know yet come last: they get the next ids.
fn by_id(map: &ShardMap, configured: &[NodeAddress]) -> Vec<NodeAddress> {
    let of = |name: &str| {
        configured.iter().find(|node| node.name == name).cloned().unwrap_or_else(|| NodeAddress {
            name: name.to_owned(),
            host: "gone.invalid".to_owned(),
            port: 1,
            user: String::new(),
            password: None,
            tls: NodeTls::default(),
            fence: None,
        })
    };
    let is_new = |node: &&NodeAddress| !map.nodes().any(|(_, known)| known.name == node.name);
    let new = configured.iter().filter(is_new).cloned();
    map.nodes().map(|(_, node)| of(&node.name)).chain(new).collect()
}

/// Nodes that are new in the configuration join by themselves.
pub(super) async fn ask_to_join(catalog: &Catalog, map: &ShardMap) -> Result<(), CatalogError> {
    let jobs = catalog.list::<Job>().await?;
    for (node, _) in map.nodes().filter(|(_, node)| node.standing == Standing::Joining) {
        let errand = Errand::AddNode { node };
        if !jobs.iter().any(|job| job.record.errand == errand && !job.record.is_finished()) {
            mover::request_job(catalog, errand, now_unix_ms()).await?;
        }
    }
    Ok(())
}

/// The catalog's name, made at its first start.
pub(super) async fn identity(catalog: &Catalog) -> Result<Identity, CatalogError> {
    if let Some(stored) = catalog.get::<Identity>("").await? {
        return Ok(stored.record);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("{:x}{:08x}", since.as_millis(), rand::random::<u32>());
    let identity = Identity { name };
    catalog.put(&identity, Expect::Absent).await?;
    Ok(identity)
}

/// What makes the salts of unknown users; kept, so that they do not change by a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredSecret {
    bytes: [u8; 32],
}

impl Record for StoredSecret {
    const PREFIX: &'static str = "mock_secret";

    fn id(&self) -> String {
        String::new()
    }
}

/// The catalog's secret, made at its first start.
async fn mock_secret(catalog: &Catalog) -> Result<MockSecret, CatalogError> {
    if let Some(stored) = catalog.get::<StoredSecret>("").await? {
        return Ok(MockSecret(stored.record.bytes));
    }
    let made = StoredSecret { bytes: rand::random() };
    catalog.put(&made, Expect::Absent).await?;
    Ok(MockSecret(made.bytes))
}
