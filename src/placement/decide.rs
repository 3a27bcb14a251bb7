//! The rule: expected overload avoided against the price of the move.

use super::config::Config;
use super::decision::{Basis, Candidate, Decision, NotTaken, Proposal, Standing};
use super::overload::{Normal, Sum};
use super::scene::{NodeLoad, Scene, ShardLoad};
use crate::ids::{NodeId, ShardId};

/// Candidates that a decision keeps.
const CANDIDATES_MAX: usize = 5;

/// Looks at every node and weighs moves for those that may be overloaded. One decision for each of
/// these; at the most one has a move chosen. Nothing for a node that is not in danger.
pub fn decide(scene: &Scene, config: &Config) -> Vec<Decision> {
    let outlook = Outlook::new(scene, config);
    let mut decisions: Vec<Decision> = scene
        .nodes()
        .filter(|(id, _)| outlook.risk(*id) > config.risk_min)
        .map(|(id, node)| outlook.weigh(id, node))
        .collect();
    let first = best(&decisions);
    for (index, decision) in decisions.iter_mut().enumerate() {
        outlook.settle(decision, first == Some(index));
    }
    decisions
}

/// What to expect of each node at each step of the forecasts, with the moves under way as if done.
pub fn expected_loads(scene: &Scene, error_correlation: f64) -> Vec<Vec<Normal>> {
    let steps = scene.shards.iter().map(|shard| shard.load.len()).max().unwrap_or(0);
    let sums = sums(scene, steps, 0.0);
    let totals = |sums: Vec<Sum>| sums.iter().map(|sum| sum.total(error_correlation)).collect();
    sums.into_iter().map(totals).collect()
}

/// The decision with the best candidate, if that is worth its price.
fn best(decisions: &[Decision]) -> Option<usize> {
    let gain = |decision: &Decision| {
        let best = decision.candidates.first().filter(|_| decision.not_taken.is_none())?;
        (best.gain > best.cost).then_some(best.gain)
    };
    let gains = decisions.iter().enumerate().filter_map(|(i, d)| Some((i, gain(d)?)));
    gains.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
}

impl Scene {
    fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeLoad)> {
        (0u16..).map(NodeId).zip(&self.nodes)
    }

    fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardLoad)> {
        (0u32..).map(ShardId).zip(&self.shards)
    }

    /// Steps until `at_unix_ms`, rounded up.
    fn steps_until(&self, at_unix_ms: u64) -> usize {
        let left_ms = at_unix_ms.saturating_sub(self.now_unix_ms);
        usize::try_from(left_ms.div_ceil(self.step_ms.max(1))).unwrap_or(usize::MAX)
    }
}

/// The load of every node over the steps that count, with the moves under way as if done.
struct Outlook<'a> {
    scene: &'a Scene,
    config: &'a Config,
    /// Steps until a move that starts now is over.
    moving: usize,
    /// Steps that count: the move's, and the window's.
    steps: usize,
    /// By node, then step.
    loads: Vec<Vec<Sum>>,
}

impl<'a> Outlook<'a> {
    fn new(scene: &'a Scene, config: &'a Config) -> Self {
        let known = scene.shards.iter().map(|shard| shard.load.len()).max().unwrap_or(0);
        let moving = scene.steps_until(scene.now_unix_ms + scene.move_ms).max(1);
        let window = scene.steps_until(scene.now_unix_ms + config.window_ms);
        let steps = moving.saturating_add(window).min(known.max(moving + 1));
        let loads = sums(scene, steps, config.move_overhead);
        Self { scene, config, moving, steps, loads }
    }

    fn total(&self, sum: &Sum) -> Normal {
        sum.total(self.config.error_correlation)
    }

    fn planned(&self, node: NodeId) -> f64 {
        self.scene.nodes[node.index()].capacity * self.config.target_utilization
    }

    /// The highest probability that the node is above its planned capacity when a move that starts
    /// now can help.
    fn risk(&self, id: NodeId) -> f64 {
        let planned = self.planned(id);
        let steps = &self.loads[id.index()][self.moving..];
        steps.iter().map(|sum| self.total(sum).probability_above(planned)).fold(0.0, f64::max)
    }

    /// Busy seconds above the planned capacity that are to be expected of these loads.
    fn overload(&self, node: NodeId, loads: &[Sum]) -> f64 {
        let planned = self.planned(node);
        let above: f64 = loads.iter().map(|sum| self.total(sum).expected_above(planned)).sum();
        above * seconds(self.scene.step_ms)
    }

