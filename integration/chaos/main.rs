//! Shards are moved, split and merged at random under clients that check everything, while the
//! program, its nodes and the wires between them fail at random.
//!
//! `make chaos` runs it as long as wanted: `CHAOS_SECONDS` says how long, `SEED` makes it begin the
//! same again. `CHAOS_PROXIES=one` has one proxy, `standby` a second one that stands by, over etcd, and
//! `both` two that serve; else the seed says.
#![allow(clippy::print_stdout, reason = "the seed, and what happened")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(unreachable_pub, reason = "a binary's own modules")]

mod audit;
mod clients;
mod disk;
mod faults;
mod ledger;
mod moves;
#[path = "../process_support/mod.rs"]
mod process_support;
mod proxies;
mod scatter;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshard::runtime::Tasks;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use clients::{Kind, Worker};
use faults::Fault;
use ledger::Ledger;
use world::{Who, World};

/// How long it runs when nobody says, in seconds.
const SHORT: u64 = 25;
/// How long faults are injected at the most before everything has to come to rest and is looked at.
const ROUND: Duration = Duration::from_secs(30);
/// Moves that are under way or waiting at the most.
const MOVES_AT_ONCE: usize = 6;
/// After so long in a turn a client is stuck.
const LONG_TURN: Duration = Duration::from_secs(15);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_fails_while_shards_move() {
    let seed = variable("SEED").unwrap_or_else(rand::random);
    let seconds = variable("CHAOS_SECONDS").unwrap_or(SHORT);
    println!("SEED={seed}");
    let mut chaos = Chaos::new(seed).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    for round in 1.. {
        chaos.round(end.min(Instant::now() + ROUND)).await;
        chaos.rest(round).await;
        if Instant::now() > end {
            break;
        }
    }
    chaos.end().await;
}

struct Chaos {
    seed: u64,
    random: StdRng,
    world: World,
    ledger: Arc<Ledger>,
    workers: Vec<tokio::task::JoinHandle<()>>,
    faults: BTreeMap<Fault, u64>,
    /// Moves during which something failed, and whose end has not been looked at.
    faulted: BTreeSet<u64>,
    /// How many of those ended, by their last state; and how many nothing happened to.
    ended: BTreeMap<String, u64>,
    seen: BTreeSet<u64>,
}

