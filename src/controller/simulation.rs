//! A compressed day in virtual time, through the code that decides: what `make demo` shows.
//!
//! A day lasts 40 seconds, a step one. From second 20 to 32 of each day a rush heats three of the
//! shards of node n2 until it is above its capacity. The forecaster learns for three days.

use std::collections::BTreeMap;

use super::expectation::Expectations;
use super::planning::{Past, Picture, Studies, View, scene};
use crate::forecast;
use crate::forecast::{Credit, Distribution, Event, Forecast, LEVELS};
use crate::ids::{GroupId, MoveId, NodeId, ShardId};
use crate::load::{History, Rates, ShardRates};
use crate::placement::{self, decide};
use crate::shard_map::{Bounds, Group, KeyType, KeyValue, MapParts, Shard, ShardMap};
use crate::shard_move::{Cause, Move, State};

const DAY: u64 = 40;
const SHARDS: u32 = 16;
const CAPACITY: f64 = 0.8;
const LEARNING_DAYS: u64 = 3;
const DAYS: u64 = 6;
/// Seconds between two looks: keeps an unoptimised test short.
const LOOK_SECONDS: u64 = 2;
const MOVE_SECONDS: u64 = 4;
/// Worlds in which lies are tried.
const SEEDS: u64 = 5;
/// The seconds of the day in which the rush lasts, with its slopes.
const RUSH: std::ops::Range<u64> = 20..34;
const HOT: [u32; 3] = [1, 4, 7];

fn forecast_config() -> forecast::Config {
    forecast::Config {
        step_ms: 1000,
        day_ms: 40_000,
        week_ms: None,
        horizon_ms: 30_000,
        history_ms: 400_000,
        ..forecast::Config::default()
    }
}

fn placement_config() -> placement::Config {
    placement::Config {
        node_capacity: CAPACITY,
        expected_move_ms: 4000,
        window_ms: 20_000,
        price_overload_seconds: 0.3,
        shard_rest_ms: 20_000,
        warm_up_ms: LEARNING_DAYS * DAY * 1000,
        ..placement::Config::default()
    }
}

/// 16 shards, in turn on three nodes.
fn map() -> ShardMap {
    let shard = |remainder: u32| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus: SHARDS, remainder },
        node: NodeId(u16::try_from(remainder % 3).unwrap()),
    };
    let parts = MapParts {
        groups: vec![Group { name: "tenants".to_owned(), key: vec![KeyType::Int8] }],
        shards: (0..SHARDS).map(shard).collect(),
        ..MapParts::of("shop", ["n1", "n2", "n3"])
    };
    parts.try_into().unwrap()
}

/// Uniform from -1 to 1; xorshift.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}

/// What each shard really does in this second, with noise of 20 % in all and a common part.
fn load(second: u64, noise: &mut Noise) -> Vec<f64> {
    let time = second % DAY;
    let slope = |from: u64| f64::from(u32::try_from(time.saturating_sub(from)).unwrap()) / 3.0;
    let heat = (slope(RUSH.start).min(1.0) - slope(RUSH.end - 3)).max(0.0);
    let common = 1.0 + 0.08 * noise.next();
    (0..SHARDS)
        .map(|shard| {
            let rush = if HOT.contains(&shard) { 0.2 * heat } else { 0.0 };
            (0.06 + rush) * common * (1.0 + 0.2 * noise.next())
        })
        .collect()
}

/// What happened.
#[derive(Debug, Default)]
struct Story {
    /// Request times of the moves, in seconds, and why.
    moves: Vec<(u64, ShardId, String)>,
    /// The predicted crossing of the first one, in seconds.
    crossing: Option<u64>,
    /// Seconds after the learning in which a node was above its capacity.
    overloaded: u64,
    /// When the first such second was.
    first_overload: Option<u64>,
    /// Busy seconds above the capacity, what moves cost their nodes included.
    overload: f64,
}

struct World {
    map: ShardMap,
    history: History,
    moves: Vec<Move>,
    noise: Noise,
    forecast: forecast::Config,
    placement: placement::Config,
    known: Expectations,
    /// Whether yesterday is the forecast, which costs nothing.
    by_yesterday: bool,
    story: Story,
}

