//! Values of a unique lookup that a statement is about to use: which are free, and whose the others are.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::{Entered, Fault, Session};
use crate::ids::{NodeId, ShardId};
use crate::planner::LookupSql;
use crate::sql::TableName;
use crate::wire::{ServerError, SqlState};

impl Session {
    /// Those of the values, each with the key of its new row, that no row has. Until the transaction ends
    /// nobody else can take them; one that is being taken or given back by another is waited for.
    pub async fn free_values(
        &mut self,
        lookup: &TableName,
        wanted: &[Vec<String>],
    ) -> Result<BTreeSet<String>, Fault> {
        loop {
            let map = self.engine.live_map.snapshot();
            let Some(lookup) = map.lookup(lookup) else { return Err(gone(lookup).into()) };
            let sql = LookupSql { map: &map, lookup };
            let mut parts: BTreeMap<NodeId, (BTreeSet<ShardId>, Vec<&Vec<String>>)> =
                BTreeMap::new();
            for entry in wanted {
                let shard = entry.first().and_then(|value| sql.shard_of(value));
                let shard = shard.ok_or_else(|| gone(&lookup.name))?;
                let (shards, entries) = parts.entry(map.node_of(shard)).or_default();
                shards.insert(shard);
                entries.push(entry);
            }
            let shards: SmallVec<[ShardId; 2]> =
                parts.values().flat_map(|(shards, _)| shards.iter().copied()).collect();
            if self.enter(&shards, map.epoch()).await? == Entered::Stale {
                continue;
            }
            let mut free = BTreeSet::new();
            for (node, (_, mut entries)) in parts {
                // In an order, so that two transactions wait for each other instead of deadlocking.
                entries.sort();
                let taken = self.lookup_command(node, &sql.claim(&entries)).await?;
                let own: Vec<String> = taken.rows.into_iter().flatten().flatten().collect();
                if !own.is_empty() {
                    // Its place stays taken until the transaction ends; the row brings its own.
                    self.lookup_command(node, &sql.give_back(&own)).await?;
                }
                free.extend(own);
            }
            return Ok(free);
        }
    }

    /// The key of the row that has a value, which keeps both until the transaction ends; `None` if no
    /// row has it any more.
    pub async fn holder(
        &mut self,
        lookup: &TableName,
        value: &str,
    ) -> Result<Option<Vec<String>>, Fault> {
        loop {
            let map = self.engine.live_map.snapshot();
            let Some(lookup) = map.lookup(lookup) else { return Err(gone(lookup).into()) };
            let sql = LookupSql { map: &map, lookup };
            let shard = sql.shard_of(value).ok_or_else(|| gone(&lookup.name))?;
            if self.enter(&[shard], map.epoch()).await? == Entered::Stale {
                continue;
            }
            let found = self.lookup_command(map.node_of(shard), &sql.holder(value)).await?;
            return Ok(found
                .rows
                .into_iter()
                .next()
                .map(|row| row.into_iter().flatten().collect()));
        }
    }
}

fn gone(lookup: &TableName) -> ServerError {
    let message = format!("{lookup} can't be asked for this value");
    ServerError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint("Try again.")
}
