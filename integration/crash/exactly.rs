//! The source or the destination of a move dies exactly at a failpoint, at which the proxy is stopped
//! meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use foreshard::runtime::MOVE_FAILPOINTS;
use foreshard::shard_move::State;
use nix::sys::signal::Signal;

use super::WRITERS;
use super::process_support::{Aftermath, Deployment, Writers, Written};
use super::source::over;
use super::support::TestNodes;

/// A shard moves to and fro; the node dies that it comes from at every other failpoint, at the first if
/// `source_dies`; that it goes to at the others.
async fn dies_at_each(mut source_dies: bool) {
    let mut nodes = TestNodes::start(2).await;
    let deployment = over(&nodes).await;
    deployment.detaches_plainly();
    let serving = deployment.serve().await;
    deployment.load().await;
    serving.stop(&deployment).await;
    let mut written = Written::default();
    let mut writer = 0;
    for failpoint in MOVE_FAILPOINTS.into_iter().filter(|name| *name != "undone") {
        let writers = writer..writer + WRITERS;
        let stop = format!("stop:{failpoint}");
        let dead = (&mut nodes, source_dies);
        written.absorb(dies(dead, (&deployment, &stop), writers).await);
        let after = Aftermath::of(&deployment).await;
        after.assert_in_order().await;
        after.assert_written(&written).await;
        let last = after.moves.last().unwrap();
        let who = if source_dies { "source" } else { "destination" };
        assert_eq!(last.state, State::Done, "{failpoint}, the {who}: {last:#?}");
        (source_dies, writer) = (!source_dies, writer + WRITERS);
    }
    assert!(written.acknowledged.len() > 500, "{}", written.acknowledged.len());
}

/// One move beside clients; what they wrote.
async fn dies(
    (nodes, source_dies): (&mut TestNodes, bool),
    (deployment, stop): (&Deployment, &str),
    writers: std::ops::Range<i32>,
) -> Written {
    let serving = deployment.serve_until(stop).await;
    let writers = Writers::start_beside_nodes_that_die(deployment, writers);
    let to = deployment.other_node(0).await;
    let there = usize::from(to == deployment.database.nodes[1].name);
    let victim = if source_dies { 1 - there } else { there };
    deployment.ask_for_move(0, &to).await;
    serving.halted(deployment).await;
    nodes.kill_and_restart(victim, Duration::ZERO).await;
    serving.signal(Signal::SIGCONT);
    deployment.until_moves_are_finished().await;
    let written = writers.stop().await;
    serving.stop(deployment).await;
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_node_at_every_failpoint_loses_and_doubles_nothing() {
    dies_at_each(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_other_node_at_every_failpoint_loses_and_doubles_nothing() {
    dies_at_each(false).await;
}
