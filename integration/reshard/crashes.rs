//! The proxy dies at each step of a change of the shard key while clients write, and the next one goes
//! on where it was: to keys by hash, by list and by range.

use foreshard::runtime::{RESHARD_FAILPOINTS, Tasks};
use serde_json::Value;

use super::process_support::{Deployment, Serving, said};
use super::shop::{self, Clients, Known, by, configure, execute};
use super::support::{TestDatabase, TestNodes, connect, rows};
use super::{assert_clean, assert_placed, job_ended};

/// Ways of cutting the group, each with its key: any is another one than the one before it.
pub(super) fn cuts() -> [(&'static str, String); 3] {
    let tables =
        |key: &str| format!("      tables: {{ orders: {key}, items: {key}, events: {key} }}\n");
    let list = "      key: bigint\n      method: list\n      default: true\n      \
         values: [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, null]]\n";
    let range = "      key: bigint\n      method: range\n      split_at: [5, 12]\n";
    [
        ("customer_id", list.to_owned() + &tables("customer_id")),
        ("tenant_id", range.to_owned() + &tables("tenant_id")),
        ("customer_id", by("customer_id", 3)),
    ]
}

/// The shop over nodes of its own, whose rows are copied in several segments, and which is not served.
pub(super) async fn shop_over(nodes: &TestNodes) -> Deployment {
    let database = TestDatabase { name: "reshard".to_owned(), nodes: nodes.addresses() };
    for node in &database.nodes {
        connect(node, "postgres").await.batch_execute("CREATE DATABASE reshard").await.unwrap();
    }
    let deployment = Deployment::over(database);
    cut(&deployment, &by("tenant_id", 3), "");
    let serving = deployment.serve().await;
    shop::load(&deployment).await;
    let client = deployment.client().await;
    // A range has no place for NULL.
    execute(&client, "ALTER TABLE events ALTER tenant_id SET NOT NULL").await;
    drop(client);
    for node in 0..deployment.database.nodes.len() {
        execute(&deployment.database.client(node).await, "ANALYZE").await;
    }
    serving.stop(&deployment).await;
    deployment
}

/// Writes the configuration with a group, and with more settings of the mover.
pub(super) fn cut(deployment: &Deployment, group: &str, more: &str) {
    configure(deployment, group);
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let small = format!("mover: {{ copy_segment_bytes: 8192, {more}");
    std::fs::write(&deployment.config, text.replace("mover: {", &small)).unwrap();
}

/// Where else it dies: in the copy, by the failpoints of a move; and once more where it goes on.
const IN_THE_COPY: [(&str, Option<&str>); 4] = [
    ("slot_made", None),
    ("copy_uncommitted", None),
    ("segment_copied", Some("window_passed")),
    ("segment_copied", Some("segment_copied")),
];

fn steps(job: &Value) -> Vec<String> {
    let steps = job["steps"].as_array().unwrap();
    steps.iter().map(|step| step.as_str().unwrap().to_owned()).collect()
}

/// A change goes on: nothing is made, copied or compared again.
fn assert_went_on(failpoint: &str, job: &Value) {
    let steps = steps(job);
    let count = |words: &str| steps.iter().filter(|step| step.contains(words)).count();
    assert_eq!(count("it begins anew"), 0, "{failpoint}: {steps:#?}");
    // Before the first stage is stored, and after the last one, there is nothing to go on with.
    let before = ["reshard_undone"];
    let after = ["reshard_decided", "reshard_committed", "reshard_switched", "reshard_cleaned"];
    let ended = after.contains(&failpoint) || failpoint == "reshard_finished";
    let goes_on = usize::from(!before.contains(&failpoint) && !ended);
    assert_eq!(count("it goes on where it was"), goes_on, "{failpoint}: {steps:#?}");
    let verified = if failpoint == "reshard_verified" { 1..=1 } else { 0..=1 };
    assert!(verified.contains(&count("rows are equal")), "{failpoint}: {steps:#?}");
    let copied = steps.iter().filter(|step| step.contains(" rows (")).count();
    let mut distinct: Vec<_> = steps.iter().filter(|step| step.contains(" rows (")).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), copied, "{failpoint}: {steps:#?}");
}

