//! Rows of every kind, changed in every way while they are copied and streamed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use foreshard::mover::{HowToSplit, Wanted};
use foreshard::runtime::Failpoints;
use foreshard::shard_move::State;

use super::SHARD;
use super::shop::Shop;
use super::support::rows;

/// Types whose values hold object ids, or mean something by a setting, or have no equality.
const COLUMNS: &str = "
    CREATE DOMAIN short AS text CHECK (length(value) < 9);
    CREATE TYPE point3 AS (x int, \"Y\" text, m mood);
    ALTER TABLE events ADD COLUMN f float8, ADD COLUMN n numeric, ADD COLUMN s short,
        ADD COLUMN p point3, ADD COLUMN ps point3[], ADD COLUMN j jsonb, ADD COLUMN i interval,
        ADD COLUMN b bytea, ADD COLUMN t tsrange, ADD COLUMN r regclass, ADD COLUMN c \"char\",
        ADD COLUMN m money, ADD COLUMN x xml, ADD COLUMN a text[], ADD COLUMN d date,
        ADD COLUMN bits bit varying, ADD COLUMN g float8 GENERATED ALWAYS AS (f * 2) STORED,
        ADD COLUMN big text;";

/// Two rows with the same values, one of NULLs, and the odd ones of each type.
const ROWS: &str = "
    INSERT INTO events (tenant_id, what, f, n, s, p, ps, j, i, b, t, r, c, m, x, a, d, bits, big)
    SELECT $tenant, '{\"a\":  1}', f, n, 'it''s', ROW(1, E'a,\"\\\\b', 'sad'::mood)::point3,
        ARRAY[ROW(NULL, '', 'ok'::mood)::point3, NULL], '{\"k\": [null, \"ü\"]}', i,
        '\\x00ff'::bytea, '(,2020-01-01]', 'orders', E'\\x01', '-1234.5', '<a/>',
        ARRAY['NULL', NULL, '', 'a b', '{'], d, B'', repeat(md5('x'), 400)
    FROM (VALUES ('NaN'::float8, 'NaN'::numeric, '-1 mons +3 days'::interval, 'infinity'::date),
        ('-infinity', 'Infinity', '0', '-infinity'), ('-0', 1.00, NULL, '4713-01-01 BC'),
        (1e-300, -12345678901234567890.000100, '1 year', '2024-02-29'),
        (0.1::float4, 0, '1 year', NULL), (0.1::float4, 0, '1 year', NULL)) v (f, n, i, d);
    INSERT INTO events (tenant_id) VALUES ($tenant);";

/// What happens after the copy, on the source.
const CHANGES: [&str; 9] = [
    "UPDATE events SET f = 'Infinity', what = NULL WHERE tenant_id = $tenant AND f = 'NaN'",
    "UPDATE events SET a = a || 'more'::text, p = NULL WHERE tenant_id = $tenant AND n = 0",
    "DELETE FROM events WHERE ctid = (SELECT max(ctid) FROM events WHERE n = 0 AND tenant_id = $tenant)",
    "UPDATE events SET s = 'set' WHERE tenant_id = $tenant AND s IS NULL",
    "UPDATE orders SET v = 7 WHERE tenant_id = $tenant AND id = -1",
    "UPDATE orders SET id = 900, note = NULL WHERE tenant_id = $tenant AND id = -1",
    "UPDATE items SET \"Qty\" = 'NaN' WHERE tenant_id = $tenant AND order_id = 900",
    "BEGIN; SAVEPOINT a; DELETE FROM orders WHERE tenant_id = $tenant; ROLLBACK TO a; \
     DELETE FROM orders WHERE tenant_id = $tenant AND id = -2; COMMIT",
    "BEGIN; UPDATE orders SET note = 'two'; PREPARE TRANSACTION '$gid'; COMMIT PREPARED '$gid'",
];

async fn contents(shop: &Shop, node: usize) -> Vec<String> {
    let client = shop.client(node).await;
    let mut all = Vec::new();
    for table in ["orders", "items", "events"] {
        let sql = format!("SELECT t::text FROM {table} t WHERE tenant_id = {}", shop.tenants[0]);
        let mut found = rows(&client, &sql).await;
        found.sort();
        all.extend(found);
    }
    all
}

/// A shop with odd rows whose move has ended after the copy.
async fn copied_shop() -> Shop {
    let shop = Shop::create().await;
    for node in 0..2 {
        shop.client(node).await.batch_execute(COLUMNS).await.unwrap();
    }
    let sql = ROWS.split("$tenant").collect::<Vec<_>>().join(&shop.tenants[0].to_string());
    shop.client(0).await.batch_execute(&sql).await.unwrap();
    let dying = shop.proxy(Failpoints::stopping_at("built")).await;
    shop.request_move(&dying).await;
    dying.until_dead().await;
    shop
}

async fn change(shop: &Shop, changes: &[&str]) {
    let client = shop.client(0).await;
    let tenant = shop.tenants[0].to_string();
    for change in changes {
        let sql = change.split("$tenant").collect::<Vec<_>>().join(&tenant);
        let gid = format!("rows_{}", std::process::id());
        let sql = sql.split("$gid").collect::<Vec<_>>().join(&gid);
        for part in sql.split("; ") {
            client.batch_execute(part).await.unwrap_or_else(|error| panic!("{part}: {error:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_every_kind_arrive_as_they_were() {
    let shop = copied_shop().await;
    change(&shop, &CHANGES).await;
    let expected = contents(&shop, 0).await;
    assert!(expected.len() > 70, "{expected:#?}");
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert_eq!(contents(&shop, 1).await, expected);
    // And back, in halves that are put together.
    let split = Wanted::Split {
        shard: SHARD,
        how: HowToSplit::Into(2),
        to: vec![foreshard::ids::NodeId(0)],
    };
    shop.request(&proxy, &split).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert_eq!(contents(&shop, 0).await, expected);
    shop.assert_as_mapped().await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_after_the_copy_is_followed() {
    let shop = copied_shop().await;
    change(&shop, &["TRUNCATE events", "INSERT INTO events (tenant_id) VALUES ($tenant)"]).await;
    let expected = contents(&shop, 0).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert_eq!(contents(&shop, 1).await, expected);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_changes_under_a_move_stops_it_and_nothing_is_lost() {
    for sql in [
        "ALTER TABLE orders ADD COLUMN extra int DEFAULT 7",
        "ALTER TABLE orders ALTER COLUMN note SET NOT NULL",
        "CREATE INDEX ON orders (note)",
    ] {
        let shop = copied_shop().await;
        change(&shop, &["UPDATE orders SET note = 'x' WHERE note IS NULL", sql]).await;
        let expected = contents(&shop, 0).await;
        let proxy = shop.proxy(Failpoints::default()).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Aborted, "{sql}: {mv:#?}");
        let error = mv.error.unwrap();
        assert!(error.contains("change") || error.contains("differ"), "{sql}: {error}");
        shop.assert_as_mapped().await;
        shop.assert_nothing_left().await;
        assert_eq!(contents(&shop, 0).await, expected);
        proxy.stop().await;
    }
}
