//! History, map and moves → forecasts, and the scene that a decision looks at. No I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::heatmap::Quantity;
use crate::forecast::{self, Distribution, Forecast, Model, Study, Timeline};
use crate::ids::{NodeId, ShardId};
use crate::load::{Columns, History};
use crate::placement::{self, Cut, Division, Halves, InFlight, NodeLoad, Normal, Scene, ShardLoad};
use crate::shard_map::{Bounds, Shard, ShardMap, Standing};
use crate::shard_move::{Move, State};

/// Series that the network learns from, at the most.
const NETWORK_SERIES_MAX: usize = 200;
/// Recent steps whose reads and writes say what the load is made of.
const MIX_STEPS: usize = 60;
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
    /// Of the recent statements, by shard id: the share of those that may write.
    pub(super) writes_shares: Vec<f64>,
    /// The busy time of each hour, if it is asked for.
    pub(super) hours: Option<Hours>,
    /// How many steps there are.
    pub(super) steps: usize,
    /// The number of the step after the last one.
    pub(super) end_step: u64,
}

/// A long past in coarse steps.
#[derive(Debug, Clone)]
pub(super) struct Hours {
    /// Busy time, by shard id.
    pub(super) shards: Vec<Vec<f64>>,
    /// The number of the step after the last one.
    pub(super) end_step: u64,
    /// The length of a step.
    pub(super) step_ms: u64,
}

/// The forecasts of everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    /// Of busy time, by shard id.
    pub(super) shards: Vec<Forecast>,
    /// By node id: what belongs to no shard.
    pub(super) nodes: Vec<Forecast>,
    /// Those of the shards of whose load clients have announced something, without that.
    pub(super) plain: BTreeMap<usize, Forecast>,
    /// Of reads and of writes, by shard id; made less often.
    pub(super) statements: [Arc<Vec<Forecast>>; 2],
    /// The number of the first step of those.
    pub(super) statements_step: u64,
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
            writes_shares: history.shards().iter().map(writes_share).collect(),
            hours: None,
            steps: history.len(),
            end_step: history.end_step(),
        }
    }
}

impl Hours {
    /// What a history says.
    pub(super) fn of(history: &History) -> Self {
        Self {
            shards: history.shards().iter().map(|columns| real(&columns.busy)).collect(),
            end_step: history.end_step(),
            step_ms: history.step_ms(),
        }
    }
}

/// The share of writes among the recent statements of a shard; half, if there were none.
fn writes_share(columns: &Columns) -> f64 {
    let recent = |column: &[f32]| -> f64 {
        column.iter().rev().take(MIX_STEPS).copied().map(f64::from).sum()
    };
    let (reads, writes) = (recent(&columns.reads), recent(&columns.writes));
    if reads + writes > 0.0 { writes / (reads + writes) } else { 0.5 }
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
            plain: BTreeMap::new(),
            statements: statements
                .map(|both| both.each_ref().map(all))
                .unwrap_or_default()
                .map(Arc::new),
            statements_step: past.end_step,
            steps: past.steps,
            end_step: past.end_step,
        }
    }

    /// The forecasts of one quantity, by shard id, and the number of their first step.
    pub(super) fn forecasts_of(&self, quantity: Quantity) -> (&[Forecast], u64) {
        match quantity {
            Quantity::Busy => (&self.shards, self.end_step),
            Quantity::Reads => (&self.statements[0], self.statements_step),
            Quantity::Writes => (&self.statements[1], self.statements_step),
            Quantity::Rows | Quantity::Bytes => (&[], self.end_step),
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
        let study = |(shard, history): (usize, &Vec<f64>)| {
            let hours = past.hours.as_ref();
            let coarse = hours.and_then(|hours| {
                Some(timeline(hours.shards.get(shard)?, (hours.end_step, hours.step_ms), config))
            });
            let fine = timeline(history, (past.end_step, config.step_ms()), config);
            forecast::study(&fine, coarse.as_ref(), config, slack, network.as_ref())
        };
        let shards = past.shards.iter().enumerate().map(study).collect();
        Self { shards, end_step: past.end_step }
    }
}

/// Values that end with the step before `end_step`, in time.
pub(super) fn timeline<'a>(
    values: &'a [f64],
    (end_step, step_ms): (u64, u64),
    config: &forecast::Config,
) -> Timeline<'a> {
    let day = usize::try_from(config.day_ms / step_ms.max(1)).unwrap_or_default();
    Timeline { values, end_step, step_ms, day }
}

/// What is known for a decision beside map and moves.
pub(super) struct View<'a> {
    pub(super) picture: &'a Picture,
    /// How shards divide, by shard id.
    pub(super) divisions: &'a BTreeMap<ShardId, Division>,
    /// The highest load of the last day, by shard id.
    pub(super) day_peaks: &'a [f64],
    pub(super) step_ms: u64,
}

