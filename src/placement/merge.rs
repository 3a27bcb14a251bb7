//! Shards that are too cold to be two.

use super::config::Config;
use super::decision::{Action, Basis, Decision, Proposal, Standing};
use super::scene::{Scene, ShardLoad};
use crate::ids::{NodeId, ShardId};

/// How sure it must be that they stay cold: so many deviations above the mean.
const SURE: f64 = 2.0;

/// Two halves of a former shard.
struct Pair<'a> {
    first: (ShardId, &'a ShardLoad),
    second: (ShardId, &'a ShardLoad),
    /// Where they become one.
    to: NodeId,
    /// What they have to stay below.
    limit: f64,
}

/// The two halves of a former shard that have been, and will be, colder than is worth two shards,
/// on the same node if there are such; nothing while anything else moves. To be asked only when no
/// node is in danger.
pub fn merge(scene: &Scene, config: &Config) -> Option<Decision> {
    if !scene.in_flight.is_empty() || config.merge_share_max <= 0.0 {
        return None;
    }
    let cold = || {
        let pairs = scene.shards().filter_map(|first| Pair::of(scene, config, first));
        pairs.filter(|pair| pair.is_cold(scene.now_unix_ms))
    };
    let pair = cold().find(Pair::is_together).or_else(|| cold().next())?;
    Some(decision(scene, &pair))
}

impl<'a> Pair<'a> {
    /// The shard and its sibling, once for both; on the node of the two that is used less.
    fn of(scene: &'a Scene, config: &Config, first: (ShardId, &'a ShardLoad)) -> Option<Self> {
        let with = first.1.sibling.filter(|with| *with > first.0)?;
        let second = scene.shards.get(with.index())?;
        let capacity = |node: NodeId| scene.nodes[node.index()].capacity;
        let nodes = [first.1.node, second.node];
        let used = |node: &NodeId| used(scene, *node) / capacity(*node);
        let takes = |node: &NodeId| scene.nodes[node.index()].takes_shards;
        let open = nodes.into_iter().filter(|node| nodes[0] == nodes[1] || takes(node));
        let to = open.min_by(|a, b| used(a).total_cmp(&used(b)))?;
        let limit = config.merge_share_max * capacity(nodes[0]).min(capacity(nodes[1]));
        Some(Self { first, second: (with, second), to, limit })
    }

    fn is_together(&self) -> bool {
        self.first.1.node == self.second.1.node
    }

    /// Whether both were and will be cold, and neither has moved of late.
    fn is_cold(&self, now_unix_ms: u64) -> bool {
        let (first, second) = (self.first.1, self.second.1);
        let rests =
            |shard: &ShardLoad| shard.rests_until_unix_ms.is_some_and(|until| until > now_unix_ms);
        let known = !first.load.is_empty() && !second.load.is_empty();
        let expected = peak(first) + peak(second);
        let seen = first.day_peak + second.day_peak;
        known && !rests(first) && !rests(second) && expected < self.limit && seen < self.limit
    }
}

/// The highest load that is to be expected.
fn peak(shard: &ShardLoad) -> f64 {
    shard.load.iter().map(|load| load.mean + SURE * load.deviation).fold(0.0, f64::max)
}

/// The sum of what is to be expected of a node's shards at the most.
fn used(scene: &Scene, node: NodeId) -> f64 {
    scene.shards().filter(|(_, shard)| shard.node == node).map(|(_, shard)| peak(shard)).sum()
}

fn decision(scene: &Scene, pair: &Pair<'_>) -> Decision {
    let Pair { first: (id, shard), second: (with, other), to, limit } = *pair;
    let name = |node: NodeId| scene.nodes[node.index()].name.as_str();
    let place = if pair.is_together() {
        format!("on {}", name(to))
    } else {
        format!("on {} and {}", name(shard.node), name(other.node))
    };
    let reason = format!(
        "shards {id} and {with} {place}, halves of a former one, were and will be below \
         {limit:.3} busy-s/s together: one shard is enough"
    );
    let trusted = shard.trusted && other.trusted;
    let node = &scene.nodes[to.index()];
    Decision {
        id: 0,
        at_unix_ms: scene.now_unix_ms,
        node: to,
        node_name: node.name.clone(),
        capacity: node.capacity,
        predicted_crossing_unix_ms: None,
        probability: 0.0,
        peak: peak(shard) + peak(other),
        basis: if trusted { Basis::Forecast } else { Basis::Persistence },
        considered: 1,
        candidates: Vec::new(),
        chosen: Some(Proposal {
            shard: id,
            action: Action::Merge { with },
            from: shard.node,
            to,
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
