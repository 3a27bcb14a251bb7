//! Whole groups that come, or get another shard key; and what one transaction sees.

use super::{Column, Group, InvalidMap, KeyedFunction, Shard, ShardMap, Table, TableKind};
use crate::ids::{GroupId, NodeId, ShardId};
use crate::shard_map::{Bounds, KeyType};
use crate::sql::TableName;

/// A group that comes with one shard, and with tables that have rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// Its name.
    pub name: String,
    /// The type of each column of its shard key.
    pub key: Vec<KeyType>,
    /// The id of its shard.
    pub shard: ShardId,
    /// The keys of that: all of them.
    pub bounds: Bounds,
    /// The node of that.
    pub node: NodeId,
    /// Its tables: name, columns of the shard key, columns.
    pub tables: Vec<(TableName, Vec<String>, Vec<Column>)>,
    /// Functions and procedures that run where a key is, with their arguments.
    pub functions: Vec<(TableName, Vec<u16>)>,
}

/// Another shard key of a group, with the shards that hold its rows by that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The group.
    pub group: GroupId,
    /// The type of each column of its new key.
    pub key: Vec<KeyType>,
    /// All its shards; none of them is in the map.
    pub shards: Vec<(ShardId, Shard)>,
    /// All its tables, with their columns of the new key.
    pub tables: Vec<(TableName, Vec<String>)>,
    /// Functions and procedures that run where a key is, with their arguments.
    pub functions: Vec<(TableName, Vec<u16>)>,
}

/// The name of the group in which plain tables are sharded on their way to another group.
pub fn arriving(group: &str) -> String {
    format!("{group} (arriving)")
}

impl ShardMap {
    /// This map as one transaction sees it that has changed these tables' columns: at the same epoch, and
    /// for nobody else.
    #[must_use]
    pub fn seen_with(&self, columns: &[(TableName, Vec<Column>)]) -> Self {
        let epoch = self.parts.epoch;
        let changed = |map: Self, (table, columns): &(TableName, Vec<Column>)| {
            map.with_columns(table, columns.clone())
        };
        let mut seen = columns.iter().fold(self.clone(), changed);
        seen.parts.epoch = epoch;
        seen
    }

    /// This map with another group, at the next epoch.
    ///
    /// # Errors
    /// It has the group, one of its tables or its shard already.
    pub fn with_group(&self, new: &NewGroup) -> Result<Self, InvalidMap> {
        let twice = || InvalidMap::Table(new.name.clone(), "stands twice");
        if self.group_named(&new.name).is_some() || self.shard(new.shard).is_some() {
            return Err(twice());
        }
        let mut parts = self.parts.clone();
        let group = GroupId(u16::try_from(parts.groups.len()).map_err(|_| twice())?);
        parts.groups.push(Group { name: new.name.clone(), key: new.key.clone() });
        let shard = Shard { group, bounds: new.bounds.clone(), node: new.node };
        while parts.shards.len() <= new.shard.index() {
            parts.shards.push(Shard { bounds: Bounds::Nothing, ..shard.clone() });
        }
        parts.shards[new.shard.index()] = shard;
        parts.tables.extend(new.tables.iter().map(|(name, key, columns)| Table {
            name: name.clone(),
            kind: TableKind::Sharded { group, key: key.clone() },
            columns: columns.clone(),
        }));
        parts.declared.functions.extend(new.functions.iter().map(|(name, arguments)| {
            KeyedFunction { name: name.clone(), group, arguments: arguments.clone() }
        }));
        parts.epoch = parts.epoch.next();
        parts.try_into()
    }

    /// This map with the tables of `from` in the group `into`, whose shards have their rows then; `from` is
    /// gone. At the next epoch.
    ///
    /// # Errors
    /// The groups have keys of other types.
    pub fn with_joined(&self, from: GroupId, into: GroupId) -> Result<Self, InvalidMap> {
        let mut parts = self.parts.clone();
        let epoch = parts.epoch.next();
        if from == into || parts.groups[from.index()].key != parts.groups[into.index()].key {
            let name = parts.groups[from.index()].name.clone();
            return Err(InvalidMap::Table(
                name,
                "has another shard key than the group that it joins",
            ));
        }
        for shard in parts.shards.iter_mut().filter(|shard| shard.group == from) {
            shard.bounds = Bounds::Nothing;
        }
        parts.groups.remove(from.index());
        let renamed = |group: GroupId| {
            let group = if group == from { into } else { group };
            GroupId(group.0 - u16::from(group > from))
        };
        parts.shards.iter_mut().for_each(|shard| shard.group = renamed(shard.group));
        for table in &mut parts.tables {
            if let TableKind::Sharded { group, .. } = &mut table.kind {
                *group = renamed(*group);
            }
        }
        parts.declared.functions.iter_mut().for_each(|it| it.group = renamed(it.group));
        parts.joined.retain(|(group, _)| ![from, into].contains(group));
        parts.joined.iter_mut().for_each(|(group, _)| *group = renamed(*group));
        parts.joined.push((renamed(into), epoch));
        parts.epoch = epoch;
        parts.try_into()
    }

    /// This map with another key of a group, at the next epoch; the shards that it had are gone.
    ///
    /// # Errors
    /// A shard of it is there already, a table is not the group's, or a key would be held twice or not
    /// at all.
    pub fn with_key(&self, new: &NewKey) -> Result<Self, InvalidMap> {
        let mut parts = self.parts.clone();
        let name = parts.groups[new.group.index()].name.clone();
        let twice = || InvalidMap::Table(name.clone(), "has a shard that is there already");
        for shard in parts.shards.iter_mut().filter(|shard| shard.group == new.group) {
            shard.bounds = Bounds::Nothing;
        }
        for (id, shard) in &new.shards {
            if self.shard(*id).is_some() {
                return Err(twice());
            }
            while parts.shards.len() <= id.index() {
                parts.shards.push(Shard { bounds: Bounds::Nothing, ..shard.clone() });
            }
            parts.shards[id.index()] = shard.clone();
        }
        parts.groups[new.group.index()].key.clone_from(&new.key);
        for table in &mut parts.tables {
            let TableKind::Sharded { group, key } = &mut table.kind else { continue };
            if *group == new.group {
                let found = new.tables.iter().find(|(name, _)| *name == table.name);
                let missing = || InvalidMap::Table(table.name.to_string(), "gets no key");
                key.clone_from(&found.ok_or_else(missing)?.1);
            }
        }
        let functions = &mut parts.declared.functions;
        functions.retain(|function| function.group != new.group);
        functions.extend(new.functions.iter().map(|(name, arguments)| KeyedFunction {
            name: name.clone(),
            group: new.group,
            arguments: arguments.clone(),
        }));
        parts.epoch = parts.epoch.next();
        parts.try_into()
    }
}
