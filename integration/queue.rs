//! Queues over several nodes: rows that are locked in an order, one worker never takes what another
//! has; and MERGE, while shards move.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foreshard::ids::ShardId;
use foreshard::runtime::Tasks;
use support::{TestDatabase, TestProxy, eventually, rows};
use tokio_postgres::Client;

const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 6
    tables:
      jobs: tenant_id
      counters: tenant_id
placement: { mode: 'off' }
";

/// Nodes, and a proxy, with 240 jobs over 40 tenants.
async fn queue() -> (TestDatabase, TestProxy) {
    let setup = [
        "CREATE TABLE jobs (tenant_id bigint, id bigint, status text NOT NULL DEFAULT 'new', \
         PRIMARY KEY (tenant_id, id))",
        "CREATE TABLE counters (tenant_id bigint PRIMARY KEY, n bigint NOT NULL)",
        "INSERT INTO jobs SELECT i % 40, i FROM generate_series(1, 240) i",
    ];
    let (database, proxy, _client) = TestProxy::over_three(POLICY, &setup).await;
    (database, proxy)
}

/// Takes jobs until there are none: in a transaction of several statements, or in one statement.
async fn work(client: Client, in_one: bool) -> Vec<i64> {
    let mut taken = Vec::new();
    loop {
        let next = "SELECT tenant_id, id FROM jobs WHERE status = 'new' ORDER BY id LIMIT 7 \
                    FOR UPDATE SKIP LOCKED";
        let mine: Vec<i64> = if in_one {
            let sql = format!(
                "WITH next AS ({next}) UPDATE jobs j SET status = 'done' FROM next \
                 WHERE j.tenant_id = next.tenant_id AND j.id = next.id RETURNING j.id"
            );
            client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        } else {
            client.batch_execute("BEGIN").await.unwrap();
            let found = client.query(next, &[]).await.unwrap();
            for row in &found {
                let done = "UPDATE jobs SET status = 'done' WHERE tenant_id = $1 AND id = $2";
                let (tenant, id): (i64, i64) = (row.get(0), row.get(1));
                assert_eq!(client.execute(done, &[&tenant, &id]).await.unwrap(), 1);
            }
            client.batch_execute("COMMIT").await.unwrap();
            found.iter().map(|row| row.get(1)).collect()
        };
        if mine.is_empty() {
            return taken;
        }
        taken.extend(mine);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_take_each_job_once() {
    let (_database, proxy) = queue().await;
    let tasks = Tasks::new();
    let mut workers = Vec::new();
    for worker in 0..4 {
        workers.push(tasks.spawn("worker", work(proxy.client().await, worker % 2 == 0)));
    }
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..=240).collect::<Vec<i64>>());
    let left = rows(&proxy.client().await, "SELECT count(*) FROM jobs WHERE status = 'new'").await;
    assert_eq!(left, ["0"]);
}

#[tokio::test]
async fn only_the_rows_that_are_given_stay_locked() {
    let (_database, proxy) = queue().await;
    let (one, other) = (proxy.client().await, proxy.client().await);
    one.batch_execute("BEGIN").await.unwrap();
    let first = "SELECT id FROM jobs ORDER BY id OFFSET 2 LIMIT 3 FOR UPDATE";
    assert_eq!(rows(&one, first).await, ["3", "4", "5"]);
    // Those that OFFSET passes over are locked, as on one PostgreSQL; no other is.
    let free = "SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED";
    let expected: Vec<String> = (6..=240).map(|id| id.to_string()).collect();
    assert_eq!(rows(&other, free).await, expected);
    let next = "SELECT id FROM jobs ORDER BY id LIMIT 2 FOR SHARE SKIP LOCKED";
    assert_eq!(rows(&other, next).await, ["6", "7"]);
    let error = other.batch_execute("SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE NOWAIT");
    assert_eq!(error.await.unwrap_err().code().unwrap().code(), "55P03");
    one.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(rows(&other, next).await, ["1", "2"]);
}

/// Whether a session waits for a lock on any node.
async fn somebody_waits(database: &TestDatabase) -> bool {
    let mut waiting = false;
    for node in 0..3 {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        waiting |= rows(&database.client(node).await, sql).await != ["0"];
    }
    waiting
}

#[tokio::test]
async fn who_waits_for_a_row_gets_it_as_it_is_then() {
    let (database, proxy) = queue().await;
    let (one, other) = (proxy.client().await, proxy.client().await);
    one.batch_execute("BEGIN; UPDATE jobs SET status = 'done' WHERE id = 1").await.unwrap();
    let waits = async {
        let sql = "SELECT id FROM jobs WHERE status = 'new' ORDER BY id LIMIT 2 FOR UPDATE";
        rows(&other, sql).await
    };
    let commits = async {
        let waiting = eventually("somebody waits", Duration::from_secs(20), async || {
            somebody_waits(&database).await.then_some(())
        });
        waiting.await;
        one.batch_execute("COMMIT").await.unwrap();
    };
    let (found, ()) = tokio::join!(waits, commits);
    assert_eq!(found, ["2", "3"]);
}

/// Counts by MERGE, a tenant or all at a time, until it is told to stop: what each counter is then.
async fn count(client: Client, first: i64, stop: Arc<AtomicBool>) -> BTreeMap<i64, i64> {
    let mut model = BTreeMap::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let mine: Vec<i64> =
            (first..first + 10).filter(|id| turn % 3 == 0 || id % 3 == turn % 3).collect();
        let list: Vec<String> = mine.iter().map(|id| format!("({id}::bigint)")).collect();
        let sql = format!(
            "MERGE INTO counters c USING (VALUES {}) s (id) ON c.tenant_id = s.id \
             WHEN MATCHED AND c.n >= 5 THEN DELETE \
             WHEN MATCHED THEN UPDATE SET n = c.n + 1 \
             WHEN NOT MATCHED THEN INSERT (tenant_id, n) VALUES (s.id, 1)",
            list.join(", ")
        );
        let touched = client.execute(&sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(touched, mine.len() as u64);
        for id in mine {
            match model.get_mut(&id) {
                Some(n) if *n >= 5 => {
                    model.remove(&id);
                }
                Some(n) => *n += 1,
                None => {
                    model.insert(id, 1);
                }
            }
        }
        turn += 1;
    }
    assert!(turn > 20, "{turn}");
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_loses_and_doubles_nothing_while_shards_move() {
    let (_database, proxy) = queue().await;
    let (stop, tasks) = (Arc::new(AtomicBool::new(false)), Tasks::new());
    let mut clients = Vec::new();
    for first in [1000, 2000, 3000] {
        let (client, stop) = (proxy.client().await, Arc::clone(&stop));
        clients.push(tasks.spawn("merging", count(client, first, stop)));
    }
    for shard in [0, 3, 5, 0, 2] {
        proxy.move_shard(ShardId(shard)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut expected = BTreeMap::new();
    for client in clients {
        expected.extend(client.await.unwrap());
    }
    let found = rows(&proxy.client().await, "SELECT tenant_id, n FROM counters ORDER BY 1").await;
    let expected: Vec<String> = expected.iter().map(|(id, n)| format!("{id}|{n}")).collect();
    assert_eq!(found, expected);
}
