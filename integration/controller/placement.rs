//! Proposals that the controller carries out by itself, in mode auto, on real nodes.

use std::time::Duration;

use serde_json::Value;

use crate::load::{Sleepers, configure, tenants};
use crate::process_support::{Aftermath, Deployment};
use crate::support::eventually;

/// How long a proposal and what it asks for may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How long nothing more must happen after it.
const QUIET: Duration = Duration::from_secs(8);

/// A day of 20 seconds.
const TIMES: &str = "  controller: { forecast_interval_ms: 500, status_interval_ms: 500 }
  load: { sample_interval_ms: 500, store_interval_ms: 1000 }
  forecast: { step_ms: 1000, day_ms: 20000, week_ms: null, horizon_ms: 20000, history_ms: 200000 }
";

/// Two nodes that bear so much each.
async fn deployment(capacity: f64, warm_up_ms: u32) -> Deployment {
    let deployment = Deployment::new(2).await;
    let placement = format!(
        "{{ mode: auto, node_capacity: {capacity}, expected_move_ms: 3000, window_ms: 20000, \
         price_overload_seconds: 0.5, shard_rest_ms: 2000, concurrent_moves_max: 1, \
         merge_share_max: 0.1, \
         warm_up_ms: {warm_up_ms} }}"
    );
    configure(&deployment, &placement, TIMES);
    deployment
}

/// The first finished move of this kind that the controller asked for.
async fn done(deployment: &Deployment, kind: &str) -> Value {
    let found = async || {
        let moves = deployment.admin("/api/v1/moves").await;
        let moves = moves["moves"].as_array().unwrap().clone();
        let wanted = |m: &&Value| {
            m["kind"] == kind && m["finished"] == true && m["cause"].to_string().contains("reason")
        };
        moves.iter().find(wanted).cloned()
    };
    let what = format!("a {kind} is over: {}", deployment.log_tail());
    let done = eventually(&what, LIMIT, found).await;
    assert_eq!(done["state"], "done", "{done:#}");
    done
}

/// The decision that caused a move.
async fn decision_of(deployment: &Deployment, moved: &Value) -> Value {
    let status = deployment.admin("/api/v1/status").await;
    let decisions = status["controller"]["decisions"].as_array().unwrap().clone();
    let caused = decisions.iter().find(|decision| decision["move_id"] == moved["id"]);
    caused.unwrap_or_else(|| panic!("no decision in {status:#}")).clone()
}

async fn shards(deployment: &Deployment) -> Vec<Value> {
    deployment.admin("/api/v1/shards").await["shards"].as_array().unwrap().clone()
}

/// Nothing is asked for any more: the number of moves stays.
async fn assert_calm(deployment: &Deployment) {
    let count = async || {
        let moves = deployment.admin("/api/v1/moves").await;
        moves["moves"].as_array().unwrap().len()
    };
    let before = count().await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(count().await, before, "{}", deployment.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_too_hot_for_any_node_is_split_by_the_controller_and_then_it_rests() {
    let deployment = deployment(1.4, 6_000).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    // Two clients on the two halves of shard 0: together too much for a node, alone not.
    let halves = [tenants(&deployment, 16, 0).await, tenants(&deployment, 16, 8).await];
    let sleepers = Sleepers::start(&deployment, &halves).await;
    let split = done(&deployment, "split").await;
    let decision = decision_of(&deployment, &split).await;
    assert_eq!(decision["standing"], "requested", "{decision:#}");
    assert_eq!(decision["chosen"]["action"]["kind"], "split", "{decision:#}");
    let reason = decision["chosen"]["reason"].as_str().unwrap();
    assert!(reason.contains("its capacity of 1.40 busy-s/s"), "{reason}");
    assert!(reason.contains("splitting shard 0 in two and moving a half"), "{reason}");
    let cause = split["cause"].to_string();
    assert!(cause.contains("splitting shard 0"), "the move says why too: {cause}");
    let shards = shards(&deployment).await;
    assert_eq!(shards.len(), 9, "{shards:#?}");
    // It stays so under the same load, though shards may move again after two seconds.
    assert_calm(&deployment).await;
    assert!(sleepers.stop().await > 100);
    serving.stop(&deployment).await;
    Aftermath::of(&deployment).await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_has_most_of_the_load_is_set_apart_by_the_controller() {
    let deployment = deployment(2.3, 20_000).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    // Two clients on one key; one on others, which no split in halves would part from it.
    let hot = tenants(&deployment, 32, 0).await[0];
    let others = tenants(&deployment, 32, 16).await;
    let sleepers = Sleepers::start(&deployment, &[vec![hot], vec![hot], others]).await;
    let apart = done(&deployment, "split").await;
    let decision = decision_of(&deployment, &apart).await;
    assert_eq!(decision["chosen"]["action"]["kind"], "isolate", "{decision:#}");
    let reason = decision["chosen"]["reason"].as_str().unwrap();
    assert!(reason.contains("setting the hottest key of shard 0 apart"), "{reason}");
    assert_eq!(shards(&deployment).await.len(), 11);
    assert_calm(&deployment).await;
    sleepers.stop().await;
    serving.stop(&deployment).await;
    Aftermath::of(&deployment).await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_halves_on_two_nodes_become_one_shard_again() {
    let deployment = deployment(1.4, 0).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    deployment.split_shard(2).await;
    assert_eq!(shards(&deployment).await.len(), 9);
    let merge = done(&deployment, "merge").await;
    let cause = merge["cause"].to_string();
    assert!(cause.contains("halves of a former one"), "{cause}");
    let decision = decision_of(&deployment, &merge).await;
    assert_eq!(decision["chosen"]["action"]["kind"], "merge", "{decision:#}");
    assert_eq!(shards(&deployment).await.len(), 8);
    assert_calm(&deployment).await;
    serving.stop(&deployment).await;
    Aftermath::of(&deployment).await.assert_in_order().await;
}
