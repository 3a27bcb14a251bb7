//! A session through the proxy behaves as one with the server itself.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use support::{TestDatabase, TestProxy, rows};

/// Everything on the home node.
const NO_POLICY: &str = "";

#[tokio::test]
async fn statements_of_both_protocols_reach_the_home_node() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let client = proxy.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, note text)").await.unwrap();
    let inserted = client
        .execute("INSERT INTO t VALUES ($1, $2), ($3, NULL)", &[&1, &"it's", &2])
        .await
        .unwrap();
    assert_eq!(inserted, 2);
    assert_eq!(rows(&client, "SELECT * FROM t ORDER BY id").await, ["1|it's", "2|∅"]);
    let statement = client.prepare("SELECT note FROM t WHERE id = $1").await.unwrap();
    for _ in 0..3 {
        let row = client.query_one(&statement, &[&1]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "it's");
    }
    let error = client.execute("INSERT INTO t VALUES (1, '')", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    let error = client.prepare("SELECT nothing FROM t").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42703");
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["2"]);
}

#[tokio::test]
async fn a_transaction_block_is_all_or_nothing() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let mut client = proxy.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    let savepoint = transaction.savepoint("s").await.unwrap();
    savepoint.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap_err();
    savepoint.rollback().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (3)", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(rows(&client, "SELECT id FROM t ORDER BY id").await, ["2", "3"]);
    let block = "BEGIN; INSERT INTO t VALUES (4)";
    client.batch_execute(block).await.unwrap();
    let error = client.batch_execute("SELECT nothing").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42703");
    let error = client.batch_execute("SELECT 1").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25P02");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["2"]);
}

#[tokio::test]
async fn where_a_block_can_not_begin_nothing_of_it_runs() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let other = proxy.client().await;
    other.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let client = proxy.client().await;
    for prepared in [false, true] {
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        // It is sent with the first statement for a node, which must not run on its own.
        client.batch_execute("SET TRANSACTION SNAPSHOT 'nonsense'").await.unwrap();
        let error = if prepared {
            client.execute("INSERT INTO t VALUES ($1)", &[&1]).await.unwrap_err()
        } else {
            client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap_err()
        };
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "25000");
        assert!(error.message().contains("invalid snapshot identifier"), "{error}");
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["0"]);
    }
    let settings = "BEGIN; SET LOCAL work_mem = '3MB'; SAVEPOINT s; SET LOCAL work_mem = '5MB'; \
        ROLLBACK TO s";
    for text in settings.split("; ") {
        client.batch_execute(text).await.unwrap();
    }
    assert_eq!(rows(&client, "SHOW work_mem").await, ["3MB"]);
    client.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn settings_follow_a_session_and_leave_others_alone() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let (one, other) = (proxy.client().await, proxy.client().await);
    one.batch_execute("SET statement_timeout = '7s'").await.unwrap();
    one.batch_execute("SET TIME ZONE 'Asia/Tokyo'").await.unwrap();
    for _ in 0..3 {
        assert_eq!(rows(&other, "SHOW statement_timeout").await, ["0"]);
        assert_eq!(rows(&one, "SHOW statement_timeout").await, ["7s"]);
        assert_eq!(rows(&one, "SHOW timezone").await, ["Asia/Tokyo"]);
    }
    one.batch_execute("BEGIN; SET statement_timeout = '9s'").await.unwrap();
    one.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(rows(&one, "SHOW statement_timeout").await, ["7s"]);
    one.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(rows(&one, "SHOW statement_timeout").await, ["0"]);
    one.batch_execute("SET work_mem = '1MB'; DISCARD ALL").await.unwrap_err();
    one.batch_execute("DISCARD ALL").await.unwrap();
    assert_ne!(rows(&one, "SHOW work_mem").await, ["1MB"]);
}

#[tokio::test]
async fn a_temporary_table_stays_with_its_session() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let (one, other) = (proxy.client().await, proxy.client().await);
    one.batch_execute("CREATE TEMP TABLE scratch (id int)").await.unwrap();
    for _ in 0..3 {
        one.batch_execute("INSERT INTO scratch VALUES (1)").await.unwrap();
        other.batch_execute("SELECT * FROM scratch").await.unwrap_err();
    }
    assert_eq!(rows(&one, "SELECT count(*) FROM scratch").await, ["3"]);
}

#[tokio::test]
async fn copy_passes_in_both_directions() {
    use futures_util::{SinkExt, StreamExt};
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let client = proxy.client().await;
    client.batch_execute("CREATE TABLE t (id int, note text)").await.unwrap();
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    let mut sink = Box::pin(sink);
    for id in 0..20_000 {
        sink.send(bytes::Bytes::from(format!("{id}\tnote {id}\n"))).await.unwrap();
    }
    assert_eq!(sink.as_mut().finish().await.unwrap(), 20_000);
    let mut lines = 0;
    let mut stream = Box::pin(client.copy_out("COPY t TO STDOUT").await.unwrap());
    while let Some(chunk) = stream.next().await {
        lines += chunk.unwrap().split(|byte| *byte == b'\n').count() - 1;
    }
    assert_eq!(lines, 20_000);
    assert_eq!(rows(&client, "SELECT sum(id) FROM t").await, ["199990000"]);
}