    /// The decision about one node, with its candidates, best first; nothing is chosen yet.
    fn weigh(&self, id: NodeId, node: &NodeLoad) -> Decision {
        let not_taken = self.hindrance(id);
        let mut candidates = if not_taken.is_none() { self.candidates(id) } else { Vec::new() };
        candidates.sort_by(|a, b| b.gain.total_cmp(&a.gain));
        let considered = candidates.len();
        candidates.truncate(CANDIDATES_MAX);
        let totals: Vec<Normal> = self.loads[id.index()].iter().map(|s| self.total(s)).collect();
        let above = |load: &Normal| load.probability_above(node.capacity);
        let crossing = totals.iter().position(|load| above(load) > 0.5);
        let ahead_ms = |step: usize| u64::try_from(step).unwrap_or(u64::MAX) * self.scene.step_ms;
        Decision {
            id: 0,
            at_unix_ms: self.scene.now_unix_ms,
            node: id,
            node_name: node.name.clone(),
            capacity: node.capacity,
            predicted_crossing_unix_ms: crossing
                .map(|step| self.scene.now_unix_ms + ahead_ms(step)),
            probability: totals.iter().map(above).fold(0.0, f64::max),
            peak: totals.iter().map(|load| load.mean).fold(0.0, f64::max),
            basis: self.basis(id),
            considered,
            candidates,
            chosen: None,
            not_taken,
            not_taken_reason: None,
            standing: Standing::NotTaken,
            move_id: None,
        }
    }

    /// Why no move from this node can start, whatever its gain.
    fn hindrance(&self, id: NodeId) -> Option<NotTaken> {
        if self.scene.in_flight.len() >= self.config.concurrent_moves_max {
            return Some(NotTaken::MovesAtLimit);
        }
        (!self.has_slot(id)).then_some(NotTaken::NodeInMove)
    }

    /// Whether one more move may have this node as an end.
    fn has_slot(&self, id: NodeId) -> bool {
        let touching = self.scene.in_flight.iter().filter(|flight| flight.touches(id)).count();
        touching < self.config.concurrent_moves_per_node_max
    }

