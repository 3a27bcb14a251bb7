//! From a policy to the first shard map, and from a stored map to one that follows the policy.

use std::fmt;

use super::{FunctionPolicy, GroupPolicy, LookupPolicy, Policy, TablePolicy};
use crate::ids::{GroupId, NodeId};
use crate::shard_map::{
    Bounds, Declared, Group, KeyedFunction, Lookup, MapParts, Method, Node, Shard, ShardMap,
    Standing, Table, TableKind, arriving,
};
use crate::sql::TableName;

/// Why a policy does not fit the map that the catalog holds: all reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyMismatch(pub Vec<String>);

impl fmt::Display for PolicyMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy does not fit the data that is already sharded:")?;
        for reason in &self.0 {
            write!(f, "\n  {reason}")?;
        }
        f.write_str("\nUse the policy that the data was made with, or another data folder")
    }
}

impl Policy {
    /// The map of a first start: shards round robin over `nodes`, in order.
    pub fn shard_map(&self, nodes: &[String]) -> MapParts {
        let named = |name| nodes.iter().position(|node| Some(node) == name);
        let home = node_id(named(self.home.as_ref()).unwrap_or_default());
        let mut parts = MapParts { home, ..MapParts::of(&self.database, nodes) };
        for group in &self.groups {
            add_group(&mut parts, group);
        }
        self.add_tables(&mut parts);
        parts.declared = self.declared(&parts);
        parts
    }

    /// What it declares beside tables; nothing of it needs data to move.
    fn declared(&self, parts: &MapParts) -> Declared {
        let function = |function: &FunctionPolicy| KeyedFunction {
            name: function.name.clone(),
            group: group_id(parts, &function.group).unwrap_or(GroupId(0)),
            arguments: function.arguments.clone(),
        };
        let known =
            |name: &TableName| parts.declared.lookups.iter().find(|known| known.name == *name);
        let lookup = |lookup: &LookupPolicy| Lookup {
            name: lookup.name.clone(),
            table: lookup.table.clone(),
            column: lookup.column.clone(),
            unique: lookup.unique,
            standing: known(&lookup.name).map(|known| known.standing).unwrap_or_default(),
        };
        Declared {
            functions: self.functions.iter().map(function).collect(),
            lookups: self.lookups.iter().map(lookup).collect(),
        }
    }

    /// The same where tables that are on their way to a group of the map stand in the one in which they
    /// are sharded until they arrive.
    #[must_use]
    pub fn with_arriving(&self, map: &ShardMap) -> Self {
        let mut policy = self.clone();
        let mut coming = Vec::new();
        for group in &mut policy.groups {
            let name = arriving(&group.name);
            let Some(id) = map.group_named(&name) else { continue };
            let of_map = |name: &TableName| map.tables_of(id).any(|table| table.name == *name);
            let (there, stay) =
                group.tables.drain(..).partition(|table: &TablePolicy| of_map(&table.name));
            group.tables = stay;
            let shards = map.shards().filter(|(_, shard)| shard.group == id);
            let bounds = shards.map(|(_, shard)| shard.bounds.clone()).collect();
            coming.push(GroupPolicy { name, key: group.key.clone(), bounds, tables: there });
        }
        policy.groups.extend(coming);
        policy
    }

