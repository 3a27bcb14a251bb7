//! What is known of each shard beside its counts: kinds of statements, their texts, its keys, and
//! which shards share transactions. Bounded; older samples count less.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::keys::{KeyRange, Keys, holds};
use super::samples::{Class, Held, Sample};
use crate::ids::ShardId;
use crate::shard_map::Bounds;

/// In this time what was seen loses half of its weight.
pub(super) const HALF_LIFE_S: f64 = 1_800.0;
/// Texts of a shard that are kept.
const TEXTS_MAX: usize = 64;
/// Ranges of a shard's keys that are told, about.
const RANGES: usize = 8;
/// Pairs of shards that are kept.
const PAIRS_MAX: usize = 10_000;
/// What weighs less than this is forgotten.
const FORGOTTEN: f64 = 0.01;
/// The weight of new samples grows instead of that of old ones shrinking; past this all are scaled.
const WEIGHT_MAX: f64 = 1e12;

/// Everything that samples have shown.
#[derive(Debug, Clone)]
pub struct Sketch {
    shards: BTreeMap<ShardId, ShardSketch>,
    pairs: HashMap<(ShardId, ShardId), f64>,
    /// The weight of a sample now.
    weight: f64,
    at_unix_ms: u64,
}

/// What is known of one shard.
#[derive(Debug, Clone, Default)]
struct ShardSketch {
    total: f64,
    busy: f64,
    classes: [f64; 3],
    texts: HashMap<Arc<str>, (f64, f64)>,
    keys: Keys,
}

/// What samples show of a shard. Shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardDetail {
    /// The shard.
    pub shard: ShardId,
    /// Samples that this rests on, older ones counting less.
    pub samples: f64,
    /// The share of statements that find rows by a key, in a few shards, in all.
    pub classes: BTreeMap<&'static str, f64>,
    /// The statements that cost most.
    pub statements: Vec<StatementShare>,
    /// Keys, as text, that have more than a hundredth of the statements.
    pub hot_keys: Vec<(String, f64)>,
    /// The key that halves the load; `None` if there are too few different ones.
    pub split_key: Option<String>,
    /// The share of the load that stays in the first half when a hash shard is split in two.
    pub first_half_share: Option<f64>,
    /// From -1 to 1: whether keys of rows that come are lower or higher than those before.
    pub insert_direction: f64,
}

/// One statement's part of a shard's load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatementShare {
    /// Without its plain literals, cut.
    pub text: String,
    /// Of all statements.
    pub share: f64,
    /// Of all busy time.
    pub busy_share: f64,
}

/// Two shards that share transactions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// The one.
    pub first: ShardId,
    /// The other.
    pub second: ShardId,
    /// Transactions of late, older ones counting less.
    pub transactions: f64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { shards: BTreeMap::new(), pairs: HashMap::new(), weight: 1.0, at_unix_ms: 0 }
    }
}

impl Sketch {
    /// Takes in what was sampled up to now. `chance` gives numbers from 0 to 1.
    pub fn take(&mut self, held: &Held, now_unix_ms: u64, mut chance: impl FnMut() -> f64) {
        self.age(now_unix_ms);
        for sample in &held.statements {
            for shard in &sample.shards {
                let shard = self.shards.entry(*shard).or_default();
                shard.take(sample, self.weight, &mut chance);
            }
        }
        for shards in &held.together {
            self.take_together(shards);
        }
    }

    fn take_together(&mut self, shards: &[ShardId]) {
        for (at, first) in shards.iter().enumerate() {
            for second in &shards[at + 1..] {
                let pair = (*first.min(second), *first.max(second));
                if self.pairs.len() < PAIRS_MAX || self.pairs.contains_key(&pair) {
                    *self.pairs.entry(pair).or_default() += self.weight;
                }
            }
        }
    }

    /// Lets time pass.
    fn age(&mut self, now_unix_ms: u64) {
        let passed = now_unix_ms.saturating_sub(self.at_unix_ms);
        if self.at_unix_ms > 0 {
            let seconds = std::time::Duration::from_millis(passed).as_secs_f64();
            self.weight *= (seconds / HALF_LIFE_S).min(50.0).exp2();
        }
        self.at_unix_ms = now_unix_ms.max(self.at_unix_ms);
        if self.weight < WEIGHT_MAX {
            return;
        }
        let scale = 1.0 / self.weight;
        self.weight = 1.0;
        self.pairs.retain(|_, weight| {
            *weight *= scale;
            *weight > FORGOTTEN
        });
        self.shards.retain(|_, shard| {
            shard.scale(scale);
            shard.total > FORGOTTEN
        });
    }

    /// Hands on what is known when shards are split or merged: of each pair `(from, to)`, with the
    /// bounds that the new shard has, the share of the old shard's load that goes to it, where its
    /// keys are known. Old ids say nothing of the shards that may get them next.
    pub fn inherit(&mut self, lanes: &[(ShardId, ShardId, &Bounds)]) -> Vec<Option<f64>> {
        let mut heirs: BTreeMap<ShardId, ShardSketch> = BTreeMap::new();
        let mut shares = Vec::with_capacity(lanes.len());
        for (from, to, bounds) in lanes {
            let heir = heirs.entry(*to).or_default();
            let Some(parent) = self.shards.get(from) else {
                shares.push(None);
                continue;
            };
            let (keys, share) = parent.keys.part(|key, hash| holds(bounds, key, hash));
            let mut part = parent.clone();
            part.keys = Keys::default();
            part.scale(share.unwrap_or(1.0));
            heir.absorb(part, keys);
            shares.push(share);
        }
        for (from, ..) in lanes {
            self.shards.remove(from);
            self.pairs.retain(|(first, second), _| first != from && second != from);
        }
        self.shards.extend(heirs);
        shares
    }

