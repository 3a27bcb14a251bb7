//! The value itself and its look-ups.

mod change;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Bounds, Declared, Derived, Directory, KeyType, KeyValue, KeyedFunction, Method, Node, Standing,
    Through, View, derived,
};
use crate::ids::{Epoch, GroupId, NodeId, ShardId};
use crate::sql::TableName;
pub use change::{NewGroup, NewKey, arriving};

/// Groups, tables and placement at one epoch. Immutable; cheap look-ups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MapParts", into = "MapParts")]
pub struct ShardMap {
    parts: MapParts,
    tables: HashMap<TableName, usize>,
    /// Views through which tables are written, as these.
    written: HashMap<TableName, Table>,
    /// For each group: which shard holds which keys.
    directories: Vec<Arc<Directory>>,
    /// The node of each shard.
    placement: Arc<[NodeId]>,
}

/// What a shard map is made of; checked when it becomes a [`ShardMap`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapParts {
    /// The version of this map.
    pub epoch: Epoch,
    /// The database whose tables the map describes; every other database is on the home node.
    pub database: String,
    /// The node that holds the home tables.
    pub home: NodeId,
    /// All nodes; a node's id is its index here.
    pub nodes: Vec<Node>,
    /// All groups; a group's id is its index here.
    pub groups: Vec<Group>,
    /// All shards of all groups; a shard's id is its index here.
    pub shards: Vec<Shard>,
    /// Sharded and reference tables. A table that is not here is a home table.
    pub tables: Vec<Table>,
    /// Views and functions that read them.
    #[serde(default)]
    pub derived: Derived,
    /// What the policy declares beside tables.
    #[serde(default)]
    pub declared: Declared,
    /// Tables on their way from home tables to sharded ones: their definitions wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub importing: Vec<TableName>,
    /// Since when the shards of some groups have rows of further tables, which were elsewhere before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<(GroupId, Epoch)>,
}

impl MapParts {
    /// Of nodes on which nothing is sharded yet; the first is home.
    pub fn of<N: Into<String>>(database: &str, nodes: impl IntoIterator<Item = N>) -> Self {
        Self {
            epoch: Epoch(1),
            database: database.to_owned(),
            home: NodeId(0),
            nodes: nodes.into_iter().map(Node::named).collect(),
            groups: Vec::new(),
            shards: Vec::new(),
            tables: Vec::new(),
            derived: Derived::default(),
            declared: Declared::default(),
            importing: Vec::new(),
            joined: Vec::new(),
        }
    }
}

/// Sharded tables that share key type and bounds, so that equal keys live together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The name that the policy gives it.
    pub name: String,
    /// The type of each column of the shard key, in order.
    pub key: Vec<KeyType>,
}

/// One slice of a group: the unit of placement and of moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The group that it is a slice of.
    pub group: GroupId,
    /// Which keys it holds.
    pub bounds: Bounds,
    /// The node that owns it.
    pub node: NodeId,
}

/// A sharded or a reference table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its schema and name.
    pub name: TableName,
    /// How its rows are spread.
    pub kind: TableKind,
    /// Its columns in order, as the home node's catalog has them; empty while it does not exist.
    pub columns: Vec<Column>,
}

/// How a table's rows are spread over the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableKind {
    /// By the shard key.
    Sharded {
        /// The group whose bounds it follows.
        group: GroupId,
        /// The names of the shard-key columns, in the order of the group's key.
        key: Vec<String>,
    },
    /// A full copy on every node.
    Reference,
}

/// A column of a table that the map knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, as stored.
    pub name: String,
    /// `pg_type.oid` of its type.
    pub type_oid: u32,
    /// Whether it is GENERATED … STORED, so that COPY and INSERT leave it out.
    pub generated: bool,
    /// The expression of its default; of an identity column the one that takes its next number. All
    /// names in it are qualified.
    #[serde(default)]
    pub default: Option<String>,
    /// Whether it is an identity column.
    #[serde(default)]
    pub identity: Identity,
}

/// Whether a column is GENERATED … AS IDENTITY.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// No.
    #[default]
    No,
    /// BY DEFAULT: a value that is given is taken.
    ByDefault,
    /// ALWAYS: a value is taken with OVERRIDING SYSTEM VALUE only.
    Always,
}

