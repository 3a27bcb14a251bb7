//! What stands on sharded tables without being one: views, and functions whose code names them.

use serde::{Deserialize, Serialize};

use crate::sql::TableName;

/// What the home node's catalog has of these. No order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// Views that read sharded tables, also by other views.
    pub views: Vec<View>,
    /// Functions and procedures that users made and whose code names a sharded table or such a view.
    pub functions: Vec<TableName>,
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
}

impl Derived {
    /// The view of this name.
    pub(super) fn view(&self, name: &TableName) -> Option<&View> {
        self.views.iter().find(|view| view.name == *name)
    }
}
