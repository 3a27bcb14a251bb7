//! The other proxy takes over, whatever becomes of the first.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::pair::{Pair, share};
use crate::process_support::{Deployment, Serving, Writers, connect, said};
use crate::support::link::{Link, Mode};
use crate::support::{TestDatabase, TestEtcd, eventually, rows};

/// How long a statement may take that must not hang.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_proxy_has_acknowledged_is_there_when_the_other_serves() {
    let pair = Pair::new().await;
    let (first, second) = pair.serve().await;
    let writers = Writers::start(&pair.first, 0..4);
    sleep(Duration::from_secs(1)).await;
    // A move is under way; the other proxy finishes or undoes it.
    let node = pair.first.other_node(0).await;
    pair.first.ask_for_move(0, &node).await;
    first.kill(&pair.first).await;
    pair.serves(&pair.second).await;
    sleep(Duration::from_secs(1)).await;
    let written = writers.stop().await;
    assert!(written.acknowledged.len() > 50, "{}", written.acknowledged.len());
    pair.second.until_moves_are_finished().await;
    // The first comes back, and waits for its turn.
    let first = Serving::spawn(&pair.first, None);
    pair.waits(&pair.first, &pair.second).await;
    // Who is stopped in order does not let the other wait for the end of its lease.
    second.stop(&pair.second).await;
    pair.serves(&pair.first).await;
    first.stop(&pair.first).await;
    let aftermath = pair.aftermath().await;
    aftermath.assert_in_order().await;
    aftermath.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_wakes_up_after_another_took_over_reaches_nothing_and_ends() {
    let pair = Pair::new().await;
    let (mut first, second) = pair.serve().await;
    let driver = { pair.first.clone().alone().driver() };
    let (idle, busy) = (connect(&driver).await.unwrap(), connect(&driver).await.unwrap());
    let write =
        |version: u32| format!("UPDATE accounts SET version = {version} WHERE tenant_id = 1");
    idle.batch_execute(&write(1)).await.unwrap();
    // On all nodes: its end would be decided in the catalog.
    busy.batch_execute("BEGIN; UPDATE accounts SET version = 100").await.unwrap();

    first.signal(Signal::SIGSTOP);
    pair.serves(&pair.second).await;
    let client = pair.second.client().await;
    assert_eq!(client.execute(&write(7), &[]).await.unwrap(), 1);
    first.signal(Signal::SIGCONT);
    for (client, sql) in [(&busy, "COMMIT"), (&idle, write(200).as_str())] {
        let done = timeout(SOON, client.simple_query(sql)).await;
        assert!(done.unwrap_or_else(|_| panic!("{sql} is stuck")).is_err(), "{sql} was done");
    }
    let status = first.ended(&pair.first).await;
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(pair.first.log_tail().contains("another proxy serves now"));
    let read = "SELECT version, count(*) FROM accounts GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, read).await, ["0|159", "7|1"]);
    drop(client);
    second.stop(&pair.second).await;
    pair.aftermath().await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_policy_does_not_fit_says_so_before_it_is_needed() {
    let pair = Pair::new().await;
    let first = pair.first.serve().await;
    let config = std::fs::read_to_string(&pair.second.config).unwrap();
    let other = config.replace("shards: 8", "shards: 16");
    assert_ne!(config, other);
    std::fs::write(&pair.second.config, other).unwrap();
    let file = pair.second.config.display().to_string();
    let output = pair.second.run(&["serve", "--config", &file]).await;
    assert!(!output.status.success());
    assert!(said(&output).contains("shop"), "{}", said(&output));
    first.stop(&pair.first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waited_serves_by_the_configuration_as_it_is_then() {
    let pair = Pair::new().await;
    let (first, second) = pair.serve().await;
    for deployment in [&pair.first, &pair.second] {
        let config = std::fs::read_to_string(&deployment.config).unwrap();
        let more = config.replace("entries: tenant_id }", "entries: tenant_id, notes: tenant_id }");
        assert_ne!(config, more);
        std::fs::write(&deployment.config, more).unwrap();
    }
    let output = pair.first.run(&["reload"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let client = pair.first.client().await;
    client.batch_execute("CREATE TABLE notes (tenant_id bigint, note text)").await.unwrap();
    client
        .batch_execute("INSERT INTO notes SELECT i, 'n' FROM generate_series(1, 20) i")
        .await
        .unwrap();
    drop(client);
    first.stop(&pair.first).await;
    pair.serves(&pair.second).await;
    let client = pair.second.client().await;
    assert_eq!(rows(&client, "SELECT count(*) FROM notes").await, ["20"]);
    let explained = rows(&client, "EXPLAIN SELECT * FROM notes WHERE tenant_id = 1").await;
    assert!(explained.concat().contains(" on notes_s"), "{explained:?}");
    drop(client);
    second.stop(&pair.second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_cut_off_from_etcd_goes_on_until_another_takes_over() {
    let pair = Pair::new().await;
    let (mut first, second) = pair.serve().await;
    let old = connect(&pair.first.clone().alone().driver()).await.unwrap();
    pair.wire.set(Mode::Stall);
    let read = "SELECT version FROM accounts WHERE tenant_id = 1";
    let refused = async || match timeout(SOON, old.simple_query(read)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error),
        Err(late) => panic!("a statement hangs: {late}"),
    };
    let error = eventually("the old proxy is kept off", SOON, refused).await;
    assert!(error.code().is_none_or(|code| code.code().starts_with("57P0")), "{error:?}");
    pair.serves(&pair.second).await;
    let client = pair.second.client().await;
    client.batch_execute("UPDATE accounts SET version = 1").await.unwrap();
    pair.wire.cut();
    pair.wire.heal();
    assert_eq!(first.ended(&pair.first).await.code(), Some(1));
    drop(client);
    second.stop(&pair.second).await;
    let aftermath = pair.aftermath().await;
    assert!(aftermath.versions().await.values().all(|version| *version == 1));
    aftermath.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_etcd_is_away_one_node_is_written_and_several_are_not_left_in_halves() {
    let mut pair = Pair::new().await;
    let (first, second) = pair.serve().await;
    let client = pair.first.client().await;
    pair.etcd.kill().await;
    // As long as two leases.
    let until = Instant::now() + Duration::from_secs(6);
    let mut version = 0;
    while Instant::now() < until {
        version += 1;
        let write = format!("UPDATE accounts SET version = {version} WHERE tenant_id = 1");
        timeout(SOON, client.batch_execute(&write)).await.unwrap().unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    for sql in ["ALTER TABLE accounts ADD more int", "UPDATE accounts SET version = 1000"] {
        let error = timeout(SOON, client.batch_execute(sql)).await.unwrap().unwrap_err();
        let code = error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned();
        assert!(["58000", "08007"].contains(&code.as_str()), "{error:?}");
    }
    pair.etcd.restart().await;
    // The same proxy goes on, or the other one does.
    let wrote = async || {
        let client = connect(&pair.first.driver()).await.ok()?;
        client.batch_execute("UPDATE accounts SET version = 2000").await.ok()
    };
    eventually("several nodes are written again", Duration::from_mins(1), wrote).await;
    drop(client);
    for (mut process, deployment) in [(first, &pair.first), (second, &pair.second)] {
        process.signal(Signal::SIGTERM);
        process.ended(deployment).await;
    }
    let aftermath = pair.aftermath().await;
    aftermath.assert_in_order().await;
    assert!(aftermath.versions().await.values().all(|version| *version == 2000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_etcd_does_not_answer_is_whole_once_somebody_serves() {
    let pair = Pair::new().await;
    let (mut first, mut second) = pair.serve().await;
    let client = connect(&pair.first.clone().alone().driver()).await.unwrap();
    client.batch_execute("BEGIN; UPDATE accounts SET version = 9").await.unwrap();
    pair.wire.set(Mode::Stall);
    let error = timeout(SOON, client.batch_execute("COMMIT")).await.unwrap().unwrap_err();
    let code = error.code().map_or("", |code| code.code()).to_owned();
    assert!(["08007", "57P01", ""].contains(&code.as_str()), "{error:?}");
    pair.serves(&pair.second).await;
    pair.wire.heal();
    assert_eq!(first.ended(&pair.first).await.code(), Some(1));
    let client = pair.second.client().await;
    let read = "SELECT DISTINCT version FROM accounts";
    let versions = rows(&client, read).await;
    assert!(versions == ["0"] || versions == ["9"], "{versions:?}");
    // Nothing holds a lock any more.
    timeout(SOON, client.batch_execute("UPDATE accounts SET version = 10")).await.unwrap().unwrap();
    drop(client);
    second.signal(Signal::SIGTERM);
    second.ended(&pair.second).await;
    pair.aftermath().await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_hands_over_keeps_the_lead() {
    let pair = Pair::new().await;
    let (mut old, second) = pair.serve().await;
    let writers = Writers::start(&pair.first, 0..2);
    let new = Serving::start_with(&pair.first, None, &["--take-over"]).await;
    assert!(old.ended(&pair.first).await.success());
    pair.serves(&pair.first).await;
    assert!(pair.second.page("/readyz").await.contains("standby"));
    sleep(Duration::from_secs(4)).await;
    assert!(pair.second.page("/readyz").await.contains("standby"), "the lead was lost later");
    let written = writers.stop().await;
    second.stop(&pair.second).await;
    new.stop(&pair.first).await;
    let aftermath = pair.aftermath().await;
    aftermath.assert_in_order().await;
    aftermath.assert_written(&written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_in_a_file_goes_over_to_etcd_and_is_not_forgotten_there() {
    let etcd = TestEtcd::start().await;
    let deployment = Deployment::over(TestDatabase::create(2).await);
    let serving = deployment.serve().await;
    deployment.load().await;
    let node = deployment.other_node(0).await;
    deployment.move_shard(0, &node).await;
    serving.stop(&deployment).await;
    let refused = async || {
        let config = deployment.config.display().to_string();
        let output = deployment.run(&["serve", "--config", &config]).await;
        assert!(!output.status.success());
        said(&output)
    };

    share(&deployment, &etcd.endpoint(), "");
    let serving = deployment.serve().await;
    let moves = deployment.admin("/api/v1/moves").await;
    assert_eq!(moves["moves"].as_array().unwrap().len(), 1, "{moves:#}");
    let client = deployment.client().await;
    client.batch_execute("UPDATE accounts SET version = 3").await.unwrap();
    assert_eq!(rows(&client, "SELECT DISTINCT version FROM accounts").await, ["3"]);
    drop(client);
    serving.stop(&deployment).await;
    // Nobody goes back to what the file once said.
    deployment.configure("authentication: trust\n");
    let said = refused().await;
    assert!(said.contains("is in etcd"), "{said}");
    share(&deployment, &etcd.endpoint(), "");
    let moved = deployment.data_folder.join("catalog.redb.moved");
    std::fs::rename(moved, deployment.data_folder.join("catalog.redb")).unwrap();
    let said = refused().await;
    assert!(said.contains("etcd has one under the same prefix"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_starts_again_although_a_node_is_away() {
    let mut database = TestDatabase::create(2).await;
    let wire = Link::to(database.nodes[1].port).await;
    database.nodes[1].port = wire.port;
    let deployment = Deployment::over(database);
    let serving = deployment.serve().await;
    deployment.load().await;
    serving.stop(&deployment).await;
    wire.set(Mode::Refuse);
    let serving = deployment.serve().await;
    let client = deployment.client().await;
    let write = |tenant: i64| format!("UPDATE accounts SET version = 5 WHERE tenant_id = {tenant}");
    let (mut written, mut refused) = (0, 0);
    for tenant in 1..=20 {
        match timeout(SOON, client.batch_execute(&write(tenant))).await.unwrap() {
            Ok(()) => written += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(written > 3 && refused > 3, "{written} {refused}");
    wire.heal();
    for tenant in 1..=20 {
        let wrote = async || client.batch_execute(&write(tenant)).await.ok();
        eventually("the node is used again", SOON, wrote).await;
    }
    drop(client);
    serving.stop(&deployment).await;
}
