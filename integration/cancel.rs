//! A cancel request reaches every connection at work for its client, and no other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::cell::Cell;
use std::time::Duration;

use foreshard::backend::Config;
use support::{TestDatabase, TestProxy, eventually, rows};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, NoTls};

const LIMIT: Duration = Duration::from_secs(20);

/// How many connections of this database wait for something in the way of `wait` on a node.
async fn waiting(client: &Client, wait: &str) -> String {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {wait}"
    );
    rows(client, &sql).await.remove(0)
}

/// Asks for a cancel as libpq does, which waits until the server closes: the request is carried out by
/// then, and hits no later statement. The driver's own `cancel_query` does not wait.
async fn cancel(token: &CancelToken, proxy: &TestProxy) {
    let mut stream = TcpStream::connect(proxy.proxy.address).await.unwrap();
    token.cancel_query_raw(&mut stream, NoTls).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "no word comes back");
}

#[tokio::test]
async fn of_several_clients_only_the_one_that_asked_is_cancelled() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, "").await;
    let node = database.client(0).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(proxy.client().await);
    }
    let tokens: Vec<_> = clients.iter().map(Client::cancel_token).collect();
    let asleep = "wait_event = 'PgSleep'";
    let sleeps = clients.iter().map(|client| client.batch_execute("SELECT pg_sleep(8)"));
    let (slept, ()) = tokio::join!(futures_util::future::join_all(sleeps), async {
        eventually("all sleep", LIMIT, || async {
            (waiting(&node, asleep).await == "6").then_some(())
        })
        .await;
        for token in [&tokens[1], &tokens[4]] {
            cancel(token, &proxy).await;
        }
        eventually("two woke", LIMIT, || async {
            (waiting(&node, asleep).await == "4").then_some(())
        })
        .await;
    });
    for (index, slept) in slept.iter().enumerate() {
        let code = slept.as_ref().err().and_then(|error| Some(error.code()?.code()));
        assert_eq!(code, [1, 4].contains(&index).then_some("57014"), "client {index}");
    }
    // Nobody is hit by a request that comes late, or for a client that rests.
    for token in &tokens {
        cancel(token, &proxy).await;
    }
    for client in &clients {
        for _ in 0..20 {
            assert_eq!(rows(client, "SELECT 1").await, ["1"]);
        }
    }
}

#[tokio::test]
async fn a_cancel_reaches_all_nodes_of_a_statement_over_several() {
    let database = TestDatabase::create(2).await;
    let policy = "groups: {g: {key: bigint, shards: 4, tables: {t: id}}}";
    let proxy = TestProxy::start(&database, policy).await;
    let client = proxy.client().await;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await.unwrap();
    client.batch_execute("INSERT INTO t SELECT 1, 'x'").await.ok();
    let nodes = [database.client(0).await, database.client(1).await];
    for node in &nodes {
        node.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.unwrap();
    }
    let blocked = "wait_event_type = 'Lock'";
    let token = client.cancel_token();
    let (read, ()) = tokio::join!(client.batch_execute("SELECT * FROM t"), async {
        for node in &nodes {
            eventually("it waits on each node", LIMIT, || async {
                (waiting(node, blocked).await == "1").then_some(())
            })
            .await;
        }
        cancel(&token, &proxy).await;
    });
    assert_eq!(read.unwrap_err().code().unwrap().code(), "57014");
    for node in &nodes {
        eventually("nothing is left waiting", LIMIT, || async {
            (waiting(node, blocked).await == "0").then_some(())
        })
        .await;
        node.batch_execute("ROLLBACK").await.unwrap();
    }
    for _ in 0..20 {
        client.batch_execute("SELECT * FROM t").await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_key_cancels_nothing() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, "").await;
    let client = proxy.client().await;
    let slept = tokio::join!(client.batch_execute("SELECT pg_sleep(1)"), async {
        for secret in 0..50 {
            let key = foreshard::wire::CancelKey { pid: 1, secret };
            let mut stream = TcpStream::connect(proxy.proxy.address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &key.packet()).await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "it is closed without a word");
        }
    });
    slept.0.unwrap();
}

