//! Shards of one node that move together: one slot, one switch, one way back.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use foreshard::ids::{NodeId, ShardId};
use foreshard::mover::{self, Switched, UnderWay, Wanted};
use foreshard::runtime::{BACK_FAILPOINTS, Failpoints, MOVE_FAILPOINTS, RESUME_FAILPOINTS};
use foreshard::shard_move::{Cause, Kind, Move, State};

use super::shop::{Proxy, Shop, Writers};
use super::support::rows;

const BOTH: [ShardId; 2] = [ShardId(0), ShardId(1)];

/// A shop with rows and tenants in both shards of the first node.
async fn shop() -> Shop {
    let mut shop = Shop::create().await;
    let sql = "SELECT g FROM generate_series(1, 400) AS g \
         WHERE satisfies_hash_partition('orders'::regclass, 4, 0, g::bigint)";
    let client = shop.client(0).await;
    let tenants: Vec<i64> =
        rows(&client, sql).await.iter().map(|tenant| tenant.parse().unwrap()).collect();
    client
        .batch_execute(&format!(
            "INSERT INTO orders (tenant_id, id, v) SELECT {}, -i, 1 FROM generate_series(1, 500) i",
            tenants[0]
        ))
        .await
        .unwrap();
    // Writers take the last ones: one of each shard in turn.
    let others = std::mem::take(&mut shop.tenants);
    let len = tenants.len().min(others.len());
    let pairs = others.iter().take(len).zip(tenants.iter().rev());
    shop.tenants = pairs.flat_map(|(one, other)| [*one, *other]).collect();
    shop
}

fn both_to(node: u16) -> Wanted {
    Wanted::Move { shards: BOTH.to_vec(), to: NodeId(node) }
}

async fn moved(shop: &Shop, proxy: &Proxy, to: u16) -> Move {
    shop.request(proxy, &both_to(to)).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    println!("{:?}: pause {:?} ms", mv.kind(), mv.pause_ms);
    assert_both_on(shop, proxy, to).await;
    mv
}

