//! One statement in many, looked at more closely: its text, its kind, its key.
//!
//! Nobody waits for this: a session offers its sample, and if another is at it, or nobody has taken
//! the last ones, the sample is dropped.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Access;
use crate::ids::ShardId;
use crate::shard_map::KeyValue;

/// Of so many statements one is looked at, on average.
pub const SAMPLED_ONE_IN: u32 = 64;
/// Samples that are held until they are taken, at the most.
const HELD_MAX: usize = 4_096;
/// Shards of a transaction that are looked at; one with more says nothing about pairs.
const TOGETHER_MAX: usize = 8;
/// Bytes of a text that are kept.
const TEXT_BYTES_MAX: usize = 300;

/// How a statement finds its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// By one shard key.
    Point,
    /// In a few shards.
    Range,
    /// In all shards.
    Scan,
}

/// A statement that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The shards that it touched.
    pub shards: SmallVec<[ShardId; 2]>,
    /// How it found its rows.
    pub class: Class,
    /// Whether it may write.
    pub access: Access,
    /// Whether it is an INSERT.
    pub inserts: bool,
    /// Its text, without plain literals, cut.
    pub text: Arc<str>,
    /// The first column of its shard key, and the hash of all.
    pub key: Option<(KeyValue, u64)>,
    /// How long a backend worked for it, and what ran with it.
    pub busy: Duration,
}

impl Sample {
    /// A text as far as it is kept.
    pub fn cut(text: &str) -> Arc<str> {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].into()
    }
}

/// Says which statements of a session are looked at. Costs an addition and a comparison for those
/// that are not.
#[derive(Debug, Clone)]
pub struct Sieve {
    left: u32,
    chance: u32,
}

impl Sieve {
    /// Begins at a place that depends on `seed`.
    pub fn new(seed: u32) -> Self {
        let mut sieve = Self { left: 0, chance: seed | 1 };
        sieve.left = sieve.next();
        sieve
    }

    /// Whether this statement is.
    #[inline]
    pub fn picks(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.left = self.next();
        true
    }

    /// How many statements to the next one: from 1 to twice the mean, so that no rhythm of the
    /// client's is in step with it.
    fn next(&mut self) -> u32 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        1 + self.chance % (2 * SAMPLED_ONE_IN - 1)
    }
}

/// What was looked at and not taken yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Samples(Arc<Mutex<Held>>);

/// What was looked at.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// Statements.
    pub statements: Vec<Sample>,
    /// The shards of transactions that touched several.
    pub together: Vec<SmallVec<[ShardId; 8]>>,
}

impl Samples {
    /// Hands in a statement; never waits.
    pub fn offer(&self, sample: Sample) {
        let Some(mut held) = self.0.try_lock() else { return };
        if held.statements.len() < HELD_MAX {
            held.statements.push(sample);
        }
    }

    /// Hands in the shards of a transaction; never waits.
    pub fn offer_together(&self, shards: impl ExactSizeIterator<Item = ShardId>) {
        if !(2..=TOGETHER_MAX).contains(&shards.len()) {
            return;
        }
        let Some(mut held) = self.0.try_lock() else { return };
        if held.together.len() < HELD_MAX {
            held.together.push(shards.collect());
        }
    }

    /// Hands in what another proxy has looked at; what is too much is dropped.
    pub fn add(&self, others: Held) {
        let mut held = self.0.lock();
        let (room, pairs) = (HELD_MAX - held.statements.len(), HELD_MAX - held.together.len());
        held.statements.extend(others.statements.into_iter().take(room));
        held.together.extend(others.together.into_iter().take(pairs));
    }

    /// Takes all.
    pub fn take(&self) -> Held {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::{SAMPLED_ONE_IN, Samples, Sieve};
    use crate::ids::ShardId;

    #[test]
    fn one_statement_in_many_is_picked_and_never_in_step_with_the_client() {
        for rhythm in [2, 8, 64] {
            let mut sieve = Sieve::new(7);
            let mut picked = vec![0u32; rhythm];
            for turn in 0..640_000 {
                picked[turn % rhythm] += u32::from(sieve.picks());
            }
            let all: u32 = picked.iter().sum();
            assert!(all.abs_diff(640_000 / SAMPLED_ONE_IN) < 500, "{all}");
            let fair = all / u32::try_from(rhythm).unwrap();
            assert!(picked.iter().all(|n| n.abs_diff(fair) < fair / 2), "{picked:?}");
        }
    }

    #[test]
    fn transactions_of_one_shard_or_of_very_many_say_nothing_about_pairs() {
        let samples = Samples::default();
        for count in [0, 1, 2, 8, 9, 100] {
            let shards: Vec<ShardId> = (0..count).map(ShardId).collect();
            samples.offer_together(shards.into_iter());
        }
        let held = samples.take();
        assert_eq!(held.together.len(), 2);
        assert_eq!((held.together[0].len(), held.together[1].len()), (2, 8));
        assert!(samples.take().together.is_empty());
    }
}
