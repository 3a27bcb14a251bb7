//! A proxy that is stopped while another takes over from it, and wakes up again: it reaches no node,
//! so that it neither writes to what it no longer owns nor answers from it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod process_support;
mod support;

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use process_support::{Aftermath, Deployment, Serving, connect};
use support::rows;
use tokio::time::timeout;
use tokio_postgres::Client;

/// A second proxy on a copy of the first one's catalog, as it is at this moment.
async fn take_over(old: &Deployment) -> (Deployment, Serving) {
    let new = Deployment::over(old.database.clone());
    std::fs::create_dir_all(&new.data_folder).unwrap();
    let copied = Command::new("cp")
        .arg(old.data_folder.join("catalog.redb"))
        .arg(&new.data_folder)
        .status()
        .unwrap();
    assert!(copied.success());
    let serving = new.serve().await;
    (new, serving)
}

/// What a statement through the woken proxy comes to: an error, and soon.
async fn fails(client: &Client, sql: &str) {
    let done = timeout(Duration::from_secs(30), client.simple_query(sql)).await;
    let error = done.unwrap_or_else(|_| panic!("{sql} is stuck"));
    assert!(error.is_err(), "{sql} gave {error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_was_replaced_while_it_was_stopped_reaches_no_node() {
    let old = Deployment::new(2).await;
    let stopped = old.serve().await;
    old.load().await;
    let node = old.database.client(0).await;
    let tenant = rows(&node, "SELECT min(tenant_id) FROM accounts_s0").await.remove(0);
    let other = rows(&node, "SELECT min(tenant_id) FROM accounts_s2").await.remove(0);
    let read = format!("SELECT version FROM accounts WHERE tenant_id = {tenant}");
    let write = |of: &str, version: u32| {
        format!("UPDATE accounts SET version = {version} WHERE tenant_id = {of}")
    };
    let (idle, busy) = (old.client().await, old.client().await);
    idle.batch_execute(&read).await.unwrap();
    busy.batch_execute(&format!("BEGIN; {}", write(&other, 100))).await.unwrap();

    stopped.signal(Signal::SIGSTOP);
    let (new, serving) = take_over(&old).await;
    // The other's transaction is over, else it would be in the way of the move.
    new.move_shard(0, "n2").await;
    let client = new.client().await;
    for tenant in [&tenant, &other] {
        assert_eq!(client.execute(&write(tenant, 7), &[]).await.unwrap(), 1);
    }
    stopped.signal(Signal::SIGCONT);

    fails(&busy, "COMMIT").await;
    fails(&idle, &read).await;
    for sql in [&write(&tenant, 200), &write(&other, 200), "SELECT count(*) FROM accounts", &read] {
        match connect(&old.driver()).await {
            Ok(client) => fails(&client, sql).await,
            Err(error) => assert_eq!(error.code().unwrap().code(), "57P03", "{error:?}"),
        }
    }
    // Nor does its mover: it believes that it may move what it no longer owns.
    old.ask_for_move(2, "n2").await;
    let told = async || {
        let moves = old.admin("/api/v1/moves").await;
        let trouble = moves["moves"][0]["trouble"].as_str()?.contains("replaced");
        trouble.then_some(())
    };
    support::eventually("its mover is told", Duration::from_secs(30), told).await;

    for tenant in [&tenant, &other] {
        let read = format!("SELECT version FROM accounts WHERE tenant_id = {tenant}");
        assert_eq!(rows(&client, &read).await, ["7"]);
    }
    stopped.kill(&old).await;
    drop(client);
    serving.stop(&new).await;
    Aftermath::of(&new).await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_proxy_left_in_a_nodes_queue_is_not_executed_once_the_next_one_serves() {
    let deployment = Deployment::new(2).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    // Its server is at work on the first when the proxy dies, and has not read the second.
    let sent = "SELECT pg_sleep(3) FROM accounts WHERE tenant_id = 1; \
         UPDATE accounts SET version = 100 WHERE tenant_id = 1";
    let sent = timeout(Duration::from_millis(300), client.batch_execute(sent)).await;
    assert!(sent.is_err(), "{sent:?}");
    serving.kill(&deployment).await;
    let serving = deployment.serve().await;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND query ~ '^SELECT pg_sleep'";
    for node in 0..2 {
        assert_eq!(rows(&deployment.database.client(node).await, left).await, ["0"]);
    }
    let client = deployment.client().await;
    let read = "SELECT version FROM accounts WHERE tenant_id = 1";
    assert_eq!(rows(&client, read).await, ["0"]);
    drop(client);
    serving.stop(&deployment).await;
}