async fn assert_both_on(shop: &Shop, proxy: &Proxy, node: u16) {
    let map = proxy.live_map.snapshot();
    assert_eq!(BOTH.map(|shard| map.node_of(shard).0), [node, node]);
    shop.assert_as_mapped().await;
    shop.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_move_together_under_load_and_each_row_once() {
    let shop = shop().await;
    let writers = Writers::start(&shop, 4).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = moved(&shop, &proxy, 1).await;
    assert_eq!((mv.kind(), mv.lanes.len(), mv.proofs.len()), (Kind::Batch, 2, 6));
    assert!(mv.rows_copied > 2_500, "{}", mv.rows_copied);
    moved(&shop, &proxy, 0).await;
    let written = writers.stop().await;
    assert!(written > 100, "only {written} statements were acknowledged");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slot_brings_all_of_them_and_one_takes_them_back() {
    let shop = shop().await;
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE database = '{}' AND NOT temporary",
        rows(&shop.client(0).await, "SELECT current_database()").await[0]
    );
    let dying = shop.reversible(Failpoints::stopping_at("built"), 600_000).await;
    shop.request(&dying, &both_to(1)).await;
    dying.until_dead().await;
    assert_eq!(rows(&shop.client(0).await, &slots).await, ["1"]);
    assert_eq!(rows(&shop.client(1).await, &slots).await, ["0"]);
    let writers = Writers::start(&shop, 4).await;
    let proxy = shop.reversible(Failpoints::default(), 600_000).await;
    for (old, new) in [(0, 1), (1, 0), (0, 1)] {
        let back = proxy.until_kept().await;
        assert_eq!(rows(&shop.client(new).await, &slots).await, ["1"], "the way back");
        assert_eq!(rows(&shop.client(old).await, &slots).await, ["0"]);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let map = proxy.live_map.snapshot();
        // Either shard tells which switch is meant.
        let shard = BOTH[old];
        mover::reverse(&proxy.catalog, &map, Switched::Shard(shard), 1).await.unwrap();
        let reversed = proxy.until_in(back.id, State::Done).await;
        assert_eq!((reversed.rows_copied, reversed.proofs.len()), (0, 6), "{reversed:#?}");
        assert!(reversed.changes_applied > 0, "{reversed:#?}");
    }
    let back = proxy.until_kept().await;
    // What moves them to where their old copies are kept is the way back.
    shop.request(&proxy, &both_to(1)).await;
    proxy.until_in(back.id, State::Done).await;
    let back = proxy.until_kept().await;
    mover::confirm(&proxy.catalog, Switched::Shard(BOTH[1]), 1).await.unwrap();
    proxy.until_in(back.id, State::Lapsed).await;
    assert_both_on(&shop, &proxy, 1).await;
    writers.stop().await;
    proxy.stop().await;
}

/// One process after the other dies at its failpoint, the first of them after both shards were asked for
/// to go to `to`; the next one finishes that.
async fn dies_at(shop: &Shop, failpoints: &[&str], to: u16) {
    for (at, failpoint) in failpoints.iter().enumerate() {
        let dying = shop.proxy(Failpoints::stopping_at(failpoint)).await;
        if at == 0 {
            shop.request(&dying, &both_to(to)).await;
        }
        if *failpoint == "undone" {
            let id = dying.until("begun", |mv| mv.state != State::Requested).await.id;
            mover::call_off(&dying.catalog, UnderWay::Move(id), 1).await.unwrap();
        }
        dying.until_dead().await;
    }
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv = proxy.until_finished().await;
    let (state, to) = match failpoints {
        ["undone"] => (State::Aborted, 1 - to),
        _ => (State::Done, to),
    };
    assert_eq!(mv.state, state, "after {failpoints:?}: {mv:#?}");
    assert_both_on(shop, &proxy, to).await;
    proxy.stop().await;
    println!("{failpoints:?}: {:?}", mv.state);
}

/// Half of the failpoints, so that both halves share the time.
async fn dies_at_every_other(skipped: usize) {
    let shop = shop().await;
    let writers = Writers::start(&shop, 1).await;
    let mut node = 0;
    for failpoint in MOVE_FAILPOINTS.iter().skip(skipped).step_by(2) {
        dies_at(&shop, &[failpoint], 1 - node).await;
        node = if *failpoint == "undone" { node } else { 1 - node };
    }
    let proxy = shop.proxy(Failpoints::default()).await;
    writers.stop().await;
    proxy.stop().await;
    if skipped == 0 {
        // Writers may change what makes the copy begin anew.
        assert_eq!(RESUME_FAILPOINTS, ["window_passed"]);
        dies_at(&shop, &["segment_copied", "window_passed"], 1 - node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_even_failpoint_while_shards_move_together_is_survived() {
    dies_at_every_other(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_odd_failpoint_while_shards_move_together_is_survived() {
    dies_at_every_other(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_on_the_way_back_of_shards_that_moved_together_is_survived() {
    const LONG_MS: u64 = 600_000;
    let shop = shop().await;
    let writers = Writers::start(&shop, 2).await;
    for failpoint in BACK_FAILPOINTS {
        // Those that the way back passes before anybody takes it.
        let early = ["armed", "mark_found", "mark_noted"].contains(&failpoint);
        let first = if early { Failpoints::stopping_at(failpoint) } else { Failpoints::default() };
        let mut proxy = shop.reversible(first, LONG_MS).await;
        shop.request(&proxy, &both_to(1)).await;
        if early {
            proxy.until_dead().await;
            proxy = shop.reversible(Failpoints::default(), LONG_MS).await;
        }
        let back = proxy.until_kept().await;
        if !early {
            proxy.stop().await;
            proxy = shop.reversible(Failpoints::stopping_at(failpoint), LONG_MS).await;
        }
        let map = proxy.live_map.snapshot();
        mover::reverse(&proxy.catalog, &map, Switched::Shard(BOTH[1]), 1).await.unwrap();
        if !early {
            proxy.until_dead().await;
            proxy = shop.reversible(Failpoints::default(), LONG_MS).await;
        }
        proxy.until_in(back.id, State::Done).await;
        let kept = proxy.until_kept().await;
        mover::confirm(&proxy.catalog, Switched::Shard(BOTH[0]), 1).await.unwrap();
        proxy.until_in(kept.id, State::Lapsed).await;
        assert_both_on(&shop, &proxy, 0).await;
        proxy.stop().await;
    }
    let proxy = shop.proxy(Failpoints::default()).await;
    writers.stop().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sits_in_a_transaction_keeps_them_from_switching_together_but_not_one_by_one() {
    let shop = shop().await;
    let writers = Writers::start(&shop, 2).await;
    // Of a shard that stays.
    let mover = shop.proxy(Failpoints::default()).await;
    let one = Wanted::Move { shards: vec![ShardId(2)], to: NodeId(0) };
    shop.request(&mover, &one).await;
    assert_eq!(mover.until_finished().await.state, State::Done);
    let reader = shop.client(0).await;
    let sql = "SELECT min(g) FROM generate_series(1, 400) AS g \
         WHERE satisfies_hash_partition('orders'::regclass, 4, 2, g::bigint)";
    let tenant = rows(&reader, sql).await.remove(0);
    let sit = format!("BEGIN; SELECT count(*) FROM orders WHERE tenant_id = {tenant}");
    reader.batch_execute(&sit).await.unwrap();
    shop.request(&mover, &both_to(1)).await;
    let mv = mover.until_finished().await;
    assert_eq!(mv.state, State::Aborted, "{mv:#?}");
    let error = mv.error.as_deref().unwrap();
    assert!(error.contains("ask for each by a move of its own"), "{error}");
    assert_both_on(&shop, &mover, 0).await;
    for shard in BOTH {
        shop.request(&mover, &Wanted::Move { shards: vec![shard], to: NodeId(1) }).await;
        let mv = mover.until_finished().await;
        assert_eq!(mv.state, State::Done, "{mv:#?}");
        // The first stays pending on the node as long as somebody there keeps an older snapshot.
        reader.batch_execute(&format!("COMMIT; {sit}")).await.unwrap();
    }
    reader.batch_execute("COMMIT").await.unwrap();
    writers.stop().await;
    mover.stop().await;
}

#[tokio::test]
async fn what_can_not_move_together_is_refused_at_once() {
    let shop = Shop::create_empty().await;
    let proxy = shop.still().await;
    let map = proxy.live_map.snapshot();
    let cases = [
        (vec![], 1, "can't move together"),
        (vec![0, 0], 1, "can't move together"),
        (vec![1, 2], 1, "shard 2 is on node n2 already"),
        (vec![0, 9], 1, "there is no shard 9"),
        (vec![0, 1], 7, "there is no node 7"),
    ];
    for (shards, to, reason) in cases {
        let shards = shards.into_iter().map(ShardId).collect();
        let wanted = Wanted::Move { shards, to: NodeId(to) };
        let asked = mover::request_any(&proxy.catalog, &map, &wanted, Cause::Operator, 1).await;
        let error = asked.unwrap_err().to_string();
        assert!(error.contains(reason), "{wanted:?}: {error}");
    }
}
