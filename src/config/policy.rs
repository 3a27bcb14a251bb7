//! What is sharded and how, and how load is forecast and placed.

use std::collections::HashSet;
use std::path::Path;

use super::Faults;
use super::group::{read_functions, read_groups};
use super::lookup::{LookupPolicy, read_lookups};
use super::section::{Cursor, Source};
use crate::controller;
use crate::forecast;
use crate::load;
use crate::mover;
use crate::placement;
use crate::shard_map::{Bounds, KeyType};
use crate::sql::TableName;

/// Longest identifier of PostgreSQL, in bytes.
const IDENTIFIER_BYTES_MAX: usize = 63;
/// The keys of a policy.
pub(super) const KEYS: [&str; 11] = [
    "database",
    "home",
    "groups",
    "reference_tables",
    "functions",
    "lookups",
    "controller",
    "load",
    "forecast",
    "placement",
    "mover",
];

/// What a DBA decides. The default shards nothing: every table lives on the home node.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The database whose tables are sharded; all others are on the home node.
    pub database: String,
    /// The node that holds the tables that are not sharded; by default the first.
    pub home: Option<String>,
    /// Tables that share key type and bounds, in the order of the file.
    pub groups: Vec<GroupPolicy>,
    /// Tables with a full copy on every node.
    pub reference_tables: Vec<TableName>,
    /// Functions and procedures that run where a key is.
    pub functions: Vec<FunctionPolicy>,
    /// Tables that say in which shard rows with a value of a column are; each has a group of its
    /// own among the groups.
    pub lookups: Vec<LookupPolicy>,
    /// How often the controller looks.
    pub controller: controller::Config,
    /// How load is measured.
    pub load: load::Config,
    /// How load is forecast.
    pub forecast: forecast::Config,
    /// When a move is worth it.
    pub placement: placement::Config,
    /// How moves are made.
    pub mover: mover::Config,
}

/// Tables that share key type and bounds, so that equal keys live together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Its name.
    pub name: String,
    /// The type of each column of the shard key.
    pub key: Vec<KeyType>,
    /// Which keys its first shards hold.
    pub bounds: Vec<Bounds>,
    /// Its tables, in the order of the file.
    pub tables: Vec<TablePolicy>,
}

/// A sharded table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePolicy {
    /// Its schema and name, as stored.
    pub name: TableName,
    /// The names of its shard-key columns, as stored, in the order of the group's key.
    pub key: Vec<String>,
}

/// A function or procedure that runs on the node of a shard key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionPolicy {
    /// Its schema and name, as stored.
    pub name: TableName,
    /// The name of the group whose rows it touches.
    pub group: String,
    /// Which of its arguments are the key's columns, from 1; empty if a hint has to say it.
    pub arguments: Vec<u16>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            database: "postgres".to_owned(),
            home: None,
            groups: Vec::new(),
            reference_tables: Vec::new(),
            functions: Vec::new(),
            lookups: Vec::new(),
            controller: controller::Config::default(),
            load: load::Config::default(),
            forecast: forecast::Config::default(),
            placement: placement::Config::default(),
            mover: mover::Config::default(),
        }
    }
}

impl Policy {
    /// The same without these groups and tables, and without what finds their rows: functions that run
    /// where the groups' keys are, lookups.
    #[must_use]
    pub fn without(&self, groups: &[String], tables: &[TableName]) -> Self {
        let mut policy = self.clone();
        let gone = policy.groups.iter().filter(|group| groups.contains(&group.name));
        let gone = gone.flat_map(|group| group.tables.iter().map(|table| &table.name));
        let gone: HashSet<TableName> = gone.chain(tables).cloned().collect();
        policy.lookups.retain(|lookup| {
            let stays = !gone.contains(&lookup.table) && !gone.contains(&lookup.name);
            if !stays {
                policy.groups.retain(|group| group.name != lookup.group);
            }
            stays
        });
        policy.groups.retain(|group| !groups.contains(&group.name));
        for group in &mut policy.groups {
            group.tables.retain(|table| !tables.contains(&table.name));
        }
        policy.functions.retain(|function| !groups.contains(&function.group));
        policy
    }

    /// Reads a policy file. With the names of the nodes, also whether it names only those.
    pub fn load(file: &Path, nodes: Option<&[String]>) -> Result<Self, Faults> {
        let source = Source::read(file);
        let tree = source.parse();
        let policy = Self::read(&source.root(&tree), nodes);
        source.finish(policy)
    }

