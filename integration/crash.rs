//! The program dies in the middle of moves and commits, and its next start puts everything in order.
#![allow(clippy::print_stdout, reason = "the seed, and what was measured")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "crash/exactly.rs"]
mod exactly;
mod process_support;
mod protocol_support;
#[path = "crash/source.rs"]
mod source;
mod support;

use std::time::Duration;

use foreshard::runtime::{COMMIT_FAILPOINTS, MOVE_FAILPOINTS};
use foreshard::shard_move::State;
use process_support::{Aftermath, Deployment, Serving, Writers, Written};
use protocol_support::{RawClient, bind, execute, parse, sync};
use rand::{Rng, SeedableRng};
use support::rows;

/// How many clients write at the same time.
const WRITERS: i32 = 3;

/// A deployment whose processes die one after the other while clients write.
struct Mortal {
    deployment: Deployment,
    written: Written,
    lives: i32,
}

impl Mortal {
    async fn new() -> Self {
        let deployment = Deployment::new(2).await;
        deployment.detaches_plainly();
        let serving = deployment.serve().await;
        deployment.load().await;
        serving.stop(&deployment).await;
        Self { deployment, written: Written::default(), lives: 0 }
    }

    /// Starts clients, asks `serving` for a move, sees it die as `death` says, starts the next one,
    /// and waits until the move is finished. Everything must be in order then.
    async fn live(&mut self, serving: Serving, shard: u32, death: impl AsyncFnOnce(Serving)) {
        let first = self.lives * WRITERS;
        self.lives += 1;
        let writers = Writers::start(&self.deployment, first..first + WRITERS);
        let node = self.deployment.other_node(shard).await;
        self.deployment.ask_for_move(shard, &node).await;
        death(serving).await;
        let serving = self.deployment.serve().await;
        self.deployment.until_moves_are_finished().await;
        self.written.absorb(writers.stop().await);
        serving.stop(&self.deployment).await;
        let after = Aftermath::of(&self.deployment).await;
        after.assert_in_order().await;
        after.assert_written(&self.written).await;
    }

    async fn dies_at(&mut self, failpoint: &str, shard: u32) {
        let serving = self.deployment.serve_until(failpoint).await;
        let deployment = self.deployment.clone();
        self.live(serving, shard, async |serving| serving.died(&deployment).await).await;
        let after = Aftermath::of(&self.deployment).await;
        let last = after.moves.last().unwrap();
        assert_eq!(last.state, State::Done, "{failpoint}: {last:#?}");
        let known = (self.written.acknowledged.len(), self.written.unknown.len());
        println!("{failpoint}: {known:?} acknowledged and unknown, {:?}", self.written.longest);
    }
}

