//! The same messages give the same bytes through the proxy as from the server itself.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "protocol/extended.rs"]
mod extended;
mod protocol_support;
mod support;
#[path = "protocol/over_nodes.rs"]
mod over_nodes;
#[path = "protocol/whole.rs"]
mod whole;

use protocol_support::*;
use support::{TestDatabase, TestProxy};

/// Everything on the home node.
const NO_POLICY: &str = "";
/// Every test's messages find these.
const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, note text);\
    INSERT INTO t SELECT g, 'note ' || g FROM generate_series(1, 10) g;";

/// A test's script: what is sent at once, and how many ReadyForQuery end the answer.
type Script = Vec<(Vec<Vec<u8>>, usize)>;

/// Runs a script against a node and, with a database of the same content, through a proxy.
async fn same(script: Script) {
    let (direct, proxied) = (database().await, database().await);
    let proxy = TestProxy::start(&proxied, NO_POLICY).await;
    compare(&direct, (&proxied, &proxy), script).await;
}

/// The same, with the table sharded over two nodes behind the proxy.
async fn same_over_two_nodes(script: Script) {
    let (direct, proxied) = (database().await, TestDatabase::create(2).await);
    let policy = "groups: {g: {key: integer, shards: 8, tables: {t: id}}}";
    let proxy = TestProxy::start(&proxied, policy).await;
    let client = proxy.client().await;
    for sql in SCHEMA.split_inclusive(';') {
        client.batch_execute(sql).await.unwrap();
    }
    drop(client);
    compare(&direct, (&proxied, &proxy), script).await;
}

async fn compare(
    direct: &TestDatabase,
    (proxied, proxy): (&TestDatabase, &TestProxy),
    script: Script,
) {
    let expected = answers_of(&direct.nodes[0], &direct.name, &script).await;
    let mut address = direct.nodes[0].clone();
    address.port = proxy.proxy.address.port();
    let answers = answers_of(&address, &proxied.name, &script).await;
    for (step, (expected, answer)) in expected.iter().zip(&answers).enumerate() {
        let shown = |(one, other): (&String, &String)| {
            if other.contains("\\x00F") { one.clone() } else { without_source(one) }
        };
        let expected = if expected.len() == answer.len() {
            &expected.iter().zip(answer).map(shown).collect()
        } else {
            expected
        };
        assert_eq!(expected, answer, "left: the server, right: the proxy; step {step}");
    }
}

async fn database() -> TestDatabase {
    let database = TestDatabase::create(1).await;
    database.client(0).await.batch_execute(SCHEMA).await.unwrap();
    database
}

/// One step of each text, as a `Query`.
fn queries(texts: &[&str]) -> Script {
    texts.iter().map(|sql| (vec![query(sql)], 1)).collect()
}

#[tokio::test]
async fn a_greeting_reports_the_same_settings() {
    let database = database().await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let parameters = [
        ("application_name", "it's me"),
        ("options", "-c DateStyle=German -c search_path=x\\ y"),
        ("TimeZone", "Asia/Tokyo"),
        ("client_encoding", "LATIN1"),
    ];
    for parameters in [&parameters[..], &[]] {
        let direct = RawClient::connect(database.nodes[0].port, &database.name, parameters).await;
        let port = proxy.proxy.address.port();
        let proxied = RawClient::connect(port, &database.name, parameters).await;
        assert_eq!(direct.greeting, proxied.greeting);
    }
}

