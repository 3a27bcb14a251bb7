//! Known events and announcements: which shards they touch, what they do to the forecasts, and how
//! right each client was.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::planning::{Past, Picture, timeline};
use crate::catalog::{Catalog, CatalogError, Change, Expect, Versioned};
use crate::forecast::{self, Ahead, Aspect, Credit, Event, Forecast, Known};
use crate::ids::ShardId;
use crate::load::History;
use crate::shard_map::{ShardMap, Table, TableKind};

/// Clients that are remembered, at the most.
const CLIENTS_MAX: usize = 1_000;
/// Announcements whose outcome is waited for, at the most.
const PLEDGES_MAX: usize = 1_000;
/// A load of this is nothing.
const NOTHING: f64 = 1e-4;

/// What is known beside the past.
#[derive(Debug, Clone, Default)]
pub(super) struct Expectations {
    pub(super) events: Vec<Event>,
    pub(super) credits: BTreeMap<String, Credit>,
}

impl Expectations {
    /// The events of the policy, and from the catalog those that were added and what is known of
    /// clients. What is over is deleted.
    pub(super) async fn read(
        catalog: &Catalog,
        declared: &[Event],
        now_unix_ms: u64,
    ) -> Result<Self, CatalogError> {
        let added = catalog.list::<Event>().await?;
        let (over, added): (Vec<_>, Vec<_>) =
            added.into_iter().partition(|event| event.record.is_over(now_unix_ms));
        if !over.is_empty() {
            let delete = |change: Change, event: &Versioned<Event>| {
                change.delete(&event.record, Expect::At(event.revision))
            };
            catalog.commit(over.iter().fold(Change::new(), delete)).await?;
        }
        let added = added.into_iter().map(|event| event.record);
        let credits = catalog.list::<Credit>().await?.into_iter().map(|stored| stored.record);
        Ok(Self {
            events: declared.iter().cloned().chain(added).collect(),
            credits: credits.map(|credit| (credit.client.clone(), credit)).collect(),
        })
    }
}

/// Whether an event touches each shard, by shard id.
fn touched(event: &Event, map: &ShardMap) -> Vec<bool> {
    let mut touched = vec![false; map.shard_count()];
    for (id, group) in (0u16..).map(crate::ids::GroupId).zip(map.groups()) {
        let named = |table: &Table| {
            let full = format!("{}.{}", table.name.schema, table.name.name);
            event.tables.iter().any(|name| *name == table.name.name || *name == full)
        };
        let in_group = |table: &&Table| matches!(&table.kind, TableKind::Sharded { group, .. } if *group == id);
        if !event.tables.is_empty() && !map.tables().iter().filter(in_group).any(named) {
            continue;
        }
        if event.keys.is_empty() {
            let shards = map.shards().filter(|(_, shard)| shard.group == id);
            shards.for_each(|(shard, _)| touched[shard.index()] = true);
            continue;
        }
        let [key_type] = group.key.as_slice() else { continue };
        let values = event.keys.iter().filter_map(|key| key_type.parse(key.as_bytes()).ok());
        for value in values {
            let shard = map.shard_of(id, &[value]);
            shard.into_iter().for_each(|shard| touched[shard.index()] = true);
        }
    }
    touched
}

