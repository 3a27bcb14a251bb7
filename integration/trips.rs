//! Reads by key of several sessions share a round trip, and nobody notices: neither by an answer that is
//! another's, nor by an error, a cancel request, a lock or the end of a neighbour.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foreshard::admin::Metrics;
use foreshard::runtime::Tasks;
use futures_util::future::join_all;
use support::{TestDatabase, TestProxy, eventually, rows};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const POLICY: &str = "groups: {g: {key: bigint, shards: 3, tables: {t: id}}}";
const LIMIT: Duration = Duration::from_secs(20);
const ROWS: i64 = 60;
/// Its row is too long to be passed on in one piece.
const LONG: i64 = 13;

/// Reads that came along with another session's, of all proxies of this process.
fn shared_reads() -> u64 {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    let page = METRICS.get_or_init(|| Metrics::install().unwrap()).render();
    let mut values =
        page.lines().filter_map(|line| line.strip_prefix("foreshard_backend_shared_reads_total "));
    values.next().map_or(0, |value| value.parse().unwrap())
}

/// One node with rows, and a proxy.
async fn shop() -> (TestDatabase, TestProxy) {
    shared_reads();
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, POLICY).await;
    let client = proxy.client().await;
    for sql in [
        "CREATE TABLE t (id bigint PRIMARY KEY, note text)".to_owned(),
        format!("INSERT INTO t SELECT i, 'of ' || i FROM generate_series(1, {ROWS}) i"),
        format!("UPDATE t SET note = repeat('x', 100000) WHERE id = {LONG}"),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
    (database, proxy)
}

async fn clients(proxy: &TestProxy, count: usize) -> Vec<Client> {
    join_all((0..count).map(|_| proxy.client())).await
}

/// The row of `id` by the simple protocol, or the code of the error; some of them fail on the node.
async fn read(client: &Client, id: i64) -> Result<String, String> {
    let sql = match id % 10 {
        7 => format!("SELECT id / (id - {id}), note FROM t WHERE id = {id}"),
        _ => format!("SELECT id, note FROM t WHERE id = {id}"),
    };
    let answer = client.simple_query(&sql).await;
    let messages = answer.map_err(|error| {
        error.code().map_or_else(|| "lost".into(), |code| code.code().to_owned())
    })?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(format!("{}: {}", row.get(0)?, row.get(1)?)),
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}

/// What one PostgreSQL says of it.
fn expected(id: i64) -> Result<String, String> {
    match id {
        _ if id % 10 == 7 => Err("22012".to_owned()),
        LONG => Ok(format!("{id}: {}", "x".repeat(100_000))),
        1..=ROWS => Ok(format!("{id}: of {id}")),
        _ => Ok(String::new()),
    }
}

#[tokio::test]
async fn each_gets_its_own_answer_by_the_simple_protocol() {
    let (_database, proxy) = shop().await;
    let (clients, before) = (clients(&proxy, 24).await, shared_reads());
    let reads = clients.iter().zip(0..).map(async |(client, at): (&Client, i64)| {
        for round in 0..150 {
            let id = (at * 31 + round * 7) % (ROWS + 3);
            assert_eq!(read(client, id).await, expected(id), "{id}");
        }
    });
    join_all(reads).await;
    assert!(shared_reads() > before + 100, "{} shared", shared_reads() - before);
}

#[tokio::test]
async fn each_gets_its_own_answer_by_the_extended_protocol() {
    let (_database, proxy) = shop().await;
    let (clients, before) = (clients(&proxy, 24).await, shared_reads());
    let reads = clients.iter().zip(0..).map(async |(client, at): (&Client, i64)| {
        let named = client.prepare("SELECT note, id FROM t WHERE id = $1").await.unwrap();
        let broken = client.prepare("SELECT id / (id - $2) FROM t WHERE id = $1").await.unwrap();
        for round in 0..150 {
            let id = (at * 17 + round * 11) % (ROWS + 3);
            let found = client.query(&named, &[&id]).await.unwrap();
            let found = found
                .iter()
                .map(|row| format!("{}: {}", row.get::<_, i64>(1), row.get::<_, String>(0)));
            let of_id = if id % 10 == 7 { Ok(format!("{id}: of {id}")) } else { expected(id) };
            assert_eq!(Ok(found.collect::<String>()), of_id);
            if (1..=ROWS).contains(&id) {
                let error = client.query(&broken, &[&id, &id]).await.unwrap_err();
                assert_eq!(error.code().unwrap().code(), "22012");
            }
        }
    });
    join_all(reads).await;
    assert!(shared_reads() > before + 100, "{} shared", shared_reads() - before);
}

