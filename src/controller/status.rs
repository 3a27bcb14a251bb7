//! What the controller sees, as a value for the admin room.

use serde::Serialize;

use super::planning::{Picture, busy_of};
use crate::forecast::{Distribution, Forecast};
use crate::ids::{Epoch, MoveId, NodeId, ShardId};
use crate::load::Rates;
use crate::placement::{Decision, Mode, Scene, expected_loads};
use crate::shard_map::ShardMap;
use crate::shard_move::{Move, State};

/// Load, forecast, decisions and moves at one time. Default: nothing is known yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// In ms since 1970; 0 before the first look.
    pub at_unix_ms: u64,
    /// The map that it is about.
    pub epoch: Option<Epoch>,
    /// What is done with proposals.
    pub mode: Mode,
    /// The length of a step of history and forecast.
    pub step_ms: u64,
    /// How many steps of history there are.
    pub history_steps: usize,
    /// How many there must be before a move is made.
    pub warm_up_steps: u64,
    /// When the forecasts begin, in ms since 1970.
    pub forecast_unix_ms: u64,
    /// By node id.
    pub nodes: Vec<NodeStatus>,
    /// By shard id.
    pub shards: Vec<ShardStatus>,
    /// The last decisions that were recorded, newest first.
    pub decisions: Vec<Decision>,
    /// Moves that are not finished, oldest first.
    pub moves: Vec<MoveStatus>,
}

/// A node's load, now and to come, in busy seconds a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it can bear.
    pub capacity: f64,
    /// Now.
    pub busy: f64,
    /// 10 % quantile of each step ahead, moves under way counted.
    pub forecast_p10: Vec<f64>,
    /// Median of each step ahead.
    pub forecast_median: Vec<f64>,
    /// 90 % quantile of each step ahead.
    pub forecast_p90: Vec<f64>,
    /// When the median goes above the capacity, in ms since 1970.
    pub predicted_crossing_unix_ms: Option<u64>,
}

/// A shard's load, now and to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its owner.
    pub node: NodeId,
    /// Statements a second that only read.
    pub reads_per_second: f64,
    /// Statements a second that may write.
    pub writes_per_second: f64,
    /// Rows a second that they returned or changed.
    pub rows_per_second: f64,
    /// Bytes relayed a second.
    pub bytes_per_second: f64,
    /// Busy seconds a second, now.
    pub busy: f64,
    /// Median of busy for each step ahead, by the ensemble if it is trusted, else by persistence.
    pub forecast_median: Vec<f64>,
    /// 90 % quantile of the same.
    pub forecast_p90: Vec<f64>,
    /// Whether that is the ensemble's.
    pub trusted: bool,
    /// Why not, if it is not.
    pub fallback: Option<String>,
    /// The ensemble's recent error relative to persistence; `None` while the history is short.
    pub relative_error: Option<f64>,
}

/// A move that is not finished.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MoveStatus {
    /// The move.
    pub id: MoveId,
    /// What moves.
    pub shard: ShardId,
    /// The source.
    pub from: NodeId,
    /// The destination.
    pub to: NodeId,
    /// How far it is.
    pub state: State,
    /// When it was requested, in ms since 1970.
    pub requested_unix_ms: u64,
}

impl From<&Move> for MoveStatus {
    fn from(m: &Move) -> Self {
        Self {
            id: m.id,
            shard: m.shard,
            from: m.from,
            to: m.to,
            state: m.state,
            requested_unix_ms: m.requested_unix_ms,
        }
    }
}

/// The status of each node.
pub(super) fn nodes(
    scene: &Scene,
    correlation: f64,
    map: &ShardMap,
    rates: &Rates,
) -> Vec<NodeStatus> {
    /// The 90 % quantile of the standard normal distribution.
    const Z90: f64 = 1.281_552;
    let loads = expected_loads(scene, correlation);
    let all = map.nodes().zip(&scene.nodes).zip(loads);
    all.map(|(((id, node), load), expected)| {
        let quantile =
            |z: f64| expected.iter().map(|n| (n.mean + z * n.deviation).max(0.0)).collect();
        let crossing = expected.iter().position(|normal| normal.mean > load.capacity);
        let ahead_ms =
            |step: usize| u64::try_from(step).unwrap_or(u64::MAX).saturating_mul(scene.step_ms);
        NodeStatus {
            node: id,
            name: node.name.clone(),
            capacity: load.capacity,
            busy: busy_of(id, map, rates),
            forecast_p10: quantile(-Z90),
            forecast_median: quantile(0.0),
            forecast_p90: quantile(Z90),
            predicted_crossing_unix_ms: crossing.map(|step| scene.now_unix_ms + ahead_ms(step)),
        }
    })
    .collect()
}

/// The status of each shard.
pub(super) fn shards(picture: &Picture, map: &ShardMap, rates: &Rates) -> Vec<ShardStatus> {
    let one = |(id, shard): (ShardId, &crate::shard_map::Shard)| {
        let now = rates.shards.get(id.index()).copied().unwrap_or_default();
        let forecast = picture.shards.get(id.index());
        let distribution = forecast.map(Forecast::distribution);
        ShardStatus {
            shard: id,
            node: shard.node,
            reads_per_second: now.reads,
            writes_per_second: now.writes,
            rows_per_second: now.rows,
            bytes_per_second: now.bytes,
            busy: now.busy,
            forecast_median: distribution.into_iter().flat_map(Distribution::median).collect(),
            forecast_p90: distribution.into_iter().flat_map(Distribution::p90).collect(),
            trusted: forecast.is_some_and(|forecast| forecast.trusted),
            fallback: forecast.and_then(|forecast| forecast.fallback.clone()),
            relative_error: forecast
                .and_then(|forecast| forecast.backtest)
                .map(|backtest| backtest.relative_to_persistence),
        }
    };
    map.shards().map(one).collect()
}
