//! A node dies in each phase of a change of the shard key, and at each step of its switch, and comes back:
//! the change goes on, or is undone.

use std::time::Duration;

use foreshard::runtime::Tasks;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::crashes::{assert_ended_well, cut, cuts, shop_over};
use super::process_support::{Deployment, said};
use super::shop::{Clients, Known, execute};
use super::support::{TestNodes, eventually};
use super::{job_ended, last_job};

/// In which phase a node dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Copying,
    Building,
    Following,
    Undoing,
}

/// How long a node is away.
const AWAY: Duration = Duration::from_millis(700);

/// Waits until the job of this number is in a stage, and something else is true of it.
async fn until_stage(
    (deployment, number): (&Deployment, u64),
    stage: &str,
    also: impl Fn(&Value) -> bool,
) {
    let there = || async {
        let job = last_job(deployment).await.filter(|job| job["id"] == number)?;
        assert_eq!(job["state"], "running", "{job:#}");
        (job["resharding"]["stage"] == stage && also(&job)).then_some(())
    };
    eventually(stage, Duration::from_mins(1), there).await;
}

fn steps(job: &Value) -> String {
    job["steps"].to_string()
}

/// One change in which a node dies; whether it is done then, and not undone.
async fn is_lost_in(
    (nodes, node): (&mut TestNodes, usize),
    phase: Phase,
    deployment: &Deployment,
) -> bool {
    let slow = matches!(phase, Phase::Copying | Phase::Undoing);
    let (asking, path) = (deployment.clone(), ["reshard", "shop"]);
    let reader = deployment.client().await;
    let home = deployment.database.client(1 - node).await;
    let number = last_job(deployment).await.map_or(1, |job| job["id"].as_u64().unwrap() + 1);
    if phase == Phase::Following {
        execute(&reader, "BEGIN; SELECT FROM orders WHERE tenant_id = 1 AND customer_id = 1").await;
    }
    let job = (deployment, number);
    let asked = Tasks::new().spawn("reshard", async move { asking.run(&path).await });
    match phase {
        Phase::Copying | Phase::Undoing => {
            until_stage(job, "copying", |job| steps(job).contains(" rows (")).await;
        }
        Phase::Building => {
            until_stage(job, "copying", |_| true).await;
            // Who writes the new table keeps it from being indexed, and nobody from being copied to it.
            let lock = format!(
                "BEGIN; LOCK TABLE foreshard_reshard_{number}.orders IN ROW EXCLUSIVE MODE"
            );
            execute(&home, &lock).await;
            until_stage(job, "building", |_| true).await;
        }
        Phase::Following => {
            until_stage(job, "following", |job| steps(job).contains("waiting")).await;
        }
    }
    if phase == Phase::Undoing {
        let number = number.to_string();
        let args = ["cancel", "job", &number];
        let called = deployment.run(&args);
        let (called, ()) = tokio::join!(called, nodes.kill_and_restart(node, AWAY));
        assert!(called.status.success(), "{}", said(&called));
    } else {
        nodes.kill_and_restart(node, AWAY).await;
    }
    drop((reader, home));
    let job = job_ended(deployment).await;
    let asked = asked.await.unwrap();
    let (done, steps) = (job["state"] == "done", steps(&job));
    assert_eq!(done, phase != Phase::Undoing, "{job:#}\n{}", deployment.log_tail());
    assert_eq!(asked.status.success(), done, "{}", said(&asked));
    assert!(!steps.contains("begins anew"), "{steps}");
    assert!(job.get("resharding").is_none(), "{job:#}");
    println!("{phase:?}, node {node}, slow {slow}: {steps}");
    done
}

async fn phases(all: &[Phase]) {
    let mut nodes = TestNodes::start(2).await;
    let deployment = shop_over(&nodes).await;
    let (mut known, mut key) = (Known::default(), "tenant_id");
    let mut at = 0;
    for phase in all {
        for node in [1, 0] {
            let (next, group) = &cuts()[at % 3];
            let slow = matches!(phase, Phase::Copying | Phase::Undoing);
            cut(&deployment, group, if slow { "copy_bytes_per_second: 40000, " } else { "" });
            let serving = deployment.serve().await;
            let clients = Clients::start_beside_nodes_that_die(&deployment, 2);
            if is_lost_in((&mut nodes, node), *phase, &deployment).await {
                (key, at) = (next, at + 1);
            }
            known.absorb(clients.stop().await);
            assert_ended_well(serving, &deployment, (&known, key), &format!("{phase:?}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_while_rows_are_brought_is_waited_for() {
    phases(&[Phase::Copying, Phase::Building]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_later_or_while_all_is_undone_is_waited_for() {
    phases(&[Phase::Following, Phase::Undoing]).await;
}

/// The steps of the switch, with who dies there: a node may have prepared what is not decided, or not
/// committed what is.
const OF_THE_SWITCH: [(&str, usize); 9] = [
    ("reshard_locked", 1),
    ("reshard_arrived", 0),
    ("reshard_prepared", 1),
    ("reshard_prepared", 0),
    ("reshard_decided", 1),
    ("reshard_decided", 0),
    ("reshard_committed", 1),
    ("reshard_committed", 0),
    ("reshard_switched", 1),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_exactly_at_a_step_of_the_switch_is_waited_for() {
    let mut nodes = TestNodes::start(2).await;
    let deployment = shop_over(&nodes).await;
    let mut known = Known::default();
    for (at, (failpoint, node)) in OF_THE_SWITCH.into_iter().enumerate() {
        let (key, group) = &cuts()[at % 3];
        cut(&deployment, group, "");
        let stop = format!("stop:{failpoint}");
        let serving = deployment.serve_until(&stop).await;
        let clients = Clients::start_beside_nodes_that_die(&deployment, 2);
        let (asking, path) = (deployment.clone(), ["reshard", "shop"]);
        let asked = Tasks::new().spawn("reshard", async move { asking.run(&path).await });
        serving.halted(&deployment).await;
        nodes.kill_and_restart(node, Duration::ZERO).await;
        serving.signal(Signal::SIGCONT);
        let job = job_ended(&deployment).await;
        assert_eq!(job["state"], "done", "{failpoint}, node {node}: {job:#}");
        let asked = asked.await.unwrap();
        assert!(asked.status.success(), "{failpoint}, node {node}: {}", said(&asked));
        known.absorb(clients.stop().await);
        let named = format!("{failpoint}, node {node}");
        assert_ended_well(serving, &deployment, (&known, key), &named).await;
        println!("{failpoint}, node {node}: {}", steps(&job));
    }
}