#[tokio::test]
async fn a_cancel_request_hits_none_of_those_who_share_a_trip_with_its_client() {
    let (database, proxy) = shop().await;
    let (clients, before) = (clients(&proxy, 6).await, shared_reads());
    let node = database.client(0).await;
    let tokens: Vec<_> = clients.iter().map(Client::cancel_token).collect();
    for cancelled in 0..18_usize {
        node.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let reads = join_all(clients.iter().zip(20..26).map(|(client, id)| read(client, id)));
        let (found, ()) = tokio::join!(reads, async {
            // Some are still on their trip then, others wait by themselves already.
            let at = u64::try_from(cancelled).unwrap();
            tokio::time::sleep(Duration::from_millis(at * 2)).await;
            let mut stream = TcpStream::connect(proxy.proxy.address).await.unwrap();
            tokens[cancelled % 6].cancel_query_raw(&mut stream, NoTls).await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "no word comes back");
            node.batch_execute("ROLLBACK").await.unwrap();
        });
        for (at, (found, id)) in found.into_iter().zip(20..26).enumerate() {
            match found {
                Err(code) if at == cancelled % 6 && code == "57014" => {}
                found => assert_eq!(found, expected(id), "{at}, {cancelled} was cancelled"),
            }
        }
    }
    assert!(shared_reads() > before, "none was shared");
}

#[tokio::test]
async fn a_read_that_waits_for_a_lock_holds_up_its_neighbours_for_a_moment_only() {
    let (database, proxy) = shop().await;
    let (node, look) = (database.client(0).await, database.client(0).await);
    let (clients, before) = (clients(&proxy, 6).await, shared_reads());
    // Whether they meet on a trip is up to the scheduler.
    for _ in 0..20 {
        node.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let reads = join_all(clients.iter().zip(20..26).map(|(client, id)| read(client, id)));
        let (found, ()) = tokio::join!(reads, async {
            eventually("all wait by themselves", LIMIT, async || {
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                           AND datname = current_database()";
                (rows(&look, sql).await == ["6"]).then_some(())
            })
            .await;
            node.batch_execute("ROLLBACK").await.unwrap();
        });
        for (found, id) in found.into_iter().zip(20..26) {
            assert_eq!(found, expected(id));
        }
    }
    assert!(shared_reads() > before, "none was shared");
}

#[tokio::test]
async fn a_connection_that_breaks_fails_the_one_whose_turn_it_is_at_the_most() {
    let (database, proxy) = shop().await;
    let (clients, before) = (clients(&proxy, 16).await, shared_reads());
    let node = database.client(0).await;
    let stop = AtomicBool::new(false);
    let reads = join_all(clients.iter().zip(20..36).map(async |(client, id): (&Client, i64)| {
        let mut failed = 0;
        while !stop.load(Ordering::Relaxed) {
            match read(client, id).await {
                Err(code) if ["57P01", "08006"].contains(&code.as_str()) => failed += 1,
                found => assert_eq!(found, expected(id)),
            }
        }
        failed
    }));
    let (failed, killed) = tokio::join!(reads, async {
        let mut killed = 0;
        for _ in 0..60 {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid() \
                       AND query LIKE '%FROM t WHERE%'";
            killed += rows(&node, sql).await[0].parse::<usize>().unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.store(true, Ordering::Relaxed);
        killed
    });
    let failed: usize = failed.into_iter().sum();
    assert!(
        killed > 20 && failed <= killed,
        "{failed} reads failed by {killed} broken connections"
    );
    assert!(shared_reads() > before, "none was shared");
}

#[tokio::test]
async fn clients_that_go_away_take_nobody_with_them() {
    let (_database, proxy) = shop().await;
    let (clients, before) = (clients(&proxy, 12).await, shared_reads());
    let stop = Arc::new(AtomicBool::new(false));
    let leavers = join_all((0..6).map(async |at| {
        while !stop.load(Ordering::Relaxed) {
            let (client, connection) = proxy.config().connect(NoTls).await.unwrap();
            let driver = Tasks::new().spawn("leaver", connection);
            let sql = format!("SELECT note FROM t WHERE id = {LONG}");
            let gone =
                tokio::time::timeout(Duration::from_micros(at * 300), client.simple_query(&sql));
            drop(gone.await);
            driver.abort();
        }
    }));
    let reads = async {
        let readers = clients.iter().zip(20..32).map(async |(client, id): (&Client, i64)| {
            for _ in 0..300 {
                assert_eq!(read(client, id).await, expected(id));
            }
        });
        join_all(readers).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(leavers, reads);
    assert!(shared_reads() > before, "none was shared");
}

#[tokio::test]
async fn what_a_function_has_left_on_a_connection_is_not_shared() {
    let (_database, proxy) = shop().await;
    let clients = clients(&proxy, 12).await;
    // It does not name the table, else the proxy would refuse it.
    let leaves = "CREATE FUNCTION leaves() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
                  EXECUTE format('CREATE TEMP TABLE IF NOT EXISTS %s (id bigint, note text)', chr(116)); \
                  RETURN 1; END $$";
    clients[0].batch_execute(leaves).await.unwrap();
    let (others, done) = (&clients[2..], AtomicBool::new(false));
    let leavers = join_all(clients[..2].iter().map(async |client| {
        while !done.load(Ordering::Relaxed) {
            assert_eq!(rows(client, "SELECT leaves()").await, ["1"]);
            for id in 20..24 {
                // Of the table that its function has made, which stands before the other.
                assert_eq!(read(client, id).await, Ok(String::new()));
            }
        }
    }));
    let reads = async {
        let readers = others.iter().zip(20..).map(async |(client, id): (&Client, i64)| {
            for _ in 0..150 {
                assert_eq!(read(client, id).await, expected(id));
            }
        });
        join_all(readers).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(leavers, reads);
}
