//! The keys of a shard, sampled: heavy hitters, a split point, the direction of inserts.

use serde::Serialize;

use crate::shard_map::{Bounds, Cut, KeyValue};

/// Keys of the sample that split points come from.
const SAMPLE_MAX: usize = 256;
/// Fewer different keys than this give no split point.
const DIFFERENT_MIN: usize = 8;
/// Keys that are counted to find heavy hitters.
const COUNTED_MAX: usize = 64;
/// What has less than this share is no heavy hitter.
const HOT_SHARE: f64 = 0.01;
/// Standard errors by which a share may be wrong: of many keys one seems hot by chance.
const DOUBT: f64 = 3.0;
/// How much the newest insert says about the direction.
const DIRECTION_STEP: f64 = 0.05;

/// A range of a shard's keys, by their sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyRange {
    /// Its first key, as text.
    pub first: String,
    /// Its last key; the same, if it is a hot key.
    pub last: String,
    /// The share that it has of the shard's load, from 0 to 1.
    pub share: f64,
}

/// Bounded: a weighted random sample (Efraimidis and Spirakis, 2006, with forward decay: Cormode et
/// al., 2009), and counts of the keys that come most (Metwally et al., space saving, 2005).
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    sample: Vec<Sampled>,
    counts: Vec<Count>,
    last_insert: Option<KeyValue>,
    direction: f64,
}

#[derive(Debug, Clone)]
struct Sampled {
    /// The highest stay.
    priority: f64,
    key: KeyValue,
    hash: u64,
}

#[derive(Debug, Clone)]
struct Count {
    key: KeyValue,
    hash: u64,
    weight: f64,
    /// How much of it may be another key's.
    doubt: f64,
}

impl Keys {
    /// Takes a key of this weight; whether it was inserted.
    pub(super) fn take(
        &mut self,
        key: &KeyValue,
        hash: u64,
        (weight, inserted): (f64, bool),
        chance: &mut impl FnMut() -> f64,
    ) {
        self.sampled(key, hash, weight, chance());
        self.counted(key, hash, weight);
        if inserted {
            if let Some(order) = self.last_insert.as_ref().and_then(|last| order(key, last)) {
                let sign = f64::from(i8::from(order.is_gt()) - i8::from(order.is_lt()));
                self.direction += DIRECTION_STEP * (sign - self.direction);
            }
            self.last_insert = Some(key.clone());
        }
    }

    fn sampled(&mut self, key: &KeyValue, hash: u64, weight: f64, chance: f64) {
        // The logarithm of the usual key u^(1/w), negated twice: comparable over all weights.
        let priority = weight.max(1e-300).ln() - (-chance.clamp(1e-12, 1.0 - 1e-12).ln()).ln();
        let sampled = Sampled { priority, key: key.clone(), hash };
        if self.sample.len() < SAMPLE_MAX {
            self.sample.push(sampled);
            return;
        }
        let lowest = self.sample.iter_mut().min_by(|a, b| a.priority.total_cmp(&b.priority));
        if let Some(lowest) = lowest.filter(|lowest| lowest.priority < priority) {
            *lowest = sampled;
        }
    }

    fn counted(&mut self, key: &KeyValue, hash: u64, weight: f64) {
        let same = |count: &&mut Count| count.hash == hash && count.key == *key;
        if let Some(count) = self.counts.iter_mut().find(same) {
            count.weight += weight;
        } else if self.counts.len() < COUNTED_MAX {
            self.counts.push(Count { key: key.clone(), hash, weight, doubt: 0.0 });
        } else if let Some(least) =
            self.counts.iter_mut().min_by(|a, b| a.weight.total_cmp(&b.weight))
        {
            let doubt = least.weight;
            *least = Count { key: key.clone(), hash, weight: doubt + weight, doubt };
        }
    }

    pub(super) fn scale(&mut self, scale: f64) {
        self.sample.iter_mut().for_each(|sampled| sampled.priority += scale.ln());
        for count in &mut self.counts {
            count.weight *= scale;
            count.doubt *= scale;
        }
    }

    /// Heavy hitters, the heaviest first, with the share that they have at least.
    pub(super) fn hot(&self, total: f64) -> Vec<(String, f64)> {
        let share = |count: &Count| (count.weight - count.doubt) / total.max(1e-300);
        let mut hot: Vec<(String, f64)> =
            self.counts.iter().map(|count| (text(&count.key), share(count))).collect();
        hot.retain(|(_, share)| *share > HOT_SHARE);
        hot.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        hot
    }

    /// The heaviest key: the share that it has at least, its hash, and it; `None` if none stands out,
    /// or if by so many samples it may well have less than half of what it seems to have.
    pub(super) fn hottest(&self, total: f64, samples: f64) -> Option<(f64, u64, String)> {
        let share = |count: &Count| (count.weight - count.doubt) / total.max(1e-300);
        let heaviest = self.counts.iter().max_by(|a, b| share(a).total_cmp(&share(b)))?;
        let share = share(heaviest);
        let sure = at_least(share, samples) > share / 2.0;
        (share > HOT_SHARE && sure).then(|| (share, heaviest.hash, text(&heaviest.key)))
    }

