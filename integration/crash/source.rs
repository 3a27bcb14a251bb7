//! Nodes that die: the one that a shard is copied from, in the middle of the copy; and the one on whose
//! part of a transaction the others hang.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use foreshard::executor::CommitDecision;
use foreshard::shard_move::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process_support::{Aftermath, Deployment, TENANTS, Writers, Written};
use super::support::{TestDatabase, TestNodes, connect, eventually, rows};
use super::{TEMPORARY, WRITERS, found, write};

/// Entries of each tenant before anybody else writes, by a writer of this number.
const EARLIER: (i64, i32) = (150, 1_000);

/// Over nodes of its own.
pub(super) async fn over(nodes: &TestNodes) -> Deployment {
    let database = TestDatabase { name: "crash".to_owned(), nodes: nodes.addresses() };
    for node in &database.nodes {
        connect(node, "postgres").await.batch_execute("CREATE DATABASE crash").await.unwrap();
    }
    Deployment::over(database)
}

/// With rows that take some seconds to copy, in segments.
async fn deployment(nodes: &TestNodes) -> (Deployment, Written) {
    let deployment = over(nodes).await;
    deployment.set("mover", "copy_segment_bytes: 40000, copy_bytes_per_second: 60000");
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    let key = "ALTER TABLE entries ADD PRIMARY KEY (tenant_id, writer, n)";
    client.batch_execute(key).await.unwrap();
    let (count, writer) = EARLIER;
    let mut written = Written::default();
    let all = (1..=TENANTS).flat_map(|tenant| (1..=count).map(move |n| (tenant, writer, n)));
    written.acknowledged.extend(all);
    let row = |(tenant, writer, n): &(i64, i32, i64)| format!("{tenant}\t{writer}\t{n}\n");
    let text = written.acknowledged.iter().map(row).collect();
    deployment.copy_in("COPY entries (tenant_id, writer, n) FROM STDIN", text).await.unwrap();
    let counted = format!("UPDATE accounts SET version = {count}");
    client.batch_execute(&counted).await.unwrap();
    for node in 0..2 {
        deployment.database.client(node).await.batch_execute("ANALYZE").await.unwrap();
    }
    serving.stop(&deployment).await;
    (deployment, written)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_source_in_the_middle_of_a_copy_loses_and_doubles_nothing() {
    let mut nodes = TestNodes::start(2).await;
    let (deployment, mut written) = deployment(&nodes).await;
    let serving = deployment.serve().await;
    let other = deployment.other_node(0).await;
    let source = usize::from(other == deployment.database.nodes[0].name);
    let writers = Writers::start_beside_nodes_that_die(&deployment, 0..WRITERS);
    deployment.ask_for_move(0, &other).await;
    let destination = deployment.database.client(1 - source).await;
    let sql = "SELECT 1 WHERE to_regclass('foreshard.segments') IS NOT NULL";
    let made = async || (rows(&destination, sql).await == ["1"]).then_some(());
    eventually("segments are written down", Duration::from_mins(1), made).await;
    let sql = "SELECT count(*) FILTER (WHERE copied IS NOT NULL) > 1, \
         count(*) FILTER (WHERE copied IS NULL) > 1 FROM foreshard.segments";
    let middle = async || (rows(&destination, sql).await == ["t|t"]).then_some(());
    eventually("the copy is in its middle", Duration::from_mins(1), middle).await;
    let brought = "SELECT xmin::text || ' ' || n FROM entries_s0";
    let before = rows(&destination, brought).await;
    assert!(!before.is_empty());
    nodes.kill_and_restart(source, Duration::from_millis(300)).await;
    deployment.until_moves_are_finished().await;
    written.absorb(writers.stop().await);
    serving.stop(&deployment).await;
    let after = rows(&destination, brought).await;
    let goes_on = before.iter().any(|row| after.contains(row));
    println!("the copy {}", if goes_on { "went on" } else { "began anew" });
    let aftermath = Aftermath::of(&deployment).await;
    let last = aftermath.moves.last().unwrap();
    assert_eq!(last.state, State::Done, "{last:#?}\n{}", deployment.log_tail());
    aftermath.assert_in_order().await;
    aftermath.assert_written(&written).await;
    let by_writers = written.acknowledged.iter().filter(|entry| entry.1 < WRITERS).count();
    assert!(by_writers > 200, "{by_writers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_others_hang_on_is_not_taken_for_a_later_one_after_a_crash_of_its_node()
{
    let mut nodes = TestNodes::start(2).await;
    let deployment = over(&nodes).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    serving.stop(&deployment).await;
    let home = deployment.database.client(0).await;
    let serving = deployment.serve_until("last_announced").await;
    // Nothing is written to its log but what somebody waits for.
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
    let walwriter = Pid::from_raw(rows(&home, sql).await[0].parse().unwrap());
    kill(walwriter, Signal::SIGSTOP).unwrap();
    write(&deployment, TEMPORARY, 1).await;
    serving.died(&deployment).await;
    kill(walwriter, Signal::SIGKILL).unwrap();
    nodes.kill_and_restart(0, Duration::ZERO).await;
    let catalog = foreshard::app::catalog_in(&deployment.data_folder).unwrap();
    let decision = catalog.list::<CommitDecision>().await.unwrap().remove(0).record;
    drop(catalog);
    let number: u64 = decision.last.unwrap().xid.parse().unwrap();
    let home = deployment.database.client(0).await;
    let next: u64 = rows(&home, "SELECT pg_current_xact_id()").await[0].parse().unwrap();
    assert!(next > number, "{number} is given again");
    let serving = deployment.serve().await;
    assert_eq!(found(&deployment, TEMPORARY, 1).await.0, 0);
    serving.stop(&deployment).await;
    Aftermath::of(&deployment).await.assert_in_order().await;
}
