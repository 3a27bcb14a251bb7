//! Switches that are reversed while the old copies are kept, and what ends the keeping.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use foreshard::ids::{MoveId, NodeId, ShardId};
use foreshard::mover::{self, HowToSplit, Switched, Wanted};
use foreshard::runtime::{BACK_FAILPOINTS, Failpoints};
use foreshard::shard_move::{Move, State};

use super::shop::{Proxy, SHARD, Shop, Writers};
use super::support::{eventually, rows};

/// Longer than any test.
const LONG_MS: u64 = 600_000;

/// Goes back from the last switch of a shard; the way back, under way.
async fn go_back(proxy: &Proxy, shard: ShardId) -> MoveId {
    let map = proxy.live_map.snapshot();
    mover::reverse(&proxy.catalog, &map, Switched::Shard(shard), 1).await.unwrap()
}

/// Gives up what is kept of a shard.
async fn confirm(proxy: &Proxy, shard: ShardId) -> Move {
    let id = mover::confirm(&proxy.catalog, Switched::Shard(shard), 1).await.unwrap();
    proxy.until_in(id, State::Lapsed).await
}

/// A shop whose shard has moved to the second node and is kept on the first.
async fn moved(shop: &Shop) -> (Proxy, Move) {
    let proxy = shop.reversible(Failpoints::default(), LONG_MS).await;
    shop.request_move(&proxy).await;
    let back = proxy.until_kept().await;
    (proxy, back)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_back_and_forth_under_load_and_nothing_written_since_is_lost() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 3).await;
    let (proxy, mut back) = moved(&shop).await;
    for _ in 0..3 {
        // Somebody in a transaction on another shard: the switch detaches concurrently.
        let reader = shop.idle_reader().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(go_back(&proxy, SHARD).await, back.id);
        reader.batch_execute("COMMIT").await.unwrap();
        let reversed = proxy.until_in(back.id, State::Done).await;
        println!("reversed: pause {:?} ms", reversed.pause_ms);
        assert_eq!((reversed.rows_copied, reversed.proofs.len()), (0, 3), "{reversed:#?}");
        assert!(reversed.changes_applied > 0, "{reversed:#?}");
        back = proxy.until_kept().await;
        assert_eq!(back.reverses.unwrap().id, reversed.id);
    }
    assert_eq!(confirm(&proxy, SHARD).await.trouble.unwrap(), "it was confirmed");
    let written = writers.stop().await;
    assert!(written > 100, "only {written} statements were acknowledged");
    shop.assert_owned_by(0).await;
    shop.assert_nothing_left().await;
    let map = proxy.live_map.snapshot();
    let error = mover::reverse(&proxy.catalog, &map, Switched::Shard(SHARD), 1).await.unwrap_err();
    assert!(error.to_string().contains("nothing is kept of the last switch of shard 1"), "{error}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_failpoint_of_a_way_back_is_survived() {
    let before = ["armed", "switched", "cleaned", "mark_found", "mark_noted"];
    let after = ["recalled", "restored", "verified", "detached", "attached", "switched", "cleaned"];
    for name in BACK_FAILPOINTS {
        assert!(before.contains(&name) || after.contains(&name), "{name} is not tested");
    }
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let mut node = 0;
    for failpoint in before {
        let dying = shop.reversible(Failpoints::stopping_at(failpoint), LONG_MS).await;
        shop.request_move(&dying).await;
        dying.until_dead().await;
        let proxy = shop.reversible(Failpoints::default(), LONG_MS).await;
        let back = proxy.until_kept().await;
        go_back(&proxy, SHARD).await;
        proxy.until_in(back.id, State::Done).await;
        proxy.until_kept().await;
        confirm(&proxy, SHARD).await;
        shop.assert_owned_by(node).await;
        shop.assert_nothing_left().await;
        proxy.stop().await;
    }
    for failpoint in after {
        let (proxy, back) = moved(&shop).await;
        proxy.stop().await;
        let dying = shop.reversible(Failpoints::stopping_at(failpoint), LONG_MS).await;
        go_back(&dying, SHARD).await;
        dying.until_dead().await;
        let proxy = shop.reversible(Failpoints::default(), 0).await;
        let reversed = proxy.until(failpoint, |mv| mv.id != back.id || mv.is_finished()).await;
        assert_ne!(reversed.state, State::Aborted, "{failpoint}: {reversed:#?}");
        proxy.until_in(back.id, State::Done).await;
        if reversed.id != back.id {
            // The old process had stored that copies are kept.
            proxy.until_kept().await;
            confirm(&proxy, SHARD).await;
        }
        shop.assert_owned_by(node).await;
        shop.assert_nothing_left().await;
        shop.request_move(&proxy).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Done, "{mv:#?}");
        node = 1 - node;
        proxy.stop().await;
    }
    // Writers end only while somebody serves.
    let proxy = shop.reversible(Failpoints::default(), 0).await;
    writers.stop().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_copies_go_when_their_time_is_over_also_after_a_crash_while_they_go() {
    let shop = Shop::create().await;
    let dying = shop.reversible(Failpoints::stopping_at("undone"), 700).await;
    shop.request_move(&dying).await;
    dying.until_dead().await;
    let proxy = shop.reversible(Failpoints::default(), 700).await;
    let back = proxy.until_finished().await;
    assert_eq!(back.state, State::Lapsed, "{back:#?}");
    assert_eq!(back.trouble.as_deref(), Some("its time was over"));
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_and_another_move_end_the_keeping_first() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let (proxy, back) = moved(&shop).await;
    let alone = proxy.ddl_lock.exclusive(Duration::from_secs(20)).await;
    assert!(alone.is_some(), "DDL waited in vain");
    let lapsed = proxy.until_in(back.id, State::Lapsed).await;
    assert_eq!(lapsed.trouble.as_deref(), Some("a definition was changed"));
    shop.assert_nothing_left().await;
    drop(alone);
    shop.request_move(&proxy).await;
    let back = proxy.until_kept().await;
    let split = Wanted::Split { shard: SHARD, how: HowToSplit::Into(2), to: vec![NodeId(1)] };
    shop.request(&proxy, &split).await;
    proxy.until_in(back.id, State::Lapsed).await;
    let back = proxy.until_kept().await;
    assert_eq!(back.targets().len(), 1);
    confirm(&proxy, back.sources()[0].shard).await;
    writers.stop().await;
    shop.assert_as_mapped().await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_where_the_old_copy_is_kept_is_the_way_back() {
    let shop = Shop::create().await;
    let (proxy, back) = moved(&shop).await;
    shop.request_move(&proxy).await;
    let reversed = proxy.until_in(back.id, State::Done).await;
    assert_eq!(reversed.rows_copied, 0);
    proxy.until_kept().await;
    confirm(&proxy, SHARD).await;
    shop.assert_owned_by(0).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_and_merges_are_reversed_over_nodes_and_in_place() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 3).await;
    let proxy = shop.reversible(Failpoints::default(), LONG_MS).await;
    for to in [vec![NodeId(0), NodeId(1)], vec![]] {
        let split = Wanted::Split { shard: SHARD, how: HowToSplit::Into(2), to };
        shop.request(&proxy, &split).await;
        let back = proxy.until_kept().await;
        let children: Vec<ShardId> = back.sources().iter().map(|part| part.shard).collect();
        go_back(&proxy, children[1]).await;
        proxy.until_in(back.id, State::Done).await;
        let back = proxy.until_kept().await;
        assert_eq!(back.sources()[0].shard, SHARD);
        // What was merged by that is split again.
        go_back(&proxy, SHARD).await;
        proxy.until_in(back.id, State::Done).await;
        proxy.until_kept().await;
        confirm(&proxy, children[0]).await;
        shop.assert_as_mapped().await;
        shop.assert_nothing_left().await;
        let merge = Wanted::Merge { shards: children, to: Some(NodeId(0)) };
        shop.request(&proxy, &merge).await;
        proxy.until_kept().await;
        confirm(&proxy, SHARD).await;
    }
    let written = writers.stop().await;
    assert!(written > 100, "only {written} statements were acknowledged");
    shop.assert_owned_by(0).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncates_reach_the_old_copy_and_its_foreign_keys_bind_nobody_until_it_is_back() {
    let shop = Shop::create().await;
    for node in 0..2 {
        let sql = "CREATE TABLE plans (id int PRIMARY KEY); INSERT INTO plans VALUES (7)";
        shop.client(node).await.batch_execute(sql).await.unwrap();
    }
    let sql = "ALTER TABLE orders_s1 ADD CONSTRAINT of_plan FOREIGN KEY (v) REFERENCES plans (id) \
         NOT VALID; DELETE FROM items_s1; DELETE FROM orders_s1 WHERE v <> 7; \
         ALTER TABLE orders_s1 VALIDATE CONSTRAINT of_plan";
    shop.client(0).await.batch_execute(sql).await.unwrap();
    let (proxy, back) = moved(&shop).await;
    let new = shop.client(1).await;
    new.batch_execute("TRUNCATE events; DELETE FROM orders WHERE v = 7; DELETE FROM plans")
        .await
        .unwrap();
    let old = shop.client(0).await;
    old.batch_execute("DELETE FROM plans; INSERT INTO plans VALUES (7)").await.unwrap();
    new.batch_execute("INSERT INTO plans VALUES (7)").await.unwrap();
    let tenant = shop.tenants[0];
    let sql = format!("INSERT INTO orders (tenant_id, id, v) VALUES ({tenant}, 1, 7)");
    new.batch_execute(&sql).await.unwrap();
    go_back(&proxy, SHARD).await;
    proxy.until_in(back.id, State::Done).await;
    let sql = "SELECT (SELECT count(*) FROM events_s1), (SELECT count(*) FROM orders_s1)";
    assert_eq!(rows(&old, sql).await, ["0|1"]);
    let sql = "SELECT convalidated FROM pg_constraint WHERE conname = 'of_plan' \
         AND conrelid = 'orders_s1'::regclass";
    assert_eq!(rows(&old, sql).await, ["t"]);
    proxy.until_kept().await;
    confirm(&proxy, SHARD).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_beside_the_proxy_keeps_nobody_from_anything_but_going_back() {
    let note = "ALTER TABLE public.orders ALTER COLUMN note TYPE varchar(100)";
    let more = "ALTER TABLE public.orders ADD COLUMN more int DEFAULT 5";
    let cases = [
        ("CREATE INDEX ON public.orders (note)", Where::Both, "has another definition by now"),
        (note, Where::New, "columns"),
        (more, Where::New, "columns"),
        ("UPDATE public.orders_s1 SET v = v + 1 WHERE id = -1", Where::Old, "differs at"),
    ];
    let shop = Shop::create().await;
    for (sql, place, reason) in cases {
        let (proxy, back) = moved(&shop).await;
        let (new, old) = (back.from.index(), back.to.index());
        let (new, old) = (shop.client(new).await, shop.client(old).await);
        if place != Where::Old {
            new.batch_execute(sql).await.unwrap();
        }
        if place != Where::New {
            old.batch_execute(sql).await.unwrap();
        }
        let tenant = shop.tenants[0];
        let row = format!("INSERT INTO orders (tenant_id, id, v) VALUES ({tenant}, 77, 7)");
        new.batch_execute(&row).await.unwrap();
        let map = proxy.live_map.snapshot();
        // Its stream may have told it already.
        drop(mover::reverse(&proxy.catalog, &map, Switched::Shard(SHARD), 1).await);
        let ended = proxy.until_in(back.id, State::Aborted).await;
        assert!(ended.error.as_deref().unwrap().contains(reason), "{sql}: {:?}", ended.error);
        shop.assert_owned_by(back.from.index()).await;
        shop.assert_nothing_left().await;
        new.batch_execute("DELETE FROM orders WHERE id = 77").await.unwrap();
        if place == Where::New {
            // For the next one.
            old.batch_execute(sql).await.unwrap();
        }
        proxy.stop().await;
    }
}

/// Where something is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    New,
    Old,
    Both,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_owner_that_was_away_is_followed_again_from_where_it_was_left() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let (proxy, back) = moved(&shop).await;
    for _ in 0..3 {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name ~ '^foreshard move' AND datname = current_database()";
        for node in 0..2 {
            shop.client(node).await.batch_execute(sql).await.unwrap();
        }
        let again = async || {
            let sql =
                "SELECT FROM pg_replication_slots WHERE database = current_database() AND active";
            let node = shop.client(1).await;
            (!node.query(sql, &[]).await.unwrap().is_empty()).then_some(())
        };
        eventually("the stream goes on", Duration::from_secs(20), again).await;
    }
    go_back(&proxy, SHARD).await;
    proxy.until_in(back.id, State::Done).await;
    proxy.until_kept().await;
    confirm(&proxy, SHARD).await;
    writers.stop().await;
    shop.assert_owned_by(0).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_node_that_is_away_makes_the_new_one_keep_no_wal_beyond_the_time() {
    let shop = Shop::create().await;
    let (proxy, back) = moved(&shop).await;
    proxy.stop().await;
    let proxy = shop.without_the_first_node().await;
    mover::confirm(&proxy.catalog, Switched::Shard(SHARD), 1).await.unwrap();
    let freed = async || {
        let sql = "SELECT FROM pg_replication_slots WHERE database = current_database()";
        shop.client(1).await.query(sql, &[]).await.unwrap().is_empty().then_some(())
    };
    eventually("the slot is dropped", Duration::from_secs(30), freed).await;
    let mv = proxy.until_in(back.id, State::Undoing).await;
    assert!(mv.is_aside(), "{mv:#?}");
    proxy.stop().await;
    let proxy = shop.reversible(Failpoints::default(), 0).await;
    proxy.until_in(back.id, State::Lapsed).await;
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}
