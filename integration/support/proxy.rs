//! A proxy in the test's own process, in front of the nodes of a test database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use foreshard::app::{Proxy, ProxyConfig};
use foreshard::backend::{self, NodeAddress};
use foreshard::config::Policy;
use foreshard::executor;
use foreshard::frontend::{self, Admission};
use foreshard::ids::{NodeId, ShardId};
use foreshard::mover::{Wanted, request_any};
use foreshard::shard_move::{Cause, Move, State};
use tokio_postgres::{Client, NoTls};

use super::{TestDatabase, eventually, temp_folder};

/// A proxy and what it was started with, so that it can be started again.
pub struct TestProxy {
    pub proxy: Proxy,
    pub database: String,
    pub nodes: Vec<NodeAddress>,
    policy: String,
    folder: PathBuf,
}

/// What differs between the proxies of tests.
struct How {
    admission: Admission,
    executor: executor::Config,
    backend: backend::Config,
}

impl Default for How {
    fn default() -> Self {
        let (executor, backend) = (executor::Config::default(), backend::Config::default());
        Self { admission: trust(), executor, backend }
    }
}

/// Anybody, on a free port.
fn trust() -> Admission {
    Admission::trust(frontend::Config {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        workers: 2,
        ..frontend::Config::default()
    })
}

impl TestProxy {
    /// Starts a proxy with a policy (YAML, without its database) in front of a test database.
    pub async fn start(database: &TestDatabase, policy: &str) -> Self {
        Self::start_by(database, policy, How::default()).await
    }

    /// One in front of three nodes of its own, with a client that has run these statements.
    pub async fn over_three(policy: &str, setup: &[&str]) -> (TestDatabase, Self, Client) {
        let database = TestDatabase::create(3).await;
        let proxy = Self::start(&database, policy).await;
        let client = proxy.client().await;
        for sql in setup {
            client.batch_execute(sql).await.unwrap();
        }
        (database, proxy, client)
    }

    /// The same as [`Self::start`], letting clients in by `admission`.
    pub async fn start_admitting(
        database: &TestDatabase,
        policy: &str,
        admission: Admission,
    ) -> Self {
        Self::start_by(database, policy, How { admission, ..How::default() }).await
    }

    /// The same, with limits and deadlines of statements.
    pub async fn start_limited(
        database: &TestDatabase,
        policy: &str,
        executor: executor::Config,
    ) -> Self {
        Self::start_by(database, policy, How { executor, ..How::default() }).await
    }

    /// The same, with limits of the connections to the nodes.
    pub async fn start_pooling(
        database: &TestDatabase,
        policy: &str,
        backend: backend::Config,
    ) -> Self {
        Self::start_by(database, policy, How { backend, ..How::default() }).await
    }

    async fn start_by(database: &TestDatabase, policy: &str, how: How) -> Self {
        let folder = temp_folder("catalog");
        let (nodes, name) = (database.nodes.clone(), database.name.clone());
        Self::start_with(folder, nodes, name, policy.to_owned(), how).await
    }

    async fn start_with(
        folder: PathBuf,
        nodes: Vec<NodeAddress>,
        database: String,
        policy: String,
        how: How,
    ) -> Self {
        let text = format!("database: {database}\n{policy}");
        let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
        let parsed = Policy::parse(Path::new("test.yaml"), &text, Some(&names));
        let mut parsed = parsed.unwrap_or_else(|faults| panic!("{faults}"));
        if !text.contains("reversible_ms") {
            // Shared nodes have few slots, and tests end before the time of old copies is over.
            parsed.mover.reversible_ms = 0;
        }
        let config = ProxyConfig {
            catalog: foreshard::app::catalog_in(&folder).unwrap(),
            turn: foreshard::app::Turn::Alone,
            policy: parsed,
            nodes: nodes.clone(),
            admission: Arc::new(ArcSwap::from_pointee(how.admission)),
            inherited: Vec::new(),
            backend: how.backend,
            executor: how.executor,
        };
        let proxy = Box::pin(Proxy::start(config)).await.unwrap_or_else(|error| panic!("{error}"));
        Self { proxy, database, nodes, policy, folder }
    }

    /// Stops the proxy and starts it again over the same catalog.
    pub async fn restart(self) -> Self {
        self.proxy.stop().await;
        let Self { folder, nodes, database, policy, .. } = self;
        Self::start_with(folder, nodes, database, policy, How::default()).await
    }

    /// Moves a shard to the next node, and waits until it is done.
    pub async fn move_shard(&self, shard: ShardId) {
        let live_map = &self.proxy.engine.live_map;
        let nodes = u16::try_from(self.nodes.len()).unwrap();
        let to = NodeId((live_map.load().node_of(shard).0 + 1) % nodes);
        self.change_shards(&Wanted::Move { shards: vec![shard], to }).await;
        assert_eq!(live_map.snapshot().node_of(shard), to);
    }

    /// Asks for a move, a split or a merge, and waits until it is done.
    pub async fn change_shards(&self, wanted: &Wanted) {
        let map = self.proxy.engine.live_map.snapshot();
        let catalog = &self.proxy.mover.catalog;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now = u64::try_from(now).unwrap();
        let id = request_any(catalog, &map, wanted, Cause::Operator, now).await.unwrap();
        let finished = eventually("the move is finished", Duration::from_secs(90), async || {
            let moves = catalog.list::<Move>().await.unwrap();
            moves.into_iter().map(|mv| mv.record).find(|mv| mv.id == id && mv.is_finished())
        });
        let mv = finished.await;
        assert_eq!(mv.state, State::Done, "{mv:#?}");
    }

    /// How a driver connects to it.
    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.proxy.address.port());
        config.user("postgres").dbname(&self.database);
        config
    }

    /// A client of the proxy; its connection ends with it.
    pub async fn client(&self) -> Client {
        let (client, connection) = self.config().connect(NoTls).await.unwrap();
        drop(foreshard::runtime::Tasks::new().spawn("client", connection));
        client
    }
}
