//! The loop on a real catalog, with three learned days of 40 seconds and a rush just ahead.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{ControllerContext, Settings, Status, run};
use crate::catalog::{Catalog, EmbeddedKv, Expect};
use crate::executor::LiveMap;
use crate::forecast;
use crate::ids::{GroupId, NodeId, ShardId};
use crate::load::{self, Access, Chunk, Counters, History, Rates, Samples, ShardRates, Work};
use crate::placement::{self, Decision, Mode, Standing};
use crate::runtime::Tasks;
use crate::shard_map::{Bounds, Group, KeyType, MapParts, Shard, ShardMap};
use crate::shard_move::{Cause, Move};

const SHARDS: u32 = 4;
/// Shards 0 and 2, of node n1, are hot from this second of the rush's day on.
const RUSH_IN: u64 = 15;

/// A folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("foreshard-controller-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn settings(mode: Mode) -> Settings {
    Settings {
        controller: super::Config {
            forecast_interval_ms: 500,
            status_interval_ms: 500,
            ..super::Config::default()
        },
        load: load::Config {
            sample_interval_ms: 500,
            store_interval_ms: 1000,
            ..load::Config::default()
        },
        forecast: forecast::Config {
            step_ms: 1000,
            day_ms: 40_000,
            week_ms: None,
            horizon_ms: 30_000,
            history_ms: 400_000,
            ..forecast::Config::default()
        },
        placement: placement::Config {
            mode,
            node_capacity: 0.8,
            expected_move_ms: 4000,
            window_ms: 20_000,
            price_overload_seconds: 0.3,
            shard_rest_ms: 20_000,
            warm_up_ms: 120_000,
            ..placement::Config::default()
        },
    }
}

fn map() -> ShardMap {
    let shard = |remainder: u32| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus: SHARDS, remainder },
        node: NodeId(u16::try_from(remainder % 2).unwrap()),
    };
    let parts = MapParts {
        groups: vec![Group { name: "tenants".to_owned(), key: vec![KeyType::Int8] }],
        shards: (0..SHARDS).map(shard).collect(),
        ..MapParts::of("shop", ["n1", "n2"])
    };
    parts.try_into().unwrap()
}

/// Four days until now; the next rush begins in [`RUSH_IN`] seconds.
async fn learned(catalog: &Catalog) {
    let end = now_ms() / 1000;
    let mut history = History::new(1000, 40, 400);
    for step in end - 160..end {
        let hot = (step + 40 - end % 40 + 40 - RUSH_IN) % 40 < 12;
        let busy = |shard: u32| match (shard % 2, hot) {
            (0, true) => 0.5,
            _ => 0.1 + if step % 2 == 0 { 0.01 } else { 0.0 },
        };
        let rates = |shard| ShardRates { busy: busy(shard), ..ShardRates::default() };
        let rates = Rates { shards: (0..SHARDS).map(rates).collect(), nodes: vec![0.0; 2] };
        history.push(step, &rates);
    }
    for number in history.chunks_from(0) {
        catalog.put(&history.chunk(number).unwrap(), Expect::Absent).await.unwrap();
    }
}

struct Loop {
    catalog: Catalog,
    tasks: Tasks,
    status: watch::Receiver<Arc<Status>>,
    _folder: Folder,
}

/// The loop, with every shard at a calm load of 0.1.
async fn start(name: &str, mode: Mode) -> Loop {
    let folder = Folder::new(name);
    let kv = EmbeddedKv::open(&folder.0.join("catalog")).unwrap();
    let catalog = Catalog::new(Arc::new(kv));
    learned(&catalog).await;
    let counters = Counters::new(4, 2);
    let tasks = Tasks::new();
    let (sender, status) = watch::channel(Arc::default());
    let (load, token) = (counters.clone(), tasks.token().clone());
    tasks.spawn("traffic", async move {
        let mut beat = tokio::time::interval(Duration::from_millis(50));
        while !token.is_cancelled() {
            beat.tick().await;
            for shard in 0..SHARDS {
                let work = Work { busy: Duration::from_millis(5), rows: 1, bytes: 100 };
                load.record_shard(ShardId(shard), Access::Read, work);
            }
        }
    });
    let context = ControllerContext {
        catalog: catalog.clone(),
        live_map: LiveMap::new(map()),
        counters,
        samples: Samples::default(),
        nodes: Vec::new(),
        settings: settings(mode),
        status: sender,
        insight: super::Insight::default(),
    };
    tasks.spawn("controller", run(context, tasks.clone()));
    Loop { catalog, tasks, status, _folder: folder }
}

impl Loop {
    /// The first decision of this standing.
    async fn decision(&self, standing: Standing) -> Decision {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let all = self.catalog.list::<Decision>().await.unwrap();
            if let Some(found) = all.iter().find(|d| d.record.standing == standing) {
                return found.record.clone();
            }
            assert!(Instant::now() < deadline, "no {standing:?} in {all:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn moves(&self) -> Vec<Move> {
        self.catalog.list::<Move>().await.unwrap().into_iter().map(|m| m.record).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learned_rush_makes_the_loop_request_a_move_and_the_history_outlives_it() {
    let lived = start("auto", Mode::Auto).await;
    let decision = lived.decision(Standing::Requested).await;
    let moves = lived.moves().await;
    assert_eq!(moves.len(), 1);
    assert_eq!(decision.move_id, Some(moves[0].id));
    assert_eq!((moves[0].from, moves[0].to), (NodeId(0), NodeId(1)));
    let Cause::Controller { reason, predicted_crossing_unix_ms } = &moves[0].cause else {
        panic!("{:?}", moves[0].cause)
    };
    assert!(reason.starts_with("node n1 will exceed its capacity of 0.80"), "{reason}");
    assert!(predicted_crossing_unix_ms.unwrap() > moves[0].requested_unix_ms + 4000);

    let mut status = lived.status.clone();
    let seen = status.wait_for(|status| !status.moves.is_empty()).await.unwrap().clone();
    assert_eq!(seen.nodes.len(), 2);
    assert!(seen.history_steps >= 160);
    assert_eq!(seen.shards[0].forecast_median.len(), 30);
    assert!(seen.shards[0].trusted, "{:?}", seen.shards[0]);
    assert!(serde_json::to_string(&*seen).unwrap().contains("predicted_crossing_unix_ms"));

    assert!(lived.tasks.stop(Duration::from_secs(5)).await);
    let mut history = History::new(1000, 40, 400);
    for chunk in lived.catalog.list::<Chunk>().await.unwrap() {
        assert!(history.restore(&chunk.record) || chunk.record.step_ms != 1000);
    }
    assert!(history.end_step() + 3 >= now_ms() / 1000);
    assert!(history.len() >= 160);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_approve_the_move_waits_until_somebody_approves_it() {
    let lived = start("approve", Mode::Approve).await;
    let mut decision = lived.decision(Standing::AwaitingApproval).await;
    assert!(lived.moves().await.is_empty());
    decision.standing = Standing::Approved;
    lived.catalog.put(&decision, Expect::Anything).await.unwrap();
    let requested = lived.decision(Standing::Requested).await;
    assert_eq!(requested.id, decision.id);
    assert_eq!(lived.moves().await.len(), 1);
    assert!(lived.tasks.stop(Duration::from_secs(5)).await);
}