impl Chaos {
    async fn new(seed: u64) -> Self {
        let serving = match std::env::var("CHAOS_PROXIES").as_deref() {
            Ok("one") => Who::One,
            Ok("standby") => Who::StandsBy,
            Ok("both") => Who::Both,
            _ => [Who::One, Who::StandsBy, Who::Both][usize::try_from(seed % 3).unwrap()],
        };
        let leaf_plans = (seed / 3).is_multiple_of(2);
        println!("proxies: {serving:?}, leaf plans: {leaf_plans}");
        let world = World::new(serving, leaf_plans).await;
        let ledger = Arc::new(Ledger::new());
        let (driver, tasks) = (world.deployment.driver(), Tasks::new());
        let kinds = [
            Kind::Single,
            Kind::Single,
            Kind::Several,
            Kind::Several,
            Kind::Purse,
            Kind::Point,
            Kind::Idle,
        ];
        let workers = kinds.into_iter().zip(1..).map(|(kind, id)| {
            tasks.spawn("worker", Worker::new(&driver, &ledger, kind, id, seed).run())
        });
        let mut workers: Vec<_> = workers.collect();
        let scatter = scatter::run(driver, Arc::clone(&ledger), Duration::from_millis(15));
        workers.push(tasks.spawn("scatter", scatter));
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            world,
            ledger,
            workers,
            faults: BTreeMap::new(),
            faulted: BTreeSet::new(),
            ended: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Moves and faults until `end`.
    async fn round(&mut self, end: Instant) {
        while Instant::now() < end {
            let before = self.under_way().await;
            for _ in before.len()..MOVES_AT_ONCE {
                moves::ask(&self.world, &mut self.random).await;
            }
            sleep(Duration::from_millis(self.random.random_range(30..600))).await;
            self.faulted.extend(self.under_way().await);
            let fault = faults::inject(&mut self.world, &mut self.random).await;
            *self.faults.entry(fault).or_default() += 1;
            let failpoint = faults::failpoint(&mut self.random);
            if let Some(story) = self.world.keep_alive(failpoint).await {
                self.fail(&[story]);
            }
            let violations = self.ledger.violations();
            if !violations.is_empty() {
                println!("clients: {}", self.world.clients().await);
                self.fail(&violations);
            }
        }
    }

    async fn under_way(&self) -> Vec<u64> {
        let moves = self.world.moves().await.unwrap_or_default();
        let moves = moves.iter().filter(|mv| mv["finished"] != true);
        moves.filter_map(|mv| mv["id"].as_u64()).collect()
    }

    /// Everything comes to rest and is looked at.
    async fn rest(&mut self, round: u64) {
        if let Err(story) = self.world.settle().await {
            self.fail(&[story]);
        }
        let ledger = Arc::clone(&self.ledger);
        let turn = tokio::select! {
            turn = ledger.turn.write() => turn,
            () = sleep(LONG_TURN) => {
                println!("a client does not end its turn: {}", self.world.clients().await);
                ledger.turn.write().await
            }
        };
        self.world.until_it_serves().await;
        self.world.until_nothing_is_prepared().await;
        self.count().await;
        if self.world.stop().await.is_none() {
            self.fail(&["the program does not stop in order".to_owned()]);
        }
        let mut faults = self.ledger.violations();
        faults.extend(audit::audit(&self.world, &self.ledger.take_written()).await);
        for proxy in &self.world.proxies {
            let log = std::fs::read_to_string(&proxy.deployment.log).unwrap_or_default();
            faults.extend(log.lines().filter(|line| line.contains("panicked")).map(str::to_owned));
        }
        if !faults.is_empty() {
            self.fail(&faults);
        }
        for proxy in &self.world.proxies {
            std::fs::write(&proxy.deployment.log, "").unwrap();
        }
        self.world.start(None);
        self.world.until_it_serves().await;
        self.begin_anew().await;
        drop(turn);
        println!("round {round}: moves {:?}, {}", self.ended, self.ledger.summary());
    }

    /// Forgets what was written, so that it does not grow for ever.
    async fn begin_anew(&self) {
        let client = self.world.deployment.client().await;
        for sql in ["TRUNCATE entries", "UPDATE accounts SET version = 0"] {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    /// Counts the moves that have ended.
    async fn count(&mut self) {
        for mv in self.world.moves().await.unwrap_or_default() {
            let id = mv["id"].as_u64().unwrap();
            if self.seen.insert(id) {
                let state = match mv["state"].as_str().unwrap() {
                    "done" if mv["reverses"].is_object() => "reversed",
                    state => state,
                };
                let how = if self.faulted.remove(&id) { "faulted" } else { "undisturbed" };
                *self.ended.entry(format!("{how} {state}")).or_default() += 1;
            }
        }
    }

    fn fail(&self, faults: &[String]) {
        let kept = std::env::temp_dir().join(format!("foreshard-chaos-{}", self.seed));
        let _made = std::fs::create_dir_all(&kept);
        for proxy in &self.world.proxies {
            let folder = proxy.deployment.log.parent().unwrap();
            let _kept = std::process::Command::new("cp").arg("-a").arg(folder).arg(&kept).status();
        }
        for (log, number) in self.world.logs().iter().zip(1..) {
            let _kept = std::fs::copy(log, kept.join(format!("n{number}.log")));
        }
        println!("faults: {:?}", self.faults);
        println!("moves: {:?}, {}", self.ended, self.ledger.summary());
        let story = faults.iter().take(30).cloned().collect::<Vec<_>>().join("\n");
        panic!("SEED={} logs in {}\n{story}", self.seed, kept.display());
    }

    async fn end(self) {
        self.ledger.stop.cancel();
        for worker in self.workers {
            worker.await.unwrap();
        }
        println!("faults: {:?}", self.faults);
        let faulted = ["faulted done", "faulted reversed"];
        let done: u64 = faulted.iter().filter_map(|how| self.ended.get(*how)).sum();
        assert!(done > 0, "no move was disturbed and done: {:?}", self.ended);
        let violations = self.ledger.violations();
        assert!(violations.is_empty(), "{violations:?}");
        self.world.end().await;
    }
}