#[tokio::test]
async fn a_login_with_a_wrong_setting_or_database_fails_in_the_same_way() {
    let database = database().await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let port = proxy.proxy.address.port();
    for (name, parameters) in [
        ("no_such_database", vec![]),
        (database.name.as_str(), vec![("no_such_setting", "1")]),
        (database.name.as_str(), vec![("work_mem", "many")]),
    ] {
        let direct = RawClient::connect(database.nodes[0].port, name, &parameters).await.greeting;
        let proxied = RawClient::connect(port, name, &parameters).await.greeting;
        let code = |answers: &[String]| {
            let error = answers.iter().find(|answer| answer.starts_with('E')).cloned();
            error.map(|error| error.split("\\x00").take(4).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(code(&direct), code(&proxied), "{direct:?} {proxied:?}");
    }
}

#[tokio::test]
async fn simple_texts_of_several_statements_are_one_transaction() {
    same(queries(&[
        "SELECT 1; SELECT 'a' AS x, NULL; ",
        "INSERT INTO t VALUES (11, 'x'); SELECT count(*) FROM t; SELECT 1/0; SELECT 2",
        "SELECT count(*) FROM t",
        "INSERT INTO t VALUES (12, 'x'); COMMIT; INSERT INTO t VALUES (13, 'x'); SELECT 1/0",
        "SELECT count(*) FROM t",
        "BEGIN; INSERT INTO t VALUES (14, 'x')",
        "SELECT count(*) FROM t; SELECT nothing",
        "SELECT 1",
        "ROLLBACK; SELECT count(*) FROM t",
        "",
        " ; ; ",
        "-- only a comment",
        "SELEC 1",
        "SELECT 1; SELEC 1",
        "SELECT $1",
        "BEGIN; BEGIN; COMMIT; COMMIT",
        "DO $$ BEGIN RAISE NOTICE 'seen %', 1; RAISE WARNING USING MESSAGE = 'w', HINT = 'h'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'm', DETAIL = 'd', HINT = 'h', \
         ERRCODE = 'AB123', COLUMN = 'c', CONSTRAINT = 'k', TABLE = 't', SCHEMA = 's'; END $$",
        "INSERT INTO t VALUES (1, 'twice')",
    ]))
    .await;
}

#[tokio::test]
async fn transaction_blocks_savepoints_and_their_errors() {
    same(queries(&[
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE s",
        "ROLLBACK TO s",
        "BEGIN",
        "BEGIN",
        "SAVEPOINT s",
        "INSERT INTO t VALUES (1, 'twice')",
        "SELECT 1",
        "COMMIT AND CHAIN",
        "SELECT 1",
        "ROLLBACK",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY",
        "SHOW transaction_isolation",
        "INSERT INTO t VALUES (20, 'x')",
        "ROLLBACK TO SAVEPOINT none",
        "SAVEPOINT s",
        "COMMIT",
        "START TRANSACTION",
        "INSERT INTO t VALUES (21, 'x')",
        "SAVEPOINT s",
        "SELECT 1/0",
        "ROLLBACK TO s",
        "SELECT count(*) FROM t",
        "RELEASE s",
        "RELEASE s",
        "END",
        "SELECT count(*) FROM t",
        "BEGIN",
        "COMMIT",
        "BEGIN",
        "ROLLBACK AND CHAIN",
        "COMMIT AND CHAIN",
        "COMMIT",
        "COMMIT AND CHAIN",
        "ABORT",
        "BEGIN; SELECT 1; COMMIT AND CHAIN",
        "SELECT 2",
        "COMMIT",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET LOCAL work_mem = '1MB'",
        "SET CONSTRAINTS ALL DEFERRED",
        "LOCK TABLE t",
        "DECLARE c CURSOR FOR SELECT 1",
    ]))
    .await;
}

#[tokio::test]
async fn settings_are_reported_and_rolled_back_as_by_a_server() {
    same(queries(&[
        "SET DateStyle = 'German'",
        "SHOW DateStyle",
        "SET TIME ZONE 'Asia/Tokyo'",
        "BEGIN",
        "SET application_name = 'x'",
        "SHOW application_name",
        "ROLLBACK",
        "SHOW application_name",
        "BEGIN; SET IntervalStyle = iso_8601; SAVEPOINT a; SET IntervalStyle = sql_standard",
        "ROLLBACK TO a",
        "SHOW IntervalStyle",
        "COMMIT",
        "SHOW IntervalStyle",
        "BEGIN; SET LOCAL DateStyle = 'ISO, MDY'",
        "SELECT '2020-02-01'::date",
        "COMMIT",
        "SELECT '2020-02-01'::date",
        "RESET ALL",
        "SELECT '2020-02-01'::date",
        "SET standard_conforming_strings = off",
        "SELECT 'a\\'b', '--'",
        "SELECT 'it\\'s; BEGIN'",
        "RESET standard_conforming_strings",
        "SET custom.x = 'y'",
        "SHOW custom.x",
        "SELECT set_config('custom.y', 'z', false), set_config('search_path', 'pg_catalog', false)",
        "SELECT current_setting('custom.y'), current_schemas(true)",
        "SELECT * FROM t",
        "RESET search_path",
        "SELECT count(*) FROM t",
        "SET client_encoding = LATIN1",
        "SHOW client_encoding",
        "RESET client_encoding",
        "SET no_such_setting = 1",
        "SET work_mem TO DEFAULT",
        "SET search_path TO DEFAULT",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "INSERT INTO t VALUES (30, 'x')",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "DISCARD ALL",
        "BEGIN; DISCARD ALL",
        "ROLLBACK",
        "BEGIN",
        "DISCARD ALL",
        "ROLLBACK",
        "SHOW DateStyle",
    ]))
    .await;
}

#[tokio::test]
async fn settings_are_reported_at_the_end_of_all_that_was_sent() {
    let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)];
    let several = |texts: &[&str]| -> Vec<_> {
        texts.iter().flat_map(|text| one(text)).chain([sync()]).collect()
    };
    let mut script = queries(&[
        "SELECT note FROM t WHERE id = 1; SET DateStyle = 'German'; SELECT note FROM t WHERE id = 2; \
         SET TIME ZONE 'Asia/Tokyo'; SELECT note FROM t WHERE id = 3; SELECT count(*) FROM t",
        "SET IntervalStyle = iso_8601; SELECT count(*) FROM t; SET IntervalStyle = sql_standard; \
         SELECT note FROM t WHERE id = 4; SELECT note FROM t WHERE id = 5",
        "SET IntervalStyle = postgres; SELECT count(*) FROM t; RESET DateStyle; \
         SET IntervalStyle = sql_standard; SELECT count(*) FROM t",
        "SET IntervalStyle = iso_8601; SELECT count(*) FROM t; SELECT note FROM t WHERE id = 1 / 0",
        "SHOW IntervalStyle",
        "BEGIN; SET application_name = 'a'; SELECT count(*) FROM t; SET LOCAL TIME ZONE 'UTC'",
        "SELECT count(*) FROM t; SET application_name = 'b'; SELECT note FROM t WHERE id = 6; COMMIT",
        "RESET ALL",
    ]);
    let pipeline = several(&[
        "SELECT note FROM t WHERE id = 1",
        "SET DateStyle = 'SQL, DMY'",
        "SELECT note FROM t WHERE id = 1",
        "SET TIME ZONE 'Asia/Tokyo'",
        "SHOW TIME ZONE",
    ]);
    // Over several nodes, SET in a pipeline needs a block.
    script.push((vec![query("BEGIN")], 1));
    script.push((pipeline, 1));
    script.push((vec![query("COMMIT")], 1));
    script.push((vec![query("BEGIN")], 1));
    script.push((several(&["SET DateStyle = 'German'", "SELECT 1 / 0"]), 1));
    script.push((vec![query("ROLLBACK")], 1));
    script.push((vec![query("SHOW DateStyle")], 1));
    same_over_two_nodes(script).await;
}

