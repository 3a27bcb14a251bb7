//! Moves of a shard between two real nodes while writers go on.
#![allow(clippy::print_stdout, reason = "the measured pauses, for who looks")]

mod support;
#[path = "mover_support/mod.rs"]
mod shop;

#[path = "mover/back.rs"]
mod back;
#[path = "mover/busy.rs"]
mod busy;
#[path = "mover/called_off.rs"]
mod called_off;
#[path = "mover/concurrent.rs"]
mod concurrent;
#[path = "mover/resume.rs"]
mod resume;
#[path = "mover/rows.rs"]
mod rows;
#[path = "mover/runs.rs"]
mod runs;
#[path = "mover/split.rs"]
mod split;
#[path = "mover/together.rs"]
mod together;

use std::time::Duration;

use foreshard::mover;
use foreshard::runtime::{CONCURRENT_FAILPOINTS, Failpoints, MOVE_FAILPOINTS};
use foreshard::shard_move::{Cause, State};
use shop::{SHARD, Shop, Writers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_under_load_loses_nothing_and_fails_no_statement() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 3).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    shop.request_move(&proxy).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    assert_eq!(mv.lanes[0].tables.len(), 3);
    assert!(mv.objects.is_empty());
    assert_eq!(mv.proofs.len(), 3);
    assert!(mv.rows_copied >= 2_000, "{mv:#?}");
    println!("pause: {:?} ms, postponed {}", mv.pause_ms, mv.postponed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let written = writers.stop().await;
    assert!(written > 100, "only {written} statements were acknowledged");
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_moves_back_and_forth() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mut pauses = Vec::new();
    for _ in 0..4 {
        shop.request_move(&proxy).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Done, "{mv:#?}");
        pauses.push(mv.pause_ms);
    }
    println!("pauses: {pauses:?}");
    writers.stop().await;
    shop.assert_owned_by(0).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

/// The state after a crash at a failpoint is finished or undone by the next process, and the move
/// ends well in either case.
async fn resumes_after(failpoint: &str) {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    // Somebody on another shard keeps plain detachment off; else a busy machine must not.
    let concurrent = CONCURRENT_FAILPOINTS.contains(&failpoint);
    let _reader = if concurrent { Some(shop.idle_reader().await) } else { None };
    let dying = if concurrent {
        shop.proxy(Failpoints::stopping_at(failpoint)).await
    } else {
        shop.plainly(Failpoints::stopping_at(failpoint)).await
    };
    shop.request_move(&dying).await;
    dying.until_dead().await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "after {failpoint}: {mv:#?}");
    writers.stop().await;
    shop.assert_owned_by(1).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

macro_rules! crashes {
    ($($failpoint:ident),* $(,)?) => {
        mod a_crash_is_survived_at {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $failpoint() {
                    super::resumes_after(stringify!($failpoint)).await;
                }
            )*

            #[test]
            fn every_failpoint() {
                let tested = [$(stringify!($failpoint)),*];
                for name in super::MOVE_FAILPOINTS.into_iter().chain(super::CONCURRENT_FAILPOINTS) {
                    assert!(name == "undone" || tested.contains(&name), "{name} is not tested");
                }
            }
        }
    };
}

