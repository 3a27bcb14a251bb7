//! What could be done about a node: move a shard, split one, set a hot key apart.

use super::decide::{Outlook, add_overhead, at};
use super::decision::{Action, Candidate};
use super::overload::Sum;
use super::scene::ShardLoad;
use crate::ids::NodeId;

/// What splits cost, in prices of a move: there is more to copy and to watch, and a shard more.
const SPLIT_PRICE: f64 = 2.0;
const ISOLATE_PRICE: f64 = 2.5;
/// A key with less of the load than this is not set apart.
const HOT_SHARE_MIN: f64 = 0.25;
/// What an announcement makes us do may do this much harm if nothing comes of it: a share of the
/// overload that is to be expected anyway, and a share of the price of a move.
const HARM_SHARE: f64 = 0.05;
const HARM_PRICES: f64 = 0.05;

/// A share of a shard's load, on its way.
#[derive(Debug, Clone, Copy)]
enum Part {
    Leaves(f64),
    Comes(f64),
}

impl Outlook<'_> {
    /// Every shard of the node that may move or be split, with every node that may take it or a
    /// part of it.
    pub(super) fn candidates(&self, from: NodeId) -> Vec<Candidate> {
        let now = self.scene.now_unix_ms;
        let before = self.overload(from, &self.loads[from.index()]);
        let others: Vec<(NodeId, f64)> = self
            .scene
            .nodes()
            .filter(|(to, node)| *to != from && node.takes_shards && self.has_slot(*to))
            .map(|(to, _)| (to, self.overload(to, &self.loads[to.index()])))
            .collect();
        let mut candidates = Vec::new();
        for (id, shard) in self.scene.shards().filter(|(_, shard)| shard.node == from) {
            if shard.rests_until_unix_ms.is_some_and(|until| until > now) {
                continue;
            }
            for (action, share, prices) in self.actions(shard) {
                let after = self.overload(from, &self.moved(from, shard, Part::Leaves(share)));
                let room = others.iter().filter(|(to, _)| self.has_room(*to, &action));
                candidates.extend(room.map(|(to, others_before)| {
                    let action = action.clone();
                    let moved = self.moved(*to, shard, Part::Comes(share));
                    let others_after = self.overload(*to, &moved);
                    Candidate {
                        shard: id,
                        action,
                        to: *to,
                        share,
                        gain: before + others_before - after - others_after,
                        cost: prices * self.config.price_overload_seconds,
                    }
                }));
            }
        }
        candidates
    }

    /// Whether a node would not have too many shards, if this brings it some.
    fn has_room(&self, to: NodeId, action: &Action) -> bool {
        let new = match action {
            Action::Split { cut, .. } | Action::Isolate { cut, .. } => cut.parts() - 1,
            Action::Move | Action::Merge { .. } => return true,
        };
        let known = self.scene.shards().filter(|(_, shard)| shard.node == to && shard.exists);
        let new = usize::try_from(new).unwrap_or(usize::MAX);
        known.count().saturating_add(new) <= self.config.shards_per_node_max
    }

    /// What can be done to a shard, how much of its load that takes away, and for how many prices.
    fn actions(&self, shard: &ShardLoad) -> Vec<(Action, f64, f64)> {
        let mut actions = vec![(Action::Move, 1.0, 1.0)];
        let peak = shard.load.iter().map(|load| load.mean).fold(0.0, f64::max);
        let capacity = self.scene.nodes[shard.node.index()].capacity;
        let Some(division) = &shard.division else { return actions };
        if peak < self.config.split_share_min * capacity {
            return actions;
        }
        if let Some(halves) = &division.halves {
            let first = halves.first_share.clamp(0.0, 1.0);
            let split = |stays| Action::Split { cut: halves.cut.clone(), stays };
            actions.push((split(0), 1.0 - first, SPLIT_PRICE));
            actions.push((split(1), first, SPLIT_PRICE));
        }
        if let Some(hot) = division.hot.as_ref().filter(|hot| hot.share >= HOT_SHARE_MIN) {
            let apart = |stays| Action::Isolate { cut: hot.cut.clone(), stays };
            actions.push((apart(hot.part), 1.0 - hot.part_share, ISOLATE_PRICE));
            if hot.cut.parts() == 2 {
                actions.push((apart(1 - hot.part.min(1)), hot.part_share, ISOLATE_PRICE));
            }
        }
        actions
    }

    /// The node's loads if such a part of this shard leaves it, or comes to it, from now on.
    fn moved(&self, node: NodeId, shard: &ShardLoad, part: Part) -> Vec<Sum> {
        let mut loads = self.loads[node.index()].clone();
        add_overhead(&mut loads[..self.moving], self.scene, node, self.config.move_overhead);
        for (step, sum) in loads.iter_mut().enumerate().skip(self.moving) {
            let Some(load) = at(&shard.load, step) else { continue };
            match part {
                Part::Comes(share) => sum.add(load.times(share)),
                // What stays is added anew: variances do not divide as means do.
                Part::Leaves(share) => {
                    sum.remove(load);
                    if share < 1.0 {
                        sum.add(load.times(1.0 - share));
                    }
                }
            }
        }
        loads
    }

    /// Whether this can be done if nothing comes of what was announced: because it is worth its
    /// price all the same; or because it makes the expected overload hardly worse, and the
    /// destination would have room for it even if all its shards were at the highest of their day.
    pub(super) fn does_no_harm(&self, candidate: &Candidate) -> bool {
        let Candidate { to, share, cost, .. } = candidate.clone();
        let Some(shard) = self.scene.shards.get(candidate.shard.index()) else { return false };
        let before = |node: NodeId| self.overload(node, &self.loads[node.index()]);
        let leaves = self.moved(shard.node, shard, Part::Leaves(share));
        let comes = self.moved(to, shard, Part::Comes(share));
        let before = before(shard.node) + before(to);
        let after = self.overload(shard.node, &leaves) + self.overload(to, &comes);
        if before - after > cost {
            return true;
        }
        let most = HARM_SHARE * before + HARM_PRICES * self.config.price_overload_seconds;
        after - before <= most && self.highest(to) + share * shard.day_peak <= self.planned(to)
    }

    /// The load of a node if all its shards were at the highest of their day.
    fn highest(&self, node: NodeId) -> f64 {
        let own = self.scene.nodes[node.index()].own.iter().map(|load| load.mean);
        let shards = self.scene.shards().filter(|(_, shard)| shard.node == node);
        own.fold(0.0, f64::max) + shards.map(|(_, shard)| shard.day_peak).sum::<f64>()
    }
}
