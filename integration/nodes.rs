//! The harness itself: nodes are shared and stay apart, and a node comes back from a crash.

mod support;

use std::time::Duration;

use support::{TestDatabase, TestNodes, connect, eventually, rows};

#[tokio::test]
async fn two_tests_with_the_same_nodes_do_not_see_each_other() {
    let first = TestDatabase::create(2).await;
    let second = TestDatabase::create(2).await;
    assert_ne!(first.name, second.name);
    assert_eq!(first.nodes, second.nodes);
    assert_ne!(first.nodes[0].port, first.nodes[1].port);
    first.client(0).await.batch_execute("CREATE TABLE t (a int)").await.unwrap();
    let count = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    assert_eq!(rows(&first.client(0).await, count).await, ["1"]);
    assert_eq!(rows(&first.client(1).await, count).await, ["0"]);
    assert_eq!(rows(&second.client(0).await, count).await, ["0"]);
}

#[tokio::test]
async fn a_crashed_node_has_what_was_committed() {
    let mut nodes = TestNodes::start(1).await;
    let client = connect(&nodes.addresses()[0], "postgres").await;
    client.batch_execute("CREATE TABLE t AS SELECT 1 AS a, NULL AS b").await.unwrap();
    nodes.crash_and_restart(0).await;
    eventually("the old client sees the crash", Duration::from_secs(5), async || {
        client.simple_query("SELECT 1").await.err()
    })
    .await;
    let client = connect(&nodes.addresses()[0], "postgres").await;
    assert_eq!(rows(&client, "TABLE t").await, ["1|∅"]);
}
