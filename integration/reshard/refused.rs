//! What speaks against another shard key is told before any work, and what fails half way is undone.

use std::time::Duration;

use foreshard::runtime::Tasks;

use super::process_support::said;
use super::shop::{self, Clients, by, execute};
use super::support::eventually;
use super::{assert_clean, assert_placed, described, job_ended, one, reload, reshard};

/// What is in the way, made through the proxy or on the home node, what is said of it, and its end.
const REFUSED: [(bool, &str, &str, &str); 7] = [
    (
        true,
        "CREATE UNIQUE INDEX u ON events (tenant_id, what) WHERE tenant_id > 100",
        "the unique index \"u\" of \"public\".\"events\" lacks the shard key: CREATE UNIQUE INDEX \
         CONCURRENTLY ON \"public\".\"events\" (\"customer_id\", \"tenant_id\", \"what\")",
        "DROP INDEX u",
    ),
    (
        false,
        "ALTER TABLE items ENABLE ALWAYS TRIGGER stamp",
        "trigger stamp of public.items fires for replicated rows, too",
        "ALTER TABLE items ENABLE TRIGGER stamp",
    ),
    (
        false,
        "CREATE INDEX alone ON orders_s0 (version)",
        "index public.alone stands on one partition alone and would be lost",
        "DROP INDEX alone",
    ),
    (
        false,
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM orders",
        "depends on public.orders itself: drop it",
        "DROP MATERIALIZED VIEW m",
    ),
    (
        false,
        "ALTER TABLE events_s0 REPLICA IDENTITY NOTHING",
        "partition public.events_s0 has a replica identity of its own",
        "ALTER TABLE events_s0 REPLICA IDENTITY DEFAULT",
    ),
    (
        false,
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "publication everything publishes",
        "DROP PUBLICATION everything",
    ),
    (
        false,
        "CREATE TABLE orders_s6 (id int)",
        "has a table \"public\".\"orders_s6\" already: rename it",
        "DROP TABLE orders_s6",
    ),
];

/// Groups of a policy, and what is said of them.
const POLICIES: [(&str, &str); 7] = [
    (
        "      key: bigint\n      shards: 4\n      tables: { orders: id, items: id, events: customer_id }\n",
        "without the new shard key, so that rows could be on two nodes",
    ),
    (
        "      key: text\n      shards: 4\n      tables: \
         { orders: customer_id, items: customer_id, events: customer_id }\n",
        "is of type bigint, the policy says text: change the policy",
    ),
    (
        "      key: bigint\n      method: range\n      split_at: [10]\n      tables: \
         { orders: customer_id, items: customer_id, events: customer_id }\n",
        "may be NULL, which is in no range: ALTER TABLE",
    ),
    (
        "      key: bigint\n      method: list\n      values: [[1], [2]]\n      tables: \
         { orders: customer_id, items: customer_id, events: customer_id }\n",
        "say default: true",
    ),
    // Types of users, of which each node has its own.
    (
        "      key: text\n      shards: 2\n      tables: \
         { orders: mood, items: what, events: what }\n",
        "\"mood\" of \"public\".\"orders\" is of type public.mood, by which rows can't be told apart",
    ),
    (
        "      key: bigint\n      method: range\n      split_at: [10]\n      tables: \
         { orders: customer_id, items: price, events: customer_id }\n",
        "\"price\" of \"public\".\"items\" is of type public.amount, by which rows can't be told apart",
    ),
    (
        "      key: text\n      method: list\n      default: true\n      values: [[a], [b]]\n      \
         tables: { orders: mood, items: place, events: moods }\n",
        "\"place\" of \"public\".\"items\" is of type public.place, by which rows can't be told apart",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_resharded_is_refused_with_what_to_do() {
    let deployment = shop::shop(2).await;
    let serving = deployment.serve().await;
    shop::load(&deployment).await;
    let same = reshard(&deployment, &[]).await;
    assert!(same.contains("sharded by this key already"), "{same}");
    for (group, expected) in POLICIES {
        reload(&deployment, group).await;
        let output = deployment.run(&["reshard", "shop", "--check"]).await;
        let said = said(&output);
        assert!(!output.status.success() && said.contains(expected), "{group}: {said}");
    }
    reload(&deployment, &by("customer_id", 4)).await;
    let client = deployment.client().await;
    let home = deployment.database.client(0).await;
    for (proxied, spoil, expected, mend) in REFUSED {
        execute(if proxied { &client } else { &home }, spoil).await;
        let output = deployment.run(&["reshard", "shop"]).await;
        let said = said(&output);
        assert!(!output.status.success() && said.contains(expected), "{spoil}: {said}");
        execute(if proxied { &client } else { &home }, mend).await;
    }
    let output = deployment.run(&["reshard", "nothing"]).await;
    assert!(said(&output).contains("the policy has no group \"nothing\""));
    assert_clean(&deployment).await;
    reshard(&deployment, &["--check"]).await;
    // A refusal leaves nothing, and the tables work on by the old key, also after a restart.
    execute(&client, "UPDATE orders SET version = 1 WHERE tenant_id = 3").await;
    drop(client);
    serving.stop(&deployment).await;
    let serving = deployment.serve().await;
    let client = deployment.client().await;
    assert_eq!(one(&client, "SELECT count(*) FROM orders WHERE version = 1").await, "30");
    drop(client);
    serving.stop(&deployment).await;
    assert_placed(&deployment, "tenant_id").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_half_way_is_undone_and_can_be_tried_again() {
    let deployment = shop::shop(2).await;
    let serving = deployment.serve().await;
    shop::load(&deployment).await;
    reload(&deployment, &by("customer_id", 4)).await;
    let before = described(&deployment).await;
    let clients = Clients::start(&deployment, 2);
    let idle = deployment.client().await;
    // It only reads: no slot waits for it, and nobody else does.
    execute(&idle, "BEGIN; SELECT FROM orders WHERE tenant_id = 7").await;
    let asking = deployment.clone();
    let changing = async move { asking.run(&["reshard", "shop"]).await };
    let changing = Tasks::new().spawn("reshard", changing);
    let told = async |words: &str| {
        let told = || async {
            let jobs = deployment.admin("/api/v1/jobs").await;
            let steps = jobs["jobs"].as_array().unwrap().first()?["steps"].to_string();
            steps.contains(words).then_some(())
        };
        eventually(words, Duration::from_mins(1), told).await;
    };
    told("rows are equal on both sides").await;
    told("waiting: statements or transactions on the group").await;
    let moved = deployment.run(&["move", "0", "n2"]).await;
    assert!(said(&moved).contains("while its group is imported or gets"), "{}", said(&moved));
    let direct = deployment.database.client(1).await;
    execute(&direct, "CREATE INDEX direct ON events (tenant_id)").await;
    execute(&idle, "COMMIT").await;
    let output = changing.await.unwrap();
    let told = said(&output);
    assert!(!output.status.success() && told.contains("was changed on node n2"), "{told}");
    assert_eq!(job_ended(&deployment).await["state"], "failed");
    assert_clean(&deployment).await;
    assert_eq!(described(&deployment).await, before);
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", said(&verified));

    execute(&direct, "DROP INDEX direct").await;
    reshard(&deployment, &[]).await;
    let known = clients.stop().await;
    assert!(known.unknown.is_empty(), "a client was cut off");
    drop(idle);
    serving.stop(&deployment).await;
    shop::assert_written(&deployment, &known).await;
    assert_clean(&deployment).await;
    assert_placed(&deployment, "customer_id").await;
}