impl Picture {
    /// Shifts what is expected of each shard in the times of the events that touch it.
    pub(super) fn expect(
        &mut self,
        known: &Expectations,
        map: &ShardMap,
        (past, config): (&Past, &forecast::Config),
    ) {
        let ahead =
            Ahead::of(&known.events, self.end_step, config.step_ms(), config.horizon_steps());
        if ahead.is_empty() {
            return;
        }
        let touching: Vec<(&Ahead<'_>, Vec<bool>)> =
            ahead.iter().map(|ahead| (ahead, touched(ahead.event, map))).collect();
        let with_statements = past.statements.is_some();
        let mut statements =
            std::mem::take(&mut self.statements).map(std::sync::Arc::unwrap_or_clone);
        for (index, busy) in past.shards.iter().enumerate() {
            let of_shard = touching.iter().filter(|(_, touched)| touched.get(index) == Some(&true));
            let of_shard: Vec<&Ahead<'_>> = of_shard.map(|(ahead, _)| *ahead).collect();
            let hours = past.hours.as_ref().and_then(|hours| {
                let values = hours.shards.get(index)?;
                Some(timeline(values, (hours.end_step, hours.step_ms), config))
            });
            let known = Known {
                ahead: &of_shard,
                credits: &known.credits,
                past: timeline(busy, (self.end_step, config.step_ms()), config),
                coarse: hours,
            };
            let shift = |forecast: Option<&mut Forecast>, aspect| {
                forecast.into_iter().for_each(|forecast| forecast.expect(&known, aspect));
            };
            let writes_share = past.writes_shares.get(index).copied().unwrap_or(0.5);
            if of_shard.iter().any(|ahead| ahead.event.client.is_some())
                && let Some(plain) = self.shards.get(index)
            {
                let declared: Vec<&Ahead<'_>> =
                    of_shard.iter().copied().filter(|a| a.event.client.is_none()).collect();
                let mut plain = plain.clone();
                let known = Known { ahead: &declared, ..known };
                plain.expect(&known, Aspect::Busy { writes_share });
                self.plain.insert(index, plain);
            }
            shift(self.shards.get_mut(index), Aspect::Busy { writes_share });
            if with_statements {
                let [reads, writes] = &mut statements;
                shift(reads.get_mut(index), Aspect::Reads);
                shift(writes.get_mut(index), Aspect::Writes);
            }
        }
        self.statements = statements.map(std::sync::Arc::new);
    }
}

/// What clients announced, until it is known how right it was.
#[derive(Debug, Default)]
pub(super) struct Pledges(HashMap<String, Pledge>);

/// One announcement.
#[derive(Debug, Clone, PartialEq)]
struct Pledge {
    client: String,
    claim: f64,
    shards: Vec<usize>,
    steps: Range<u64>,
    /// What the forecast said without it, on average over the steps.
    expected: f64,
}

impl Pledges {
    /// Takes note of what is announced beside what the forecasts say without it. What has begun
    /// stays as it was announced, whatever the client says later.
    pub(super) fn note(
        &mut self,
        picture: &Picture,
        known: &Expectations,
        map: &ShardMap,
        config: &forecast::Config,
    ) {
        let announced: Vec<Event> =
            known.events.iter().filter(|event| event.client.is_some()).cloned().collect();
        let first = picture.end_step;
        for ahead in Ahead::of(&announced, first, config.step_ms(), config.horizon_steps()) {
            let begun =
                self.0.get(&ahead.event.name).is_some_and(|known| known.steps.start < first);
            if begun || self.0.len() >= PLEDGES_MAX {
                continue;
            }
            if let Some(pledge) = Pledge::of(&ahead, picture, map) {
                self.0.insert(ahead.event.name.clone(), pledge);
            }
        }
    }

    /// What is known of clients after the announcements whose time is over.
    pub(super) fn settle(
        &mut self,
        history: &History,
        credits: &BTreeMap<String, Credit>,
    ) -> Vec<Credit> {
        let mut learned: BTreeMap<String, Credit> = BTreeMap::new();
        let over = self.0.extract_if(|_, pledge| pledge.steps.end <= history.end_step());
        for (_, pledge) in over {
            let known = credits.get(&pledge.client);
            if known.is_none() && credits.len() + learned.len() >= CLIENTS_MAX {
                continue;
            }
            let came = pledge.came(history);
            let credit = learned
                .entry(pledge.client.clone())
                .or_insert_with(|| known.cloned().unwrap_or_else(|| Credit::of(&pledge.client)));
            credit.learn(pledge.claim, (came + NOTHING) / (pledge.expected + NOTHING));
        }
        learned.into_values().collect()
    }
}

impl Pledge {
    fn of(ahead: &Ahead<'_>, picture: &Picture, map: &ShardMap) -> Option<Self> {
        let client = ahead.event.client.clone()?;
        let claim = ahead.event.declared(Aspect::Busy { writes_share: 0.5 })?;
        let touched = touched(ahead.event, map);
        let shards: Vec<usize> =
            (0..touched.len()).filter(|at| touched[*at] && map.shard(id(*at)).is_some()).collect();
        let from = ahead.covered.iter().position(|covered| *covered)?;
        let length = ahead.covered[from..].iter().take_while(|covered| **covered).count();
        let of_shard = |shard: &usize| -> f64 {
            let forecast = picture.shards.get(*shard).map(Forecast::distribution);
            let medians = forecast.into_iter().flat_map(|said| said.median().skip(from));
            medians.take(length).sum()
        };
        let count = f64::from(u32::try_from(length).unwrap_or(u32::MAX));
        let step = |ahead: usize| picture.end_step + u64::try_from(ahead).unwrap_or_default();
        let expected = shards.iter().map(of_shard).sum::<f64>() / count;
        Some(Self { client, claim, shards, steps: step(from)..step(from + length), expected })
    }

    /// What came, on average over the steps.
    fn came(&self, history: &History) -> f64 {
        let at = |step: u64| usize::try_from(step.saturating_sub(history.first_step())).ok();
        let of_shard = |shard: &usize| -> f64 {
            let busy = history.shards().get(*shard).map(|columns| &columns.busy);
            let values = self.steps.clone().filter_map(|step| busy?.get(at(step)?));
            values.copied().map(f64::from).sum()
        };
        let count = u32::try_from(self.steps.end - self.steps.start).unwrap_or(u32::MAX);
        self.shards.iter().map(of_shard).sum::<f64>() / f64::from(count.max(1))
    }
}

fn id(index: usize) -> ShardId {
    ShardId(u32::try_from(index).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
