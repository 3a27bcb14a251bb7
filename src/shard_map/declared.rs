//! What a policy declares beside tables: functions that run where a key is, and lookup tables.

use serde::{Deserialize, Serialize};

use super::{ShardMap, Table, TableKind};
use crate::ids::GroupId;
use crate::sql::TableName;

/// What a policy declares beside tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Declared {
    /// Functions and procedures that run where a key is.
    pub functions: Vec<KeyedFunction>,
    /// Tables that say in which shard rows with a value of a column are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<Lookup>,
}

/// A function or procedure that runs on the node of a shard key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedFunction {
    /// Its schema and name.
    pub name: TableName,
    /// The group whose rows it touches.
    pub group: GroupId,
    /// Which of its arguments are the key's columns, from 1, in the order of the key; each of the
    /// key's type. Empty if a hint has to say it.
    pub arguments: Vec<u16>,
}

/// A global secondary index: a sharded table, by the values of a column of another one, that says
/// which shard keys the rows with such a value have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The table itself, the only one of its group.
    pub name: TableName,
    /// The sharded table whose rows it finds.
    pub table: TableName,
    /// The column of that table, and of itself.
    pub column: String,
    /// No two rows have the same value.
    pub unique: bool,
    /// How far it has come.
    #[serde(default)]
    pub standing: LookupStanding,
}

/// How far a lookup table has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupStanding {
    /// The policy names it.
    #[default]
    Declared,
    /// Writes to its table look for what it must be told.
    Kept,
    /// It has all values, and queries go by it.
    Whole,
}

/// The column of a lookup that is not unique with the number of rows of a value and a key.
pub const LOOKUP_COUNT: &str = "row_count";

impl Table {
    /// The columns of its shard key; none of a reference table.
    pub fn key(&self) -> &[String] {
        match &self.kind {
            TableKind::Sharded { key, .. } => key,
            TableKind::Reference => &[],
        }
    }

    /// Its group; none of a reference table.
    pub fn group(&self) -> Option<GroupId> {
        match &self.kind {
            TableKind::Sharded { group, .. } => Some(*group),
            TableKind::Reference => None,
        }
    }
}

impl ShardMap {
    /// The lookup whose table this is.
    pub fn lookup(&self, name: &TableName) -> Option<&Lookup> {
        self.declared().lookups.iter().find(|lookup| lookup.name == *name)
    }

    /// The lookups of a table that are kept.
    pub fn kept_lookups<'a>(&'a self, table: &'a TableName) -> impl Iterator<Item = &'a Lookup> {
        let kept = |lookup: &&Lookup| lookup.standing >= LookupStanding::Kept;
        self.declared().lookups.iter().filter(kept).filter(move |it| it.table == *table)
    }

    /// Whether a table of the group has a lookup that is kept.
    pub fn keeps_lookups(&self, group: GroupId) -> bool {
        !self.declared().lookups.is_empty()
            && self.tables_of(group).any(|table| self.kept_lookups(&table.name).next().is_some())
    }

    /// The names of a lookup's columns: the value, then the key of what it finds.
    pub fn lookup_columns<'a>(&'a self, lookup: &'a Lookup) -> Vec<&'a str> {
        let key = self.table(&lookup.table).map(Table::key).unwrap_or_default();
        [lookup.column.as_str()].into_iter().chain(key.iter().map(String::as_str)).collect()
    }

    /// This map with other standings of its lookups, at the next epoch. No change of placement.
    #[must_use]
    pub fn with_standings(&self, standing: impl Fn(&Lookup) -> LookupStanding) -> Self {
        let mut declared = self.declared().clone();
        for lookup in &mut declared.lookups {
            lookup.standing = standing(lookup);
        }
        self.with_declared(declared)
    }
}
