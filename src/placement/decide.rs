//! The rule: expected overload avoided against the price of the move.

use std::collections::BTreeSet;

use super::config::Config;
use super::decision::{Basis, Decision, NotTaken, Proposal, Standing};
use super::overload::{Normal, Sum};
use super::scene::{InFlight, NodeLoad, Scene, ShardLoad};
use crate::ids::{NodeId, ShardId};

/// Candidates that a decision keeps.
const CANDIDATES_MAX: usize = 5;

/// Looks at every node and weighs moves for those that may be overloaded. One decision for each of
/// these; at the most one has a move chosen. Nothing for a node that is not in danger.
///
/// What clients announced comes second: what is worth it without is done first, so that a false
/// announcement hinders nothing; and for its sake nothing is done that would do harm without.
pub fn decide(scene: &Scene, config: &Config) -> Vec<Decision> {
    let Some(plain) = scene.plain() else { return decide_on(&Outlook::new(scene, config), None) };
    let plain = Outlook::new(&plain, config);
    let decisions = decide_on(&plain, None);
    if decisions.iter().any(|decision| decision.chosen.is_some()) {
        return decisions;
    }
    decide_on(&Outlook::new(scene, config), Some(&plain))
}

fn decide_on(outlook: &Outlook<'_>, plain: Option<&Outlook<'_>>) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = outlook
        .scene
        .nodes()
        .filter(|(id, _)| outlook.risk(*id) > outlook.config.risk_min)
        .map(|(id, node)| outlook.weigh(id, node, plain))
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
        (best.gain > best.cost).then_some(best.gain - best.cost)
    };
    let gains = decisions.iter().enumerate().filter_map(|(i, d)| Some((i, gain(d)?)));
    gains.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
}

impl Scene {
    /// Moves under way.
    fn under_way(&self) -> usize {
        count_moves(self.in_flight.iter())
    }

    /// The same as if nobody had announced anything; `None` if nobody has.
    fn plain(&self) -> Option<Self> {
        self.shards.iter().any(|shard| shard.plain.is_some()).then(|| {
            let mut plain = self.clone();
            for shard in &mut plain.shards {
                if let Some(load) = shard.plain.take() {
                    shard.load = load;
                }
            }
            plain
        })
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeLoad)> {
        (0u16..).map(NodeId).zip(&self.nodes)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardLoad)> {
        (0u32..).map(ShardId).zip(&self.shards)
    }

    /// Steps until `at_unix_ms`, rounded up.
    fn steps_until(&self, at_unix_ms: u64) -> usize {
        let left_ms = at_unix_ms.saturating_sub(self.now_unix_ms);
        usize::try_from(left_ms.div_ceil(self.step_ms.max(1))).unwrap_or(usize::MAX)
    }
}

fn count_moves<'f>(in_flight: impl Iterator<Item = &'f InFlight>) -> usize {
    in_flight.map(|flight| flight.id).collect::<BTreeSet<_>>().len()
}

/// The load of every node over the steps that count, with the moves under way as if done.
pub(super) struct Outlook<'a> {
    pub(super) scene: &'a Scene,
    pub(super) config: &'a Config,
    /// Steps until a move that starts now is over.
    pub(super) moving: usize,
    /// Steps that count: the move's, and the window's.
    steps: usize,
    /// By node, then step.
    pub(super) loads: Vec<Vec<Sum>>,
}

impl<'a> Outlook<'a> {
    pub(super) fn new(scene: &'a Scene, config: &'a Config) -> Self {
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

    pub(super) fn planned(&self, node: NodeId) -> f64 {
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
    pub(super) fn overload(&self, node: NodeId, loads: &[Sum]) -> f64 {
        let planned = self.planned(node);
        let above: f64 = loads.iter().map(|sum| self.total(sum).expected_above(planned)).sum();
        above * seconds(self.scene.step_ms)
    }

    /// The decision about one node, with its candidates, best first; nothing is chosen yet.
    fn weigh(&self, id: NodeId, node: &NodeLoad, plain: Option<&Outlook<'_>>) -> Decision {
        let mut not_taken = self.hindrance(id);
        let mut candidates = if not_taken.is_none() { self.candidates(id) } else { Vec::new() };
        if let Some(plain) = plain {
            let any = !candidates.is_empty();
            candidates.retain(|candidate| plain.does_no_harm(candidate));
            if any && candidates.is_empty() {
                not_taken = Some(NotTaken::OnlyAnnounced);
            }
        }
        candidates.sort_by(|a, b| (b.gain - b.cost).total_cmp(&(a.gain - a.cost)));
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
        if self.scene.under_way() >= self.config.concurrent_moves_max {
            return Some(NotTaken::MovesAtLimit);
        }
        (!self.has_slot(id)).then_some(NotTaken::NodeInMove)
    }

    /// Whether one more move may have this node as an end.
    pub(super) fn has_slot(&self, id: NodeId) -> bool {
        let touching = self.scene.in_flight.iter().filter(|flight| flight.touches(id));
        count_moves(touching) < self.config.concurrent_moves_per_node_max
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
        let best = decision.candidates.first().cloned();
        let outlook = self.describe(decision);
        let (why, reason) = match (decision.not_taken, best) {
            (Some(NotTaken::MovesAtLimit), _) => {
                let count = self.scene.under_way();
                (NotTaken::MovesAtLimit, format!("{count} moves are under way, the most allowed"))
            }
            (Some(why @ NotTaken::OnlyAnnounced), _) => {
                let reason = "this rests on announcements, and would do harm if they are wrong";
                (why, reason.to_owned())
            }
            (Some(why), _) => (why, "a move from or to it is under way".to_owned()),
            (None, None) => {
                (NotTaken::NothingToMove, "no shard of it can move to another node now".to_owned())
            }
            (None, Some(best)) => {
                let weighed = self.describe_candidate(&best);
                if first {
                    decision.chosen = Some(Proposal {
                        shard: best.shard,
                        action: best.action,
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

    pub(super) fn horizon_ms(&self) -> u64 {
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
                let part = |share: f64| -> Vec<Normal> {
                    shard.load.iter().map(|load| load.times(share)).collect()
                };
                add(&mut sums[flight.from.index()][..end], 0, &shard.load);
                add(&mut sums[flight.from.index()][end..], end, &part(1.0 - flight.share));
                add(&mut sums[flight.to.index()][end..], end, &part(flight.share));
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
pub(super) fn add_overhead(sums: &mut [Sum], scene: &Scene, node: NodeId, overhead: f64) {
    let mean = scene.nodes[node.index()].capacity * overhead;
    for sum in sums {
        sum.add(Normal { mean, deviation: 0.0 });
    }
}

/// The load of a step; past the end the last one.
pub(super) fn at(load: &[Normal], step: usize) -> Option<Normal> {
    load.get(step).or(load.last()).copied()
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}
