//! Many changes at once: they go to the destination together, arrive as they were, and none that is
//! lost or doubled goes unnoticed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use foreshard::runtime::Failpoints;
use foreshard::shard_move::State;

use super::shop::Shop;
use super::support::rows;

/// Columns of a table with a key whose types come apart in arrays, or hold object ids, or that are
/// written in odd ways.
const COLUMNS: &str = "
    CREATE DOMAIN short AS text CHECK (length(value) < 9);
    CREATE DOMAIN pair AS int[] CHECK (array_length(value, 1) = 2);
    CREATE TYPE point3 AS (x int, \"Y\" text, m mood);
    ALTER TABLE orders ADD COLUMN p point3, ADD COLUMN ps point3[], ADD COLUMN a text[],
        ADD COLUMN aa int[][], ADD COLUMN s short, ADD COLUMN two pair, ADD COLUMN m mood,
        ADD COLUMN b bytea, ADD COLUMN c char(5), ADD COLUMN j jsonb, ADD COLUMN f float8,
        ADD COLUMN n numeric(9,3), ADD COLUMN t timestamp(3) with time zone,
        ADD COLUMN i interval day to second, ADD COLUMN r int4range, ADD COLUMN bx box,
        ADD COLUMN bits bit(3), ADD COLUMN x xml, ADD COLUMN q \"char\", ADD COLUMN rc regclass;
    ALTER TABLE items ADD COLUMN words text[], ADD COLUMN b box, ADD COLUMN v varchar(9)[];";

/// Odd values for the columns, of which some are NULL in each row.
const VALUES: &str = "p = ROW(k, E'a,\"\\\\b', 'sad'::mood)::point3, \
     ps = ARRAY[ROW(NULL, '', 'ok'::mood)::point3, NULL], a = ARRAY['NULL', NULL, '', E'a\"b\\\\', '{'], \
     aa = '{{1,2},{3,4}}', s = CASE WHEN k % 2 = 0 THEN E'it''s\\t' END, two = ARRAY[k, 2], \
     m = 'ok', b = '\\x00ff5c', c = 'a', j = '{\"k\": [null, \"\\\\n\"]}', f = 'NaN', n = k / 7.0, \
     t = '2020-01-01 01:02:03.456+03', i = '1 day 02:03:04', r = '[1,5)', bx = '((1,2),(3,4))', \
     bits = B'101', x = '<a>\n</a>', q = 'z', rc = 'orders'";

async fn contents(shop: &Shop, node: usize) -> Vec<String> {
    let client = shop.client(node).await;
    let mut all = Vec::new();
    for table in ["orders", "items", "events"] {
        let tenants: Vec<String> = shop.tenants.iter().map(ToString::to_string).collect();
        let tenants = tenants.join(",");
        let sql = format!("SELECT t::text FROM {table} t WHERE tenant_id IN ({tenants})");
        let mut found = rows(&client, &sql).await;
        found.sort();
        all.extend(found);
    }
    all
}

/// A shop with the columns, whose move has ended after the copy.
async fn copied_shop(more: &str) -> Shop {
    let shop = Shop::create().await;
    for node in 0..2 {
        let client = shop.client(node).await;
        client.batch_execute(COLUMNS).await.unwrap();
        client.batch_execute(more).await.unwrap();
    }
    let dying = shop.proxy(Failpoints::stopping_at("built")).await;
    shop.request_move(&dying).await;
    dying.until_dead().await;
    shop
}

async fn change(shop: &Shop, changes: &[String]) {
    let client = shop.client(0).await;
    for sql in changes {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_of_every_kind_arrive_as_they_were() {
    let shop = copied_shop("").await;
    let [t, u] = [shop.tenants[0], shop.tenants[1]];
    let orders = format!(
        "FROM (SELECT -id AS k, id, tenant_id FROM orders) o \
         WHERE orders.tenant_id IN ({t}, {u}) AND (orders.tenant_id, orders.id) = (o.tenant_id, o.id)"
    );
    change(
        &shop,
        &[
            format!("UPDATE orders SET {VALUES} {orders}"),
            // The large value of one is not sent.
            format!("UPDATE orders SET v = v + 1 WHERE tenant_id IN ({t}, {u})"),
            format!(
                "INSERT INTO orders (tenant_id, id, v, note, big) SELECT {t}, k, 1, E'\\\\.\\n', \
                 repeat(md5(k::text), 400) FROM generate_series(1, 60) k"
            ),
            format!(
                "UPDATE orders SET {VALUES} FROM generate_series(1, 60) k \
                 WHERE tenant_id = {t} AND id = k AND k > 10"
            ),
            format!("DELETE FROM orders WHERE tenant_id = {t} AND id BETWEEN 20 AND 30"),
            format!(
                "INSERT INTO orders (tenant_id, id, v) SELECT {t}, k, 9 FROM generate_series(25, 27) k"
            ),
            format!("UPDATE orders SET id = id + 1000 WHERE tenant_id = {t} AND id > 50"),
            format!("UPDATE orders SET note = 'moved' WHERE tenant_id = {t} AND id > 1000"),
            format!(
                "INSERT INTO items (tenant_id, order_id, line, words) SELECT {t}, id, 9, \
                 ARRAY[note, NULL, '\\'] FROM orders WHERE tenant_id = {t} AND id > 0"
            ),
            format!(
                "UPDATE items SET \"Qty\" = 'NaN', b = '((1,2),(3,4))', v = '{{\"a,b\",NULL}}' \
                 WHERE tenant_id IN ({t}, {u})"
            ),
            format!("DELETE FROM items WHERE tenant_id = {u} AND order_id < -10"),
            format!(
                "INSERT INTO events (tenant_id, what) SELECT {u}, '1' FROM generate_series(1, 40)"
            ),
            format!("UPDATE events SET flags = 'new' WHERE tenant_id = {u} AND what::text = '1'"),
            "TRUNCATE events".to_owned(),
            format!(
                "INSERT INTO events (tenant_id, moods) SELECT {u}, '{{ok}}' \
                 FROM generate_series(1, 40)"
            ),
        ],
    )
    .await;
    let expected = contents(&shop, 0).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert!(mv.changes_applied > 500, "{}", mv.changes_applied);
    assert_eq!(contents(&shop, 1).await, expected);
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_in_each_others_way_for_a_moment_arrive() {
    let unique = "ALTER TABLE orders ADD COLUMN place int; \
         CREATE UNIQUE INDEX ON orders (tenant_id, place)";
    let shop = copied_shop(unique).await;
    let t = shop.tenants[0];
    let set = |sets: &str, id: i32| {
        format!("UPDATE orders SET {sets} WHERE tenant_id = {t} AND id = {id}")
    };
    let mut changes = vec![format!("UPDATE orders SET place = -id WHERE tenant_id = {t}")];
    // Each two change places.
    for id in (1..=23).step_by(2) {
        changes.push(set("place = 0", -id));
        changes.push(set(&format!("place = {id}"), -id - 1));
        changes.push(set(&format!("place = {}", id + 1), -id));
    }
    change(&shop, &changes).await;
    let expected = contents(&shop, 0).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert_eq!(contents(&shop, 1).await, expected);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_lost_or_doubled_at_the_destination_stops_the_stream() {
    let cases = [
        ("DELETE FROM orders_s1 WHERE id = -7", "UPDATE orders SET v = v + 1", "0 rows instead of"),
        (
            "DELETE FROM orders_s1 WHERE id = -7",
            "DELETE FROM orders WHERE id < -5",
            "0 rows instead",
        ),
        (
            "INSERT INTO orders_s1 (tenant_id, id, v) VALUES ($tenant, 7, 1)",
            "INSERT INTO orders (tenant_id, id, v) SELECT $tenant, k, 1 FROM generate_series(1, 30) k",
            "duplicate key",
        ),
        (
            "INSERT INTO orders_s1 (tenant_id, id, v) VALUES ($tenant, 7, 1)",
            "INSERT INTO orders (tenant_id, id, v) VALUES ($tenant, 7, 1)",
            "duplicate key",
        ),
        ("DELETE FROM events_s1", "DELETE FROM events", "0 rows instead of one"),
    ];
    for (there, here, why) in cases {
        let shop = copied_shop("").await;
        let of = |sql: &str| sql.replace("$tenant", &shop.tenants[0].to_string());
        let without_cascades = "SET session_replication_role = replica";
        let client = shop.client(1).await;
        client.batch_execute(without_cascades).await.unwrap();
        client.batch_execute(&of(there)).await.unwrap();
        shop.client(0).await.batch_execute("DELETE FROM items").await.unwrap();
        change(&shop, &[of(here)]).await;
        let proxy = shop.proxy(Failpoints::default()).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Aborted, "{there}: {mv:#?}");
        assert!(mv.error.as_deref().unwrap().contains(why), "{there}: {:?}", mv.error);
        shop.assert_owned_by(0).await;
        shop.assert_nothing_left().await;
        proxy.stop().await;
    }
}