impl World {
    fn new(seed: u64, forecast: forecast::Config) -> Self {
        let history = History::new(1000, 40, 400);
        let noise = Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (map, placement) = (map(), placement_config());
        let story = Story::default();
        let (moves, known) = (Vec::new(), Expectations::default());
        let by_yesterday = false;
        Self { map, history, moves, noise, forecast, placement, known, by_yesterday, story }
    }

    fn run(mut self) -> Story {
        for second in 0..DAYS * DAY {
            let busy = load(second, &mut self.noise);
            let shards = busy.iter().map(|b| ShardRates { busy: *b, ..ShardRates::default() });
            let rates = Rates { shards: shards.collect(), nodes: vec![0.0; 3] };
            self.history.push(second, &rates);
            self.finish_moves(second);
            if second >= LEARNING_DAYS * DAY {
                self.judge(second, &busy);
                let looks = if self.by_yesterday { 2 * LOOK_SECONDS } else { LOOK_SECONDS };
                if second.is_multiple_of(looks) {
                    self.plan(second + 1);
                }
            }
        }
        self.story
    }

    /// A move takes four seconds, and its clean-up one more.
    fn finish_moves(&mut self, second: u64) {
        for m in &mut self.moves {
            let age = second - m.requested_unix_ms / 1000;
            if age >= MOVE_SECONDS && m.state == State::Requested {
                self.map = self.map.with_shard_on(m.shard, m.to);
                m.state = State::Switched;
                m.switched_unix_ms = Some(second * 1000);
            } else if age > MOVE_SECONDS && m.state == State::Switched {
                m.state = State::Done;
                m.history[0].at_unix_ms = second * 1000;
            }
        }
    }

    fn judge(&mut self, second: u64, busy: &[f64]) {
        for (node, _) in self.map.nodes() {
            let shards = self.map.shards().filter(|(_, shard)| shard.node == node);
            let total: f64 = shards.map(|(id, _)| busy[id.index()]).sum();
            let capacity = self.placement.node_capacity;
            let moving = self.moves.iter().filter(|m| m.state == State::Requested);
            let ends = moving.filter(|m| m.from == node || m.to == node).count();
            let overhead = 0.1 * capacity * f64::from(u32::try_from(ends).unwrap());
            self.story.overload += (total + overhead - capacity).max(0.0);
            if total > capacity {
                self.story.overloaded += 1;
                self.story.first_overload.get_or_insert(second);
            }
        }
    }

    fn plan(&mut self, second: u64) {
        let past = Past::of(&self.history, false);
        let mut picture = if self.by_yesterday {
            yesterday(&past)
        } else {
            Picture::of(&past, &self.forecast, &Studies::default())
        };
        picture.expect(&self.known, &self.map, (&past, &self.forecast));
        let day_peaks = self.history.peaks(40);
        let view = View {
            picture: &picture,
            divisions: &BTreeMap::new(),
            day_peaks: &day_peaks,
            step_ms: 1000,
        };
        let now = (second * 1000, &self.placement);
        let scene = scene(&view, &self.map, &self.moves, now);
        for decision in decide(&scene, &self.placement) {
            let Some(chosen) = decision.chosen else { continue };
            if self.moves.is_empty() {
                self.story.crossing = decision.predicted_crossing_unix_ms.map(|ms| ms / 1000);
            }
            self.story.moves.push((second, chosen.shard, chosen.reason));
            let id = MoveId(u64::try_from(self.moves.len()).unwrap());
            let (shard, from, to) = (chosen.shard, chosen.from, chosen.to);
            let cause = Cause::Operator;
            self.moves.push(Move::requested(id, shard, from, to, cause, second * 1000));
        }
    }
}

