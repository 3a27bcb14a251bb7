//! Scenes and the decisions that they lead to.

use super::{
    Action, Basis, Config, Cut, Decision, Division, Halves, HotKey, InFlight, NodeLoad, Normal,
    NotTaken, Scene, ShardLoad, decide, merge,
};
use crate::ids::{MoveId, NodeId, ShardId};

const NOW: u64 = 1_000_000;

/// Three nodes of capacity 0.8, 2 shards each of load 0.15; a step is a second.
fn scene() -> Scene {
    let node = |name: &str| NodeLoad {
        name: name.to_owned(),
        capacity: 0.8,
        own: Vec::new(),
        takes_shards: true,
    };
    let load = vec![Normal { mean: 0.15, deviation: 0.02 }; 30];
    let shard = |node: u16| ShardLoad::new(NodeId(node), load.clone(), true);
    Scene {
        now_unix_ms: NOW,
        step_ms: 1000,
        move_ms: 4000,
        nodes: vec![node("n1"), node("n2"), node("n3")],
        shards: [0, 0, 1, 1, 2, 2].map(shard).to_vec(),
        in_flight: Vec::new(),
    }
}

/// The same with a rush on the shards of node n2 from step 10 on.
fn rush() -> Scene {
    let mut scene = scene();
    for load in &mut scene.shards[2].load[10..] {
        load.mean = 0.35;
    }
    for load in &mut scene.shards[3].load[10..] {
        load.mean = 0.55;
    }
    scene
}

/// A whole shard on its way.
fn flight(shard: u32, from: u16, to: u16, ends_unix_ms: u64) -> InFlight {
    let (from, to) = (NodeId(from), NodeId(to));
    InFlight { id: MoveId(1), shard: ShardId(shard), share: 1.0, from, to, ends_unix_ms }
}

fn config() -> Config {
    Config { window_ms: 20_000, price_overload_seconds: 0.3, ..Config::default() }
}

fn only(decisions: Vec<Decision>) -> Decision {
    assert_eq!(decisions.len(), 1, "{decisions:#?}");
    decisions.into_iter().next().unwrap()
}

#[test]
fn a_calm_scene_gives_no_decision() {
    assert!(decide(&scene(), &config()).is_empty());
}

#[test]
fn a_rush_that_is_foreseen_moves_a_shard_before_it_and_says_why() {
    let decision = only(decide(&rush(), &config()));
    assert_eq!(decision.node, NodeId(1));
    assert_eq!(decision.predicted_crossing_unix_ms, Some(NOW + 10_000));
    assert_eq!(decision.basis, Basis::Forecast);
    assert_eq!(decision.considered, 4);
    let chosen = decision.chosen.unwrap();
    assert_eq!(chosen.from, NodeId(1));
    assert!(chosen.gain > 1.5);
    assert_eq!(
        chosen.reason.split(" (").next().unwrap(),
        "node n2 will exceed its capacity of 0.80 busy-s/s in 10 s"
    );
    assert!(chosen.reason.contains("for a cost of 0.3"), "{}", chosen.reason);
}

#[test]
fn a_move_that_is_under_way_counts_as_done() {
    let mut scene = rush();
    let flight = flight(2, 1, 2, NOW + 2000);
    scene.in_flight.push(flight);
    assert!(decide(&scene, &config()).is_empty());
}

#[test]
fn limits_are_kept_and_named() {
    type Change = fn(&mut Scene, &mut Config);
    let in_flight = |from, to| flight(0, from, to, NOW + 1000);
    let cases: [(Change, NotTaken); 4] = [
        (|_, config| config.price_overload_seconds = 50.0, NotTaken::NotWorthIt),
        (|_, config| config.concurrent_moves_max = 0, NotTaken::MovesAtLimit),
        (
            |scene, _| {
                for shard in &mut scene.shards {
                    shard.rests_until_unix_ms = Some(NOW + 1);
                }
            },
            NotTaken::NothingToMove,
        ),
        (
            |scene, _| {
                for node in [0, 2] {
                    scene.nodes[node].own = vec![Normal { mean: 0.6, deviation: 0.0 }];
                    scene.nodes[node].capacity = 1.1;
                }
            },
            NotTaken::NotWorthIt,
        ),
    ];
    for (change, expected) in cases {
        let (mut scene, mut config) = (rush(), config());
        change(&mut scene, &mut config);
        let decision = only(decide(&scene, &config));
        assert_eq!(decision.chosen, None);
        assert_eq!(decision.not_taken, Some(expected));
        assert!(decision.not_taken_reason.unwrap().starts_with("node n2 will exceed"));
    }
    let mut scene = rush();
    scene.in_flight.push(in_flight(0, 1));
    assert_eq!(only(decide(&scene, &config())).not_taken, Some(NotTaken::NodeInMove));
    let mut scene = rush();
    scene.in_flight.push(in_flight(0, 2));
    assert_eq!(only(decide(&scene, &config())).not_taken, Some(NotTaken::NothingToMove));
}

#[test]
fn of_two_nodes_in_danger_the_one_with_more_to_gain_goes_first() {
    let mut scene = rush();
    for load in &mut scene.shards[0].load[15..] {
        load.mean = 0.75;
    }
    let decisions = decide(&scene, &config());
    assert_eq!(decisions.len(), 2);
    assert_eq!(decisions.iter().filter(|d| d.chosen.is_some()).count(), 1);
    let other = decisions.iter().find(|d| d.chosen.is_none()).unwrap();
    assert_eq!(other.not_taken, Some(NotTaken::OtherNodeFirst));
}