/// Half of the failpoints, so that both halves share the time.
async fn dies_at_every_other(skipped: usize) {
    let mut mortal = Mortal::new().await;
    let failpoints = MOVE_FAILPOINTS.iter().filter(|name| **name != "undone");
    for (failpoint, shard) in failpoints.skip(skipped).step_by(2).zip((0..8).cycle()) {
        mortal.dies_at(failpoint, shard).await;
    }
    assert!(mortal.written.acknowledged.len() > 500, "{}", mortal.written.acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_even_failpoint_loses_and_doubles_nothing() {
    dies_at_every_other(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_odd_failpoint_loses_and_doubles_nothing() {
    dies_at_every_other(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_and_doubles_nothing() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut mortal = Mortal::new().await;
    for _ in 0..4 {
        let (shard, delay_ms) = (random.random_range(0..8), random.random_range(0..1_500));
        let serving = mortal.deployment.serve().await;
        let deployment = mortal.deployment.clone();
        let death = async |serving: Serving| {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            serving.kill(&deployment).await;
        };
        mortal.live(serving, shard, death).await;
        println!("killed {delay_ms} ms after the request");
    }
}

/// What a transaction over two nodes leaves when the process dies at a failpoint, with what is done
/// to one of its parts meanwhile: everything or nothing.
struct Commit {
    failpoint: &'static str,
    /// On one node, by hand: as if the process had died a little later.
    half: Option<&'static str>,
    happened: bool,
}

const COMMITS: [Commit; 5] = [
    Commit { failpoint: "all_prepared", half: None, happened: false },
    Commit { failpoint: "all_prepared", half: Some("ROLLBACK"), happened: false },
    Commit { failpoint: "decided", half: None, happened: true },
    Commit { failpoint: "decided", half: Some("COMMIT"), happened: true },
    Commit { failpoint: "committed", half: None, happened: true },
];

/// Only where a part can't be prepared.
const LAST: Commit = Commit { failpoint: "last_announced", half: None, happened: false };

/// Ends a node's prepared transaction behind the proxy's back.
async fn end_prepared(deployment: &Deployment, node: usize, verdict: &str) {
    let node = deployment.database.client(node).await;
    let sql = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    let gid = rows(&node, sql).await.pop().unwrap();
    node.batch_execute(&format!("{verdict} PREPARED '{gid}'")).await.unwrap();
}

/// The kind of write whose part on the home node can't be prepared.
const TEMPORARY: usize = 4;

/// What is executed up to Sync, without a transaction block.
const PIPELINE: usize = 3;

async fn pipeline(deployment: &Deployment, number: usize) {
    let mut client = RawClient::connect(deployment.port, &deployment.database.name, &[]).await;
    let sql = "INSERT INTO entries (tenant_id, writer, n) VALUES ($1, $2, $3)";
    let number = number.to_string();
    let mut messages = parse("", sql);
    for tenant in (1..=20).map(|tenant: i32| tenant.to_string()) {
        messages.extend(bind("", "", &[Some(&tenant), Some(&number), Some(&tenant)]));
        messages.extend(execute("", 0));
    }
    messages.extend(sync());
    client.send(&messages).await;
    let answers = client.until_ready(1).await;
    assert_eq!(answers.last().unwrap(), "(closed)", "{answers:?}");
}

/// A write of several nodes, which the end of the proxy cuts off.
async fn write(deployment: &Deployment, kind: usize, number: usize) {
    if kind == PIPELINE {
        return pipeline(deployment, number).await;
    }
    let error = match kind {
        0 => {
            let row = |tenant| format!("{tenant}\t{number}\t{tenant}\n");
            let copy = "COPY entries (tenant_id, writer, n) FROM STDIN";
            deployment.copy_in(copy, (1..=20).map(row).collect()).await.unwrap_err()
        }
        1 => {
            let client = deployment.client().await;
            client.batch_execute("BEGIN").await.unwrap();
            for tenant in 1..=20 {
                let sql = format!(
                    "INSERT INTO entries (tenant_id, writer, n) VALUES ({tenant}, {number}, {tenant})"
                );
                client.batch_execute(&sql).await.unwrap();
            }
            client.batch_execute("COMMIT").await.unwrap_err()
        }
        TEMPORARY => {
            let client = deployment.client().await;
            for sql in [
                "BEGIN".to_owned(),
                "CREATE TEMP TABLE few (tenant_id bigint) ON COMMIT DROP".to_owned(),
                "INSERT INTO few SELECT generate_series(1, 20)".to_owned(),
                format!(
                    "INSERT INTO entries (tenant_id, writer, n) \
                     SELECT tenant_id, {number}, tenant_id FROM few"
                ),
            ] {
                client.batch_execute(&sql).await.unwrap();
            }
            client.batch_execute("COMMIT").await.unwrap_err()
        }
        _ => {
            let client = deployment.client().await;
            let sql = format!("ALTER TABLE entries ADD COLUMN c{number} int");
            client.batch_execute(&sql).await.unwrap_err()
        }
    };
    assert!(error.code().is_none(), "{error:?}");
}

/// How much of the write is there, over all nodes; and how much all of it is.
async fn found(deployment: &Deployment, kind: usize, number: usize) -> (i64, i64) {
    let sql = match kind {
        2 => format!("SELECT count(*) FROM pg_attribute WHERE attname = 'c{number}'"),
        _ => format!("SELECT count(*) FROM entries WHERE writer = {number}"),
    };
    let mut sum = 0;
    for node in 0..2 {
        let count = rows(&deployment.database.client(node).await, &sql).await;
        sum += count[0].parse::<i64>().unwrap();
    }
    // Two parents and eight leaves.
    (sum, if kind == 2 { 10 } else { 20 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_a_commit_over_nodes_leaves_all_or_nothing() {
    for commit in COMMITS.iter().chain([&LAST]) {
        assert!(COMMIT_FAILPOINTS.contains(&commit.failpoint));
    }
    let deployment = Mortal::new().await.deployment;
    let mut number = 0;
    for Commit { failpoint, half, happened } in COMMITS.into_iter().chain([LAST]) {
        let kinds = match half {
            _ if failpoint == LAST.failpoint => TEMPORARY..TEMPORARY + 1,
            Some(_) => 0..TEMPORARY,
            None => 0..TEMPORARY + 1,
        };
        for kind in kinds {
            number += 1;
            let serving = deployment.serve_until(failpoint).await;
            write(&deployment, kind, number).await;
            serving.died(&deployment).await;
            if let Some(verdict) = half {
                end_prepared(&deployment, number % 2, verdict).await;
            }
            let serving = deployment.serve().await;
            let (found, all) = found(&deployment, kind, number).await;
            let expected = if happened { all } else { 0 };
            assert_eq!(found, expected, "{failpoint}, {half:?}, kind {kind}");
            // The proxy knows what came of it.
            let client = deployment.client().await;
            let there = client.batch_execute(&format!("SELECT c{number} FROM entries")).await;
            assert_eq!(there.is_ok(), kind == 2 && happened, "{failpoint}, {half:?}, kind {kind}");
            drop(client);
            serving.stop(&deployment).await;
            Aftermath::of(&deployment).await.assert_in_order().await;
        }
    }
}

/// Entries with a note that nobody else has.
async fn with_lookup() -> Deployment {
    let deployment = Deployment::new(2).await;
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let lookups = "  lookups:\n    entries_by_note: \
        { table: entries, column: note, type: text, unique: true, shards: 4 }\n";
    let text = text.replace("  placement:", &format!("{lookups}  placement:"));
    std::fs::write(&deployment.config, text).unwrap();
    let serving = deployment.serve().await;
    deployment.load().await;
    let lookup = "CREATE TABLE entries_by_note (note text PRIMARY KEY, tenant_id bigint NOT NULL)";
    deployment.client().await.batch_execute(lookup).await.unwrap();
    serving.stop(&deployment).await;
    deployment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_a_commit_leaves_lookups_as_the_rows_are() {
    let deployment = with_lookup().await;
    for (number, Commit { failpoint, half, happened }) in (0..).zip(COMMITS) {
        let serving = deployment.serve_until(failpoint).await;
        let row = |tenant| format!("({tenant}, {number}, 1, 'note {number}.{tenant}')");
        let values = (1..=20).map(row).collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT INTO entries (tenant_id, writer, n, note) VALUES {values}");
        let error = deployment.client().await.batch_execute(&sql).await.unwrap_err();
        assert!(error.code().is_none(), "{error:?}");
        serving.died(&deployment).await;
        if let Some(verdict) = half {
            end_prepared(&deployment, number % 2, verdict).await;
        }
        let serving = deployment.serve().await;
        let mut all = [Vec::new(), Vec::new()];
        for node in 0..2 {
            let node = deployment.database.client(node).await;
            for (found, table) in all.iter_mut().zip(["entries", "entries_by_note"]) {
                let sql = format!("SELECT note, tenant_id FROM {table} ORDER BY 1");
                found.extend(rows(&node, &sql).await);
            }
        }
        all.iter_mut().for_each(|found| found.sort());
        assert_eq!(all[0], all[1], "{failpoint}, {half:?}");
        // The row is found by its value, and the value is taken; or neither.
        let client = deployment.client().await;
        let found = format!("SELECT tenant_id FROM entries WHERE note = 'note {number}.7'");
        let found = rows(&client, &found).await;
        assert_eq!(found.len(), usize::from(happened), "{failpoint}, {half:?}");
        let again = client.batch_execute(&sql).await;
        assert_eq!(again.is_ok(), !happened, "{failpoint}, {half:?}: {again:?}");
        drop(client);
        serving.stop(&deployment).await;
        assert_eq!(Aftermath::of(&deployment).await.decisions, 0);
        for node in 0..2 {
            let left = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
            let left = rows(&deployment.database.client(node).await, left).await;
            assert_eq!(left, Vec::<String>::new());
        }
    }
}
