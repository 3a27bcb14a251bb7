//! Both proxies serve, and what all of them have to go along with happens under their clients: an
//! import, another shard key, a node that joins; and etcd goes away and comes back.

use std::time::Duration;

use foreshard::runtime::Tasks;
use nix::sys::signal::Signal;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::pair::{Pair, stopped};
use crate::process_support::{Deployment, Writers, said};
use crate::support::link::Mode;
use crate::support::{eventually, rows};

/// How long something may take that must not hang.
const SOON: Duration = Duration::from_secs(30);

/// Changes the configurations of both.
fn rewrite(pair: &Pair, old: &str, new: &str) {
    for deployment in [&pair.first, &pair.second] {
        let config = std::fs::read_to_string(&deployment.config).unwrap();
        assert!(config.contains(old), "{config}");
        std::fs::write(&deployment.config, config.replace(old, new)).unwrap();
    }
}

async fn run(deployment: &Deployment, args: &[&str]) -> String {
    let output = deployment.run(args).await;
    let said = said(&output);
    assert!(output.status.success(), "{said}\n{}", deployment.log_tail());
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_tables_are_imported_while_clients_of_both_write() {
    let pair = Pair::that_both_serve().await;
    let home = pair.first.database.client(0).await;
    let plain = "
        CREATE TABLE accounts (tenant_id bigint PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
        CREATE TABLE entries (tenant_id bigint NOT NULL REFERENCES accounts (tenant_id),
            writer int NOT NULL, n bigint NOT NULL, note text DEFAULT 'a note');
        INSERT INTO accounts SELECT g FROM generate_series(1, 160) g";
    home.batch_execute(plain).await.unwrap();
    let (first, second) = (pair.first.serve().await, pair.second.serve().await);
    let writers = pair.writers();
    sleep(Duration::from_millis(500)).await;
    // The one that does not lead is asked.
    let said = run(&pair.second, &["import", "shop"]).await;
    assert!(said.contains("spread over its nodes"), "{said}");
    sleep(Duration::from_millis(500)).await;
    let written = stopped(writers).await;
    assert!(written.unknown.is_empty(), "a client was cut off");
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
    let after = pair.aftermath().await;
    after.assert_in_order().await;
    assert_eq!(after.map.shards().count(), 8);
    after.assert_written(&written).await;
}

/// Writes numbers until it is told to stop; how many were acknowledged.
fn count_up(
    deployment: &Deployment,
    from: i64,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<i64> {
    let (deployment, stop) = (deployment.clone(), stop.clone());
    Tasks::new().spawn("counts", async move {
        let client = deployment.client().await;
        let insert = client.prepare("INSERT INTO logs (a, b) VALUES ($1, $2)").await.unwrap();
        let mut n = 0;
        while !stop.is_cancelled() {
            let (a, b) = (from + n, (from + n) * 7 % 1_000);
            assert_eq!(client.execute(&insert, &[&a, &b]).await.unwrap(), 1);
            n += 1;
            sleep(Duration::from_millis(2)).await;
        }
        n
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_gets_another_shard_key_while_clients_of_both_write() {
    let pair = Pair::that_both_serve().await;
    let group =
        "    logs:\n      key: bigint\n      shards: 4\n      tables: { logs: a }\n  placement:";
    rewrite(&pair, "  placement:", group);
    let (first, second) = pair.serve_both().await;
    let (ours, theirs) = (pair.first.client().await, pair.second.client().await);
    ours.batch_execute("CREATE TABLE logs (a bigint NOT NULL, b bigint NOT NULL)").await.unwrap();
    let stop = CancellationToken::new();
    let writers = [count_up(&pair.first, 0, &stop), count_up(&pair.second, 1_000_000, &stop)];
    sleep(Duration::from_millis(700)).await;
    rewrite(&pair, "tables: { logs: a }", "tables: { logs: b }");
    for deployment in [&pair.first, &pair.second] {
        run(deployment, &["reload"]).await;
    }
    run(&pair.first, &["reshard", "logs"]).await;
    sleep(Duration::from_millis(500)).await;
    stop.cancel();
    let mut count = 0;
    for writer in writers {
        count += writer.await.unwrap();
    }
    let sql = "SELECT count(*), count(DISTINCT a) FROM logs";
    for client in [&ours, &theirs] {
        assert_eq!(rows(client, sql).await, [format!("{count}|{count}")]);
        let explained = rows(client, "EXPLAIN SELECT * FROM logs WHERE b = 77").await.concat();
        let on_one = explained.contains(" on logs_s") && !explained.contains("Append");
        assert!(on_one, "{explained}");
    }
    drop((ours, theirs));
    run(&pair.second, &["verify"]).await;
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_once_the_last_proxy_knows_of_it() {
    let pair = Pair::that_both_serve().await;
    let third = std::fs::read_to_string(&pair.first.config).unwrap();
    let third = third.lines().find(|line| line.contains("name: n3")).unwrap().to_owned() + "\n";
    rewrite(&pair, &third, "");
    let (first, second) = pair.serve_both().await;
    let mut driver = pair.first.clone();
    driver.other_port = Some(pair.second.port);
    let writers = Writers::start(&driver, 0..3);
    rewrite(&pair, "frontend:", &format!("{third}frontend:"));
    // One after the other is started again; clients go on with the other one.
    first.stop(&pair.first).await;
    pair.leads(&pair.second).await;
    let first = pair.first.serve().await;
    let nodes = pair.second.admin("/api/v1/nodes").await;
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 2, "{nodes}");
    second.stop(&pair.second).await;
    pair.leads(&pair.first).await;
    let second = pair.second.serve().await;
    let joined = async || {
        let nodes = pair.first.admin("/api/v1/nodes").await;
        let third = nodes["nodes"].as_array()?.get(2)?.clone();
        (third["standing"] == "member").then_some(())
    };
    eventually("the node has joined", SOON, joined).await;
    pair.second.move_shard(0, "n3").await;
    let written = writers.stop().await;
    let clients = [pair.first.client().await, pair.second.client().await];
    for client in &clients {
        assert_eq!(rows(client, "SELECT count(*) FROM accounts").await, ["160"]);
    }
    drop(clients);
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
    let after = pair.aftermath().await;
    after.assert_in_order().await;
    after.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_both_go_on_while_etcd_is_away() {
    let mut pair = Pair::that_both_serve().await;
    let (first, second) = pair.serve_both().await;
    let writers = pair.writers();
    sleep(Duration::from_millis(300)).await;
    pair.etcd.kill().await;
    sleep(Duration::from_secs(8)).await;
    // What is decided in the catalog is refused, and nothing is left of it.
    let theirs = pair.second.client().await;
    let error = theirs.batch_execute("UPDATE accounts SET version = version").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "58000", "{error:?}");
    pair.etcd.restart().await;
    let again = async || theirs.batch_execute("UPDATE accounts SET version = version").await.ok();
    eventually("transactions of several nodes are committed", SOON, again).await;
    for shard in 0..2 {
        let node = pair.first.other_node(shard).await;
        pair.first.move_shard(shard, &node).await;
    }
    drop(theirs);
    let written = stopped(writers).await;
    assert!(written.unknown.is_empty(), "a client was cut off");
    second.stop(&pair.second).await;
    first.stop(&pair.first).await;
    let after = pair.aftermath().await;
    after.assert_in_order().await;
    after.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_etcd_is_struck_off_and_ends() {
    let pair = Pair::that_both_serve().await;
    let (mut first, second) = pair.serve_both().await;
    let theirs = Writers::start(&pair.second, 10..13);
    pair.wire.set(Mode::Stall);
    pair.leads(&pair.second).await;
    let node = pair.second.other_node(0).await;
    pair.second.move_shard(0, &node).await;
    pair.wire.set(Mode::Flow);
    let status = first.ended(&pair.first).await;
    assert_eq!(status.code(), Some(1), "{status}");
    let written = theirs.stop().await;
    assert!(written.unknown.is_empty(), "a client was cut off");
    second.signal(Signal::SIGTERM);
    drop(second);
    let after = pair.aftermath().await;
    after.assert_written(&written).await;
}
