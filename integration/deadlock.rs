//! Transactions that wait for each other on different nodes: one of them gets 40P01, as on one
//! PostgreSQL, and whoever only waits long goes on waiting.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use support::{TestDatabase, TestProxy, eventually, rows};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Error};

const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 6
    tables:
      accounts: id
placement: { mode: 'off' }
";

/// Nobody waits longer: a circle is found in a second or two.
const DEADLINE: Duration = Duration::from_secs(30);

async fn shop() -> (TestDatabase, TestProxy, Client) {
    let setup = [
        "CREATE TABLE accounts (id bigint PRIMARY KEY, balance int NOT NULL)",
        "INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 60) i",
    ];
    TestProxy::over_three(POLICY, &setup).await
}

/// Two accounts on different nodes.
async fn two_nodes(client: &Client) -> (i64, i64) {
    let node = async |id: i64| {
        let sql = format!("SELECT pg_catalog.inet_server_port() FROM accounts WHERE id = {id}");
        rows(client, &sql).await
    };
    let first = node(1).await;
    for other in 2..60 {
        if node(other).await != first {
            return (1, other);
        }
    }
    unreachable!("60 accounts are on more than one node");
}

fn code(error: &Error) -> &str {
    error.code().map_or("", |code| code.code())
}

#[tokio::test]
async fn one_of_two_transactions_that_wait_for_each_other_gets_40p01() {
    let (_database, proxy, _client) = shop().await;
    let (one, two) = (proxy.client().await, proxy.client().await);
    let (a, b) = two_nodes(&one).await;
    for _ in 0..2 {
        let add = |id: i64| format!("UPDATE accounts SET balance = balance + 1 WHERE id = {id}");
        one.batch_execute("BEGIN").await.unwrap();
        two.batch_execute("BEGIN").await.unwrap();
        one.batch_execute(&add(a)).await.unwrap();
        two.batch_execute(&add(b)).await.unwrap();
        let finish = async |client: &Client, id: i64| {
            let done = client.batch_execute(&add(id)).await;
            let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
            client.batch_execute(end).await.unwrap();
            done
        };
        let both = async { tokio::join!(finish(&one, b), finish(&two, a)) };
        let (first, second) = timeout(DEADLINE, both).await.unwrap();
        let failed: Vec<_> =
            [&first, &second].into_iter().filter_map(|it| it.as_ref().err()).collect();
        let [error] = failed.as_slice() else { panic!("{first:?} {second:?}") };
        let told = error.as_db_error().unwrap();
        assert_eq!((code(error), told.message()), ("40P01", "deadlock detected"));
        assert!(told.detail().unwrap().contains("waits for client"), "{told:?}");
        assert_eq!(told.hint(), Some("Repeat the transaction."));
    }
    // Each time one of the two has added to both.
    assert_eq!(rows(&one, "SELECT sum(balance), max(balance) FROM accounts").await, ["4|2"]);
}

#[tokio::test]
async fn statements_over_all_nodes_that_meet_end_one_way_or_the_other() {
    let (_database, proxy, _client) = shop().await;
    let (a, b) = two_nodes(&proxy.client().await).await;
    // Each holds a row of one node first, then wants all rows of all nodes.
    let worker = async |first: i64| {
        let client = proxy.client().await;
        let mut done = 0;
        for round in 0..3 {
            let lock = format!("SELECT FROM accounts WHERE id = {first} FOR UPDATE");
            client.batch_execute("BEGIN").await.unwrap();
            let ran = match client.batch_execute(&lock).await {
                Ok(()) => client.batch_execute("UPDATE accounts SET balance = balance + 1").await,
                error => error,
            };
            match ran {
                Ok(()) => {
                    client.batch_execute("COMMIT").await.unwrap();
                    done += 1;
                }
                Err(error) => {
                    assert_eq!(code(&error), "40P01", "round {round}: {error:?}");
                    client.batch_execute("ROLLBACK").await.unwrap();
                }
            }
        }
        done
    };
    let all = join_all([worker(a), worker(b), worker(a), worker(b)]);
    let done: i64 = timeout(4 * DEADLINE, all).await.unwrap().into_iter().sum();
    assert!(done > 0, "nobody ever came through");
    let client = proxy.client().await;
    let sums = rows(&client, "SELECT min(balance), max(balance) FROM accounts").await;
    assert_eq!(sums, [format!("{done}|{done}")]);
}

