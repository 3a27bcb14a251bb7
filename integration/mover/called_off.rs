//! Moves that a person calls off, wherever they are.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use foreshard::ids::MoveId;
use foreshard::mover::{self, RequestError, UnderWay};
use foreshard::runtime::Failpoints;
use foreshard::shard_move::{Move, State};

use super::resume::brought_segments;
use super::shop::{Proxy, Shop, Writers};
use super::support::eventually;

async fn call_off(proxy: &Proxy, id: MoveId) -> Result<(), RequestError> {
    mover::call_off(&proxy.catalog, UnderWay::Move(id), 1).await
}

/// Nothing of the move is left, and the shard can move again.
async fn assert_undone(shop: &Shop, proxy: &Proxy) {
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Aborted, "{mv:#?}");
    assert_eq!(mv.error.as_deref(), Some("it was called off"));
    shop.assert_owned_by(0).await;
    shop.assert_nothing_left().await;
    let error = call_off(proxy, mv.id).await.unwrap_err().to_string();
    assert_eq!(error, format!("move {} is finished", mv.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_called_off_while_it_copies_and_while_it_waits_for_its_switch() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let proxy = shop.slowly(100_000).await;
    shop.request_move(&proxy).await;
    let some = async || (brought_segments(&shop).await >= 1).then_some(());
    eventually("a segment is copied", Duration::from_mins(1), some).await;
    call_off(&proxy, MoveId(1)).await.unwrap();
    assert_undone(&shop, &proxy).await;
    proxy.stop().await;

    // Somebody in a transaction on the shard puts its switch off, again and again.
    let proxy = shop.proxy(Failpoints::default()).await;
    let reader = proxy.gates.enter(super::shop::SHARD).await;
    shop.request_move(&proxy).await;
    proxy.until("put off", |mv: &Move| mv.postponed > 0).await;
    call_off(&proxy, MoveId(2)).await.unwrap();
    drop(reader);
    assert_undone(&shop, &proxy).await;
    writers.stop().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_under_way_is_not_called_off() {
    let shop = Shop::create_empty().await;
    let still = shop.still().await;
    let error = call_off(&still, MoveId(7)).await.unwrap_err().to_string();
    assert_eq!(error, "there is no move 7");
    let job = UnderWay::Job(foreshard::ids::JobId(3));
    let error = mover::call_off(&still.catalog, job, 1).await.unwrap_err().to_string();
    assert_eq!(error, "there is no job 3");
    // Before anything was done.
    shop.request_move(&still).await;
    call_off(&still, MoveId(1)).await.unwrap();
    let proxy = shop.reversible(Failpoints::default(), 600_000).await;
    assert_undone(&shop, &proxy).await;
    shop.request_move(&proxy).await;
    let kept = proxy.until_kept().await;
    let error = call_off(&proxy, kept.id).await.unwrap_err().to_string();
    assert!(error.contains("only keeps old copies"), "{error}");
    proxy.stop().await;
}
