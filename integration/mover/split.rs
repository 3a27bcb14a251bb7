//! Splits and merges while writers go on.

use foreshard::ids::{NodeId, ShardId};
use foreshard::mover::{HowToSplit, Wanted};
use foreshard::runtime::Failpoints;
use foreshard::shard_move::{Kind, Move, State};

use super::shop::{Proxy, SHARD, Shop, Writers};

async fn done(shop: &Shop, proxy: &Proxy, wanted: &Wanted) -> Move {
    shop.request(proxy, wanted).await;
    let mv = proxy.until_finished().await;
    assert_eq!(mv.state, State::Done, "{mv:#?}");
    println!("{:?}: pause {:?} ms", mv.kind(), mv.pause_ms);
    shop.assert_as_mapped().await;
    shop.assert_nothing_left().await;
    mv
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_split_over_nodes_and_merged_again_under_load() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 3).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let halves = vec![NodeId(0), NodeId(1)];
    let mv =
        done(&shop, &proxy, &Wanted::Split { shard: SHARD, how: HowToSplit::Into(2), to: halves })
            .await;
    assert_eq!(mv.kind(), Kind::Split);
    assert_eq!(mv.proofs.len(), 6);
    assert!(mv.rows_copied >= 2_000, "{mv:#?}");
    let children: Vec<ShardId> = mv.targets().iter().map(|part| part.shard).collect();
    let map = proxy.live_map.snapshot();
    assert!(map.shard(SHARD).is_none());
    assert_eq!(children.iter().map(|id| map.node_of(*id).0).collect::<Vec<_>>(), [0, 1]);
    let merge = Wanted::Merge { shards: children, to: Some(NodeId(1)) };
    let mv = done(&shop, &proxy, &merge).await;
    assert_eq!((mv.kind(), mv.targets()[0].shard), (Kind::Merge, SHARD));
    let written = writers.stop().await;
    assert!(written > 100, "only {written} statements were acknowledged");
    shop.assert_owned_by(1).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_split_in_place_into_four_and_parts_of_it_go_on() {
    let shop = Shop::create().await;
    let writers = Writers::start(&shop, 2).await;
    let proxy = shop.proxy(Failpoints::default()).await;
    let mv =
        done(&shop, &proxy, &Wanted::Split { shard: SHARD, how: HowToSplit::Into(4), to: vec![] })
            .await;
    let children: Vec<ShardId> = mv.targets().iter().map(|part| part.shard).collect();
    assert_eq!(children, [4, 5, 6, 7].map(ShardId));
    done(&shop, &proxy, &Wanted::Move { shards: vec![children[3]], to: NodeId(1) }).await;
    // The first and the third quarter are a half, and the second may be cut again.
    let half = vec![children[0], children[2]];
    done(&shop, &proxy, &Wanted::Merge { shards: half, to: None }).await;
    done(
        &shop,
        &proxy,
        &Wanted::Split { shard: children[1], how: HowToSplit::Into(2), to: vec![NodeId(1)] },
    )
    .await;
    writers.stop().await;
    proxy.stop().await;
}

/// A split and a merge that die at a failpoint are finished by the next process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_a_split_or_a_merge_is_survived() {
    for failpoint in ["copied", "detached", "attached", "switched"] {
        let shop = Shop::create().await;
        let writers = Writers::start(&shop, 2).await;
        let dying = shop.proxy(Failpoints::stopping_at(failpoint)).await;
        let to = vec![NodeId(1), NodeId(0)];
        shop.request(&dying, &Wanted::Split { shard: SHARD, how: HowToSplit::Into(2), to }).await;
        dying.until_dead().await;
        let dying = shop.proxy(Failpoints::default()).await;
        let mv = dying.until_finished().await;
        assert_eq!(mv.state, State::Done, "split, {failpoint}: {mv:#?}");
        dying.stop().await;
        shop.assert_as_mapped().await;
        let dying = shop.proxy(Failpoints::stopping_at(failpoint)).await;
        let shards = mv.targets().iter().map(|part| part.shard).collect();
        shop.request(&dying, &Wanted::Merge { shards, to: Some(NodeId(0)) }).await;
        dying.until_dead().await;
        let proxy = shop.proxy(Failpoints::default()).await;
        let mv = proxy.until_finished().await;
        assert_eq!(mv.state, State::Done, "merge, {failpoint}: {mv:#?}");
        writers.stop().await;
        shop.assert_as_mapped().await;
        shop.assert_nothing_left().await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_can_not_be_split_or_merged_is_refused_at_once() {
    let shop = Shop::create_empty().await;
    let proxy = shop.still().await;
    let map = proxy.live_map.snapshot();
    let shards = |ids: &[u32]| ids.iter().copied().map(ShardId).collect::<Vec<_>>();
    let split = |shard, into, to: &[u16]| Wanted::Split {
        shard: ShardId(shard),
        how: HowToSplit::Into(into),
        to: to.iter().copied().map(NodeId).collect(),
    };
    let cases = [
        (split(9, 2, &[]), "there is no shard 9"),
        (split(1, 3, &[]), "shard 1 can't be split like this: into 3, which is no power of two"),
        (split(1, 2, &[7]), "there is no node 7"),
        (split(1, 4, &[0, 1]), "2 nodes are named for 4 new shards"),
        (Wanted::Merge { shards: shards(&[0, 1]), to: None }, "can't be merged"),
        (Wanted::Merge { shards: shards(&[]), to: None }, "can't be merged"),
        (Wanted::Merge { shards: shards(&[0, 2]), to: Some(NodeId(7)) }, "there is no node 7"),
    ];
    for (wanted, reason) in cases {
        let cause = foreshard::shard_move::Cause::Operator;
        let asked = foreshard::mover::request_any(&proxy.catalog, &map, &wanted, cause, 1).await;
        let error = asked.unwrap_err().to_string();
        assert!(error.contains(reason), "{wanted:?}: {error}");
    }
}
