//! How long a switch keeps clients waiting, and how fast rows move; beside plain COPY between the same
//! nodes in the same run. `make bench-move`; `MOVES` says how many moves; none, and only the streams
//! are measured.
#![allow(clippy::print_stdout, reason = "the numbers are what it is for")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by a panic")]

mod process_support;
#[path = "move_bench/stream.rs"]
mod stream;
mod support;

use std::process::Command;
use std::time::Duration;

use process_support::{Deployment, Mode, Pgbench};
use serde_json::Value;
use support::{rows, shared_nodes};
use tokio::time::Instant;

/// Rows of the table that is copied.
const ROWS: u64 = 1_500_000;
/// How often it is.
const COPIES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures: make bench-move"]
async fn how_long_switches_pause_and_how_fast_rows_move() {
    let moves = std::env::var("MOVES").ok().and_then(|moves| moves.parse().ok()).unwrap_or(50_u32);
    let deployment = Deployment::new(2).await;
    for node in 0..2 {
        let client = deployment.database.client(node).await;
        client.batch_execute("ALTER SYSTEM SET fsync = on").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    }
    let serving = deployment.serve().await;
    deployment.load().await;
    if moves > 0 {
        pauses(&deployment, "quiet", moves.div_ceil(2)).await;
        let pgbench = Pgbench::start(&deployment, Mode::Prepared, 1, 100_000).await;
        pauses(&deployment, "under pgbench", moves).await;
        println!("{}", phases(&deployment));
        batches(&deployment, moves.div_ceil(5)).await;
        drop(pgbench);
        copies(&deployment).await;
    }
    serving.stop(&deployment).await;
    stream::streams(&deployment).await;
}

/// Moves shards back and forth.
async fn pauses(deployment: &Deployment, how: &str, moves: u32) {
    let mut pauses = Vec::new();
    for at in 0..moves {
        let node = deployment.other_node(at % 8).await;
        pauses.push(deployment.move_shard(at % 8, &node).await);
    }
    tell(pauses, &format!("{moves} moves, {how}"));
}

/// The same of several shards together, which are on one node after the first.
async fn batches(deployment: &Deployment, moves: u32) {
    for shards in [&[0, 1][..], &[0, 1, 2, 3], &[0, 1, 2, 3, 4, 5, 6, 7]] {
        for shard in shards {
            if deployment.other_node(*shard).await == "n2" {
                deployment.move_shard(*shard, "n2").await;
            }
        }
        let mut pauses = Vec::new();
        for _ in 0..moves {
            let node = deployment.other_node(0).await;
            pauses.push(deployment.move_shards(shards, &node).await);
        }
        tell(pauses, &format!("{moves} moves of {} shards together, under pgbench", shards.len()));
    }
}

fn tell(mut pauses: Vec<f64>, what: &str) {
    pauses.sort_by(f64::total_cmp);
    let at = |percent: usize| pauses[(pauses.len() - 1) * percent / 100];
    let (median, p99, max) = (at(50), at(99), at(100));
    println!("pause of {what}: p50 {median:.1} ms, p99 {p99:.1}, max {max:.1}");
}

/// The mean time of each phase of the switches, from the program's log.
fn phases(deployment: &Deployment) -> String {
    let log = std::fs::read_to_string(&deployment.log).unwrap();
    let mut sums: Vec<(String, f64, f64)> = Vec::new();
    for line in log.lines().filter(|line| line.contains("phases of the switch")) {
        let told = line.split('"').nth(1).unwrap_or_default();
        for (phase, ms) in told.split(", ").filter_map(|part| part.split_once(' ')) {
            let ms: f64 = ms.parse().unwrap_or_default();
            match sums.iter_mut().find(|(known, ..)| known == phase) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + ms, *count + 1.0),
                None => sums.push((phase.to_owned(), ms, 1.0)),
            }
        }
    }
    let means = sums.iter().map(|(phase, sum, count)| format!("{phase} {:.1} ms", sum / count));
    format!("mean phases: {}", means.collect::<Vec<_>>().join(", "))
}

/// A large shard: plain COPY between the nodes, then a move of it, in turns.
async fn copies(deployment: &Deployment) {
    let here = usize::from(deployment.other_node(0).await != "n2");
    let client = deployment.database.client(here).await;
    let tenant = rows(&client, "SELECT min(tenant_id) FROM accounts_s0").await.remove(0);
    let fill = format!(
        "INSERT INTO entries_s0 SELECT {tenant}, 1, n, md5(n::text) || md5((n + 1)::text) \
         FROM generate_series(1, {ROWS}) n"
    );
    client.batch_execute(&fill).await.unwrap();
    let plain = "CREATE TABLE plain (LIKE entries INCLUDING DEFAULTS)";
    for node in 0..2 {
        deployment.database.client(node).await.batch_execute(plain).await.unwrap();
    }
    let psql = shared_nodes(1).await[0].binaries().program("psql");
    let database = &deployment.database.name;
    let mut ratios = Vec::new();
    for _ in 0..COPIES {
        let to = deployment.other_node(0).await;
        let there = usize::from(to == deployment.database.nodes[1].name);
        let psql = |node: usize, sql: &str| {
            let (psql, port) = (psql.display(), deployment.database.nodes[node].port);
            format!("{psql} -q -h 127.0.0.1 -U postgres -p {port} -d {database} -c '{sql}'")
        };
        let from = psql(1 - there, "COPY entries_s0 TO STDOUT (FORMAT binary)");
        let pipe = format!("{from} | {}", psql(there, "COPY plain FROM STDIN (FORMAT binary)"));
        for node in 0..2 {
            let sql = "TRUNCATE plain";
            let client = deployment.database.client(node).await;
            client.batch_execute(sql).await.unwrap();
            client.batch_execute("CHECKPOINT").await.unwrap();
        }
        let began = Instant::now();
        assert!(Command::new("sh").arg("-c").arg(pipe).status().unwrap().success());
        let plain = began.elapsed();

        deployment.move_shard(0, &to).await;
        let moves = deployment.admin("/api/v1/moves?limit=1").await;
        let mv = &moves["moves"][0];
        let copied = between(mv, "copying", "building");
        let megabytes = mv["bytes_copied"].as_u64().unwrap() >> 20;
        let ratio = 100.0 * plain.as_secs_f64() / copied.as_secs_f64();
        println!(
            "copy of {megabytes} MiB: COPY | COPY {plain:.2?}, the move {copied:.2?} \
             ({ratio:.0} % of its rate), indexes after it {:.2?}",
            between(mv, "building", "catching_up"),
        );
        ratios.push(ratio);
    }
    println!("copy: {:.0} % of the rate of COPY | COPY in the median", median(ratios));
}

/// The middle one.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// How long a move took from one state to another.
fn between(mv: &Value, from: &str, to: &str) -> Duration {
    let at = |state: &str| {
        let steps = mv["history"].as_array().unwrap();
        steps.iter().find(|step| step["state"] == state).unwrap()["at_unix_ms"].as_u64().unwrap()
    };
    Duration::from_millis(at(to) - at(from))
}