#[test]
fn the_rush_of_the_fourth_day_is_forestalled_and_later_ones_cause_no_more_moves() {
    for seed in [1, 2] {
        let story = World::new(seed, forecast_config()).run();
        assert_eq!(story.overloaded, 0, "seed {seed}: {story:?}");
        assert!((1..=3).contains(&story.moves.len()), "seed {seed}: {story:?}");
        let (asked, shard, reason) = &story.moves[0];
        assert!(HOT.contains(&shard.0), "seed {seed}: {story:?}");
        assert!(reason.starts_with("node n2 will exceed its capacity of 0.80"), "{reason}");
        let crossing = story.crossing.unwrap();
        let rush = LEARNING_DAYS * DAY + RUSH.start;
        assert!((rush..rush + 6).contains(&crossing), "seed {seed}: {story:?}");
        assert!(asked + MOVE_SECONDS + 4 < crossing, "seed {seed}: {story:?}");
    }
}

#[test]
fn without_the_forecast_the_same_rule_reacts_when_it_is_too_late() {
    let blind = forecast::Config { trusted_relative_error_max: 0.0, ..forecast_config() };
    let story = World::new(3, blind).run();
    let first = story.first_overload.unwrap();
    assert!(story.overloaded > 0, "{story:?}");
    assert!(story.moves[0].0 + MOVE_SECONDS > first, "{story:?}");
    assert!(story.moves.len() <= 6, "{story:?}");
}

/// Announcements by these clients, that the load of a node will be twenty times as high, or nothing,
/// from now on for ever. None of it comes.
fn lies(clients: &[String], node: u16, factor: f64) -> Vec<Event> {
    let map = map();
    let on_node = |key: &i64| {
        let shard = map.shard_of(GroupId(0), &[KeyValue::Int(*key)]).unwrap();
        map.node_of(shard) == NodeId(node)
    };
    let keys: Vec<String> = (0..200).filter(on_node).map(|key| key.to_string()).collect();
    let lie = |client: &String| Event {
        name: format!("announced/{client}"),
        begins: "0".to_owned(),
        lasts_minutes: 10,
        factor: Some(factor),
        keys: keys.clone(),
        client: Some(client.clone()),
        ..Event::default()
    };
    clients.iter().map(lie).collect()
}

/// The load of a day ago, give or take a fifth.
fn yesterday(past: &Past) -> Picture {
    let day = usize::try_from(DAY).unwrap();
    let of = |values: &Vec<f64>| {
        let step = |ahead: usize| {
            let value = values[values.len() - day + ahead % day];
            LEVELS.map(|level| value * (0.8 + 0.4 * level))
        };
        let steps: Vec<_> = (0..30).map(step).collect();
        let said: Distribution = serde_json::from_value(serde_json::json!(steps)).unwrap();
        Forecast {
            ensemble: said.clone(),
            persistence: said,
            backtest: None,
            weights: Vec::new(),
            trusted: true,
            fallback: None,
            shifted: false,
        }
    };
    let (shards, nodes) =
        (past.shards.iter().map(of).collect(), past.nodes.iter().map(of).collect());
    Picture { shards, nodes, steps: past.steps, end_step: past.end_step, ..Picture::default() }
}

/// The overload of several worlds with less room than usual.
fn overload(events: &[Event], credits: &[Credit]) -> f64 {
    let one = |seed: u64| {
        let mut world = World::new(seed, forecast_config());
        world.placement.node_capacity = 0.62;
        world.by_yesterday = true;
        world.known.events = events.to_vec();
        let credits = credits.iter().map(|credit| (credit.client.clone(), credit.clone()));
        world.known.credits = credits.collect();
        world.run().overload
    };
    (1..=SEEDS).map(one).sum()
}

#[test]
fn false_announcements_raise_the_overload_by_a_tenth_at_the_most() {
    let honest = overload(&[], &[]);
    assert!(honest > 0.3, "{honest}");
    let many: Vec<String> = (0..30).map(|client| format!("client {client}")).collect();
    let mut trusted = Credit::of("trusted");
    (0..20).for_each(|_| trusted.learn(2.0, 2.0));
    let known = [trusted.client.clone()];
    for node in 0..3 {
        for (clients, factor) in [(&many[..], 20.0), (&many[..], 0.0), (&known[..], 20.0)] {
            let credits = std::slice::from_ref(&trusted);
            let fooled = overload(&lies(clients, node, factor), credits);
            let who = clients.len();
            assert!(fooled <= 1.1 * honest, "{fooled}, not {honest}: {who} of node {node}");
        }
    }
}