    /// The key that has half of the load below it; it is the first of the upper half.
    pub(super) fn middle(&self) -> Option<String> {
        let mut keys: Vec<&KeyValue> = self.sample.iter().map(|sampled| &sampled.key).collect();
        keys.sort_by(|a, b| order(a, b).unwrap_or(std::cmp::Ordering::Equal));
        let mut different = keys.clone();
        different.dedup();
        if different.len() < DIFFERENT_MIN {
            return None;
        }
        let middle = keys[keys.len() / 2];
        // Below the first key there is nothing to cut off.
        let cut = if Some(&middle) == different.first() { different[1] } else { middle };
        Some(text(cut))
    }

    /// The keys in order, cut where each part has about an equal share of the load: of each part the
    /// first key, the last one, and its share. Nothing if there are too few different ones.
    pub(super) fn ranges(&self, parts: usize) -> Vec<KeyRange> {
        let mut keys: Vec<&KeyValue> = self.sample.iter().map(|sampled| &sampled.key).collect();
        keys.sort_by(|a, b| order(a, b).unwrap_or(std::cmp::Ordering::Equal));
        let real = |count: usize| u32::try_from(count).map_or(0.0, f64::from);
        let all = real(keys.len());
        let mut ranges: Vec<(&KeyValue, &KeyValue, usize)> = Vec::new();
        for same in keys.chunk_by(|a, b| a == b) {
            let full = |count: usize| count * parts >= keys.len();
            match ranges.last_mut() {
                // A key that is hot is told apart.
                Some((_, last, count)) if !full(*count) && !full(same.len()) => {
                    (*last, *count) = (same[0], *count + same.len());
                }
                _ => ranges.push((same[0], same[0], same.len())),
            }
        }
        let range = |(first, last, count): (&KeyValue, &KeyValue, usize)| KeyRange {
            first: text(first),
            last: text(last),
            share: real(count) / all,
        };
        let enough = keys.len() >= DIFFERENT_MIN;
        ranges.into_iter().filter(|_| enough).map(range).collect()
    }

    /// The share of keys whose hash leaves this remainder also by twice the modulus.
    pub(super) fn first_half(&self, modulus: u32, remainder: u32) -> Option<f64> {
        let twice = 2 * u64::from(modulus);
        let (mut first, mut all) = (0.0, 0.0);
        for sampled in &self.sample {
            first += f64::from(u8::from(sampled.hash % twice == u64::from(remainder)));
            all += 1.0;
        }
        let enough = self.sample.len() >= DIFFERENT_MIN;
        enough.then(|| first / f64::max(all, 1.0))
    }

    /// Those that `holds` says yes to, by key and hash; and what share of the sample they are, if it
    /// is large enough to say.
    pub(super) fn part(&self, holds: impl Fn(&KeyValue, u64) -> bool) -> (Self, Option<f64>) {
        let mut part = self.clone();
        part.sample.retain(|sampled| holds(&sampled.key, sampled.hash));
        part.counts.retain(|count| holds(&count.key, count.hash));
        part.last_insert = None;
        let (some, all) = (part.sample.len(), self.sample.len());
        let real = |count: usize| u32::try_from(count).map_or(0.0, f64::from);
        let share = (all >= DIFFERENT_MIN).then(|| real(some) / real(all));
        (part, share)
    }

    /// Takes in what is known of another shard's keys.
    pub(super) fn absorb(&mut self, other: Self) {
        self.sample.extend(other.sample);
        self.sample.sort_by(|a, b| b.priority.total_cmp(&a.priority));
        self.sample.truncate(SAMPLE_MAX);
        self.counts.extend(other.counts);
        self.counts.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        self.counts.truncate(COUNTED_MAX);
    }

    pub(super) fn direction(&self) -> f64 {
        self.direction
    }
}

/// Whether bounds hold a key, as far as its first column and its hash say.
pub(super) fn holds(bounds: &Bounds, key: &KeyValue, hash: u64) -> bool {
    let is = |cut: &Option<Cut>, wanted: fn(std::cmp::Ordering) -> bool| {
        let limit = cut.as_ref().and_then(|cut| cut.first());
        limit.is_none_or(|limit| order(key, limit).is_none_or(wanted))
    };
    match bounds {
        Bounds::Hash { modulus, remainder } => {
            hash % u64::from(*modulus).max(1) == u64::from(*remainder)
        }
        Bounds::Range { from, to } => {
            is(from, std::cmp::Ordering::is_ge) && is(to, std::cmp::Ordering::is_lt)
        }
        Bounds::List(values) => values.contains(key),
        Bounds::Others(values) => !values.contains(key),
        Bounds::Nothing => false,
    }
}

/// The lower end of Wilson's interval (1927) of a share that so many samples show.
fn at_least(share: f64, samples: f64) -> f64 {
    let (n, squared) = (samples.max(1.0), DOUBT * DOUBT);
    let spread = DOUBT * (share * (1.0 - share) / n + squared / (4.0 * n * n)).max(0.0).sqrt();
    (share + squared / (2.0 * n) - spread) / (1.0 + squared / n)
}

/// The order of two keys of one column.
fn order(a: &KeyValue, b: &KeyValue) -> Option<std::cmp::Ordering> {
    let same = std::mem::discriminant(a) == std::mem::discriminant(b);
    a.partial_cmp(b).filter(|_| same && *a != KeyValue::Null)
}

/// A key as people write it.
fn text(key: &KeyValue) -> String {
    key.text().unwrap_or_else(|| "NULL".to_owned())
}
