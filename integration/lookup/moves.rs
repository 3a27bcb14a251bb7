//! Shards of a table and of its lookups move while both are written; many clients want few values.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foreshard::runtime::Tasks;
use foreshard::shard_map::KeyValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use crate::shop::{Shop, seed};
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

/// Errors with which PostgreSQL, too, answers who comes too late.
const TOO_LATE: [&str; 3] = ["23505", "40P01", "55P03"];

/// Gives few values to many rows, takes them, and moves rows to other keys; how much of it worked.
async fn contend(client: Client, seed: u64) -> u32 {
    let mut random = StdRng::seed_from_u64(seed);
    client.batch_execute("SET lock_timeout = '3s'").await.unwrap();
    let mut done = 0;
    for _ in 0..120 {
        let (tenant, id, email) =
            (random.random_range(1..8), random.random_range(0..3), random.random_range(0..6));
        let sql = match random.random_range(0..6) {
            0 | 1 => format!("INSERT INTO users VALUES ({tenant}, {id}, 'e{email}', 'c{id}', 'n')"),
            2 => format!(
                "UPDATE users SET email = 'e{email}' WHERE tenant_id = {tenant} AND id = {id}"
            ),
            3 => format!("UPDATE users SET tenant_id = {tenant} WHERE email = 'e{email}'"),
            4 => format!("DELETE FROM users WHERE email = 'e{email}'"),
            _ => format!(
                "BEGIN; DELETE FROM users WHERE email = 'e{email}'; \
                 INSERT INTO users VALUES ({tenant}, {id}, 'e{email}', 'x', 'n'); COMMIT"
            ),
        };
        match client.batch_execute(&sql).await {
            Ok(()) => done += 1,
            Err(error) => {
                let code = error.code().map_or("", |code| code.code()).to_owned();
                assert!(TOO_LATE.contains(&code.as_str()), "{sql}: {error:?}");
                client.batch_execute("ROLLBACK").await.unwrap();
            }
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_want_the_same_values_leave_lookups_that_fit() {
    let seed = seed();
    let shop = Shop::start().await;
    let tasks = Tasks::new();
    let mut clients = Vec::new();
    for client in 0..4 {
        let work = contend(shop.proxy.client().await, seed.wrapping_add(client));
        clients.push(tasks.spawn("client", work));
    }
    for client in clients {
        let done = client.await.unwrap();
        assert!(done > 30, "{done}");
    }
    shop.lookups_fit().await;
}
