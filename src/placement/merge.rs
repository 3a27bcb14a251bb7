//! Shards that are too cold to be two.

use super::config::Config;
use super::decision::{Action, Basis, Decision, Proposal, Standing};
use super::scene::{Scene, ShardLoad};
use crate::ids::ShardId;

/// How sure it must be that they stay cold: so many deviations above the mean.
const SURE: f64 = 2.0;

/// The two halves of a former shard that have been, and will be, colder than is worth two shards;
/// nothing while anything else moves. To be asked only when no node is in danger.
pub fn merge(scene: &Scene, config: &Config) -> Option<Decision> {
    if !scene.in_flight.is_empty() || config.merge_share_max <= 0.0 {
        return None;
    }
    let pair = scene.shards().find_map(|(id, shard)| {
        let with = shard.sibling.filter(|with| *with > id)?;
        let other = scene.shards.get(with.index())?;
        let capacity = scene.nodes[shard.node.index()].capacity;
        let limit = config.merge_share_max * capacity;
        let cold = peak(shard) + peak(other) < limit && shard.day_peak + other.day_peak < limit;
        let rests = |shard: &ShardLoad| {
            shard.rests_until_unix_ms.is_some_and(|until| until > scene.now_unix_ms)
        };
        let known = !shard.load.is_empty() && !other.load.is_empty();
        let free = shard.node == other.node && !rests(shard) && !rests(other);
        (cold && free && known).then_some((id, shard, with, limit))
    });
    pair.map(|(id, shard, with, limit)| decision(scene, (id, shard), with, limit))
}

/// The highest load that is to be expected.
fn peak(shard: &ShardLoad) -> f64 {
    shard.load.iter().map(|load| load.mean + SURE * load.deviation).fold(0.0, f64::max)
}

fn decision(
    scene: &Scene,
    (id, shard): (ShardId, &ShardLoad),
    with: ShardId,
    limit: f64,
) -> Decision {
    let node = &scene.nodes[shard.node.index()];
    let reason = format!(
        "shards {id} and {with} on {}, halves of a former one, were and will be below {limit:.3} \
         busy-s/s together: one shard is enough",
        node.name
    );
    let trusted = shard.trusted;
    Decision {
        id: 0,
        at_unix_ms: scene.now_unix_ms,
        node: shard.node,
        node_name: node.name.clone(),
        capacity: node.capacity,
        predicted_crossing_unix_ms: None,
        probability: 0.0,
        peak: peak(shard),
        basis: if trusted { Basis::Forecast } else { Basis::Persistence },
        considered: 1,
        candidates: Vec::new(),
        chosen: Some(Proposal {
            shard: id,
            action: Action::Merge { with },
            from: shard.node,
            to: shard.node,
            gain: 0.0,
            cost: 0.0,
            reason,
        }),
        not_taken: None,
        not_taken_reason: None,
        standing: Standing::NotTaken,
        move_id: None,
    }
}
