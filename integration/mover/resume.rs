//! Copies that are cut off go on with the segments that are left, whatever happened to the rows
//! meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::time::Duration;

use foreshard::ids::NodeId;
use foreshard::mover::{HowToSplit, Wanted};
use foreshard::runtime::{Failpoints, RESUME_FAILPOINTS};
use foreshard::shard_move::State;

use super::SHARD;
use super::shop::{Shop, Writers};
use super::support::{eventually, rows};

/// The rows of a table at the destination, each with the transaction that brought it.
async fn brought(shop: &Shop, table: &str) -> BTreeSet<String> {
    let sql = format!("SELECT xmin::text || ' ' || ROW(t.*)::text FROM {table}_s1 t");
    rows(&shop.client(1).await, &sql).await.into_iter().collect()
}

/// What the moved shard holds on a node that owns it.
async fn contents(shop: &Shop, node: usize) -> Vec<String> {
    let client = shop.client(node).await;
    let mut all = Vec::new();
    for table in ["orders", "items", "events"] {
        let tenants: Vec<String> = shop.tenants.iter().map(ToString::to_string).collect();
        let sql = format!(
            "SELECT '{table}' || t::text FROM {table} t WHERE tenant_id IN ({})",
            tenants.join(",")
        );
        let mut found = rows(&client, &sql).await;
        found.sort();
        all.extend(found);
    }
    all
}

/// A process that dies at a failpoint, which it reaches.
async fn live_until(shop: &Shop, failpoint: &str) {
    let dying = shop.proxy(Failpoints::stopping_at(failpoint)).await;
    dying.until_dead().await;
    dying.stop().await;
}