    /// The same from text; `file` is for messages.
    pub fn parse(file: &Path, text: &str, nodes: Option<&[String]>) -> Result<Self, Faults> {
        let source = Source::new(file, text.to_owned());
        let tree = source.parse();
        let policy = Self::read(&source.root(&tree), nodes);
        source.finish(policy)
    }

    /// Reads the policy at `root`; faults go to its source.
    pub(super) fn read(root: &Cursor<'_>, nodes: Option<&[String]>) -> Self {
        let fields = root.fields(&KEYS);
        let default = Self::default();
        let mut names = HashSet::new();
        let groups = fields.optional("groups").map(|groups| read_groups(groups, &mut names));
        let reference = fields.optional("reference_tables").map(Cursor::items).unwrap_or_default();
        let reference = reference.iter().filter_map(|item| {
            let name = table_name(&item.text()?).map_err(|message| item.fault(message)).ok()?;
            is_new(&name, &mut names, || item.fault("the table stands twice in the policy"))
        });
        let reference_tables = reference.collect();
        let home = fields.optional("home").and_then(|home| {
            let name = home.text()?;
            known_node(&name, nodes, home).then_some(name)
        });
        let mut groups = groups.unwrap_or_default();
        let lookups = fields.optional("lookups");
        let lookups = lookups.map(|all| read_lookups(all, &mut groups, &mut names));
        let functions = fields.optional("functions").map(|all| read_functions(all, &groups));
        let database = fields.optional("database").and_then(Cursor::text);
        Self {
            database: database.unwrap_or(default.database),
            home,
            groups,
            reference_tables,
            functions: functions.unwrap_or_default(),
            lookups: lookups.unwrap_or_default(),
            controller: fields.room("controller", controller::Config::faults),
            load: fields.room("load", load::Config::faults),
            forecast: fields.room("forecast", forecast::Config::faults),
            placement: fields.room("placement", |config| placement_faults(config, nodes)),
            mover: fields.room("mover", mover_faults),
        }
    }
}

fn placement_faults(
    config: &placement::Config,
    nodes: Option<&[String]>,
) -> Vec<(&'static str, String)> {
    let mut faults = config.faults();
    let Some(nodes) = nodes else { return faults };
    for name in config.node_capacities.keys().filter(|name| !nodes.contains(name)) {
        let message = format!("there is no node {name:?}; the nodes are {}", nodes.join(", "));
        faults.push(("node_capacities", message));
    }
    faults
}

fn mover_faults(config: &mover::Config) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    for (key, count) in [
        ("concurrent_moves", config.concurrent_moves),
        ("apply_batch_changes", config.apply_batch_changes),
        ("switch_tries", usize::try_from(config.switch_tries).unwrap_or(usize::MAX)),
        ("copy_segment_bytes", usize::try_from(config.copy_segment_bytes).unwrap_or(usize::MAX)),
    ] {
        if count == 0 {
            faults.push((key, "must be at least 1".to_owned()));
        }
    }
    faults
}

/// `orders` is `public.orders`; `sales.orders` names its schema.
pub(super) fn table_name(text: &str) -> Result<TableName, String> {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    if schema.is_empty() || name.is_empty() || name.contains('.') {
        return Err(format!("{text:?} is not a table's name; write orders or sales.orders"));
    }
    if schema.len().max(name.len()) > IDENTIFIER_BYTES_MAX {
        return Err(format!("is longer than {IDENTIFIER_BYTES_MAX} bytes"));
    }
    Ok(TableName::new(schema, name))
}

pub(super) fn is_new(
    name: &TableName,
    names: &mut HashSet<TableName>,
    twice: impl FnOnce(),
) -> Option<TableName> {
    if names.insert(name.clone()) {
        return Some(name.clone());
    }
    twice();
    None
}

/// Whether `name` is one of the nodes, as far as those are known.
fn known_node(name: &str, nodes: Option<&[String]>, place: &Cursor<'_>) -> bool {
    let Some(nodes) = nodes else { return true };
    let known = nodes.iter().any(|node| node == name);
    if !known {
        place.fault(format!("there is no node {name:?}; the nodes are {}", nodes.join(", ")));
    }
    known
}
