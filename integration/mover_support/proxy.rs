//! What of a proxy's process matters to a move; a crash is its end without a word.

use std::sync::Arc;
use std::time::Duration;

use foreshard::backend::NodeAddress;
use foreshard::catalog::Catalog;
use foreshard::cluster::Cluster;
use foreshard::executor::{DdlLock, EngineParts, Gates, LiveMap};
use foreshard::ids::MoveId;
use foreshard::load::Counters;
use foreshard::mover::{self, Config, MoverContext, Progress};
use foreshard::runtime::{Failpoints, Tasks};
use foreshard::shard_map::ShardMap;
use foreshard::shard_move::{Move, State};
use tokio_util::sync::CancellationToken;

use super::Shop;

/// How often a record is looked at, and how many times: a busy machine takes its time.
const PAUSE: Duration = Duration::from_millis(30);
const TRIES: usize = 8_000;

/// One proxy process.
#[derive(Clone)]
pub struct Proxy {
    pub catalog: Catalog,
    pub live_map: LiveMap,
    pub gates: Gates,
    pub ddl_lock: DdlLock,
    pub progress: Progress,
    tasks: Tasks,
    dead: CancellationToken,
}

/// Tables are copied in several segments.
fn config() -> Config {
    Config { switch_backoff_ms: 100, copy_segment_bytes: 20_000, ..Config::default() }
}

impl Shop {
    /// Starts a process: recovery, then the mover, then it serves. Old copies go at once.
    pub async fn proxy(&self, failpoints: Failpoints) -> Proxy {
        self.reversible(failpoints, 0).await
    }

    /// The same where moves can be reversed for a while.
    pub async fn reversible(&self, failpoints: Failpoints, reversible_ms: u64) -> Proxy {
        let nodes = self.database.nodes.clone();
        self.over(nodes, failpoints, reversible_ms).await
    }

    /// The same where a switch waits so long for its locks that it detaches plainly on a busy machine too.
    pub async fn plainly(&self, failpoints: Failpoints) -> Proxy {
        let config = Config { lock_timeout_ms: 5_000, reversible_ms: 0, ..config() };
        self.with(self.database.nodes.clone(), failpoints, config).await
    }

    /// The same where the first node does not answer.
    pub async fn without_the_first_node(&self) -> Proxy {
        let mut nodes = self.database.nodes.clone();
        nodes[0].port = 1;
        self.over(nodes, Failpoints::default(), 600_000).await
    }

    /// A proxy whose role on the nodes is a new one, which may replicate and switch triggers off.
    pub async fn as_role(&self, role: &str) -> Proxy {
        let sql = format!(
            "CREATE ROLE {role} LOGIN REPLICATION; \
             GRANT SET ON PARAMETER session_replication_role TO {role}"
        );
        for node in 0..2 {
            self.client(node).await.batch_execute(&sql).await.unwrap();
        }
        let mut nodes = self.database.nodes.clone();
        nodes.iter_mut().for_each(|node| role.clone_into(&mut node.user));
        self.over(nodes, Failpoints::default(), 0).await
    }

    /// A proxy that copies so many bytes a second.
    pub async fn slowly(&self, copy_bytes_per_second: u64) -> Proxy {
        let config = Config { copy_bytes_per_second, reversible_ms: 0, ..config() };
        self.with(self.database.nodes.clone(), Failpoints::default(), config).await
    }

    /// A proxy for which a stream has caught up when no more than this is left of it.
    pub async fn lagging(&self, lag_threshold_bytes: u64) -> Proxy {
        let config = Config { lag_threshold_bytes, reversible_ms: 0, ..config() };
        self.with(self.database.nodes.clone(), Failpoints::default(), config).await
    }

    async fn over(
        &self,
        nodes: Vec<NodeAddress>,
        failpoints: Failpoints,
        reversible_ms: u64,
    ) -> Proxy {
        self.with(nodes, failpoints, Config { reversible_ms, ..config() }).await
    }

    async fn with(&self, nodes: Vec<NodeAddress>, failpoints: Failpoints, config: Config) -> Proxy {
        let proxy = self.still().await;
        let parts = EngineParts {
            catalog: self.catalog.clone(),
            cluster: Cluster::alone(self.catalog.clone()),
            live_map: proxy.live_map.clone(),
            gates: proxy.gates.clone(),
            ddl_lock: proxy.ddl_lock.clone(),
            counters: Counters::new(0, 0),
        };
        let mut context = MoverContext::new(&parts, nodes, config);
        context.failpoints = failpoints;
        context.progress = proxy.progress.clone();
        let (running, serving) = (proxy.clone(), Arc::clone(&self.serving));
        let context = Arc::new(context);
        drop(proxy.tasks.spawn("proxy", async move {
            let unsettled = mover::recover_before_serving(&context).await.unwrap();
            assert!(unsettled.is_empty());
            *serving.write() = Some(running.clone());
            mover::run(Arc::clone(&context), running.tasks.clone()).await;
            // Other moves end with the process, too.
            running.tasks.token().cancel();
            running.dead.cancel();
        }));
        proxy
    }

    /// A process that has read the catalog and does nothing.
    pub async fn still(&self) -> Proxy {
        let map = self.catalog.get::<ShardMap>("").await.unwrap().unwrap().record;
        Proxy {
            catalog: self.catalog.clone(),
            live_map: LiveMap::new(map),
            gates: Gates::default(),
            ddl_lock: DdlLock::default(),
            progress: Progress::default(),
            tasks: Tasks::new(),
            dead: CancellationToken::new(),
        }
    }
}

impl Proxy {
    /// The newest move's record, when it satisfies `wanted`.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Move) -> bool) -> Move {
        for _ in 0..TRIES {
            let moves = self.catalog.list::<Move>().await.unwrap();
            if let Some(last) = moves.last().filter(|mv| wanted(&mv.record)) {
                return last.record.clone();
            }
            tokio::time::sleep(PAUSE).await;
        }
        let last = self.catalog.list::<Move>().await.unwrap();
        panic!("not {what} within four minutes: {:#?}", last.last().map(|mv| &mv.record));
    }

    /// The record of a move, when it is in this state.
    pub async fn until_in(&self, id: MoveId, state: State) -> Move {
        let mut last = None;
        for _ in 0..TRIES {
            let stored = self.catalog.get::<Move>(&format!("{:020}", id.0)).await.unwrap();
            last = stored.map(|stored| stored.record);
            match &last {
                Some(mv) if mv.state == state => return mv.clone(),
                Some(mv) if mv.is_finished() => break,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        panic!("move {id} is not {state}, within four minutes: {last:#?}");
    }

    /// The way back of the newest switch, once the move that switched is done.
    pub async fn until_kept(&self) -> Move {
        let back = self.until("kept", |mv| mv.state == State::Keeping).await;
        self.until_in(back.reverses.unwrap().id, State::Done).await;
        back
    }

    /// The record when the move is finished.
    pub async fn until_finished(&self) -> Move {
        self.until("finished", Move::is_finished).await
    }

    /// Waits until the failpoint was reached.
    pub async fn until_dead(&self) {
        let died = tokio::time::timeout(Duration::from_mins(1), self.dead.cancelled()).await;
        let last = self.catalog.list::<Move>().await.unwrap();
        let last = last.last().map(|mv| &mv.record);
        assert!(died.is_ok(), "the failpoint was not reached within a minute: {last:#?}");
    }

    /// Whether no failpoint has ended it.
    pub fn is_alive(&self) -> bool {
        !self.dead.is_cancelled()
    }

    /// Stops it in order.
    pub async fn stop(&self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await, "a task did not stop");
    }
}
