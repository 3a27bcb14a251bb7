//! On a catalog in a file.

use std::sync::Arc;

use super::{MoveBook, requested};
use crate::catalog::{Catalog, EmbeddedKv, Expect};
use crate::ids::{GroupId, MoveId, NodeId, ShardId};
use crate::placement::{Action, Cut, Decision, Proposal};
use crate::shard_map::{Bounds, Group, KeyType, KeyValue, MapParts, Shard, ShardMap};
use crate::shard_move::{Cause, Kind, Move, State};

fn moved(id: u64) -> Move {
    let (shard, from, to) = (ShardId(0), NodeId(0), NodeId(1));
    Move::requested(MoveId(id), shard, from, to, Cause::Operator, id)
}

#[tokio::test]
async fn the_book_follows_the_catalog_and_keeps_no_more_than_it_may() {
    let folder = std::env::temp_dir().join(format!("foreshard-moves-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let catalog = Catalog::new(Arc::new(EmbeddedKv::open(&folder.join("catalog")).unwrap()));
    let mut book = MoveBook::default();
    assert!(book.renew(&catalog, 3).await.unwrap().is_empty());
    for id in 1..=4 {
        catalog.put(&moved(id), Expect::Absent).await.unwrap();
    }
    assert_eq!(book.renew(&catalog, 3).await.unwrap().len(), 4, "those under way stay");
    for id in [1, 2] {
        let done = Move { state: State::Done, ..moved(id) };
        catalog.put(&done, Expect::Anything).await.unwrap();
    }
    let states = |moves: Vec<Move>| moves.iter().map(|m| (m.id.0, m.state)).collect::<Vec<_>>();
    let (done, asked) = (State::Done, State::Requested);
    let expected = [(2, done), (3, asked), (4, asked)];
    assert_eq!(states(book.renew(&catalog, 3).await.unwrap()), expected);
    let again = MoveBook::default().renew(&catalog, 3).await.unwrap();
    assert_eq!(states(again), expected);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_proposal_becomes_a_move_a_split_or_a_merge() {
    let shard = |modulus, remainder| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus, remainder },
        node: NodeId(0),
    };
    let group = |name: &str| Group { name: name.to_owned(), key: vec![KeyType::Int8] };
    let range = |from: Option<i64>| {
        let from = from.map(|key| vec![KeyValue::Int(key)]);
        Shard { group: GroupId(1), bounds: Bounds::Range { from, to: None }, node: NodeId(0) }
    };
    let map: ShardMap = MapParts {
        groups: ["tenants", "logs"].map(group).to_vec(),
        shards: vec![shard(2, 0), shard(4, 1), shard(4, 3), range(None)],
        ..MapParts::of("shop", ["n1", "n2"])
    }
    .try_into()
    .unwrap();
    let of = |shard, action, to| {
        let chosen = Proposal {
            shard: ShardId(shard),
            action,
            from: NodeId(0),
            to: NodeId(to),
            gain: 2.0,
            cost: 1.0,
            reason: "it is hot".to_owned(),
        };
        let decision: Decision = serde_json::from_value(serde_json::json!({
            "id": 1, "at_unix_ms": 5, "node": 0, "node_name": "n1", "capacity": 1.0,
            "predicted_crossing_unix_ms": 9, "probability": 0.9, "peak": 2.0, "basis": "forecast",
            "considered": 1, "candidates": [], "chosen": null, "not_taken": null,
            "not_taken_reason": null, "standing": "requested", "move_id": null,
        }))
        .unwrap();
        requested(&chosen, &decision, &map, &[moved(7)], 11).unwrap()
    };
    let plain = of(1, Action::Move, 1);
    assert_eq!((plain.id, plain.kind(), plain.to), (MoveId(8), Kind::Move, NodeId(1)));
    let split = of(1, Action::Split { cut: Cut::Into(2), stays: 1 }, 1);
    let targets: Vec<NodeId> = split.targets().iter().map(|part| part.node).collect();
    assert_eq!((split.kind(), targets), (Kind::Split, vec![NodeId(1), NodeId(0)]));
    let apart = of(1, Action::Isolate { cut: Cut::Into(4), stays: 2 }, 1);
    assert_eq!(apart.targets().iter().filter(|part| part.node == NodeId(0)).count(), 1);
    let merged = of(1, Action::Merge { with: ShardId(2) }, 0);
    assert_eq!((merged.kind(), merged.lanes.len()), (Kind::Merge, 2));
    assert_eq!(merged.targets()[0].bounds, Bounds::Hash { modulus: 2, remainder: 1 });
    let cut = of(3, Action::Split { cut: Cut::At("40".to_owned()), stays: 0 }, 1);
    assert_eq!(
        cut.targets().iter().map(|part| part.node).collect::<Vec<_>>(),
        [NodeId(0), NodeId(1)]
    );
    assert_eq!(cut.targets()[1].bounds, range(Some(40)).bounds);
}