/// A shop whose move was cut off after some segments.
async fn cut_off(segments: usize) -> Shop {
    let shop = Shop::create().await;
    let still = shop.still().await;
    shop.request_move(&still).await;
    for _ in 0..segments {
        live_until(&shop, "segment_copied").await;
    }
    shop
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_that_are_done_are_not_copied_again() {
    let shop = cut_off(1).await;
    let some_orders = brought(&shop, "orders").await;
    assert!((100..900).contains(&some_orders.len()), "{}", some_orders.len());
    let client = shop.client(0).await;
    for _ in 0..4 {
        let insert = "INSERT INTO orders (tenant_id, id, v) SELECT tenant_id, 1 + max(id), 1 \
             FROM orders WHERE tenant_id % 4 = 1 GROUP BY tenant_id";
        client.batch_execute(insert).await.unwrap();
        live_until(&shop, "segment_copied").await;
    }
    let some_items = brought(&shop, "items").await;
    assert!(some_items.len() > 100, "{}", some_items.len());
    let expected = contents(&shop, 0).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    for (table, before) in [("orders", some_orders), ("items", some_items)] {
        let after = brought(&shop, table).await;
        let again: Vec<_> = before.difference(&after).collect();
        assert!(again.is_empty(), "{table}: copied again: {again:?}");
    }
    assert_eq!(contents(&shop, 1).await, expected);
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_to_rows_of_all_segments_meanwhile_arrives() {
    assert_eq!(RESUME_FAILPOINTS, ["window_passed"]);
    for segments in [1, 4, 6] {
        let shop = cut_off(segments).await;
        let client = shop.client(0).await;
        let (low, high) = (shop.tenants[0], shop.tenants[39]);
        for sql in [
            "UPDATE orders SET v = v + 1, note = NULL WHERE id % 3 = 0",
            // One of them has a large value that is not sent.
            "UPDATE orders SET v = v + 10 WHERE id > -4",
            "DELETE FROM orders WHERE id IN (-10, -11)",
            "INSERT INTO orders (tenant_id, id, v) SELECT tenant_id, -10, 7 FROM orders WHERE id = -12",
            "UPDATE orders SET id = id - 1000 WHERE id < -20 AND big IS NULL",
            "UPDATE orders SET v = v + 1 WHERE id < -1000",
            "INSERT INTO orders (tenant_id, id, v, big) SELECT DISTINCT tenant_id, 5, 7, \
             (SELECT string_agg(md5(x::text), '') FROM generate_series(1, 500) x) FROM orders",
            "UPDATE orders SET v = 8 WHERE id = 5",
            "DELETE FROM items WHERE order_id = -2 AND line = 1",
            "UPDATE items SET \"Qty\" = 9 WHERE line = 2",
            "DELETE FROM events WHERE ctid IN (SELECT ctid FROM events LIMIT 5)",
            "UPDATE events SET flags = 'u'",
            "INSERT INTO events (tenant_id) SELECT tenant_id FROM events LIMIT 3",
        ] {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        // Between the segments, there and back.
        for (from, to) in [(low, high), (high, low)] {
            let sql = format!(
                "BEGIN; DELETE FROM items WHERE tenant_id IN ({from}, {to}); \
                 DELETE FROM orders WHERE tenant_id = {to} AND id < 0; \
                 UPDATE orders SET tenant_id = {to} WHERE tenant_id = {from} AND id < 0 \
                 AND big IS NULL; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
        }
        live_until(&shop, "segment_copied").await;
        client.batch_execute("UPDATE orders SET v = v + 1").await.unwrap();
        live_until(&shop, "window_passed").await;
        client.batch_execute("UPDATE orders SET v = v + 1").await.unwrap();
        let expected = contents(&shop, 0).await;
        let proxy = shop.proxy(Failpoints::default()).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Done, "{segments}: {mv:#?}");
        assert_eq!(contents(&shop, 1).await, expected);
        shop.assert_nothing_left().await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_were_emptied_meanwhile_are_empty() {
    let shop = cut_off(3).await;
    let client = shop.client(0).await;
    client.batch_execute("TRUNCATE orders, items, events").await.unwrap();
    let insert =
        format!("INSERT INTO orders (tenant_id, id, v) VALUES ({}, 1, 1)", shop.tenants[3]);
    client.batch_execute(&insert).await.unwrap();
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert_eq!(contents(&shop, 1).await.len(), 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_changed_under_a_large_value_starts_the_copy_anew() {
    let shop = cut_off(1).await;
    let before = brought(&shop, "orders").await;
    let client = shop.client(0).await;
    let sql = "UPDATE items SET \"Qty\" = 1; DELETE FROM items WHERE order_id = -1; \
         UPDATE orders SET id = -500 WHERE id = -1";
    client.batch_execute(sql).await.unwrap();
    let expected = contents(&shop, 0).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert_eq!(contents(&shop, 1).await, expected);
    let after = brought(&shop, "orders").await;
    assert!(before.is_disjoint(&after));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_a_done_segment_has_lost_is_found_missing() {
    let shop = cut_off(2).await;
    let sql = "DELETE FROM orders_s1 WHERE (tenant_id, id) = \
         (SELECT tenant_id, id FROM orders_s1 ORDER BY 1, 2 LIMIT 1)";
    shop.client(1).await.batch_execute(sql).await.unwrap();
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Aborted, "{mv:#?}");
    let error = mv.error.unwrap();
    // Foreign keys see it before the comparison does.
    assert!(error.contains("differs at") || error.contains("foreign key"), "{error}");
    shop.assert_owned_by(0).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_under_a_copy_costs_the_segment_that_it_was_at() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let proxy = shop.slowly(150_000).await;
    shop.request_move(&proxy).await;
    for (node, done) in [(0, 2), (1, 4)] {
        let client = shop.client(node).await;
        let enough = async || (brought_segments(&shop).await >= done).then_some(());
        eventually("some segments are copied", Duration::from_mins(1), enough).await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name ~ '^foreshard move' AND datname = current_database()";
        assert!(!rows(&client, sql).await.is_empty());
        // Nothing of what was done is undone.
        assert!(brought_segments(&shop).await >= done);
    }
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    writers.stop().await;
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

/// How many segments are noted as copied.
pub(super) async fn brought_segments(shop: &Shop) -> i64 {
    let client = shop.client(1).await;
    let sql = "SELECT to_regclass('foreshard.segments') IS NOT NULL";
    if rows(&client, sql).await != ["t"] && rows(&client, sql).await != ["true"] {
        return 0;
    }
    let sql = "SELECT count(*) FROM foreshard.segments WHERE copied IS NOT NULL";
    rows(&client, sql).await[0].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_halves_of_a_split_go_on_each_for_itself() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 3).await;
    let split =
        Wanted::Split { shard: SHARD, how: HowToSplit::Into(2), to: vec![NodeId(0), NodeId(1)] };
    let still = shop.still().await;
    shop.request(&still, &split).await;
    for _ in 0..12 {
        live_until(&shop, "segment_copied").await;
    }
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    writers.stop().await;
    shop.assert_as_mapped().await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

/// How many rows the moved shard has at first.
const ROWS: u64 = 40 * 25 * 3 + 40 * 3;

/// A process that goes on with a copy, and dies once it is there, knows of all rows.
async fn counts_all_rows(shop: &Shop, segments: usize) {
    for _ in 0..segments {
        live_until(shop, "segment_copied").await;
    }
    live_until(shop, "copied").await;
    let dying = shop.proxy(Failpoints::stopping_at("built")).await;
    dying.until_dead().await;
    let mv = dying.until("copied", |mv| mv.state == State::Building).await;
    assert_eq!(mv.rows_copied, ROWS, "{mv:#?}");
    assert!(mv.bytes_copied > 10 * ROWS, "{mv:#?}");
    let live = dying.progress.of(mv.id).unwrap();
    assert_eq!((live.rows_copied, live.bytes_copied), (ROWS, mv.bytes_copied));
    dying.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_an_earlier_process_has_copied_are_counted() {
    // In the middle of the first table, and of the second.
    for segments in [1, 5] {
        let shop = cut_off(segments).await;
        counts_all_rows(&shop, 1).await;
        let proxy = shop.proxy(Failpoints::default()).await;
        let mv = proxy.until_finished().await;
        assert_eq!((mv.state, mv.rows_copied), (State::Done, ROWS), "{mv:#?}");
        proxy.stop().await;
    }
    // Parts of a split and of a merge, each of them there as a whole or in pieces.
    let shop = Shop::create().await;
    let still = shop.still().await;
    let to = vec![NodeId(0), NodeId(1)];
    shop.request(&still, &Wanted::Split { shard: SHARD, how: HowToSplit::Into(2), to }).await;
    counts_all_rows(&shop, 6).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!((mv.state, mv.rows_copied), (State::Done, ROWS), "{mv:#?}");
    proxy.stop().await;
    let shards = mv.targets().iter().map(|part| part.shard).collect();
    let still = shop.still().await;
    shop.request(&still, &Wanted::Merge { shards, to: Some(NodeId(1)) }).await;
    counts_all_rows(&shop, 6).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!((mv.state, mv.rows_copied), (State::Done, ROWS), "{mv:#?}");
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

/// What died while it copied one of two shards goes on with both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_goes_on_with_what_is_left_of_each_shard() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 3).await;
    let first = shop.proxy(Failpoints::default()).await;
    let to = vec![NodeId(0), NodeId(1)];
    shop.request(&first, &Wanted::Split { shard: SHARD, how: HowToSplit::Into(2), to }).await;
    let mv = first.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    let shards: Vec<_> = mv.targets().iter().map(|part| part.shard).collect();
    first.stop().await;
    let still = shop.still().await;
    shop.request(&still, &Wanted::Merge { shards, to: Some(NodeId(1)) }).await;
    // One segment a life: of several tables, of both shards. A key that a writer changes may start the copy
    // anew, at any of them.
    let client = shop.client(1).await;
    let sql = "SELECT (SELECT count(*) FROM foreshard.segments WHERE copied IS NOT NULL) \
               + (SELECT count(*) FROM foreshard.moves)";
    let mut most = 0;
    for _ in 0..12 {
        live_until(&shop, "segment_copied").await;
        most = most.max(rows(&client, sql).await[0].parse().unwrap());
    }
    assert!(most > 1, "{most} segments or shards at once");
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    writers.stop().await;
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}