#[test]
fn a_decision_reads_back_as_it_was_stored() {
    let decision = only(decide(&rush(), &config()));
    let text = serde_json::to_string(&decision).unwrap();
    let back: Decision = serde_json::from_str(&text).unwrap();
    let reason = |decision: Decision| decision.chosen.map(|chosen| chosen.reason);
    assert_eq!(back.candidates.len(), decision.candidates.len());
    assert_eq!(reason(back), reason(decision));
}

#[test]
fn a_node_with_as_many_shards_as_may_be_gets_none_by_a_split() {
    let mut scene = one_hot_shard();
    scene.shards[2].division = Some(halves(0.6, true));
    for (most, split) in [(3, true), (2, false)] {
        let config = Config { shards_per_node_max: most, ..config() };
        let decision = only(decide(&scene, &config));
        let action = decision.chosen.map(|chosen| chosen.action);
        assert_eq!(matches!(action, Some(Action::Split { .. })), split, "{most}: {action:?}");
    }
}

fn halves(first_share: f64, sampled: bool) -> Division {
    let halves = Halves { cut: Cut::Into(2), first_share, sampled };
    Division { halves: Some(halves), hot: None }
}

/// Everything of node n2 is in one shard, which no other node can take whole.
fn one_hot_shard() -> Scene {
    let mut scene = scene();
    scene.shards[2].load = vec![Normal { mean: 1.0, deviation: 0.05 }; 30];
    scene.shards[3].load = vec![Normal { mean: 0.01, deviation: 0.01 }; 30];
    scene
}

#[test]
fn a_shard_that_is_too_hot_for_any_node_is_split_by_its_sampled_keys() {
    let mut scene = one_hot_shard();
    let moved = only(decide(&scene, &config()));
    assert!(moved.chosen.is_none(), "whole, it only moves the overload: {moved:#?}");
    scene.shards[2].division = Some(halves(0.6, true));
    let chosen = only(decide(&scene, &config())).chosen.unwrap();
    assert_eq!(
        (chosen.shard, chosen.action),
        (ShardId(2), Action::Split { cut: Cut::Into(2), stays: 0 })
    );
    assert!(chosen.reason.contains("moving a half (40 % of its load, by its sampled keys)"));
    let frugal = Config { split_share_min: 2.0, ..config() };
    assert_eq!(only(decide(&scene, &frugal)).chosen, None);
    // A rush that moving a small shard can take care of is no reason to split.
    let mut scene = rush();
    for shard in &mut scene.shards {
        shard.division = Some(halves(0.5, false));
    }
    assert_eq!(only(decide(&scene, &config())).chosen.unwrap().action, Action::Move);
}

#[test]
fn a_key_that_no_split_divides_is_set_apart() {
    let mut scene = one_hot_shard();
    for load in &mut scene.shards[2].load {
        load.mean = 1.2;
    }
    let hot = Some(HotKey { share: 0.5, cut: Cut::Into(4), part: 3, part_share: 0.625 });
    scene.shards[2].division = Some(Division { hot, ..halves(0.26, true) });
    let config = Config { node_capacity: 0.8, ..config() };
    let decision = only(decide(&scene, &config));
    let chosen = decision.chosen.unwrap();
    assert_eq!(
        chosen.action,
        Action::Isolate { cut: Cut::Into(4), stays: 3 },
        "{:#?}",
        decision.candidates
    );
    assert!(chosen.reason.contains("the hottest key of shard 2 apart (50 % of its load)"));
}

#[test]
fn what_only_an_announcement_asks_for_is_not_done_if_it_would_do_harm() {
    let mut announced = rush();
    let calm = scene();
    for (shard, calm) in announced.shards.iter_mut().zip(&calm.shards) {
        shard.plain = Some(calm.load.clone());
    }
    assert!(only(decide(&announced, &config())).chosen.is_some(), "it does no harm");
    for shard in &mut announced.shards {
        shard.day_peak = 0.4;
    }
    let decision = only(decide(&announced, &config()));
    assert_eq!(decision.not_taken, Some(NotTaken::OnlyAnnounced), "{decision:#?}");
}

#[test]
fn halves_that_stay_cold_are_merged_and_only_when_nothing_moves() {
    let mut scene = scene();
    for (shard, sibling) in [(0, 1), (1, 0)] {
        scene.shards[shard].sibling = Some(ShardId(sibling));
        scene.shards[shard].load = vec![Normal { mean: 0.002, deviation: 0.001 }; 30];
        scene.shards[shard].day_peak = 0.005;
    }
    let config = config();
    let chosen = merge(&scene, &config).unwrap().chosen.unwrap();
    assert_eq!((chosen.shard, chosen.action), (ShardId(0), Action::Merge { with: ShardId(1) }));
    assert!(chosen.reason.contains("one shard is enough"), "{}", chosen.reason);
    let mut apart = scene.clone();
    apart.shards[1].node = NodeId(2);
    let chosen = merge(&apart, &config).unwrap().chosen.unwrap();
    assert_eq!((chosen.from, chosen.to), (NodeId(0), NodeId(0)), "node n1 has less to do");
    assert!(chosen.reason.contains("on n1 and n3"), "{}", chosen.reason);
    let cases: [fn(&mut Scene); 4] = [
        |scene| scene.shards[1].day_peak = 0.5,
        |scene| scene.shards[0].load[20].mean = 0.3,
        |scene| scene.shards[0].rests_until_unix_ms = Some(NOW + 1),
        |scene| scene.in_flight.push(flight(4, 2, 0, NOW)),
    ];
    for change in cases {
        let mut scene = scene.clone();
        change(&mut scene);
        assert_eq!(merge(&scene, &config), None);
    }
}