#[tokio::test]
async fn state_of_a_session_is_there_in_its_next_transaction() {
    same(queries(&[
        "CREATE TEMP TABLE s (id serial, x int)",
        "INSERT INTO s (x) VALUES (7)",
        "SELECT currval('s_id_seq'), lastval(), * FROM s",
        "DROP TABLE s",
        "PREPARE p (int) AS SELECT $1 + 1",
        "EXECUTE p(4)",
        "DEALLOCATE p",
        "EXECUTE p(4)",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id; COMMIT",
        "FETCH 2 FROM c",
        "MOVE 1 FROM c",
        "FETCH 1 FROM c",
        "CLOSE c",
        "FETCH 1 FROM c",
        "SELECT pg_advisory_lock(77)",
        "SELECT pg_advisory_unlock(77)",
        "SELECT pg_advisory_unlock(77)",
        "LISTEN ch",
        "NOTIFY ch, 'hello'",
        "UNLISTEN *",
        "NOTIFY ch",
        "CREATE SEQUENCE q",
        "SELECT nextval('q'), nextval('q')",
        "SELECT currval('q'), lastval()",
        "DISCARD SEQUENCES",
        "SELECT lastval()",
        "BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE only_mine (x int); COMMIT",
        "SELECT * FROM only_mine",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS \
         $$ BEGIN CREATE TEMP TABLE made AS SELECT 5 AS five; RETURN 1; END $$",
        "SELECT f()",
        "SELECT * FROM made",
        "DISCARD ALL",
        "SELECT * FROM made",
    ]))
    .await;
}

