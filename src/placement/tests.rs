//! Scenes and the decisions that they lead to.

use super::{
    Basis, Config, Decision, InFlight, NodeLoad, Normal, NotTaken, Scene, ShardLoad, decide,
};
use crate::ids::{NodeId, ShardId};

const NOW: u64 = 1_000_000;

/// Three nodes of capacity 0.8, 2 shards each of load 0.15; a step is a second.
fn scene() -> Scene {
    let node = |name: &str| NodeLoad {
        name: name.to_owned(),
        capacity: 0.8,
        own: Vec::new(),
        takes_shards: true,
    };
    let shard = |node: u16| ShardLoad {
        node: NodeId(node),
        load: vec![Normal { mean: 0.15, deviation: 0.02 }; 30],
        trusted: true,
        rests_until_unix_ms: None,
    };
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
    let flight =
        InFlight { shard: ShardId(2), from: NodeId(1), to: NodeId(2), ends_unix_ms: NOW + 2000 };
    scene.in_flight.push(flight);
    assert!(decide(&scene, &config()).is_empty());
}

#[test]
fn limits_are_kept_and_named() {
    type Change = fn(&mut Scene, &mut Config);
    let in_flight = |from, to| InFlight {
        shard: ShardId(0),
        from: NodeId(from),
        to: NodeId(to),
        ends_unix_ms: NOW + 1000,
    };
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
