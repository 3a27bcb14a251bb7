//! Hints, functions whose key is declared, and limits of what is passed on.

use foreshard::executor;
use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::support::{TestDatabase, TestProxy, rows};

const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 8
    tables: {orders: tenant_id}
  days:
    key: [date, int]
    method: range
    split_at: [2024-01-01, [2024-06-01, 5]]
    tables: {visits: [day, visitor]}
functions:
  place_order: {group: shop, key_argument: 1}
  drop_orders: {group: shop, key_argument: 2}
  visits_of: {group: days, key_argument: [2, 1]}
  orders_of: {group: shop}
";

const DEFINITIONS: [&str; 6] = [
    "CREATE TABLE orders (tenant_id bigint, id int, note text, PRIMARY KEY (tenant_id, id))",
    "CREATE TABLE visits (day date, visitor int, n int, PRIMARY KEY (day, visitor))",
    "CREATE FUNCTION place_order(t bigint, i int, n text) RETURNS SETOF orders LANGUAGE sql \
     AS $$ INSERT INTO orders VALUES (t, i, n) RETURNING * $$",
    "CREATE PROCEDURE drop_orders(i int, t bigint) LANGUAGE sql \
     AS $$ DELETE FROM orders WHERE tenant_id = t AND id = i $$",
    "CREATE FUNCTION visits_of(v int, d date) RETURNS bigint LANGUAGE sql \
     AS $$ SELECT count(*) FROM visits WHERE day = d AND visitor = v $$",
    "CREATE FUNCTION orders_of(t bigint) RETURNS bigint LANGUAGE sql \
     AS $$ SELECT count(*) FROM orders WHERE tenant_id = t $$",
];

struct Side {
    proxy: TestProxy,
    client: Client,
}