    /// What is known of a shard.
    pub fn of(&self, id: ShardId) -> Option<ShardDetail> {
        let shard = self.shards.get(&id)?;
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let mut statements: Vec<StatementShare> = shard
            .texts
            .iter()
            .map(|(text, (count, busy))| StatementShare {
                text: text.to_string(),
                share: share(*count, shard.total),
                busy_share: share(*busy, shard.busy),
            })
            .collect();
        statements.sort_by(|a, b| b.busy_share.total_cmp(&a.busy_share));
        statements.truncate(20);
        let names = ["point", "range", "scan"];
        let classes = names.into_iter().zip(shard.classes.map(|part| share(part, shard.total)));
        Some(ShardDetail {
            shard: id,
            samples: shard.total / self.weight,
            classes: classes.collect(),
            statements,
            hot_keys: shard.keys.hot(shard.total),
            split_key: shard.keys.middle(),
            first_half_share: None,
            insert_direction: shard.keys.direction(),
        })
    }

    /// The share of a hash shard's load that stays with the first of two halves, if its remainder is
    /// this of that modulus; `None` if too few keys are known.
    pub fn first_half(&self, id: ShardId, modulus: u32, remainder: u32) -> Option<f64> {
        self.shards.get(&id)?.keys.first_half(modulus, remainder)
    }

    /// The key with most of the shard's statements: its share, its hash, and it; `None` if none
    /// stands out, or too few samples say so.
    pub fn hottest(&self, id: ShardId) -> Option<(f64, u64, String)> {
        let shard = self.shards.get(&id)?;
        shard.keys.hottest(shard.total, shard.total / self.weight)
    }

    /// The key that halves the load of a shard; `None` if too few are known.
    pub fn middle(&self, id: ShardId) -> Option<String> {
        self.shards.get(&id)?.keys.middle()
    }

    /// Ranges of a shard's keys with about equal shares of its load, in the order of the keys.
    pub fn ranges(&self, id: ShardId) -> Vec<KeyRange> {
        self.shards.get(&id).map(|shard| shard.keys.ranges(RANGES)).unwrap_or_default()
    }

    /// All shards that anything is known of.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.keys().copied()
    }

    /// Pairs of shards that share transactions, those with most first.
    pub fn pairs(&self) -> Vec<Pair> {
        let mut pairs: Vec<Pair> = self
            .pairs
            .iter()
            .map(|((first, second), weight)| Pair {
                first: *first,
                second: *second,
                transactions: weight / self.weight,
            })
            .filter(|pair| pair.transactions > FORGOTTEN)
            .collect();
        let key = |pair: &Pair| (pair.first, pair.second);
        pairs.sort_by(|a, b| {
            b.transactions.total_cmp(&a.transactions).then_with(|| key(a).cmp(&key(b)))
        });
        pairs
    }
}

impl ShardSketch {
    fn take(&mut self, sample: &Sample, weight: f64, chance: &mut impl FnMut() -> f64) {
        let busy = weight * sample.busy.as_secs_f64();
        self.total += weight;
        self.busy += busy;
        let class = match sample.class {
            Class::Point => 0,
            Class::Range => 1,
            Class::Scan => 2,
        };
        self.classes[class] += weight;
        if let Some((count, sum)) = self.texts.get_mut(&sample.text) {
            *count += weight;
            *sum += busy;
        } else {
            if self.texts.len() >= TEXTS_MAX {
                self.forget_least();
            }
            self.texts.insert(sample.text.clone(), (weight, busy));
        }
        // The key of a statement of several shards is one of them only: it is not said which.
        if let Some((value, hash)) = sample.key.as_ref().filter(|_| sample.shards.len() == 1) {
            self.keys.take(value, *hash, (weight, sample.inserts), chance);
        }
    }

    /// Takes in what is known of another, whose keys are told apart from it.
    fn absorb(&mut self, other: Self, keys: Keys) {
        self.total += other.total;
        self.busy += other.busy;
        self.classes.iter_mut().zip(other.classes).for_each(|(sum, part)| *sum += part);
        for (text, (count, busy)) in other.texts {
            let sums = self.texts.entry(text).or_default();
            sums.0 += count;
            sums.1 += busy;
        }
        while self.texts.len() > TEXTS_MAX {
            self.forget_least();
        }
        self.keys.absorb(keys);
    }

    fn forget_least(&mut self) {
        let least = self.texts.iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0));
        if let Some(text) = least.map(|(text, _)| text.clone()) {
            self.texts.remove(&text);
        }
    }

    fn scale(&mut self, scale: f64) {
        self.total *= scale;
        self.busy *= scale;
        self.classes.iter_mut().for_each(|part| *part *= scale);
        for (count, busy) in self.texts.values_mut() {
            *count *= scale;
            *busy *= scale;
        }
        self.keys.scale(scale);
    }
}

#[cfg(test)]
mod tests;
