//! Cursors and portals that are read in portions, over several nodes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use futures_util::TryStreamExt;
use support::{TestDatabase, TestProxy, rows};
use tokio_postgres::{Client, Row};

const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 6
    tables:
      tenants: id
";

async fn shop() -> (TestDatabase, TestProxy, Client) {
    let setup = [
        "CREATE TABLE tenants (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE journal (id int)",
        "INSERT INTO tenants SELECT i, 'tenant ' || i FROM generate_series(1, 100) i",
    ];
    TestProxy::over_three(POLICY, &setup).await
}

async fn code(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.unwrap_err();
    error.code().unwrap().code().to_owned()
}

#[tokio::test]
async fn cursors_stand_on_one_node_or_where_rows_were_brought_together() {
    let (_database, _proxy, client) = shop().await;
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("DECLARE a CURSOR FOR SELECT id FROM tenants ORDER BY id").await.unwrap();
    client
        .batch_execute("DECLARE b SCROLL CURSOR FOR SELECT name FROM tenants WHERE id = 7")
        .await
        .unwrap();
    client.batch_execute("DECLARE \"C\" CURSOR FOR SELECT id % 2 AS odd, count(*) FROM tenants GROUP BY 1 ORDER BY 1").await.unwrap();
    client
        .batch_execute(
            "DECLARE d SCROLL CURSOR FOR SELECT id FROM tenants WHERE id > 95 ORDER BY id",
        )
        .await
        .unwrap();
    client.batch_execute("DECLARE e CURSOR FOR SELECT id FROM journal").await.unwrap();
    assert_eq!(rows(&client, "FETCH 3 FROM a").await, ["1", "2", "3"]);
    assert_eq!(rows(&client, "FETCH NEXT IN b").await, ["tenant 7"]);
    assert_eq!(rows(&client, "FETCH ALL \"C\"").await, ["0|50", "1|50"]);
    assert_eq!(rows(&client, "FETCH FORWARD 2 FROM a").await, ["4", "5"]);
    assert_eq!(rows(&client, "FETCH ALL FROM e").await, Vec::<String>::new());
    client.batch_execute("MOVE 90 IN a").await.unwrap();
    assert_eq!(rows(&client, "FETCH ALL a").await, ["96", "97", "98", "99", "100"]);
    assert_eq!(rows(&client, "FETCH LAST d").await, ["100"]);
    assert_eq!(rows(&client, "FETCH PRIOR d").await, ["99"]);
    assert_eq!(rows(&client, "FETCH FIRST d").await, ["96"]);
    client.batch_execute("CLOSE a").await.unwrap();
    assert_eq!(rows(&client, "SELECT count(*) FROM tenants").await, ["100"]);
    client.batch_execute("COMMIT").await.unwrap();
    // They are gone with their transaction.
    assert_eq!(code(&client, "FETCH d").await, "34000");
    assert_eq!(code(&client, "FETCH b").await, "34000");
    assert_eq!(code(&client, "DECLARE f CURSOR FOR SELECT id FROM tenants").await, "25P01");
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("DECLARE g CURSOR FOR SELECT id FROM tenants").await.unwrap();
    assert_eq!(code(&client, "DECLARE g CURSOR FOR SELECT id FROM tenants").await, "42P03");
    assert_eq!(code(&client, "FETCH g").await, "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    client
        .batch_execute("DECLARE h CURSOR FOR SELECT 1 / (id - 50) FROM tenants ORDER BY id")
        .await
        .unwrap();
    assert_eq!(code(&client, "FETCH ALL h").await, "22012");
    assert_eq!(code(&client, "SELECT 1").await, "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn cursors_with_hold_outlive_a_commit_and_no_rollback() {
    let (_database, _proxy, client) = shop().await;
    let held = "DECLARE held CURSOR WITH HOLD FOR SELECT id FROM tenants ORDER BY id DESC";
    client.batch_execute(held).await.unwrap();
    assert_eq!(rows(&client, "FETCH 2 held").await, ["100", "99"]);
    client.batch_execute("DELETE FROM tenants WHERE id > 50").await.unwrap();
    assert_eq!(rows(&client, "FETCH 2 held").await, ["98", "97"]);
    client.batch_execute("CLOSE held").await.unwrap();
    assert_eq!(code(&client, "FETCH held").await, "34000");
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute(held).await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(code(&client, "FETCH held").await, "34000");
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute(held).await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rows(&client, "FETCH 1 held").await, ["50"]);
    client.batch_execute("CLOSE ALL").await.unwrap();
    assert_eq!(code(&client, "FETCH held").await, "34000");
}

#[tokio::test]
async fn cursors_end_with_what_was_rolled_back_and_no_others() {
    let (_database, _proxy, client) = shop().await;
    let declare = |name: &str, hold: &str| {
        let query = "SELECT id FROM tenants ORDER BY id";
        format!("DECLARE {name} CURSOR {hold} FOR {query}")
    };
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
    let next = async |name: &str| rows(&client, &format!("FETCH 1 {name}")).await;
    run("BEGIN").await;
    run(&declare("outer_one", "")).await;
    run("SAVEPOINT s").await;
    run(&declare("inner_one", "")).await;
    assert_eq!((next("outer_one").await, next("inner_one").await), (one(1), one(1)));
    run("ROLLBACK TO s").await;
    assert_eq!(next("outer_one").await, one(2));
    // The name is free again.
    run(&declare("inner_one", "")).await;
    run("SAVEPOINT t").await;
    run(&declare("third", "")).await;
    run("SAVEPOINT s").await;
    run(&declare("fourth", "")).await;
    run("RELEASE t").await;
    assert_eq!((next("third").await, next("fourth").await), (one(1), one(1)));
    assert_eq!(code(&client, "FETCH 1 nobody").await, "34000");
    run("ROLLBACK TO s").await;
    for gone in ["inner_one", "third", "fourth"] {
        assert_eq!(code(&client, &format!("FETCH 1 {gone}")).await, "34000", "{gone}");
        run("ROLLBACK TO SAVEPOINT s").await;
    }
    assert_eq!(next("outer_one").await, one(3));
    run("COMMIT AND CHAIN").await;
    assert_eq!(code(&client, "FETCH 1 outer_one").await, "34000");
    run("ROLLBACK").await;
    // What a transaction before has kept is not taken back.
    run(&declare("kept", "WITH HOLD")).await;
    run("BEGIN").await;
    run(&declare("lost", "WITH HOLD")).await;
    run("SELECT count(*) FROM tenants").await;
    run("ROLLBACK").await;
    assert_eq!(next("kept").await, one(1));
    assert_eq!(code(&client, "FETCH 1 lost").await, "34000");
    run("CREATE TABLE twice (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)").await;
    run("BEGIN").await;
    run(&declare("lost", "WITH HOLD")).await;
    run("INSERT INTO twice VALUES (1), (1)").await;
    assert_eq!(code(&client, "COMMIT").await, "23505");
    assert_eq!((next("kept").await, code(&client, "FETCH 1 lost").await), (one(2), "34000".into()));
}

fn one(id: u64) -> Vec<String> {
    vec![id.to_string()]
}

#[tokio::test]
async fn a_portal_ends_with_the_savepoint_behind_which_it_was_made() {
    let (_database, _proxy, mut client) = shop().await;
    let mut transaction = client.transaction().await.unwrap();
    let sql = "SELECT id FROM tenants ORDER BY id";
    let outer = transaction.bind(sql, &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&outer, 2).await.unwrap().len(), 2);
    let point = transaction.savepoint("s").await.unwrap();
    let inner = point.bind(sql, &[]).await.unwrap();
    let unread = point.bind(sql, &[]).await.unwrap();
    assert_eq!(point.query_portal(&inner, 2).await.unwrap().len(), 2);
    point.rollback().await.unwrap();
    let third: i64 = transaction.query_portal(&outer, 1).await.unwrap()[0].get(0);
    assert_eq!(third, 3);
    for gone in [inner, unread] {
        let point = transaction.savepoint("t").await.unwrap();
        let error = point.query_portal(&gone, 1).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "34000");
        point.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn cursors_of_the_extended_protocol_have_parameters_and_columns() {
    let (_database, _proxy, mut client) = shop().await;
    let transaction = client.transaction().await.unwrap();
    let declare = "DECLARE c CURSOR FOR SELECT id, name FROM tenants WHERE id > $1 ORDER BY id";
    // A utility statement's parameter has no type of its own; its query's has.
    let declared = transaction.prepare_typed(declare, &[tokio_postgres::types::Type::INT8]).await;
    transaction.execute(&declared.unwrap(), &[&97_i64]).await.unwrap();
    let found = transaction.query("FETCH 2 FROM c", &[]).await.unwrap();
    let pair = |row: &Row| (row.get::<_, i64>(0), row.get::<_, String>(1));
    let found: Vec<_> = found.iter().map(pair).collect();
    assert_eq!(found, [(98, "tenant 98".to_owned()), (99, "tenant 99".to_owned())]);
    assert_eq!(transaction.execute("MOVE ALL FROM c", &[]).await.unwrap(), 1);
    transaction.execute("CLOSE c", &[]).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn portals_give_their_rows_in_portions() {
    let (_database, _proxy, mut client) = shop().await;
    let transaction = client.transaction().await.unwrap();
    for (sql, ordered) in [
        ("SELECT id FROM tenants WHERE id > $1", false),
        ("SELECT id FROM tenants WHERE id > $1 ORDER BY id", true),
        ("SELECT id FROM tenants WHERE id > $1 GROUP BY id ORDER BY id", true),
        ("SELECT id FROM (SELECT id, row_number() OVER () FROM tenants) t WHERE id > $1", false),
    ] {
        let portal = transaction.bind(sql, &[&90_i64]).await.unwrap();
        let other = transaction.bind(sql, &[&98_i64]).await.unwrap();
        let mut found = Vec::new();
        for expected in [4, 4, 2, 0] {
            let portion = transaction.query_portal(&portal, 4).await.unwrap();
            assert_eq!(portion.len(), expected, "{sql}");
            found.extend(portion.iter().map(|row| row.get::<_, i64>(0)));
            // Others stand beside it.
            let count = transaction.query_one("SELECT count(*) FROM tenants", &[]).await.unwrap();
            assert_eq!(count.get::<_, i64>(0), 100);
        }
        assert_eq!(transaction.query_portal(&other, 0).await.unwrap().len(), 2);
        if !ordered {
            found.sort_unstable();
        }
        assert_eq!(found, (91..=100).collect::<Vec<_>>(), "{sql}");
    }
    let portal = transaction.bind("SELECT id FROM tenants", &[]).await.unwrap();
    let slow = transaction.query_portal_raw(&portal, 1);
    let slow: Vec<Row> = slow.await.unwrap().try_collect().await.unwrap();
    assert_eq!(slow.len(), 1);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn what_a_write_over_several_nodes_returns_is_given_in_portions() {
    let (_database, _proxy, mut client) = shop().await;
    for (sql, given, count) in [
        (
            "INSERT INTO tenants SELECT i FROM generate_series($1::bigint, 210) i RETURNING id",
            200,
            11,
        ),
        (
            "INSERT INTO tenants (id) VALUES ($1), (302), (303), (304), (305), (306) RETURNING id",
            301,
            6,
        ),
        ("UPDATE tenants SET name = 'new' WHERE id <= $1 RETURNING id", 10, 10),
        ("UPDATE tenants SET id = id + 1000 WHERE id > $1 AND id < 300 RETURNING id", 205, 5),
        ("DELETE FROM tenants WHERE id <= $1 RETURNING id", 7, 7),
    ] {
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind(sql, &[&i64::from(given)]).await.unwrap();
        let mut found = Vec::new();
        loop {
            let portion = transaction.query_portal(&portal, 4).await.unwrap();
            assert!(portion.len() <= 4, "{sql}");
            found.extend(portion.iter().map(|row| row.get::<_, i64>(0)));
            if portion.len() < 4 {
                break;
            }
            // Others run meanwhile.
            transaction.query("SELECT count(*) FROM tenants", &[]).await.unwrap();
        }
        transaction.commit().await.unwrap();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count, "{sql}");
    }
    let sums = "SELECT count(*), sum(id), count(*) FILTER (WHERE name = 'new') FROM tenants";
    let sum = (8..=100).sum::<i64>() + (200..=210).sum::<i64>() + 5_000 + (301..=306).sum::<i64>();
    assert_eq!(rows(&client, sums).await, [format!("{}|{sum}|3", 93 + 11 + 6)]);
}

#[tokio::test]
async fn a_lock_holds_on_every_node() {
    let (_database, proxy, client) = shop().await;
    let other = proxy.client().await;
    assert_eq!(code(&client, "LOCK TABLE tenants").await, "25P01");
    client.batch_execute("BEGIN; LOCK TABLE tenants IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    other.batch_execute("SET lock_timeout = '200ms'").await.unwrap();
    for id in 1..=12 {
        let sql = format!("UPDATE tenants SET name = 'x' WHERE id = {id}");
        assert_eq!(code(&other, &sql).await, "55P03", "{sql}");
    }
    assert_eq!(rows(&other, "SELECT count(*) FROM tenants").await, ["100"]);
    assert_eq!(code(&other, "BEGIN; LOCK tenants NOWAIT").await, "55P03");
    other.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    other.batch_execute("UPDATE tenants SET name = 'x'").await.unwrap();
    other
        .batch_execute("BEGIN; LOCK TABLE ONLY tenants IN ACCESS SHARE MODE; COMMIT")
        .await
        .unwrap();
}