#[tokio::test]
async fn a_large_result_passes_whole() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let client = proxy.client().await;
    let sql = "SELECT repeat('x', 1000000), g FROM generate_series(1, 20) g";
    let wide = client.query(sql, &[]).await.unwrap();
    assert_eq!(wide.len(), 20);
    assert!(wide.iter().all(|row| row.get::<_, &str>(0).len() == 1_000_000));
    let many = client.query("SELECT g FROM generate_series(1, 300000) g", &[]).await.unwrap();
    assert_eq!(many.len(), 300_000);
}

#[tokio::test]
async fn a_cancel_request_reaches_the_running_statement() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let client = proxy.client().await;
    let cancel = client.cancel_token();
    let (slept, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), async {
        let probe = proxy.client().await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        let limit = std::time::Duration::from_secs(10);
        let asleep = || async { (rows(&probe, running).await == ["1"]).then_some(()) };
        support::eventually("the statement runs", limit, asleep).await;
        cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    let error = slept.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn a_search_path_set_last_in_a_text_holds_for_the_texts_after_it() {
    let database = TestDatabase::create(2).await;
    let policy = "groups: {g: {key: bigint, shards: 4, tables: {t: id}}}";
    let proxy = TestProxy::start(&database, policy).await;
    let client = proxy.client().await;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await.unwrap();
    client.batch_execute("CREATE SCHEMA elsewhere").await.unwrap();
    let home = database.client(0).await;
    home.batch_execute("CREATE TABLE elsewhere.t AS SELECT 'there'").await.unwrap();
    client.batch_execute("SELECT 1; SET search_path = elsewhere").await.unwrap();
    assert_eq!(rows(&client, "SELECT * FROM t").await, ["there"]);
    client.batch_execute("SELECT 1; RESET ALL").await.unwrap();
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["0"]);
    let both = "SET search_path = elsewhere; SELECT * FROM t";
    assert_eq!(rows(&client, both).await, ["there"]);
    assert_eq!(rows(&client, "SELECT * FROM t").await, ["there"]);
}

/// How a database's sessions begin on a node.
const SETTINGS: &str = "SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d \
     ON d.oid = s.setdatabase WHERE datname = current_database() ORDER BY 1";

#[tokio::test]
async fn defaults_are_those_of_the_home_node() {
    let database = TestDatabase::create(2).await;
    let policy = "groups: { g: { key: bigint, shards: 4, tables: { stamps: id } } }";
    let proxy = TestProxy::start(&database, policy).await;
    let client = proxy.client().await;
    let table = "CREATE TABLE stamps (id bigint PRIMARY KEY, at timestamptz, took interval)";
    client.batch_execute(table).await.unwrap();
    let other = database.client(1).await;
    for setting in ["timezone = 'Asia/Tokyo'", "datestyle = 'SQL, DMY'", "intervalstyle = iso_8601"]
    {
        let sql = format!("ALTER DATABASE \"{}\" SET {setting}", database.name);
        other.batch_execute(&sql).await.unwrap();
    }
    // As a session that finds no connection to the other node yet.
    let proxy = proxy.restart().await;
    let client = proxy.client().await;
    let insert = "INSERT INTO stamps SELECT i, '2024-03-01 12:00', '26 hours' \
         FROM generate_series(1, 20) i";
    client.batch_execute(insert).await.unwrap();
    assert!(rows(&other, "SELECT count(*)::text FROM stamps").await[0] != "0");
    let all = "SELECT at::text || ' ' || took FROM stamps";
    let mut shown = rows(&client, all).await;
    assert_eq!(shown.len(), 20);
    shown.dedup();
    let home = database.client(0).await;
    let at_home = "SELECT '2024-03-01 12:00'::timestamptz::text || ' ' || interval '26 hours'";
    assert_eq!(shown, rows(&home, at_home).await);
    let one = format!("ALTER DATABASE \"{}\" SET timezone = 'Asia/Kabul'", database.name);
    client.batch_execute(&one).await.unwrap();
    assert_eq!(rows(&home, SETTINGS).await, ["TimeZone=Asia/Kabul"]);
    assert!(rows(&other, SETTINGS).await.contains(&"TimeZone=Asia/Kabul".to_owned()));
    let elsewhere = "ALTER DATABASE template1 SET work_mem = '5MB'";
    client.batch_execute(elsewhere).await.unwrap();
    client.batch_execute("ALTER DATABASE template1 RESET work_mem").await.unwrap();
}
