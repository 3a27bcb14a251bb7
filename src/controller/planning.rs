//! History, map and moves → forecasts, and the scene that a decision looks at. No I/O, no clock.

use std::sync::Arc;

use super::insight::Quantity;
use crate::forecast::{self, Distribution, Event, Forecast, Model, Study, Timeline};
use crate::ids::{NodeId, ShardId};
use crate::load::{Columns, History};
use crate::placement::{self, InFlight, NodeLoad, Normal, Scene, ShardLoad};
use crate::shard_map::{ShardMap, Standing, Table, TableKind};
use crate::shard_move::{Move, State};

/// Series that the network learns from, at the most.
const NETWORK_SERIES_MAX: usize = 200;
/// Moves that say how long the next one will take.
const MOVES_LEARNED_FROM: usize = 10;

/// What is known of everything, to be forecast.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// Busy time, by shard id.
    pub(super) shards: Vec<Vec<f64>>,
    /// By node id: the busy time that belongs to no shard.
    pub(super) nodes: Vec<Vec<f64>>,
    /// Reads and writes by shard id; empty if they are not to be forecast now.
    pub(super) statements: Option<[Vec<Vec<f64>>; 2]>,
    /// How many steps there are.
    pub(super) steps: usize,
    /// The number of the step after the last one.
    pub(super) end_step: u64,
}

/// The forecasts of everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    /// Of busy time, by shard id.
    pub(super) shards: Vec<Forecast>,
    /// By node id: what belongs to no shard.
    pub(super) nodes: Vec<Forecast>,
    /// Of reads and of writes, by shard id; made less often.
    pub(super) statements: [Arc<Vec<Forecast>>; 2],
    /// How many steps of history they rest on.
    pub(super) steps: usize,
    /// The number of their first step.
    pub(super) end_step: u64,
}

/// What the slow models say of the busy time of each shard, and when that was.
#[derive(Debug, Clone, Default)]
pub(super) struct Studies {
    shards: Vec<Study>,
    end_step: u64,
}

/// Kept values as they are computed with.
pub(super) fn real(column: &[f32]) -> Vec<f64> {
    column.iter().copied().map(f64::from).collect()
}

impl Past {
    /// What a history says.
    pub(super) fn of(history: &History, with_statements: bool) -> Self {
        let column = |of: fn(&Columns) -> &Vec<f32>| {
            history.shards().iter().map(|columns| real(of(columns))).collect()
        };
        Self {
            shards: column(|columns| &columns.busy),
            nodes: history.nodes().iter().map(|column| real(column)).collect(),
            statements: with_statements
                .then(|| [column(|columns| &columns.reads), column(|columns| &columns.writes)]),
            steps: history.len(),
            end_step: history.end_step(),
        }
    }
}

impl Picture {
    /// Forecasts everything. Takes milliseconds a shard: not for the runtime's own threads.
    pub(super) fn of(past: &Past, config: &forecast::Config, studies: &Studies) -> Self {
        let all = |series: &Vec<Vec<f64>>| {
            series.iter().map(|history| forecast::forecast(history, config)).collect()
        };
        let age = past.end_step.saturating_sub(studies.end_step);
        let age = usize::try_from(age).unwrap_or(usize::MAX);
        let none = Study::default();
        let studied = past.shards.iter().enumerate().map(|(shard, history)| {
            let study = studies.shards.get(shard).unwrap_or(&none);
            forecast::forecast_with(history, config, (study, age))
        });
        let statements = past.statements.as_ref();
        Self {
            shards: studied.collect(),
            nodes: all(&past.nodes),
            statements: statements
                .map(|both| both.each_ref().map(all))
                .unwrap_or_default()
                .map(Arc::new),
            steps: past.steps,
            end_step: past.end_step,
        }
    }

    /// The forecasts of one quantity, by shard id.
    pub(super) fn forecasts_of(&self, quantity: Quantity) -> &[Forecast] {
        match quantity {
            Quantity::Busy => &self.shards,
            Quantity::Reads => &self.statements[0],
            Quantity::Writes => &self.statements[1],
        }
    }
}

impl Picture {
    /// Shifts what is expected of each shard in the times of the events that touch it.
    pub(super) fn expect(
        &mut self,
        events: &[Event],
        map: &ShardMap,
        past: (&[Vec<f64>], &forecast::Config),
    ) {
        let (busy, config) = past;
        let touches = |event: &Event, id: ShardId| {
            let group = map.shard(id).map(|shard| shard.group);
            let in_group = |table: &Table| matches!(&table.kind, TableKind::Sharded { group: of, .. } if Some(*of) == group);
            let named = |table: &Table| {
                let full = format!("{}.{}", table.name.schema, table.name.name);
                event.tables.iter().any(|name| *name == table.name.name || *name == full)
            };
            event.tables.is_empty()
                || map.tables().iter().any(|table| in_group(table) && named(table))
        };
        for ((id, forecast), values) in (0u32..).map(ShardId).zip(&mut self.shards).zip(busy) {
            let timeline = Timeline {
                values,
                end_step: self.end_step,
                step_ms: config.step_ms(),
                day: config.day_steps(),
            };
            forecast.expect(events.iter().filter(|event| touches(event, id)), &timeline);
        }
    }
}

impl Studies {
    /// Asks the slow models about every shard; good for `slack` steps. Takes up to a second a
    /// shard.
    pub(super) fn of(past: &Past, config: &forecast::Config, slack: usize) -> Self {
        let wanted = config.models.contains(&Model::Lstm);
        let series = past.shards.iter().take(NETWORK_SERIES_MAX);
        let series: Vec<_> = series.map(|history| (history.as_slice(), config)).collect();
        let network = if wanted { forecast::train(&series, slack) } else { None };
        let study = |history: &Vec<f64>| forecast::study(history, config, slack, network.as_ref());
        Self { shards: past.shards.iter().map(study).collect(), end_step: past.end_step }
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
        takes_shards: node.standing == Standing::Member,
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
