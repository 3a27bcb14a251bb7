//! History, map and moves → forecasts, and the scene that a decision looks at. No I/O, no clock.

use crate::forecast::{self, Distribution, Forecast};
use crate::ids::{NodeId, ShardId};
use crate::load::History;
use crate::placement::{self, InFlight, NodeLoad, Normal, Scene, ShardLoad};
use crate::shard_map::ShardMap;
use crate::shard_move::{Move, State};

/// Moves that say how long the next one will take.
const MOVES_LEARNED_FROM: usize = 10;

/// The busy time of everything, to be forecast.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// By shard id.
    pub(super) shards: Vec<Vec<f64>>,
    /// By node id: what belongs to no shard.
    pub(super) nodes: Vec<Vec<f64>>,
    /// How many steps there are.
    pub(super) steps: usize,
}

/// The forecasts of everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    /// By shard id.
    pub(super) shards: Vec<Forecast>,
    /// By node id: what belongs to no shard.
    pub(super) nodes: Vec<Forecast>,
    /// How many steps of history they rest on.
    pub(super) steps: usize,
}

impl Past {
    /// What a history says of busy time.
    pub(super) fn of(history: &History) -> Self {
        Self {
            shards: history.shards().iter().map(|columns| columns.busy.clone()).collect(),
            nodes: history.nodes().to_vec(),
            steps: history.len(),
        }
    }
}

impl Picture {
    /// Forecasts everything. Takes milliseconds a shard: not for the runtime's own threads.
    pub(super) fn of(past: &Past, config: &forecast::Config) -> Self {
        let all = |series: &[Vec<f64>]| {
            series.iter().map(|history| forecast::forecast(history, config)).collect()
        };
        Self { shards: all(&past.shards), nodes: all(&past.nodes), steps: past.steps }
    }
}

/// What a decision looks at now.
pub(super) fn scene(
    picture: &Picture,
    map: &ShardMap,
    moves: &[Move],
    step_ms: u64,
    now: (u64, &placement::Config),
) -> Scene {
    let (now_unix_ms, config) = now;
    let move_ms = expected_move_ms(moves, config);
    let nodes = map.nodes().map(|(id, node)| NodeLoad {
        name: node.name.clone(),
        capacity: config.capacity_of(&node.name),
        own: loads(picture.nodes.get(id.index())),
    });
    let shards = (0u32..).take(map.shard_count()).map(ShardId).map(|id| {
        let Some(shard) = map.shard(id) else { return gone(map) };
        let forecast = picture.shards.get(id.index());
        let last = moves.iter().rfind(|m| m.shard == id && m.is_finished());
        let ended = last.and_then(|m| m.history.last()).map(|step| step.at_unix_ms);
        ShardLoad {
            node: shard.node,
            load: loads(forecast),
            trusted: forecast.is_some_and(|forecast| forecast.trusted),
            rests_until_unix_ms: ended.map(|at| at + config.shard_rest_ms),
        }
    });
    let under_way = moves.iter().filter(|m| !m.is_finished());
    Scene {
        now_unix_ms,
        step_ms,
        move_ms,
        nodes: nodes.collect(),
        shards: shards.collect(),
        in_flight: under_way.map(|m| in_flight(m, now_unix_ms, move_ms)).collect(),
    }
}

/// The place of a shard that was split or merged away: no load, and nothing to be done.
fn gone(map: &ShardMap) -> ShardLoad {
    let rests_until_unix_ms = Some(u64::MAX);
    ShardLoad { node: map.home(), load: Vec::new(), trusted: false, rests_until_unix_ms }
}

/// A forecast as the mean and deviation of each step.
fn loads(forecast: Option<&Forecast>) -> Vec<Normal> {
    let moments = forecast.map(|forecast| Distribution::moments(forecast.distribution()));
    let normal = |(mean, deviation)| Normal { mean, deviation };
    moments.into_iter().flatten().map(normal).collect()
}

/// When a move's load will be at its destination. A move that is overdue still takes a while; one
/// that is being undone never gets there.
fn in_flight(m: &Move, now_unix_ms: u64, move_ms: u64) -> InFlight {
    let ends_unix_ms = match m.state {
        State::Undoing | State::Aborted => u64::MAX,
        State::Switched | State::Done => now_unix_ms,
        _ => (m.requested_unix_ms + move_ms).max(now_unix_ms + move_ms / 4),
    };
    InFlight { shard: m.shard, from: m.from, to: m.to, ends_unix_ms }
}

/// The median time from request to switch of the last moves; as configured, as long as none was.
fn expected_move_ms(moves: &[Move], config: &placement::Config) -> u64 {
    let took = |m: &Move| Some(m.switched_unix_ms?.saturating_sub(m.requested_unix_ms));
    let mut times: Vec<u64> =
        moves.iter().rev().filter_map(took).take(MOVES_LEARNED_FROM).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(config.expected_move_ms).max(1)
}

/// The load of a node now, from the rates of its shards and its own, in busy seconds a second.
pub(super) fn busy_of(node: NodeId, map: &ShardMap, rates: &crate::load::Rates) -> f64 {
    let own = rates.nodes.get(node.index()).copied().unwrap_or_default();
    let shards = map.shards().filter(|(_, shard)| shard.node == node);
    let busy = shards.filter_map(|(id, _)| rates.shards.get(id.index())).map(|rates| rates.busy);
    own + busy.sum::<f64>()
}