    /// What the stored map becomes under this policy and with these nodes: new groups and
    /// tables are added at the next epoch, new nodes are to join, and a node that was drained may be
    /// left out; `None` if there is nothing to change. A group with another shard key stays as it is
    /// ([`Self::waiting_keys`]), and so do [`Self::idle_tables`] but for those that are surely `absent`:
    /// these leave the map, or become what the policy says. Whatever else would need data to move or to
    /// be rewritten is a mismatch.
    pub fn extend(
        &self,
        map: &ShardMap,
        nodes: &[String],
        absent: &[TableName],
    ) -> Result<Option<MapParts>, PolicyMismatch> {
        let before = MapParts::from(map.clone());
        let reasons = self.mismatches(&self.without_idle(map), nodes);
        if !reasons.is_empty() {
            return Err(PolicyMismatch(reasons));
        }
        let mut parts = before.clone();
        parts.tables.retain(|table| !absent.contains(&table.name));
        for name in nodes {
            match parts.nodes.iter_mut().find(|node| node.name == *name) {
                None => parts.nodes.push(Node { standing: Standing::Joining, ..Node::named(name) }),
                Some(node) if node.standing == Standing::Gone => node.standing = Standing::Joining,
                Some(_) => {}
            }
        }
        for node in parts.nodes.iter_mut().filter(|node| !nodes.contains(&node.name)) {
            node.standing = Standing::Gone;
        }
        for group in &self.groups {
            if group_id(&parts, &group.name).is_none() {
                add_group(&mut parts, group);
            }
        }
        self.add_tables(&mut parts);
        parts.declared = self.declared(&parts);
        let rekeyed = self.rekeyed(&before);
        let waits = |it: &KeyedFunction| rekeyed.iter().any(|(group, _)| *group == it.group);
        parts.declared.functions.retain(|function| !waits(function));
        let kept = before.declared.functions.iter().filter(|function| waits(function));
        parts.declared.functions.extend(kept.cloned());
        if parts == before {
            return Ok(None);
        }
        parts.epoch = parts.epoch.next();
        Ok(Some(parts))
    }

    /// Tables of the map that do not exist as far as it knows, and that the policy does not name any more
    /// or declares as something else: nothing is lost when the map forgets what they were.
    pub fn idle_tables(&self, map: &ShardMap) -> Vec<TableName> {
        let parts = MapParts::from(map.clone());
        let rekeyed = self.rekeyed(&parts);
        let waits = |table: &Table| rekeyed.iter().any(|(group, _)| Some(*group) == table.group());
        let wanted = self.tables(&parts);
        let stays = |table: &Table| {
            waits(table) || wanted.iter().any(|it| it.name == table.name && it.kind == table.kind)
        };
        let idle = map.tables().iter().filter(|table| table.columns.is_empty() && !stays(table));
        idle.map(|table| table.name.clone()).collect()
    }

    fn without_idle(&self, map: &ShardMap) -> MapParts {
        let (mut parts, idle) = (MapParts::from(map.clone()), self.idle_tables(map));
        parts.tables.retain(|table| !idle.contains(&table.name));
        parts
    }

    /// The groups of the map that have another shard key here, or are cut in another way, and the same
    /// tables: they stay as they are until their rows are brought to where they belong then.
    pub fn waiting_keys(&self, map: &ShardMap) -> Vec<String> {
        let rekeyed = self.with_arriving(map).rekeyed(&MapParts::from(map.clone()));
        rekeyed.into_iter().map(|(_, name)| name).collect()
    }

    /// The groups of which plain tables that have rows wait for an import: the map has these tables not
    /// in their group.
    pub fn waiting_imports(&self, map: &ShardMap) -> Vec<String> {
        let is_there = |group: &GroupPolicy, table: &TablePolicy| {
            let id = map.group_named(&group.name);
            let found = map.table(&table.name).map(|table| &table.kind);
            matches!(found, Some(TableKind::Sharded { group, .. }) if Some(*group) == id)
        };
        let waits = |group: &&GroupPolicy| !group.tables.iter().all(|table| is_there(group, table));
        self.groups.iter().filter(waits).map(|group| group.name.clone()).collect()
    }

    fn rekeyed(&self, map: &MapParts) -> Vec<(GroupId, String)> {
        let mut found = Vec::new();
        for group in &self.groups {
            let Some(id) = group_id(map, &group.name) else { continue };
            let tables: Vec<(&TableName, &Vec<String>)> = map
                .tables
                .iter()
                .filter_map(|table| match &table.kind {
                    TableKind::Sharded { group, key } if *group == id => Some((&table.name, key)),
                    _ => None,
                })
                .collect();
            let same = tables.len() == group.tables.len()
                && tables.iter().all(|(name, _)| group.tables.iter().any(|it| it.name == **name));
            let keyed = |(name, key): &(&TableName, &Vec<String>)| {
                group.tables.iter().any(|it| it.name == **name && it.key == **key)
            };
            let mut of_group = map.shards.iter().filter(|shard| shard.group == id);
            let now = of_group.find_map(|shard| shard.bounds.method());
            let method = group.bounds.first().and_then(Bounds::method);
            let is_so = map.groups[id.index()].key == group.key
                && (now.is_none() || now == method)
                && tables.iter().all(keyed);
            // What a lookup says would be wrong by another key.
            let looked_up = map.declared.lookups.iter().any(|lookup| {
                tables.iter().any(|(name, _)| **name == lookup.table || **name == lookup.name)
            });
            if same && !is_so && !looked_up {
                found.push((id, group.name.clone()));
            }
        }
        found
    }

