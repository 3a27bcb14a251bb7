//! What a table's name means in a session.

use super::Context;
use crate::ids::{GroupId, ShardId};
use crate::shard_map::{ShardMap, Table, TableKind, leaf_name};
use crate::sql::{Name, Statement, TableName};
use crate::wire::ServerError;

/// The session's names against the map's tables.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    context: &'a Context<'a>,
    pub(super) map: &'a ShardMap,
}

/// What a name means.
#[derive(Clone, Copy)]
pub(super) enum Meaning<'a> {
    /// A sharded table, its group and key.
    Sharded(&'a Table, GroupId, &'a [String]),
    /// A reference table.
    Reference(&'a Table),
    /// A home table, a view, or the system catalog.
    Home,
}

impl<'a> Names<'a> {
    pub(super) fn new(context: &'a Context<'a>, map: &'a ShardMap) -> Self {
        Self { context, map }
    }

    /// Whether any name can mean a table of the policy.
    pub(super) fn active(&self) -> bool {
        !self.map.tables().is_empty() && self.context.database == self.map.database()
    }

    /// What `name` means.
    ///
    /// # Errors
    /// It is a leaf of a sharded table, or its schema can't be told.
    pub(super) fn meaning(&self, name: &Name) -> Result<Meaning<'a>, ServerError> {
        if !self.active() {
            return Ok(Meaning::Home);
        }
        if self.is_leaf(&name.name) {
            return Err(ServerError::refused(
                format!("\"{}\" is a partition that foreshard manages", name.name),
                "Partitions move between nodes; only their parent is reachable through the proxy.",
                "Name the sharded table instead.",
            ));
        }
        let Some(schema) = &name.schema else { return self.unqualified(&name.name) };
        Ok(self.qualified(schema, &name.name))
    }

    /// What a new table of this name will be: it is made in the first schema of the path.
    ///
    /// # Errors
    /// It has the name of a partition.
    pub(super) fn made(&self, name: &Name) -> Result<Meaning<'a>, ServerError> {
        let schema = name.schema.as_ref().or_else(|| self.schemas().next());
        self.meaning(&Name { schema: schema.cloned(), ..name.clone() })
    }

    /// The schemas of the path, in order.
    pub(super) fn path(&self) -> Vec<String> {
        self.context.search_path.to_vec()
    }

    fn qualified(&self, schema: &str, name: &str) -> Meaning<'a> {
        match self.map.table(&TableName::new(schema, name)) {
            None => Meaning::Home,
            Some(table) => match &table.kind {
                TableKind::Sharded { group, key } => Meaning::Sharded(table, *group, key),
                TableKind::Reference => Meaning::Reference(table),
            },
        }
    }

    /// The first schema of the path decides. A temporary table hides all of them, which is why one
    /// with the name of a table of the policy is refused when it is made.
    fn unqualified(&self, name: &str) -> Result<Meaning<'a>, ServerError> {
        let schemas = self.schemas();
        for (index, schema) in schemas.clone().enumerate() {
            match self.qualified(schema, name) {
                Meaning::Home => {}
                found if index == 0 => return Ok(found),
                _ => {
                    return Err(ServerError::refused(
                        format!("it can't be told which table \"{name}\" is"),
                        format!(
                            "search_path names other schemas before \"{schema}\", and whether they \
                             hold a table of this name is not known to the proxy."
                        ),
                        format!("Write {}.", TableName::new(schema.as_str(), name)),
                    ));
                }
            }
        }
        Ok(Meaning::Home)
    }

    /// The schemas that can hold tables of the policy.
    pub(super) fn schemas(&self) -> impl Iterator<Item = &'a String> + Clone {
        let path = self.context.search_path;
        path.iter().filter(|schema| *schema != "pg_catalog")
    }

    /// Whether a table of this name, in any schema, is a partition of a sharded table.
    fn is_leaf(&self, name: &str) -> bool {
        let Some((_, digits)) = name.rsplit_once("_s") else { return false };
        let Ok(shard) = digits.parse() else { return false };
        let sharded = |table: &&Table| matches!(table.kind, TableKind::Sharded { .. });
        self.map
            .tables()
            .iter()
            .filter(sharded)
            .any(|table| leaf_name(&table.name, ShardId(shard)).name == name)
    }

    /// The first sharded table, or partition of one, that a statement that was not read may name;
    /// else the first reference table.
    pub(super) fn mentioned(&self, statement: &Statement) -> Option<Mention<'a>> {
        if !self.active() {
            return None;
        }
        let named = |table: &&Table| statement.may_name(&table.name.name);
        let sharded = |table: &&Table| matches!(table.kind, TableKind::Sharded { .. });
        let tables = self.map.tables().iter();
        if let Some(table) = tables.clone().filter(sharded).find(named) {
            return Some(Mention::Sharded(&table.name.name));
        }
        if statement.identifiers.iter().any(|name| self.is_leaf(name)) {
            return Some(Mention::Sharded("a partition of a sharded table"));
        }
        tables.clone().find(named).map(|table| Mention::Reference(&table.name.name))
    }
}

/// A table of the policy whose name stands somewhere in a statement.
#[derive(Clone, Copy)]
pub(super) enum Mention<'a> {
    Sharded(&'a str),
    Reference(&'a str),
}

impl<'a> Mention<'a> {
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Sharded(name) | Self::Reference(name) => name,
        }
    }
}