/// Does `work` while requests come to cancel what the client does, one behind the other with a pause.
/// None is under way afterwards.
async fn under_requests<T>(
    (client, proxy): (&Client, &TestProxy),
    pause: Duration,
    work: impl Future<Output = T>,
) -> T {
    let (token, at_work) = (client.cancel_token(), Cell::new(true));
    let requests = async {
        while at_work.get() {
            cancel(&token, proxy).await;
            tokio::time::sleep(pause).await;
        }
    };
    let work = async {
        let done = work.await;
        at_work.set(false);
        done
    };
    tokio::join!(work, requests).0
}

#[tokio::test]
async fn who_waits_for_a_connection_is_cancelled() {
    let database = TestDatabase::create(1).await;
    let config = Config { pool_size: 1, ..Config::default() };
    let proxy = TestProxy::start_pooling(&database, "", config).await;
    // Two workers have one connection each.
    let holders = [proxy.client().await, proxy.client().await];
    let client = proxy.client().await;
    for holder in &holders {
        holder.batch_execute("BEGIN; SELECT 1").await.unwrap();
    }
    let asked = timeout(LIMIT / 4, client.batch_execute("SELECT 1"));
    let error =
        under_requests((&client, &proxy), Duration::ZERO, asked).await.unwrap().unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014", "{error:?}");
    drop(holders);
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
}

/// Runs statements that change settings, which are read after each of them; each runs, or is cancelled.
async fn settings_are_kept(client: &Client) {
    for round in 0..60 {
        let sql = format!("SET work_mem = '{}kB'", 1_025 + round);
        let was_set = client.batch_execute(&sql).await;
        let shown = client.query_one("SHOW work_mem", &[]).await;
        for error in [was_set.as_ref().err(), shown.as_ref().err()].into_iter().flatten() {
            assert_eq!(error.code().map(SqlState::code), Some("57014"), "{round}: {error:?}");
        }
        if let (Ok(()), Ok(shown)) = (was_set, shown) {
            assert_eq!(shown.get::<_, String>(0), format!("{}kB", 1_025 + round));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_ends_by_cancel_requests_at_any_time() {
    let database = TestDatabase::create(2).await;
    let policy = "groups: {g: {key: bigint, shards: 4, tables: {t: id}}}";
    let proxy = TestProxy::start(&database, policy).await;
    let client = proxy.client().await;
    under_requests((&client, &proxy), Duration::ZERO, settings_are_kept(&client)).await;
}

#[tokio::test]
async fn a_very_short_statement_timeout_ends_no_session() {
    let database = TestDatabase::create(2).await;
    let policy = "groups: {g: {key: bigint, shards: 4, tables: {t: id}}}";
    let proxy = TestProxy::start(&database, policy).await;
    let client = proxy.client().await;
    client.batch_execute("SET statement_timeout = 1").await.unwrap();
    settings_are_kept(&client).await;
    client.batch_execute("RESET statement_timeout").await.ok();
    assert_eq!(proxy.client().await.batch_execute("SELECT 1").await.ok(), Some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_at_any_time_lose_and_double_no_write() {
    const POLICY: &str = "groups: {g: {key: bigint, shards: 6, tables: {t: id}}}";
    let setup = [
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL)",
        "INSERT INTO t SELECT i, 0 FROM generate_series(1, 24) i",
    ];
    let (_database, proxy, client) = TestProxy::over_three(POLICY, &setup).await;
    let (mut done, mut cancelled) = (0, 0);
    let work = async {
        for round in 0..150_i64 {
            // All of a text is one transaction; a block is, too.
            let add = "UPDATE t SET n = n + 1";
            let one = format!("{add} WHERE id = {}", round % 24 + 1);
            let back = format!("UPDATE t SET n = n - 1 WHERE id = {}", round % 24 + 1);
            let text = match round % 3 {
                0 => add.to_owned(),
                1 => format!("BEGIN; {add}; {one}; {back}; COMMIT"),
                _ => format!("{one}; {add}; {back}"),
            };
            let Err(error) = client.batch_execute(&text).await else {
                done += 1;
                continue;
            };
            assert_eq!(error.code().map(SqlState::code), Some("57014"), "{text}: {error:?}");
            cancelled += 1;
            while client.batch_execute("ROLLBACK").await.is_err() {}
        }
    };
    under_requests((&client, &proxy), Duration::from_millis(4), work).await;
    let found = rows(&proxy.client().await, "SELECT DISTINCT n FROM t").await;
    assert_eq!(found, [done.to_string()], "{cancelled} were cancelled");
    assert!(done > 0 && cancelled > 0, "{done} done, {cancelled} cancelled");
}
