//! What goes wrong while shards move.

use std::time::Duration;

use foreshard::runtime::{
    BACK_FAILPOINTS, COMMIT_FAILPOINTS, CONCURRENT_FAILPOINTS, MOVE_FAILPOINTS,
};
use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::world::World;
use crate::support::link::Mode;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillProxy,
    PauseProxy,
    KillNode,
    KillBoth,
    CutLink,
    StallLink,
    RefuseLink,
    TearLink,
    EndWalSenders,
    EndMover,
    EndSessions,
    CancelStatements,
    LongReader,
    FullDisk,
    CutCatalog,
    StopCatalog,
}

const FAULTS: [Fault; 16] = [
    Fault::KillProxy,
    Fault::PauseProxy,
    Fault::KillNode,
    Fault::KillBoth,
    Fault::CutLink,
    Fault::StallLink,
    Fault::RefuseLink,
    Fault::TearLink,
    Fault::EndWalSenders,
    Fault::EndMover,
    Fault::EndSessions,
    Fault::CancelStatements,
    Fault::LongReader,
    Fault::FullDisk,
    Fault::CutCatalog,
    Fault::StopCatalog,
];

/// Those that only a catalog in etcd can have; the last ones.
const OF_ETCD: usize = 2;

/// A failpoint for the next start of the program, more often than not.
pub fn failpoint(random: &mut StdRng) -> Option<&'static str> {
    let moves = [&MOVE_FAILPOINTS[..], &CONCURRENT_FAILPOINTS, &BACK_FAILPOINTS].concat();
    let names = [&moves[..], &COMMIT_FAILPOINTS].concat();
    random.random_bool(0.6).then(|| names[random.random_range(0..names.len())])
}

/// Chooses a fault and does it; returns when it is over, but for what heals later.
pub async fn inject(world: &mut World, random: &mut StdRng) -> Fault {
    let possible = FAULTS.len() - if world.shared.is_some() { 0 } else { OF_ETCD };
    let fault = FAULTS[random.random_range(0..possible)];
    let node = random.random_range(0..3);
    let millis = |random: &mut StdRng, most| Duration::from_millis(random.random_range(10..most));
    match fault {
        Fault::KillProxy => kill_proxy(world, random).await,
        Fault::PauseProxy => {
            let victim = world.victim(random).await;
            world.signal(victim, Signal::SIGSTOP);
            // Where another one stands by, it may take over.
            let most = if world.shared.is_some() { 6_000 } else { 2_500 };
            sleep(millis(random, most)).await;
            world.signal(victim, Signal::SIGCONT);
        }
        Fault::KillNode => world.kill_node(node, millis(random, 1_500)).await,
        Fault::KillBoth => {
            kill_proxy(world, random).await;
            world.kill_node(node, millis(random, 500)).await;
        }
        Fault::CutLink => world.links[node].cut(),
        Fault::StallLink => {
            world.links[node].set(Mode::Stall);
            sleep(millis(random, 3_000)).await;
            world.links[node].set(Mode::Flow);
        }
        Fault::RefuseLink => {
            world.links[node].set(Mode::Refuse);
            world.links[node].cut();
            sleep(millis(random, 1_500)).await;
            world.links[node].set(Mode::Flow);
        }
        Fault::TearLink => world.links[node].tear_after(random.random_range(1..8_000)),
        Fault::EndWalSenders => terminate(world, node, "backend_type = 'walsender'").await,
        Fault::EndMover => terminate(world, node, "application_name ~ '^foreshard move'").await,
        Fault::EndSessions => terminate(world, node, "random() < 0.5").await,
        Fault::CancelStatements => {
            let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name <> 'chaos'";
            run(world, node, sql).await;
        }
        Fault::LongReader => long_reader(world, node, millis(random, 2_000)).await,
        Fault::FullDisk => {
            let Some(disk) = &world.disks[node] else { return fault };
            disk.fill();
            sleep(millis(random, 1_500)).await;
            disk.empty();
        }
        Fault::CutCatalog => {
            let victim = world.victim(random).await;
            let Some(shared) = &world.shared else { return fault };
            shared.wires[victim].set(Mode::Stall);
            sleep(millis(random, 6_000)).await;
            shared.wires[victim].cut();
            shared.wires[victim].heal();
        }
        Fault::StopCatalog => {
            let Some(shared) = &world.shared else { return fault };
            shared.etcd.signal(Signal::SIGSTOP);
            sleep(millis(random, 4_000)).await;
            shared.etcd.signal(Signal::SIGCONT);
        }
    }
    fault
}

async fn kill_proxy(world: &mut World, random: &mut StdRng) {
    let victim = world.victim(random).await;
    world.signal(victim, Signal::SIGKILL);
    sleep(Duration::from_millis(20)).await;
    drop(world.keep_alive(failpoint(random)).await);
}

async fn terminate(world: &World, node: usize, which: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = \
         current_database() AND application_name <> 'chaos' AND {which}"
    );
    run(world, node, &sql).await;
}

async fn run(world: &World, node: usize, sql: &str) {
    if let Some(client) = world.node_client(node).await {
        drop(client.batch_execute(sql).await);
    }
}

/// Somebody on the node itself keeps a transaction open that has read all tables.
async fn long_reader(world: &World, node: usize, open: Duration) {
    if let Some(client) = world.node_client(node).await {
        let sql = "BEGIN; SELECT count(*) FROM accounts; SELECT count(*) FROM entries; \
             SELECT count(*) FROM purse";
        drop(client.batch_execute(sql).await);
        sleep(open).await;
    }
}