/// All that was written is there and in its place by `key`, and nothing is left over. Stops the proxy.
pub(super) async fn assert_ended_well(
    serving: Serving,
    deployment: &Deployment,
    (known, key): (&Known, &str),
    named: &str,
) {
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{named}: {}", said(&verified));
    serving.stop(deployment).await;
    shop::assert_written(deployment, known).await;
    assert_clean(deployment).await;
    assert_placed(deployment, key).await;
}

struct Mortal {
    nodes: TestNodes,
    deployment: Deployment,
    known: Known,
    lives: usize,
}

impl Mortal {
    async fn new() -> Self {
        let nodes = TestNodes::start(2).await;
        let deployment = shop_over(&nodes).await;
        Self { nodes, deployment, known: Known::default(), lives: 0 }
    }

    /// A change that is killed at failpoints, one after the other, and the next start; each third time a
    /// node dies, too. What came of the job.
    async fn dies_at(&mut self, failpoints: &[&str]) -> Value {
        let deployment = self.deployment.clone();
        let (key, group) = &cuts()[self.lives % 3];
        cut(&deployment, group, "");
        let mut clients = None;
        for (at, failpoint) in failpoints.iter().enumerate() {
            let serving = deployment.serve_until(failpoint).await;
            if at == 0 {
                clients = Some(Clients::start_beside_nodes_that_die(&deployment, 2));
                let (asking, path) = (deployment.clone(), ["reshard", "shop"]);
                let asked = Tasks::new().spawn("reshard", async move { asking.run(&path).await });
                serving.died(&deployment).await;
                assert!(!asked.await.unwrap().status.success(), "{failpoint}");
            } else {
                serving.died(&deployment).await;
            }
        }
        if self.lives % 3 == 2 {
            let node = self.lives / 3 % 2;
            self.nodes.kill_and_restart(node, std::time::Duration::ZERO).await;
        }
        let serving = deployment.serve().await;
        let job = job_ended(&deployment).await;
        let named = failpoints.join(", ");
        assert_eq!(job["state"], "done", "{named}: {job:#}\n{}", deployment.log_tail());
        let known = clients.unwrap().stop().await;
        let count = known.acknowledged.len();
        self.known.absorb(known);
        assert_ended_well(serving, &deployment, (&self.known, key), &named).await;
        println!("{named}: {count} acknowledged");
        self.lives += 1;
        job
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_failpoint_loses_and_doubles_nothing_and_it_goes_on_where_it_was() {
    let mut mortal = Mortal::new().await;
    for failpoint in RESHARD_FAILPOINTS {
        let job = mortal.dies_at(&[failpoint]).await;
        assert_went_on(failpoint, &job);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_cut_off_goes_on_with_the_segments_that_are_left() {
    let mut mortal = Mortal::new().await;
    for (failpoint, second) in IN_THE_COPY {
        let failpoints: Vec<&str> = std::iter::once(failpoint).chain(second).collect();
        let job = mortal.dies_at(&failpoints).await;
        let steps = steps(&job);
        let begun = steps.iter().filter(|step| step.contains("it begins anew")).count();
        assert_eq!(begun, 0, "{failpoints:?}: {steps:#?}");
        // All rows are told of, also those that another process has copied.
        let total = steps.iter().find(|step| step.contains("rows are copied")).unwrap();
        let total: i64 = total.split(' ').next().unwrap().parse().unwrap();
        let before: i64 = shop::COUNTS.iter().map(|(_, count)| count).sum();
        assert!(total >= before, "{failpoints:?}: {total}");
    }
    let sql = "SELECT count(*) FROM foreshard.segments";
    assert_eq!(rows(&mortal.deployment.database.client(1).await, sql).await, ["0"]);
}