/// Why parts do not make a map.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidMap {
    /// An id points past the end of its list.
    #[error("{0} points at a {1} that is not in the map")]
    Dangling(String, &'static str),
    /// The bounds of a group's shards overlap or leave a gap.
    #[error("the shards of group {0} do not hold each key exactly once")]
    Cover(String),
    /// A table stands twice, or its key does not fit its group's.
    #[error("table {0}: {1}")]
    Table(String, &'static str),
}

impl TryFrom<MapParts> for ShardMap {
    type Error = InvalidMap;

    fn try_from(parts: MapParts) -> Result<Self, InvalidMap> {
        check_ids(&parts)?;
        let directories = (0..parts.groups.len())
            .map(|group| directory_of(&parts, group).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let placement = parts.shards.iter().map(|shard| shard.node).collect();
        let mut tables = HashMap::new();
        for (index, table) in parts.tables.iter().enumerate() {
            if tables.insert(table.name.clone(), index).is_some() {
                return Err(InvalidMap::Table(table.name.to_string(), "stands twice"));
            }
        }
        let written = derived::written(&parts.derived.views, &parts.tables);
        Ok(Self { parts, tables, written, directories, placement })
    }
}

impl From<ShardMap> for MapParts {
    fn from(map: ShardMap) -> Self {
        map.parts
    }
}

/// Every id of `parts` is the index of something.
fn check_ids(parts: &MapParts) -> Result<(), InvalidMap> {
    let node = |id: NodeId, what: String| match parts.nodes.get(id.index()) {
        Some(_) => Ok(()),
        None => Err(InvalidMap::Dangling(what, "node")),
    };
    node(parts.home, "the home node".to_owned())?;
    for (index, shard) in parts.shards.iter().enumerate() {
        node(shard.node, format!("shard {index}"))?;
        if parts.groups.get(shard.group.index()).is_none() {
            return Err(InvalidMap::Dangling(format!("shard {index}"), "group"));
        }
    }
    for table in &parts.tables {
        let TableKind::Sharded { group, key } = &table.kind else { continue };
        let Some(group) = parts.groups.get(group.index()) else {
            return Err(InvalidMap::Dangling(table.name.to_string(), "group"));
        };
        if group.key.len() != key.len() {
            let fault = "its shard key has another number of columns than its group's";
            return Err(InvalidMap::Table(table.name.to_string(), fault));
        }
    }
    Ok(())
}

/// Which shard of a group holds which keys.
fn directory_of(parts: &MapParts, group: usize) -> Result<Directory, InvalidMap> {
    let of_group = (0..).map(ShardId).zip(&parts.shards);
    let bounds = of_group
        .filter(|(_, shard)| shard.group.index() == group)
        .map(|(id, shard)| (id, &shard.bounds))
        .collect::<Vec<_>>();
    let Group { name, key } = &parts.groups[group];
    Directory::of(&bounds, key).ok_or_else(|| InvalidMap::Cover(name.clone()))
}

impl ShardMap {
    /// The version of this map.
    pub fn epoch(&self) -> Epoch {
        self.parts.epoch
    }

    /// The database whose tables the map describes.
    pub fn database(&self) -> &str {
        &self.parts.database
    }

    /// The node that holds the home tables.
    pub fn home(&self) -> NodeId {
        self.parts.home
    }

    /// The nodes that have the schema and the reference tables, with their ids.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes().filter(|(_, node)| node.is_member())
    }

    /// This map with another standing of `node`, at the next epoch.
    #[must_use]
    pub fn with_standing(&self, node: NodeId, standing: Standing) -> Self {
        let mut changed = self.clone();
        changed.parts.nodes[node.index()].standing = standing;
        changed.parts.epoch = changed.parts.epoch.next();
        changed
    }

    /// All nodes with their ids, whatever their standing.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        (0u16..).map(NodeId).zip(&self.parts.nodes).collect::<Vec<_>>().into_iter()
    }

    /// The node with this id. Panics on an id of another map with more nodes.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.parts.nodes[id.index()]
    }

    /// The node with this name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.nodes().find(|(_, node)| node.name == name).map(|(id, _)| id)
    }

    /// All groups, by index.
    pub fn groups(&self) -> &[Group] {
        &self.parts.groups
    }

    /// All shards with their ids, without those that were split or merged away.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        let all = (0u32..).map(ShardId).zip(&self.parts.shards);
        all.filter(|(_, shard)| shard.bounds != Bounds::Nothing)
    }

    /// The shard with this id; `None` also if it was split or merged away.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.parts.shards.get(id.index()).filter(|shard| shard.bounds != Bounds::Nothing)
    }

    /// One more than the largest shard id that was ever used, over all groups.
    pub fn shard_count(&self) -> usize {
        self.parts.shards.len()
    }

    /// The node that owns a shard. Panics on an id that is not in this map.
    pub fn node_of(&self, shard: ShardId) -> NodeId {
        self.parts.shards[shard.index()].node
    }

    /// The shards of `group` that `node` owns.
    pub fn shards_on(&self, node: NodeId, group: GroupId) -> impl Iterator<Item = ShardId> + '_ {
        self.shards().filter(move |(_, s)| s.node == node && s.group == group).map(|(id, _)| id)
    }

    /// Which shard of a group holds which keys.
    pub fn directory(&self, group: GroupId) -> &Arc<Directory> {
        &self.directories[group.index()]
    }

    /// The shard of a group that holds a row with this key; `None` if there is none.
    pub fn shard_of(&self, group: GroupId, key: &[KeyValue]) -> Option<ShardId> {
        self.directory(group).shard_of(key)
    }

    /// The shard of a group by hash that holds the keys with this row hash.
    #[cfg(test)]
    pub(crate) fn shard_of_hash(&self, group: GroupId, hash: u64) -> ShardId {
        let Directory::Hash(slots) = &**self.directory(group) else { panic!("not by hash") };
        slots[usize::try_from(hash % slots.len() as u64).unwrap()]
    }

    /// How the keys of a group are cut into shards.
    pub fn method(&self, group: GroupId) -> Method {
        self.directory(group).method()
    }

    /// The node of each shard, by the shard's index; of those that hold nothing, too.
    pub fn placement(&self) -> &Arc<[NodeId]> {
        &self.placement
    }

    /// What the policy declares beside tables.
    pub fn declared(&self) -> &Declared {
        &self.parts.declared
    }

    /// Tables on their way from home tables to sharded ones.
    pub fn importing(&self) -> &[TableName] {
        &self.parts.importing
    }

    /// This map with other tables on their way, at the next epoch. No change of placement.
    #[must_use]
    pub fn with_importing(&self, tables: Vec<TableName>) -> Self {
        let mut changed = self.clone();
        changed.parts.importing = tables;
        changed.parts.epoch = changed.parts.epoch.next();
        changed
    }

    /// Since when a group's shards have rows of further tables, if that ever happened: whoever began to
    /// look at the data before does not see all of them.
    pub fn joined(&self, group: GroupId) -> Option<Epoch> {
        self.parts.joined.iter().find(|(of, _)| *of == group).map(|(_, since)| *since)
    }

    /// The group of this name.
    pub fn group_named(&self, name: &str) -> Option<GroupId> {
        let at = self.parts.groups.iter().position(|group| group.name == name)?;
        u16::try_from(at).ok().map(GroupId)
    }

    /// Sharded and reference tables.
    pub fn tables(&self) -> &[Table] {
        &self.parts.tables
    }

    /// The sharded or reference table of this name; `None` for a home table.
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables.get(name).map(|index| &self.parts.tables[*index])
    }

    /// Views and functions that read sharded tables.
    pub fn derived(&self) -> &Derived {
        &self.parts.derived
    }

    /// The view of this name, if it reads sharded tables.
    pub fn view(&self, name: &TableName) -> Option<&View> {
        self.parts.derived.view(name)
    }

    /// Whether it says of a relation what that is: a table of the policy, a view on those, or something
    /// else with the name of one.
    pub fn knows(&self, name: &TableName) -> bool {
        self.table(name).is_some()
            || self.view(name).is_some()
            || self.parts.derived.namesakes.contains(name)
    }

    /// A view through which a sharded table is written, as that table: with its own columns.
    pub fn written(&self, view: &TableName) -> Option<&Table> {
        self.written.get(view)
    }

    /// The table that is written through a view, or the table itself.
    pub fn base<'a>(&'a self, mut name: &'a TableName) -> &'a TableName {
        while let Some(Through::Table { base, .. }) = self.view(name).map(|view| &view.through) {
            name = base;
        }
        name
    }

    /// The sharded tables of a group, in the order of the policy.
    pub fn tables_of(&self, group: GroupId) -> impl Iterator<Item = &Table> {
        self.parts.tables.iter().filter(
            move |table| matches!(&table.kind, TableKind::Sharded { group: g, .. } if *g == group),
        )
    }

    /// This map with `shard` on `node`, at the next epoch.
    #[must_use]
    pub fn with_shard_on(&self, shard: ShardId, node: NodeId) -> Self {
        let mut moved = self.clone();
        moved.parts.shards[shard.index()].node = node;
        moved.placement = moved.parts.shards.iter().map(|shard| shard.node).collect();
        moved.parts.epoch = moved.parts.epoch.next();
        moved
    }

    /// `count` ids for new shards: those that hold no key, then new ones. `taken` are not given out.
    pub fn free_shards(&self, count: usize, taken: impl Fn(ShardId) -> bool) -> Vec<ShardId> {
        let is_free = |id: &ShardId| self.shard(*id).is_none() && !taken(*id);
        (0..u32::MAX).map(ShardId).filter(is_free).take(count).collect()
    }

    /// This map without the shards `gone` and with `new` ones, which hold the same keys, at the next
    /// epoch.
    ///
    /// # Errors
    /// A key would be held twice or not at all.
    pub fn with_shards(
        &self,
        gone: &[ShardId],
        new: &[(ShardId, Shard)],
    ) -> Result<Self, InvalidMap> {
        let mut parts = self.parts.clone();
        for id in gone {
            let shard = parts.shards.get_mut(id.index());
            let missing = || InvalidMap::Dangling(format!("a change of shard {id}"), "shard");
            shard.ok_or_else(missing)?.bounds = Bounds::Nothing;
        }
        for (id, shard) in new {
            while parts.shards.len() <= id.index() {
                parts.shards.push(Shard { bounds: Bounds::Nothing, ..shard.clone() });
            }
            parts.shards[id.index()] = shard.clone();
        }
        parts.epoch = parts.epoch.next();
        parts.try_into()
    }

    /// This map with the columns of `table` replaced, at the next epoch. No change of placement.
    #[must_use]
    pub fn with_columns(&self, table: &TableName, columns: Vec<Column>) -> Self {
        let mut changed = self.clone();
        if let Some(index) = self.tables.get(table) {
            changed.parts.tables[*index].columns = columns;
        }
        changed.written = derived::written(&changed.parts.derived.views, &changed.parts.tables);
        changed.parts.epoch = changed.parts.epoch.next();
        changed
    }

    /// This map with other declarations, at the next epoch. No change of placement.
    #[must_use]
    pub(super) fn with_declared(&self, declared: Declared) -> Self {
        let mut changed = self.clone();
        changed.parts.declared = declared;
        changed.parts.epoch = changed.parts.epoch.next();
        changed
    }

    /// This map with other views and functions, at the next epoch. No change of placement.
    #[must_use]
    pub fn with_derived(&self, derived: Derived) -> Self {
        let mut changed = self.clone();
        changed.written = derived::written(&derived.views, &changed.parts.tables);
        changed.parts.derived = derived;
        changed.parts.epoch = changed.parts.epoch.next();
        changed
    }
}

/// The name of the leaf table of `table` that holds `shard`: `orders_s3`, cut so that it fits
/// PostgreSQL's limit of 63 bytes.
pub fn leaf_name(table: &TableName, shard: ShardId) -> TableName {
    let suffix = format!("_s{shard}");
    let mut stem = table.name.as_str();
    while stem.len() + suffix.len() > 63 {
        stem = &stem[..stem.floor_char_boundary(stem.len() - 1)];
    }
    TableName::new(table.schema.clone(), format!("{stem}{suffix}"))
}
