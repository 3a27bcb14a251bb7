//! A move from a server whose other databases are written to all the time.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use foreshard::runtime::Tasks;
use foreshard::shard_move::State;
use tokio_util::sync::CancellationToken;

use super::shop::{Shop, Writers};
use super::support::{connect, rows, shared_nodes};

/// Writes WAL to a database of its own until told to stop; how many bytes.
async fn write(database: String, stop: CancellationToken) -> u64 {
    let address = shared_nodes(1).await[0].address();
    let client = connect(&address, "postgres").await;
    client.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
    let other = connect(&address, &database).await;
    other.batch_execute("CREATE TABLE noise (a text)").await.unwrap();
    let wal = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    let before: u64 = rows(&other, wal).await[0].parse().unwrap();
    while !stop.is_cancelled() {
        let noise = "INSERT INTO noise SELECT repeat('x', 1500) FROM generate_series(1, 1000); \
             TRUNCATE noise";
        other.batch_execute(noise).await.unwrap();
    }
    let after: u64 = rows(&other, wal).await[0].parse().unwrap();
    after - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_leaves_a_server_whose_other_databases_are_written_to_all_the_time() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 1).await;
    let stop = CancellationToken::new();
    let noise = Tasks::new().spawn("noise", write("noisy".to_owned(), stop.clone()));
    // Nothing of that counts as what is left to do: less than a kilobyte may be left.
    let proxy = shop.lagging(1_000).await;
    let began = tokio::time::Instant::now();
    shop.request_move(&proxy).await;
    let mv = proxy.until_finished().await;
    let took = began.elapsed();
    stop.cancel();
    let bytes = noise.await.unwrap();
    println!(
        "{bytes} bytes of others in {took:?}; put off {} times, {:?} ms",
        mv.postponed, mv.pause_ms
    );
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    let rate = bytes / took.as_secs().max(1);
    assert!(rate > 1_000_000, "only {rate} bytes a second were written beside it");
    assert!(mv.postponed < 20, "{mv:#?}");
    assert!(took < Duration::from_mins(1), "{took:?}");
    writers.stop().await;
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}
