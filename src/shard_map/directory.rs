//! Key → shard, for one group.

use std::collections::HashMap;

use super::{Bounds, Cut, KeyType, KeyValue, hash_key};
use crate::ids::ShardId;

/// How the keys of a group are cut into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By PostgreSQL's hash.
    Hash,
    /// At given keys.
    Range,
    /// By lists of values.
    List,
}

impl Method {
    /// The word of the policy and, in capitals, of `PARTITION BY`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Range => "range",
            Self::List => "list",
        }
    }
}

/// Which shard of a group holds which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directory {
    /// The shard of `hash % len`.
    Hash(Vec<ShardId>),
    /// In order: the first shard's keys are before the first cut, the last one's behind the last.
    Range {
        /// One less than there are shards.
        cuts: Vec<Cut>,
        /// At least one.
        shards: Vec<ShardId>,
    },
    /// By value.
    List {
        /// The listed ones.
        listed: HashMap<KeyValue, ShardId>,
        /// The shard of all others, if there is one.
        others: Option<ShardId>,
    },
}

/// A limit of a comparison with the first column of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `key < value`
    Below,
    /// `key <= value`
    AtMost,
    /// `key > value` or `key >= value`
    AtLeast,
}

impl Directory {
    /// The directory of shards with these bounds; `None` if they are not of one method, overlap or
    /// leave a gap. Lists may leave values out.
    pub(super) fn of(bounds: &[(ShardId, &Bounds)], key: &[KeyType]) -> Option<Self> {
        let live = bounds.iter().filter(|(_, bounds)| **bounds != Bounds::Nothing);
        let live: Vec<(ShardId, &Bounds)> = live.copied().collect();
        match live.first()?.1 {
            Bounds::Hash { .. } => hash(&live),
            Bounds::Range { .. } => range(&live, key),
            Bounds::List(_) | Bounds::Others(_) if key.len() == 1 => list(&live),
            _ => None,
        }
    }

    /// How the keys are cut.
    pub fn method(&self) -> Method {
        match self {
            Self::Hash(_) => Method::Hash,
            Self::Range { .. } => Method::Range,
            Self::List { .. } => Method::List,
        }
    }

    /// The shard that holds a row with this key; `None` if there is none, so that PostgreSQL refuses
    /// the row (23514) wherever it is.
    pub fn shard_of(&self, key: &[KeyValue]) -> Option<ShardId> {
        match self {
            Self::Hash(slots) => {
                let slot = hash_key(key) % slots.len() as u64;
                slots.get(usize::try_from(slot).ok()?).copied()
            }
            Self::Range { cuts, shards } => {
                if key.contains(&KeyValue::Null) {
                    return None;
                }
                // A cut with fewer columns than the key is less than each key that begins with it.
                let at = cuts.partition_point(|cut| cut.as_slice() <= key);
                shards.get(at).copied()
            }
            Self::List { listed, others } => {
                let value = key.first()?;
                listed.get(value).copied().or(*others)
            }
        }
    }

    /// Every shard that may hold a key whose first column is in all of these limits; `None` if that
    /// says nothing.
    pub fn shards_within(&self, limits: &[(Limit, KeyValue)]) -> Option<Vec<ShardId>> {
        let Self::Range { cuts, shards } = self else { return None };
        let (mut from, mut to) = (0, shards.len());
        for (limit, value) in limits {
            let first = std::slice::from_ref(value);
            match limit {
                // A cut (5, 2) has keys that begin with 5 on both sides.
                Limit::AtLeast => {
                    from = from.max(cuts.partition_point(|cut| cut.as_slice() <= first));
                }
                Limit::AtMost => {
                    let at = cuts.partition_point(|cut| cut.first() <= Some(value));
                    to = to.min(at + 1);
                }
                Limit::Below => {
                    to = to.min(cuts.partition_point(|cut| cut.as_slice() < first) + 1);
                }
            }
        }
        Some(shards.get(from..to.max(from)).unwrap_or_default().to_vec())
    }

    /// Each shard, once.
    pub fn shards(&self) -> Vec<ShardId> {
        let mut all: Vec<ShardId> = match self {
            Self::Hash(shards) | Self::Range { shards, .. } => shards.clone(),
            Self::List { listed, others } => listed.values().copied().chain(*others).collect(),
        };
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The shard of each hash slot, at the largest modulus in use.
fn hash(bounds: &[(ShardId, &Bounds)]) -> Option<Directory> {
    let mut found = Vec::with_capacity(bounds.len());
    for (id, bounds) in bounds {
        let Bounds::Hash { modulus, remainder } = bounds else { return None };
        found.push((*id, *modulus, *remainder));
    }
    let largest = found.iter().map(|b| b.1).max().unwrap_or(0);
    let mut slots: Vec<Option<ShardId>> = vec![None; largest as usize];
    for (id, modulus, remainder) in found {
        if modulus == 0 || remainder >= modulus || !largest.is_multiple_of(modulus) {
            return None;
        }
        for slot in (remainder..largest).step_by(modulus as usize) {
            if slots[slot as usize].replace(id).is_some() {
                return None;
            }
        }
    }
    let slots = slots.into_iter().collect::<Option<Vec<_>>>().filter(|s| !s.is_empty())?;
    Some(Directory::Hash(slots))
}

fn range(bounds: &[(ShardId, &Bounds)], key: &[KeyType]) -> Option<Directory> {
    let mut found = Vec::with_capacity(bounds.len());
    for (id, bounds) in bounds {
        let Bounds::Range { from, to } = bounds else { return None };
        found.push((from.as_ref(), to.as_ref(), *id));
    }
    // No limit comes before every cut.
    found.sort();
    let (first, last) = (found.first()?, found.last()?);
    let meet = found.windows(2).all(|pair| pair[0].1.is_some() && pair[0].1 == pair[1].0);
    let cuts: Vec<Cut> = found.iter().skip(1).filter_map(|(from, ..)| from.cloned()).collect();
    let fits = |cut: &Cut| {
        let columns = cut.iter().zip(key).all(|(value, key_type)| key_type.has(value));
        !cut.is_empty() && cut.len() <= key.len() && columns
    };
    let in_order = cuts.windows(2).all(|pair| pair[0] < pair[1]);
    let whole = first.0.is_none() && last.1.is_none() && meet && in_order;
    let shards = found.iter().map(|(.., id)| *id).collect();
    (whole && cuts.iter().all(fits)).then_some(Directory::Range { cuts, shards })
}

fn list(bounds: &[(ShardId, &Bounds)]) -> Option<Directory> {
    let (mut listed, mut others, mut but) = (HashMap::new(), None, None);
    for (id, bounds) in bounds {
        match bounds {
            Bounds::List(values) if !values.is_empty() => {
                for value in values {
                    if listed.insert(value.clone(), *id).is_some() {
                        return None;
                    }
                }
            }
            Bounds::Others(values) if others.is_none() => {
                others = Some(*id);
                but = Some(values);
            }
            _ => return None,
        }
    }
    let all = |but: &Vec<KeyValue>| {
        but.len() == listed.len() && but.iter().all(|value| listed.contains_key(value))
    };
    but.is_none_or(all).then_some(Directory::List { listed, others })
}
