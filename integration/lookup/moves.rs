//! Shards of a table and of its lookups move while both are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foreshard::runtime::Tasks;
use foreshard::shard_map::KeyValue;
use tokio_postgres::Client;

use crate::shop::Shop;
use crate::support::rows;

/// Writes users of one tenant, one after the other, until it is told to stop; how many statements
/// were done. Every one has to succeed.
async fn write(client: Client, tenant: i64, stop: Arc<AtomicBool>) -> u64 {
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = done;
        for sql in [
            format!(
                "INSERT INTO users VALUES ({tenant}, {id}, 'w{tenant}.{id}', 'c{}', 'n')",
                id % 3
            ),
            format!(
                "UPDATE users SET email = email || '+', city = 'd' WHERE tenant_id = {tenant} AND id = {id}"
            ),
            format!("DELETE FROM users WHERE tenant_id = {tenant} AND id = {}", id - id % 4),
        ] {
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        done += 1;
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_are_moved_under_writes_and_fit_afterwards() {
    let shop = Shop::start().await;
    let (stop, tasks) = (Arc::new(AtomicBool::new(false)), Tasks::new());
    let mut writers = Vec::new();
    for tenant in 1..=4 {
        let (client, stop) = (shop.proxy.client().await, Arc::clone(&stop));
        writers.push(tasks.spawn("writer", write(client, tenant, stop)));
    }
    let text = |text: &str| KeyValue::Text(text.as_bytes().to_vec());
    let users = shop.shard_of(0, KeyValue::Int(1));
    let emails = shop.shard_of(1, text("w1.1"));
    let cities = shop.shard_of(2, text("d"));
    for shard in [users, emails, cities, users, emails] {
        shop.move_shard(shard).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let written = writer.await.unwrap();
        assert!(written > 10, "{written}");
    }
    shop.lookups_fit().await;
    let counted = rows(&shop.client, "SELECT count(*) > 20 FROM users_by_email").await;
    assert_eq!(counted, ["t"]);
}
