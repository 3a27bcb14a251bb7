//! Moves while somebody sits in a transaction and holds locks.

use std::time::Duration;

use foreshard::runtime::Failpoints;
use foreshard::shard_move::State;

use super::shop::{Shop, Writers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_on_another_shard_does_not_hold_the_switch_up() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let reader = shop.idle_reader().await;
    let proxy = shop.proxy(Failpoints::default()).await;
    shop.request_move(&proxy).await;
    let mv = proxy.until("switched", |mv| mv.switched_unix_ms.is_some()).await;
    println!("pause: {:?} ms, longest wait {:?}", mv.pause_ms, writers.longest_wait());
    assert!(writers.longest_wait() < Duration::from_secs(2), "{:?}", writers.longest_wait());
    let sql = "SELECT count(*) FROM orders WHERE tenant_id = 0; COMMIT";
    reader.batch_execute(sql).await.unwrap();
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    writers.stop().await;
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_on_the_shard_itself_puts_the_switch_off_and_nobody_waits_long() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let idle = shop.client(0).await;
    let tenant = shop.tenants[0];
    let proxy = shop.proxy(Failpoints::default()).await;
    let pass = proxy.gates.enter(super::SHARD).await;
    let sql = format!("BEGIN; UPDATE orders SET v = 9 WHERE tenant_id = {tenant} AND id = -1");
    idle.batch_execute(&sql).await.unwrap();
    shop.request_move(&proxy).await;
    // Its slot can't be made before a transaction that has written ends.
    tokio::time::sleep(Duration::from_millis(300)).await;
    idle.batch_execute("COMMIT; BEGIN").await.unwrap();
    let sql = format!("SELECT v FROM orders WHERE tenant_id = {tenant} AND id = -1");
    idle.batch_execute(&sql).await.unwrap();
    let mv = proxy.until("put off", |mv| mv.postponed >= 1).await;
    assert!(mv.trouble.unwrap().contains("did not end in time"));
    assert!(writers.longest_wait() < Duration::from_secs(1), "{:?}", writers.longest_wait());
    let sql = format!("UPDATE orders SET v = 5 WHERE tenant_id = {tenant} AND id = -1; COMMIT");
    idle.batch_execute(&sql).await.unwrap();
    drop(pass);
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    writers.stop().await;
    shop.assert_as_mapped().await;
    let sql = format!("SELECT v FROM orders WHERE tenant_id = {tenant} AND id = -1");
    let found = super::support::rows(&shop.client(1).await, &sql).await;
    assert_eq!(found, ["5"], "an acknowledged write is lost");
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_past_the_gate_is_stopped_by_the_freeze() {
    let shop = Shop::create().await;
    let reader = shop.client(0).await;
    let sql = "BEGIN; SELECT count(*) FROM orders WHERE tenant_id = 0";
    reader.batch_execute(sql).await.unwrap();
    let dying = shop.proxy(Failpoints::stopping_at("frozen")).await;
    shop.request_move(&dying).await;
    dying.until_dead().await;
    let stale = shop.client(0).await;
    let tenant = shop.tenants[0];
    for sql in [
        format!("UPDATE orders SET v = 9 WHERE tenant_id = {tenant}"),
        format!("INSERT INTO events (tenant_id) VALUES ({tenant})"),
        format!("DELETE FROM items WHERE tenant_id = {tenant}"),
        "TRUNCATE events".to_owned(),
    ] {
        let sql = format!("SET session_replication_role = replica; {sql}");
        let error = stale.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "40001", "{sql}");
    }
    // The next process undoes the freeze, or goes on.
    let writers = Writers::start(&shop, 2).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until("switched", |mv| mv.switched_unix_ms.is_some()).await;
    assert!(mv.error.is_none(), "{mv:#?}");
    reader.batch_execute("COMMIT").await.unwrap();
    proxy.until_finished().await;
    writers.stop().await;
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}