/// What a decision looks at now.
pub(super) fn scene(
    view: &View<'_>,
    map: &ShardMap,
    moves: &[Move],
    (now_unix_ms, config): (u64, &placement::Config),
) -> Scene {
    let move_ms = expected_move_ms(moves, config);
    let nodes = map.nodes().map(|(id, node)| NodeLoad {
        name: node.name.clone(),
        capacity: config.capacity_of(&node.name),
        own: loads(view.picture.nodes.get(id.index())),
        takes_shards: node.standing == Standing::Member,
    });
    let shards = (0u32..).take(map.shard_count()).map(ShardId).map(|id| {
        let Some(shard) = map.shard(id) else { return gone(map) };
        let forecast = view.picture.shards.get(id.index());
        let ended = |m: &&Move| m.is_finished() && m.state != State::Lapsed;
        let last = moves.iter().rfind(|m| m.touches(id) && ended(m));
        let ended = last.and_then(|m| m.history.last()).map(|step| step.at_unix_ms);
        let trusted = forecast.is_some_and(|forecast| forecast.trusted);
        let plain = view.picture.plain.get(&id.index());
        ShardLoad {
            plain: plain.map(|plain| loads(Some(plain))),
            rests_until_unix_ms: ended.map(|at| at + config.shard_rest_ms),
            division: division(view, id, shard),
            sibling: sibling(map, id),
            day_peak: view.day_peaks.get(id.index()).copied().unwrap_or(f64::MAX),
            ..ShardLoad::new(shard.node, loads(forecast), trusted)
        }
    });
    let under_way = moves.iter().filter(|m| m.is_under_way());
    Scene {
        now_unix_ms,
        step_ms: view.step_ms,
        move_ms,
        nodes: nodes.collect(),
        shards: shards.collect(),
        in_flight: under_way.flat_map(|m| in_flight(m, now_unix_ms, move_ms)).collect(),
    }
}

/// How a shard divides: by its sampled keys; a hash shard without any in equal halves.
fn division(view: &View<'_>, id: ShardId, shard: &Shard) -> Option<Division> {
    let known = view.divisions.get(&id).cloned();
    known.or_else(|| match &shard.bounds {
        Bounds::Hash { .. } => {
            let halves = Halves { cut: Cut::Into(2), first_share: 0.5, sampled: false };
            Some(Division { halves: Some(halves), hot: None })
        }
        _ => None,
    })
}

/// The shard that holds the other half of what was one before a split: of the same group, with the
/// same modulus, which is not the smallest of the group.
fn sibling(map: &ShardMap, id: ShardId) -> Option<ShardId> {
    let shard = map.shard(id)?;
    let hash = |shard: &Shard| match &shard.bounds {
        Bounds::Hash { modulus, remainder } => Some((*modulus, *remainder)),
        _ => None,
    };
    let (modulus, remainder) = hash(shard)?;
    let of_group = || map.shards().filter(|(_, other)| other.group == shard.group);
    let smallest =
        of_group().filter_map(|(_, other)| hash(other)).map(|(modulus, _)| modulus).min()?;
    let half = modulus / 2;
    if modulus == smallest || !modulus.is_multiple_of(2) {
        return None;
    }
    let other = (modulus, (remainder + half) % modulus);
    of_group().find(|(_, shard)| hash(shard) == Some(other)).map(|(id, _)| id)
}

/// The place of a shard that was split or merged away: no load, and nothing to be done.
fn gone(map: &ShardMap) -> ShardLoad {
    let rests_until_unix_ms = Some(u64::MAX);
    let exists = false;
    ShardLoad { exists, rests_until_unix_ms, ..ShardLoad::new(map.home(), Vec::new(), false) }
}

/// A forecast as the mean and deviation of each step.
fn loads(forecast: Option<&Forecast>) -> Vec<Normal> {
    let moments = forecast.map(|forecast| Distribution::moments(forecast.distribution()));
    let normal = |(mean, deviation)| Normal { mean, deviation };
    moments.into_iter().flatten().map(normal).collect()
}

/// What a move does to each shard that gives rows. A move that is overdue still takes a while; one
/// that is being undone never gets there. Of a split a part goes to each target.
fn in_flight(m: &Move, now_unix_ms: u64, move_ms: u64) -> Vec<InFlight> {
    let ends_unix_ms = match m.state {
        State::Keeping | State::Undoing | State::Aborted | State::Lapsed => u64::MAX,
        State::Switched | State::Done => now_unix_ms,
        _ => (m.requested_unix_ms + move_ms).max(now_unix_ms + move_ms / 4),
    };
    let of = |source: crate::shard_move::Part| {
        let lanes = || m.lanes.iter().filter(|lane| lane.source.shard == source.shard);
        let count = |lanes: usize| f64::from(u32::try_from(lanes).unwrap_or(u32::MAX));
        let leave = lanes().filter(|lane| lane.target.node != source.node).count();
        let to = lanes().map(|lane| lane.target.node).find(|node| *node != source.node);
        InFlight {
            id: m.id,
            shard: source.shard,
            share: count(leave) / count(lanes().count().max(1)),
            from: source.node,
            to: to.unwrap_or(source.node),
            ends_unix_ms,
        }
    };
    m.sources().into_iter().map(of).collect()
}

/// The median time from request to switch of the last moves; as configured, as long as none was.
fn expected_move_ms(moves: &[Move], config: &placement::Config) -> u64 {
    // A way back waited to be asked for, and copied nothing.
    let moves = moves.iter().filter(|m| m.reverses.is_none());
    let took = |m: &Move| Some(m.switched_unix_ms?.saturating_sub(m.requested_unix_ms));
    let mut times: Vec<u64> = moves.rev().filter_map(took).take(MOVES_LEARNED_FROM).collect();
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