    /// Every shard of the node that may move, with every node that may take it.
    fn candidates(&self, from: NodeId) -> Vec<Candidate> {
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
            let after = self.overload(from, &self.moved(from, shard, Sum::remove));
            candidates.extend(others.iter().map(|(to, others_before)| {
                let others_after = self.overload(*to, &self.moved(*to, shard, Sum::add));
                Candidate {
                    shard: id,
                    to: *to,
                    gain: before + others_before - after - others_after,
                    cost: self.config.price_overload_seconds,
                }
            }));
        }
        candidates
    }

    /// The node's loads if a move of this shard, of which it is an end, starts now.
    fn moved(&self, node: NodeId, shard: &ShardLoad, change: fn(&mut Sum, Normal)) -> Vec<Sum> {
        let mut loads = self.loads[node.index()].clone();
        add_overhead(&mut loads[..self.moving], self.scene, node, self.config.move_overhead);
        for (step, sum) in loads.iter_mut().enumerate().skip(self.moving) {
            if let Some(load) = at(&shard.load, step) {
                change(sum, load);
            }
        }
        loads
    }

    /// What most of the node's load is forecast by.
    fn basis(&self, node: NodeId) -> Basis {
        let load = |trusted: bool| {
            let shards = self.scene.shards.iter().filter(|s| s.node == node);
            let of_kind = shards.filter(|shard| shard.trusted == trusted);
            of_kind.filter_map(|shard| shard.load.first()).map(|load| load.mean).sum::<f64>()
        };
        if load(true) > load(false) { Basis::Forecast } else { Basis::Persistence }
    }

    /// Chooses the best candidate of the decision that goes first; says why of each other one.
    fn settle(&self, decision: &mut Decision, first: bool) {
        let best = decision.candidates.first().copied();
        let outlook = self.describe(decision);
        let (why, reason) = match (decision.not_taken, best) {
            (Some(NotTaken::MovesAtLimit), _) => {
                let count = self.scene.in_flight.len();
                (NotTaken::MovesAtLimit, format!("{count} moves are under way, the most allowed"))
            }
            (Some(why), _) => (why, "a move from or to it is under way".to_owned()),
            (None, None) => {
                (NotTaken::NothingToMove, "no shard of it can move to another node now".to_owned())
            }
            (None, Some(best)) => {
                let weighed = self.describe_candidate(best);
                if first {
                    decision.chosen = Some(Proposal {
                        shard: best.shard,
                        from: decision.node,
                        to: best.to,
                        gain: best.gain,
                        cost: best.cost,
                        reason: format!("{outlook}; {weighed}"),
                    });
                    return;
                }
                if best.gain > best.cost {
                    let reason = format!("{weighed}, but a move for another node goes first");
                    (NotTaken::OtherNodeFirst, reason)
                } else {
                    (NotTaken::NotWorthIt, format!("no move is worth its price: {weighed}"))
                }
            }
        };
        decision.not_taken = Some(why);
        decision.not_taken_reason = Some(format!("{outlook}; {reason}"));
    }

    /// What is expected of the node, in words.
    fn describe(&self, decision: &Decision) -> String {
        let Decision { node_name: name, capacity, probability, peak, .. } = decision;
        let when = match decision.predicted_crossing_unix_ms {
            Some(at) if at <= decision.at_unix_ms => "exceeds its capacity".to_owned(),
            Some(_) => "will exceed its capacity".to_owned(),
            None => "may exceed its capacity".to_owned(),
        };
        let wait = match decision.predicted_crossing_unix_ms {
            Some(at) if at <= decision.at_unix_ms => " now".to_owned(),
            Some(at) => format!(" in {}", duration(at - decision.at_unix_ms)),
            None => format!(" within {}", duration(self.horizon_ms())),
        };
        let basis = match decision.basis {
            Basis::Forecast => "forecast",
            Basis::Persistence => "by persistence, as no forecast is trusted:",
        };
        format!(
            "node {name} {when} of {capacity:.2} busy-s/s{wait} (p={probability:.2}, {basis} {peak:.2})"
        )
    }

    fn describe_candidate(&self, candidate: Candidate) -> String {
        let Candidate { shard, to, gain, cost } = candidate;
        let to = &self.scene.nodes[to.index()].name;
        let gain = gain.max(0.0);
        format!(
            "moving shard {shard} to {to} avoids {gain:.1} overload-seconds for a cost of {cost:.1}"
        )
    }

    fn horizon_ms(&self) -> u64 {
        u64::try_from(self.steps).unwrap_or(u64::MAX).saturating_mul(self.scene.step_ms)
    }
}

/// The load of each node at each of so many steps, with the moves under way as if done, and with
/// what they cost their ends (a share of capacity) while they run.
fn sums(scene: &Scene, steps: usize, overhead: f64) -> Vec<Vec<Sum>> {
    let mut sums = vec![vec![Sum::default(); steps]; scene.nodes.len()];
    for (sums, node) in sums.iter_mut().zip(&scene.nodes) {
        add(sums, 0, &node.own);
    }
    for (id, shard) in scene.shards() {
        match scene.in_flight.iter().find(|m| m.shard == id && m.from == shard.node) {
            None => add(&mut sums[shard.node.index()], 0, &shard.load),
            Some(flight) => {
                let end = scene.steps_until(flight.ends_unix_ms).min(steps);
                add(&mut sums[flight.from.index()][..end], 0, &shard.load);
                add(&mut sums[flight.to.index()][end..], end, &shard.load);
            }
        }
    }
    for flight in &scene.in_flight {
        let end = scene.steps_until(flight.ends_unix_ms).min(steps);
        for node in [flight.from, flight.to] {
            add_overhead(&mut sums[node.index()][..end], scene, node, overhead);
        }
    }
    sums
}

/// Adds a load to sums, the first of which is for step `first`.
fn add(sums: &mut [Sum], first: usize, load: &[Normal]) {
    for (step, sum) in sums.iter_mut().enumerate() {
        if let Some(load) = at(load, first + step) {
            sum.add(load);
        }
    }
}

/// Adds what a move costs one of its ends while it runs.
fn add_overhead(sums: &mut [Sum], scene: &Scene, node: NodeId, overhead: f64) {
    let mean = scene.nodes[node.index()].capacity * overhead;
    for sum in sums {
        sum.add(Normal { mean, deviation: 0.0 });
    }
}

/// The load of a step; past the end the last one.
fn at(load: &[Normal], step: usize) -> Option<Normal> {
    load.get(step).or(load.last()).copied()
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// A duration as people say it.
fn duration(ms: u64) -> String {
    match ms.div_ceil(1000) {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}