    /// Adds the tables that the map does not have yet.
    fn add_tables(&self, parts: &mut MapParts) {
        for table in self.tables(parts) {
            if !parts.tables.iter().any(|known| known.name == table.name) {
                parts.tables.push(table);
            }
        }
    }

    /// The policy's tables as the map has them, their columns not yet known.
    fn tables(&self, parts: &MapParts) -> Vec<Table> {
        let sharded = self.groups.iter().flat_map(|group| {
            let id = group_id(parts, &group.name).unwrap_or(GroupId(0));
            group.tables.iter().map(move |table| Table {
                name: table.name.clone(),
                kind: TableKind::Sharded { group: id, key: table.key.clone() },
                columns: Vec::new(),
            })
        });
        let reference = self.reference_tables.iter().map(|name| Table {
            name: name.clone(),
            kind: TableKind::Reference,
            columns: Vec::new(),
        });
        sharded.chain(reference).collect()
    }

    fn mismatches(&self, map: &MapParts, nodes: &[String]) -> Vec<String> {
        let mut reasons = Vec::new();
        if map.database != self.database {
            let (was, is) = (&map.database, &self.database);
            reasons.push(format!("the database is {was:?}, the policy says {is:?}"));
        }
        let home = map.nodes.get(map.home.index()).map(|node| &node.name);
        let wanted = self.home.as_ref().or(nodes.first());
        if home != wanted {
            let (was, is) = (shown(home), shown(wanted));
            reasons.push(format!("the home node is {was}, the policy says {is}"));
        }
        let missing = (0..).map(node_id).zip(&map.nodes);
        for (id, node) in missing.filter(|(_, node)| !nodes.contains(&node.name)) {
            let owns = |shard: &&Shard| shard.node == id && shard.bounds != Bounds::Nothing;
            let shards = map.shards.iter().filter(owns).count();
            let name = &node.name;
            match node.standing {
                Standing::Joining | Standing::Gone => {}
                Standing::Draining if shards == 0 && map.home != id => {}
                Standing::Member | Standing::Draining => reasons.push(format!(
                    "node {name:?} is not configured, but has {shards} shards and copies of the \
                     reference tables (before a node leaves: foreshard node drain {name})"
                )),
            }
        }
        let rekeyed = self.rekeyed(map);
        let waits = |group: &GroupPolicy| rekeyed.iter().any(|(_, name)| *name == group.name);
        for group in self.groups.iter().filter(|group| !waits(group)) {
            reasons.extend(group_mismatch(map, group));
        }
        for group in &map.groups {
            if !self.groups.iter().any(|known| known.name == group.name) {
                reasons.push(format!("group {:?} is in the map, not in the policy", group.name));
            }
        }
        reasons.extend(self.table_mismatches(map));
        reasons.extend(self.lookups.iter().filter_map(|lookup| lookup_mismatch(map, lookup)));
        reasons
    }

    fn table_mismatches(&self, map: &MapParts) -> Vec<String> {
        let (wanted, rekeyed) = (self.tables(map), self.rekeyed(map));
        let waits = |table: &Table| match &table.kind {
            TableKind::Sharded { group, .. } => rekeyed.iter().any(|(id, _)| id == group),
            TableKind::Reference => false,
        };
        let mut reasons = Vec::new();
        for table in &map.tables {
            let name = format!("{}.{}", table.name.schema, table.name.name);
            match wanted.iter().find(|wanted| wanted.name == table.name) {
                None => reasons.push(format!("table {name} is in the map, not in the policy")),
                Some(wanted) if wanted.kind != table.kind && !waits(table) => {
                    let (was, is) = (kind(map, &table.kind), kind(map, &wanted.kind));
                    reasons.push(format!("table {name} is {was}, the policy says {is}"));
                }
                Some(_) => {}
            }
        }
        reasons
    }
}