#[tokio::test]
async fn who_only_waits_long_is_left_alone() {
    let (_database, proxy, _client) = shop().await;
    let clients = [proxy.client().await, proxy.client().await, proxy.client().await];
    let (a, b) = two_nodes(&clients[0]).await;
    for client in &clients {
        client.batch_execute("BEGIN").await.unwrap();
    }
    let lock = |id: i64| format!("SELECT FROM accounts WHERE id = {id} FOR UPDATE");
    clients[0].batch_execute(&lock(a)).await.unwrap();
    clients[0].batch_execute(&lock(b)).await.unwrap();
    // Both hold something on each node and wait for the first, one behind the other.
    let wait = async |client: &Client| {
        let others = format!("SELECT FROM accounts WHERE id IN ({}, {})", a + 100, b + 100);
        client.batch_execute(&others).await.unwrap();
        client.batch_execute(&lock(a)).await.unwrap();
        client.batch_execute(&lock(b)).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
    };
    let started = Instant::now();
    let first = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        clients[0].batch_execute("COMMIT").await.unwrap();
    };
    let all = async { tokio::join!(wait(&clients[1]), wait(&clients[2]), first) };
    timeout(DEADLINE, all).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_waits_for_one_at_a_partition_is_cancelled_and_disturbs_nobody() {
    let (database, proxy, client) = shop().await;
    let writer = proxy.client().await;
    let add = writer.prepare("UPDATE accounts SET balance = balance + 1 WHERE id = $1").await;
    let add = add.unwrap();
    let held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
                WHERE c.relname = 'accounts' AND l.mode = 'RowExclusiveLock' \
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("it goes to the partition", DEADLINE, || async {
        for _ in 0..20 {
            writer.execute(&add, &[&1_i64]).await.unwrap();
        }
        writer.batch_execute("BEGIN").await.unwrap();
        writer.execute(&add, &[&1_i64]).await.unwrap();
        let mut parents = 0;
        for node in 0..3 {
            let found = rows(&database.client(node).await, held).await;
            parents += found[0].parse::<usize>().unwrap();
        }
        if parents > 0 {
            writer.batch_execute("ROLLBACK").await.unwrap();
        }
        (parents == 0).then_some(())
    })
    .await;
    let token = client.cancel_token();
    let define = "ALTER TABLE accounts ADD COLUMN extra int";
    let (defined, ()) = tokio::join!(timeout(DEADLINE, client.batch_execute(define)), async {
        let other = proxy.client().await;
        // Others go on, by the parent.
        let prepared = other.prepare("SELECT balance FROM accounts WHERE id = $1").await.unwrap();
        for id in 1..40_i64 {
            other.query_one(&prepared, &[&id]).await.unwrap();
        }
        writer.batch_execute("SELECT max(balance) FROM accounts").await.unwrap();
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    assert_eq!(code(&defined.unwrap().unwrap_err()), "57014");
    // It waits no longer than its client wants to.
    for (setting, expected) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        client.batch_execute(&format!("SET {setting} = 300")).await.unwrap();
        let defined = timeout(Duration::from_secs(15), client.batch_execute(define)).await;
        let error = defined.unwrap().unwrap_err();
        assert_eq!(code(&error), expected, "{error:?}");
        client.batch_execute(&format!("RESET {setting}")).await.unwrap();
    }
    let (defined, ()) = tokio::join!(timeout(DEADLINE, client.batch_execute(define)), async {
        writer.batch_execute("SELECT max(balance) FROM accounts").await.unwrap();
        writer.batch_execute("COMMIT").await.unwrap();
    });
    defined.unwrap().unwrap();
    assert_eq!(rows(&client, "SELECT count(extra) FROM accounts").await, ["0"]);
}

/// Writes one account after the other by a prepared statement, which goes to the leaf partition, alone
/// and in blocks where a statement follows that goes by the parent; up to `stop`, or its first error.
async fn write(client: Client, first: i64, (written, stop): (Arc<AtomicU64>, Arc<AtomicU64>)) {
    let sql = "UPDATE accounts SET balance = balance + 1 WHERE id = $1";
    let add = client.prepare(sql).await.unwrap();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) > 0 {
            return;
        }
        let id = (first + round) % 60 + 1;
        client.execute(&add, &[&id]).await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        client.execute(&add, &[&id]).await.unwrap();
        let sql = format!("SELECT max(balance) FROM accounts WHERE id = {id}");
        client.batch_execute(&sql).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        written.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the test waits for its writers")]
async fn definitions_beside_prepared_writers_end_in_no_deadlock() {
    let (_database, proxy, client) = shop().await;
    let (written, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut writers = Vec::new();
    for first in [0, 7, 21, 40] {
        let marks = (Arc::clone(&written), Arc::clone(&stop));
        writers.push(tokio::spawn(write(proxy.client().await, first, marks)));
    }
    for round in 0..8 {
        for sql in [
            "ALTER TABLE accounts ADD COLUMN extra int DEFAULT 1",
            "ALTER TABLE accounts ADD CONSTRAINT solvent CHECK (balance >= 0)",
            "CREATE INDEX by_extra ON accounts (extra)",
            "LOCK TABLE accounts IN SHARE ROW EXCLUSIVE MODE",
            "CREATE TRIGGER same BEFORE UPDATE ON accounts FOR EACH ROW \
             EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "DROP TRIGGER same ON accounts",
            "DROP INDEX by_extra",
            "ALTER TABLE accounts DROP CONSTRAINT solvent",
            "ALTER TABLE accounts DROP COLUMN extra",
        ] {
            let before = written.load(Ordering::Relaxed);
            eventually("they write", DEADLINE, || async {
                let ended = writers.iter().any(tokio::task::JoinHandle::is_finished);
                (ended || written.load(Ordering::Relaxed) > before + 60).then_some(())
            })
            .await;
            let sql = if sql.starts_with("LOCK") {
                format!("BEGIN; {sql}; COMMIT")
            } else {
                sql.to_owned()
            };
            let defined = timeout(DEADLINE, client.batch_execute(&sql)).await.unwrap();
            defined.unwrap_or_else(|error| panic!("round {round}, {sql}: {error:?}"));
        }
    }
    stop.store(1, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}