async fn start(config: executor::Config) -> Side {
    let database = TestDatabase::create(3).await;
    let proxy = TestProxy::start_limited(&database, POLICY, config).await;
    let client = proxy.client().await;
    for sql in DEFINITIONS {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    Side { proxy, client }
}

async fn code(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
    assert!(error.hint().is_some(), "{sql}: {error:?}");
    error.code().code().to_owned()
}

#[tokio::test]
async fn a_function_with_a_declared_key_runs_where_its_rows_are() {
    let side = start(executor::Config::default()).await;
    let client = &side.client;
    for tenant in 1..=12_i64 {
        let sql = format!("SELECT place_order({tenant}, 1, 'one')");
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let sql = "SELECT note FROM public.place_order($1, $2, $3)";
        let row = client.query_one(sql, &[&tenant, &2_i32, &"two"]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "two");
    }
    assert_eq!(rows(client, "SELECT count(*) FROM orders").await, ["24"]);
    for tenant in 1..=12_i64 {
        // Each is on the node of its key, and no other.
        let sql = format!("SELECT count(*) FROM orders WHERE tenant_id = {tenant}");
        assert_eq!(rows(client, &sql).await, ["2"]);
        client.batch_execute(&format!("CALL drop_orders(2, {tenant})")).await.unwrap();
    }
    client.execute("CALL drop_orders($1, $2)", &[&1_i32, &12_i64]).await.unwrap();
    assert_eq!(rows(client, "SELECT count(*), max(tenant_id) FROM orders").await, ["11|11"]);
    client
        .batch_execute(
            "INSERT INTO visits VALUES ('2023-05-05', 1, 1), ('2024-06-01', 4, 1), ('2024-06-01', 5, 1)",
        )
        .await
        .unwrap();
    for (visitor, day) in [(1, "2023-05-05"), (4, "2024-06-01"), (5, "2024-06-01")] {
        let sql = format!("SELECT visits_of({visitor}, '{day}')");
        assert_eq!(rows(client, &sql).await, ["1"], "{sql}");
    }
    // Beside a table with the same key, and as the rows of an INSERT.
    let sql =
        "SELECT o.id FROM orders o, place_order(3, 7, 'x') p WHERE o.tenant_id = 3 AND o.id = 1";
    assert_eq!(rows(client, sql).await, ["1"]);
    for refused in [
        "SELECT place_order(tenant_id, 9, 'x') FROM orders",
        "SELECT place_order(5, 9, 'x') FROM orders",
        "SELECT place_order(1 + 1, 9, 'x')",
        "SELECT place_order(n => 'x', i => 9, t => 3)",
        "SELECT place_order(1, 9, 'x'), place_order(2, 9, 'x'), place_order(3, 9, 'x'), \
         place_order(4, 9, 'x'), place_order(5, 9, 'x'), place_order(6, 9, 'x')",
        "INSERT INTO orders (tenant_id, id) VALUES ((place_order(5, 9, 'x')).id, 1)",
        "UPDATE orders SET note = (place_order(5, 9, 'x')).note WHERE tenant_id = 5",
        "SELECT visits_of(1, 'May 5, 2023')",
        "SELECT orders_of(1)",
        "CREATE FUNCTION other(t bigint) RETURNS bigint LANGUAGE sql \
         AS $$ SELECT count(*) FROM orders WHERE tenant_id = t $$",
    ] {
        assert_eq!(code(client, refused).await, "0A000", "{refused}");
    }
    assert_eq!(rows(client, "SELECT count(*) FROM orders WHERE id = 9").await, ["0"]);
}

#[tokio::test]
async fn a_hint_says_where_a_statement_goes_that_does_not_say_it() {
    let side = start(executor::Config::default()).await;
    let client = &side.client;
    let map = side.proxy.proxy.engine.live_map.snapshot();
    for tenant in 1..=12_i64 {
        let sql = format!(
            "/* foreshard: key(orders) = {tenant} */ DO $$ BEGIN INSERT INTO orders \
             VALUES ({tenant}, 1, 'a'); UPDATE orders SET note = 'b' WHERE tenant_id = {tenant}; END $$"
        );
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let sql = format!("/* foreshard: key(shop) = '{tenant}' */ SELECT orders_of({tenant})");
        assert_eq!(rows(client, &sql).await, ["1"]);
        let sql = "/* foreshard: key(shop) = $1 */ SELECT orders_of($1)";
        assert_eq!(client.query_one(sql, &[&tenant]).await.unwrap().get::<_, i64>(0), 1);
        let key = [foreshard::shard_map::KeyValue::Int(tenant)];
        let shard = map.shard_of(foreshard::ids::GroupId(0), &key).unwrap();
        let sql = format!("/* foreshard: shard = {shard} */ SELECT orders_of({tenant})");
        assert_eq!(rows(client, &sql).await, ["1"]);
        let node = &map.node(map.node_of(shard)).name;
        let sql = format!("/* foreshard: node = {node} */ SELECT orders_of({tenant})");
        assert_eq!(rows(client, &sql).await, ["1"]);
    }
    assert_eq!(rows(client, "SELECT count(*) FROM orders WHERE note = 'b'").await, ["12"]);
    // What says itself where it goes, goes there, whatever the hint says.
    for tenant in 1..=12 {
        let sql = format!(
            "/* foreshard: key(shop) = 1 */ SELECT count(*) FROM orders WHERE tenant_id = {tenant}"
        );
        assert_eq!(rows(client, &sql).await, ["1"]);
    }
    assert_eq!(
        rows(client, "/* foreshard: shard = 1 */ SELECT count(*) FROM orders").await,
        ["12"]
    );
    // A wrong one can't put a row where it does not belong.
    let mut strays = 0;
    for tenant in 1..=12 {
        let sql = format!(
            "/* foreshard: key(orders) = 5 */ DO $$ BEGIN INSERT INTO orders VALUES ({tenant}, 2, 's'); END $$"
        );
        if let Err(error) = client.batch_execute(&sql).await {
            assert_eq!(error.code().unwrap().code(), "23514", "{error:?}");
            strays += 1;
        }
    }
    assert!(strays > 0);
    for (sql, expected) in [
        ("/* foreshard: key(nothing) = 1 */ CALL drop_all()", "22023"),
        ("/* foreshard: key(shop) = (1, 2) */ CALL drop_all()", "22023"),
        ("/* foreshard: shard = 99 */ CALL drop_all()", "22023"),
        ("/* foreshard: node = n9 */ CALL drop_all()", "22023"),
        ("/* foreshard: shop 5 */ SELECT 1", "42601"),
        ("/* foreshard: shard = 1 */ SELECT orders_of(1); SELECT orders_of(2)", "0A000"),
        ("/* foreshard: shard = 1 */ CREATE TEMP VIEW v AS SELECT * FROM orders", "0A000"),
    ] {
        assert_eq!(code(client, sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn what_is_passed_on_of_several_nodes_has_limits() {
    let limits = executor::Config {
        scatter_rows_max: 50,
        scatter_bytes_max: 4_000,
        scatter_timeout_ms: 700,
        ..executor::Config::default()
    };
    let side = start(limits).await;
    let client = &side.client;
    let fill = "INSERT INTO orders SELECT g, 1, 'n' FROM generate_series(1, 60) g";
    client.batch_execute(fill).await.unwrap();
    let few = "SELECT * FROM orders WHERE tenant_id + 0 <= 50";
    assert_eq!(rows(client, few).await.len(), 50);
    assert_eq!(code(client, "SELECT * FROM orders").await, "54000");
    assert_eq!(rows(client, few).await.len(), 50);
    let wide = "SELECT repeat('x', 500) FROM orders WHERE id + 0 = 1";
    assert_eq!(code(client, wide).await, "54000");
    let slow = "SELECT * FROM orders WHERE tenant_id + 0 < 20 AND pg_catalog.length(repeat(md5(note), \
         3000000)) > 0";
    assert_eq!(code(client, slow).await, "57014");
    assert_eq!(client.query(few, &[]).await.unwrap().len(), 50);
    // A transaction block does not go on after it.
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(code(client, "SELECT * FROM orders").await, "54000");
    let error = client.batch_execute("SELECT 1").await.expect_err("aborted");
    assert_eq!(error.code().unwrap().code(), "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(rows(client, few).await.len(), 50);
}

#[tokio::test]
async fn what_takes_too_long_takes_nothing_else_with_it() {
    let limits = executor::Config {
        scatter_timeout_ms: 60,
        pull_timeout_ms: 1_500,
        ..executor::Config::default()
    };
    let side = start(limits).await;
    let client = &side.client;
    let fill = "INSERT INTO orders SELECT g, 1, 'n' FROM generate_series(1, 60) g";
    client.batch_execute(fill).await.unwrap();
    // Some of these end just before their time is over, and some just after.
    client.batch_execute("BEGIN").await.unwrap();
    // However fast the machine is.
    let (mut late, mut times) = (0, 2_000_u64);
    while late < 5 {
        assert!(times < 4_000_000, "nothing takes too long");
        let sql = format!(
            "SELECT * FROM orders WHERE tenant_id + 0 < 20 \
             AND pg_catalog.length(repeat(md5(note), {times})) > 0"
        );
        times += 2_000 + times / 16;
        match client.batch_execute(&sql).await {
            Ok(()) => {
                assert_eq!(rows(client, "SELECT 1 FROM orders WHERE tenant_id = 1").await.len(), 1);
            }
            Err(error) => {
                assert_eq!(error.code().unwrap().code(), "57014", "{error:?}");
                client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
                late += 1;
            }
        }
    }
    client.batch_execute("ROLLBACK").await.unwrap();
    // A client that reads slowly is told of the end of its time between two messages.
    let sql = "SELECT id, repeat(note, 1000000) FROM orders ORDER BY md5(tenant_id::text) COLLATE \"und-x-icu\"";
    let none: [&dyn tokio_postgres::types::ToSql; 0] = [];
    let mut found = std::pin::pin!(client.query_raw(sql, none).await.unwrap());
    assert!(found.try_next().await.unwrap().is_some());
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let end = loop {
        match found.try_next().await {
            Ok(Some(row)) => assert_eq!(row.get::<_, &str>(1).len(), 1_000_000),
            Ok(None) => panic!("it ended in time"),
            Err(error) => break error,
        }
    };
    assert_eq!(end.code().unwrap().code(), "57014", "{end:?}");
    assert_eq!(rows(client, "SELECT count(*) FROM orders WHERE tenant_id = 1").await, ["1"]);
}
