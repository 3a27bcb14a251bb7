//! Which sharded tables a definition locks before their partitions.

use super::ddl::Scope;
use crate::shard_map::TableKind;
use crate::sql::{DdlStatement, Literal, Name, Strings, TableName, parse};

/// What a definition locks as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parents {
    /// Sharded tables.
    pub tables: Vec<TableName>,
    /// The query that gives schema and name of further tables, those of indexes.
    pub of_indexes: Option<String>,
}

impl Parents {
    /// Those of a statement. What locks no writer out is none of them.
    pub(super) fn of(statement: &DdlStatement, scope: &Scope<'_>) -> Self {
        let tables = |names: &[Name]| {
            let sharded = names.iter().filter_map(|name| scope.sharded(name));
            Self { tables: sharded.map(|it| it.table.name.clone()).collect(), of_indexes: None }
        };
        match statement {
            DdlStatement::AlterTable(alter) => tables(std::slice::from_ref(&alter.name)),
            DdlStatement::CreateIndex(index) if !index.concurrently => {
                tables(std::slice::from_ref(&index.table))
            }
            DdlStatement::DropTable(named)
            | DdlStatement::Truncate(named)
            | DdlStatement::Lock(named) => tables(&named.names),
            DdlStatement::DropIndex(named) if !named.concurrently => {
                let names = named.names.iter().map(|name| scope.slice(&name.span));
                Self { tables: Vec::new(), of_indexes: Some(tables_of_indexes(names)) }
            }
            // It names its table somewhere.
            DdlStatement::Global { object, .. }
                if matches!(object.as_str(), "trigger" | "policy" | "rule") =>
            {
                Self { tables: named(scope), of_indexes: None }
            }
            _ => Self::default(),
        }
    }

    /// What has to lock the tables first: by itself DROP TRIGGER locks the partitions before them
    /// (PostgreSQL's `get_object_address_relobject`), and deadlocks with anybody who writes.
    pub(super) fn locks_before(&self, statement: &DdlStatement, text: &str) -> Vec<String> {
        let verb = text.trim_start().get(..4).unwrap_or_default();
        let drops = matches!(statement, DdlStatement::Global { object, .. } if object == "trigger")
            && verb.eq_ignore_ascii_case("drop");
        let tables = self.tables.iter().filter(|_| drops);
        tables.map(|table| format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).collect()
    }
}

/// Sharded tables that a text may name.
fn named(scope: &Scope<'_>) -> Vec<TableName> {
    let parsed = parse(scope.text, Strings::Standard);
    let named: Vec<String> =
        parsed.statements.into_iter().flat_map(|statement| statement.identifiers).collect();
    let sharded = |kind: &TableKind| matches!(kind, TableKind::Sharded { .. });
    let tables = scope.map.tables().iter().filter(|table| sharded(&table.kind));
    tables.map(|table| table.name.clone()).filter(|table| named.contains(&table.name)).collect()
}

fn tables_of_indexes<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let indexes: Vec<_> =
        names.map(|name| format!("pg_catalog.to_regclass({})", Literal(name))).collect();
    format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE i.indexrelid IN ({})",
        indexes.join(", ")
    )
}