crashes!(
    prepared,
    slot_made,
    copy_uncommitted,
    segment_copied,
    copied,
    built,
    batch_applied,
    verified,
    drained,
    frozen,
    arrived,
    hidden,
    detached,
    marker_applied,
    attached,
    switched,
    stream_dropped,
    cleaned,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_differ_stop_the_move_and_nothing_is_left_of_it() {
    let shop = Shop::create().await;
    let dying = shop.proxy(Failpoints::stopping_at("built")).await;
    shop.request_move(&dying).await;
    dying.until_dead().await;
    let sql = "UPDATE public.orders_s1 SET v = v + 1 \
         WHERE id = (SELECT min(id) FROM public.orders_s1)";
    shop.client(1).await.batch_execute(sql).await.unwrap();
    let dying = shop.proxy(Failpoints::stopping_at("undone")).await;
    dying.until_dead().await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Aborted);
    let error = mv.error.as_deref().unwrap();
    assert!(
        error.contains("orders_s1\" differs at") && error.ends_with(",-25) differs"),
        "{error}"
    );
    shop.assert_owned_by(0).await;
    shop.assert_nothing_left().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_move_is_refused_with_its_reason() {
    let cases = [
        ("CREATE TABLE public.orders_s1 (a int)", "has a table \"public\".\"orders_s1\" already"),
        ("ALTER TABLE public.orders ADD COLUMN more int", "other columns"),
        ("ALTER TYPE public.mood ADD VALUE 'great' BEFORE 'ok'", "other columns"),
        ("CREATE INDEX ON public.orders (note)", "other constraints or indexes"),
        ("DROP TABLE public.events", "exists on one of the two nodes only"),
    ];
    for (sql, reason) in cases {
        let shop = Shop::create().await;
        shop.client(1).await.batch_execute(sql).await.unwrap();
        let proxy = shop.proxy(Failpoints::default()).await;
        shop.request_move(&proxy).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Aborted);
        assert!(mv.error.as_deref().unwrap().contains(reason), "{sql}: {:?}", mv.error);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_of_another_version_of_their_extension_are_refused_before_any_work() {
    let shop = Shop::create_empty().await;
    for (node, version) in [(0, "1.4"), (1, "1.5")] {
        let sql = format!(
            "CREATE EXTENSION hstore SCHEMA public VERSION '{version}'; \
             ALTER TABLE events ADD COLUMN more hstore"
        );
        shop.client(node).await.batch_execute(&sql).await.unwrap();
    }
    let proxy = shop.proxy(Failpoints::default()).await;
    shop.request_move(&proxy).await;
    let mv = proxy.until_finished().await;
    let error = mv.error.unwrap();
    assert!(error.contains("extension hstore 1.4 on node n1 and extension hstore 1.5"), "{error}");
    shop.client(0).await.batch_execute("ALTER EXTENSION hstore UPDATE TO '1.5'").await.unwrap();
    shop.request_move(&proxy).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_can_not_be_fenced_off_moves_nothing() {
    let shop = Shop::create_empty().await;
    let role = format!("mover_{}", std::process::id());
    let proxy = shop.as_role(&role).await;
    shop.request_move(&proxy).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Aborted);
    let error = mv.error.unwrap();
    assert!(error.contains("can't make the schema foreshard there"), "{error}");
    proxy.stop().await;
    for node in 0..2 {
        let sql = format!("DROP OWNED BY {role}; DROP ROLE {role}");
        shop.client(node).await.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test]
async fn a_shard_is_asked_for_once_and_only_to_another_node() {
    let shop = Shop::create_empty().await;
    let proxy = shop.still().await;
    let map = proxy.live_map.snapshot();
    let ask = async |node: u16| {
        let to = foreshard::ids::NodeId(node);
        mover::request(&proxy.catalog, &map, SHARD, to, Cause::Operator, 1).await
    };
    assert!(ask(0).await.unwrap_err().to_string().contains("is on node n1 already"));
    assert!(ask(7).await.unwrap_err().to_string().contains("no node 7"));
    let id = ask(1).await.unwrap();
    assert_eq!(id.0, 1);
    assert!(ask(1).await.unwrap_err().to_string().contains("being moved already"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_dies() {
    if let Some(shop) = Shop::of_parent() {
        shop.live_until_killed().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_nothing_that_the_next_one_does_not_finish() {
    assert_eq!(shop::PROCESS_TEST, "the_process_that_dies");
    for deaths in [vec!["copy_uncommitted", "built", "attached"], vec!["detached", "switched"]] {
        let mut shop = Shop::create().await;
        let still = shop.still().await;
        shop.request_move(&still).await;
        for failpoint in &deaths {
            shop.die_elsewhere(failpoint).await;
        }
        let writers = Writers::start(&shop, 2).await;
        let proxy = shop.proxy(Failpoints::default()).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Done, "after {deaths:?}: {mv:#?}");
        writers.stop().await;
        shop.assert_owned_by(1).await;
        shop.assert_nothing_left().await;
        proxy.stop().await;
    }
}