fn group_mismatch(map: &MapParts, group: &GroupPolicy) -> Option<String> {
    let id = group_id(map, &group.name)?;
    let key = &map.groups[id.index()].key;
    let name = &group.name;
    if *key != group.key {
        return Some(format!(
            "the key of group {name:?} is {key:?}, the policy says {:?}",
            group.key
        ));
    }
    // The policy says with how many shards a group begins: splits and merges change it, and leave
    // shards that hold nothing.
    let of_group: Vec<&Bounds> =
        map.shards.iter().filter(|shard| shard.group == id).map(|shard| &shard.bounds).collect();
    let method = |bounds: &Bounds| bounds.method().map(Method::word).unwrap_or_default();
    let now = of_group.iter().find(|bounds| ***bounds != Bounds::Nothing);
    if let (Some(now), Some(wanted)) = (now, group.bounds.first())
        && now.method() != wanted.method()
    {
        let (was, is) = (method(now), method(wanted));
        return Some(format!("group {name:?} is sharded by {was}, the policy says {is}"));
    }
    if of_group.iter().any(|bounds| **bounds == Bounds::Nothing) {
        return None;
    }
    if let [one] = of_group.as_slice()
        && one.method().map(Bounds::whole).as_ref() == Some(*one)
    {
        // It was imported, and is not split yet.
        return None;
    }
    let (shards, wanted) = (of_group.len(), group.bounds.len());
    if shards != wanted {
        return Some(format!(
            "group {name:?} has {shards} shards, the policy says {wanted} (foreshard split changes \
             the number while traffic goes on)"
        ));
    }
    let other = of_group.iter().find(|bounds| !group.bounds.contains(bounds));
    other.map(|_| {
        format!(
            "the shards of group {name:?} hold other keys than the policy says (foreshard split and \
             merge change them while traffic goes on)"
        )
    })
}

/// What a lookup finds can't be changed while it is there.
fn lookup_mismatch(map: &MapParts, lookup: &LookupPolicy) -> Option<String> {
    let known = map.declared.lookups.iter().find(|known| known.name == lookup.name)?;
    let same = known.table == lookup.table
        && known.column == lookup.column
        && known.unique == lookup.unique;
    (!same).then(|| {
        format!(
            "the lookup {} is by another table, column or uniqueness than the policy says: give the \
             other one another name",
            lookup.name
        )
    })
}

fn kind(map: &MapParts, kind: &TableKind) -> String {
    match kind {
        TableKind::Reference => "a reference table".to_owned(),
        TableKind::Sharded { group, key } => {
            let group = map.groups.get(group.index()).map(|group| group.name.as_str());
            format!("sharded by ({}) in group {:?}", key.join(", "), group.unwrap_or("?"))
        }
    }
}

fn shown(name: Option<&String>) -> String {
    name.map_or_else(|| "none".to_owned(), |name| format!("{name:?}"))
}

fn group_id(parts: &MapParts, name: &str) -> Option<GroupId> {
    let index = parts.groups.iter().position(|group| group.name == name)?;
    u16::try_from(index).ok().map(GroupId)
}

fn node_id(index: usize) -> NodeId {
    NodeId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// Adds a group and its shards, round robin over the nodes that take shards.
fn add_group(parts: &mut MapParts, group: &GroupPolicy) {
    let id = GroupId(u16::try_from(parts.groups.len()).unwrap_or(u16::MAX));
    parts.groups.push(Group { name: group.name.clone(), key: group.key.clone() });
    let members = (0..).map(node_id).zip(&parts.nodes);
    let members: Vec<NodeId> =
        members.filter(|(_, node)| node.standing == Standing::Member).map(|(id, _)| id).collect();
    let nodes = members.into_iter().cycle();
    let shard = |(bounds, node): (&Bounds, _)| Shard { group: id, bounds: bounds.clone(), node };
    parts.shards.extend(group.bounds.iter().zip(nodes).map(shard));
}

#[cfg(test)]
mod tests;
