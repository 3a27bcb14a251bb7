//! What the random writes know of their tables: columns, what values mean, and what tells rows apart.

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Int,
    Number,
    Text,
    Day,
}

/// Columns of one meaning have values in common, so that joins of them find rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    Tenant,
    Order,
    Plan,
    Org,
    Name,
    Other,
}

use Kind::{Day, Int, Number, Text};
use Means::{Name, Order, Org, Other, Plan, Tenant};

/// Name, what it holds, what it means.
pub type Column = (&'static str, Kind, Means);

/// A table, or a view.
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
    /// What tells its rows apart; empty where nothing does.
    pub unique: &'static [&'static str],
    /// A column that takes numbers from a sequence where nothing is given.
    pub serial: Option<&'static str>,
    /// Whether it can be written to.
    pub writable: bool,
}

/// The last is made by each session for itself.
pub const TABLES: &[Table] = &[
    Table {
        name: "plans",
        columns: &[
            ("id", Int, Plan),
            ("name", Text, Name),
            ("seats", Int, Other),
            ("note", Text, Other),
        ],
        unique: &["id"],
        serial: None,
        writable: true,
    },
    Table {
        name: "settings",
        columns: &[("name", Text, Name), ("value", Int, Tenant), ("note", Text, Name)],
        unique: &["name"],
        serial: None,
        writable: true,
    },
    Table {
        name: "journal",
        columns: &[("id", Int, Other), ("account", Int, Tenant), ("what", Text, Name)],
        unique: &["id"],
        serial: Some("id"),
        writable: true,
    },
    Table {
        name: "tenants",
        columns: &[
            ("id", Int, Tenant),
            ("name", Text, Name),
            ("plan_id", Int, Plan),
            ("score", Int, Other),
            ("since", Day, Other),
        ],
        unique: &["id"],
        serial: None,
        writable: true,
    },
    Table {
        name: "orders",
        columns: &[
            ("tenant_id", Int, Tenant),
            ("id", Int, Order),
            ("status", Text, Other),
            ("total", Number, Other),
            ("placed", Day, Other),
        ],
        unique: &["tenant_id", "id"],
        serial: None,
        writable: true,
    },
    Table {
        name: "items",
        columns: &[
            ("tenant_id", Int, Tenant),
            ("order_id", Int, Order),
            ("line", Int, Other),
            ("sku", Text, Other),
            ("quantity", Int, Other),
        ],
        unique: &["tenant_id", "order_id", "line"],
        serial: None,
        writable: true,
    },
    Table {
        name: "notes",
        columns: &[
            ("tenant_id", Int, Tenant),
            ("id", Int, Other),
            ("order_id", Int, Order),
            ("body", Text, Name),
        ],
        unique: &["tenant_id", "id"],
        serial: None,
        writable: true,
    },
    Table {
        name: "users",
        columns: &[
            ("tenant_id", Int, Tenant),
            ("id", Int, Other),
            ("email", Text, Other),
            ("city", Text, Other),
            ("score", Int, Other),
        ],
        unique: &["tenant_id", "id"],
        serial: None,
        writable: true,
    },
    Table {
        name: "gone",
        columns: &[("tenant_id", Int, Tenant), ("order_id", Int, Order), ("status", Text, Other)],
        unique: &[],
        serial: None,
        writable: true,
    },
    Table {
        name: "parcels",
        columns: &[
            ("code", Text, Other),
            ("id", Int, Other),
            ("tenant_id", Int, Tenant),
            ("weight", Number, Other),
            ("sent", Day, Other),
        ],
        unique: &["code"],
        serial: Some("id"),
        writable: true,
    },
    Table {
        name: "devices",
        columns: &[
            ("org", Int, Org),
            ("serial", Text, Other),
            ("model", Text, Other),
            ("level", Int, Tenant),
        ],
        unique: &["org", "serial"],
        serial: None,
        writable: true,
    },
    Table {
        name: "readings",
        columns: &[
            ("org", Int, Org),
            ("serial", Text, Other),
            ("at", Int, Other),
            ("value", Int, Other),
            ("taken", Day, Other),
        ],
        unique: &["org", "serial", "at"],
        serial: None,
        writable: true,
    },
    Table {
        name: "metrics",
        columns: &[
            ("day", Day, Other),
            ("device", Int, Org),
            ("hits", Int, Other),
            ("label", Text, Other),
        ],
        unique: &["day", "device"],
        serial: None,
        writable: true,
    },
    Table {
        name: "open_orders",
        columns: &[
            ("tenant_id", Int, Tenant),
            ("id", Int, Order),
            ("total", Number, Other),
            ("placed", Day, Other),
        ],
        unique: &["tenant_id", "id"],
        serial: None,
        writable: false,
    },
    Table {
        name: "sizes",
        columns: &[("tenant_id", Int, Tenant), ("name", Text, Name), ("orders", Int, Other)],
        unique: &["tenant_id"],
        serial: None,
        writable: false,
    },
    Table {
        name: "scratch",
        columns: &[("id", Int, Tenant), ("name", Text, Name), ("n", Int, Org)],
        unique: &["id"],
        serial: None,
        writable: true,
    },
];

/// The place of `name` in [`TABLES`].
pub fn table(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap()
}

impl Table {
    /// The columns that can be set apart from those that tell rows apart.
    pub fn free(&self) -> Vec<Column> {
        self.columns.iter().filter(|column| !self.is_unique(column.0)).copied().collect()
    }

    /// Whether a column is among those that tell rows apart.
    pub fn is_unique(&self, column: &str) -> bool {
        self.unique.contains(&column)
    }
}