#[tokio::test]
async fn large_messages_pass_whole() {
    let text = "x".repeat(3_000_000);
    same(vec![
        (vec![query(&format!("SELECT length('{text}'), '{text}'"))], 1),
        (
            vec![
                parse("", "SELECT $1::text, length($1)"),
                bind("", "", &[Some(&text)]),
                execute("", 0),
                sync(),
            ],
            1,
        ),
        (vec![query("SELECT repeat('y', 2000000) FROM generate_series(1, 5)")], 1),
    ])
    .await;
}

#[tokio::test]
async fn function_calls_reach_the_server() {
    // upper(text), and one that does not exist.
    same(vec![
        (vec![function_call(871, "loud")], 1),
        (vec![function_call(4_000_000, "x")], 1),
        (vec![query("SELECT 1")], 1),
    ])
    .await;
}

#[tokio::test]
async fn a_message_of_an_unknown_kind_ends_the_session() {
    same(vec![(vec![b"~\0\0\0\x04".to_vec()], 1)]).await;
}

#[tokio::test]
async fn a_malformed_message_is_an_error_of_the_protocol() {
    let bad_bind = b"B\0\0\0\x0a\0\0\0\x05\0\0".to_vec();
    let database = database().await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let port = proxy.proxy.address.port();
    let mut client = RawClient::connect(port, &database.name, &[]).await;
    client.send(&[bad_bind, sync(), query("SELECT 1")].concat()).await;
    let answers = client.until_ready(2).await;
    assert!(answers[0].contains("C08P01"), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.starts_with('D')), "{answers:?}");
}

#[tokio::test]
async fn notifications_reach_a_client_that_waits() {
    let database = database().await;
    let proxy = TestProxy::start(&database, NO_POLICY).await;
    let port = proxy.proxy.address.port();
    for port in [database.nodes[0].port, port] {
        let mut listener = RawClient::connect(port, &database.name, &[]).await;
        let mut other = RawClient::connect(port, &database.name, &[]).await;
        listener.send(&query("LISTEN ch")).await;
        assert_eq!(listener.until_ready(1).await, ["C LISTEN\\x00", "Z I"]);
        other.send(&query("NOTIFY ch, 'one'; NOTIFY ch, 'two'")).await;
        other.until_ready(1).await;
        let heard = listener.next_answers(2).await;
        assert_eq!(heard, ["A ch\\x00one\\x00", "A ch\\x00two\\x00"]);
        // In a transaction they wait for its end.
        listener.send(&query("BEGIN")).await;
        listener.until_ready(1).await;
        other.send(&query("NOTIFY ch, 'three'")).await;
        other.until_ready(1).await;
        listener.send(&[query("SELECT 1"), query("COMMIT")].concat()).await;
        let mut heard = listener.until_ready(2).await;
        if !heard.iter().any(|answer| answer.starts_with('A')) {
            heard.extend(listener.next_answers(1).await);
        }
        let begun = heard.iter().position(|answer| answer == "Z T").unwrap();
        let told = heard.iter().position(|answer| answer == "A ch\\x00three\\x00").unwrap();
        assert!(begun < told, "{heard:?}");
    }
}
