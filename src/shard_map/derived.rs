//! What stands on sharded tables without being one: views, and functions whose code names them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Column, Table, TableKind};
use crate::sql::TableName;

/// What the home node's catalog has of these. No order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// Views that read sharded tables, also by other views.
    pub views: Vec<View>,
    /// Functions and procedures that users made and whose code names a sharded table or such a view.
    pub functions: Vec<TableName>,
    /// Whatever else has the name of a table of the policy or of such a view, in another schema.
    #[serde(default)]
    pub namesakes: Vec<TableName>,
    /// Views that read reference tables and no sharded ones: they are the home node's, and so is the copy
    /// that a write through one would reach.
    #[serde(default)]
    pub of_copies: Vec<TableName>,
    /// Functions that users made and whose code writes a reference table, or calls what does or what names
    /// a sharded table.
    #[serde(default)]
    pub callers: Vec<TableName>,
    /// Home tables with triggers or rules that read sharded tables, or write reference tables.
    #[serde(default)]
    pub entangled: Vec<TableName>,
    /// Names of functions that users made, all of this name immutable, and none built in. Sorted.
    #[serde(default)]
    pub immutable: Vec<String>,
    /// Names of immutable built-in functions that functions of users have, too, which are not all
    /// immutable. Sorted.
    #[serde(default)]
    pub overloads: Vec<String>,
}

/// A view that reads sharded tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its schema and name.
    pub name: TableName,
    /// Its query, all names in it qualified, without a semicolon.
    pub definition: String,
    /// Every node has it, with the same query.
    pub everywhere: bool,
    /// It keeps its rows: those that the node had when it was filled.
    pub materialized: bool,
    /// What writes through it do.
    #[serde(default)]
    pub through: Through,
}

/// What writes through a view do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// It can't be told.
    #[default]
    Unknown,
    /// PostgreSQL refuses them.
    Refused,
    /// PostgreSQL does them to the one table, or view, whose rows it shows one by one.
    Table {
        /// That table.
        base: TableName,
        /// The view's columns, in order, each with that of the table which it plainly is.
        columns: Vec<(String, Option<String>)>,
    },
}

impl Derived {
    /// The view of this name.
    pub(super) fn view(&self, name: &TableName) -> Option<&View> {
        self.views.iter().find(|view| view.name == *name)
    }
}

/// Views as the sharded tables that writes through them reach: with their own names and columns.
pub(super) fn written(views: &[View], tables: &[Table]) -> HashMap<TableName, Table> {
    let mut found: HashMap<TableName, Table> = HashMap::new();
    // A view may stand on another one.
    for _ in 0..views.len() {
        let before = found.len();
        for view in views.iter().filter(|view| view.everywhere) {
            let Through::Table { base, columns } = &view.through else { continue };
            let table = tables.iter().find(|table| table.name == *base).or(found.get(base));
            if let Some(table) = table.and_then(|table| shown(view, table, columns)) {
                found.insert(view.name.clone(), table);
            }
        }
        if found.len() == before {
            break;
        }
    }
    found
}

/// The table as a view shows it. A column of the shard key that it does not show has no name there.
fn shown(view: &View, table: &Table, columns: &[(String, Option<String>)]) -> Option<Table> {
    let TableKind::Sharded { group, key } = &table.kind else { return None };
    let name_of = |column: &String| {
        let shows = |(_, own): &&(String, Option<String>)| own.as_ref() == Some(column);
        columns.iter().find(shows).map(|(name, _)| name.clone()).unwrap_or_default()
    };
    let column = |(name, own): &(String, Option<String>)| {
        let own = table.columns.iter().find(|column| Some(&column.name) == own.as_ref());
        let computed = Column { generated: true, ..Column::default() };
        Column { name: name.clone(), ..own.cloned().unwrap_or(computed) }
    };
    Some(Table {
        name: view.name.clone(),
        kind: TableKind::Sharded { group: *group, key: key.iter().map(name_of).collect() },
        columns: columns.iter().map(column).collect(),
    })
}
