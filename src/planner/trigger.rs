//! Triggers of sharded tables: they fire on partitions, and their functions see the names of these.

use super::More;
use super::ddl::{DdlPlan, Scope, Step};
use crate::shard_map::TableKind;
use crate::sql::{Literal, Name, TableName};

/// What in a trigger function's code is that of a partition.
const NAMES: &str = "tg_(table_name|relname|relid)";
/// Functions in C that look for rows of other tables: those of the module refint.
const REFINT: &str = "'check_primary_key', 'check_foreign_key'";

/// CREATE TRIGGER, refused by the home node where its function asks for the table's name.
pub(super) fn created(function: &Name, table: Option<&Name>, scope: &Scope<'_>) -> DdlPlan {
    let text = scope.text.trim();
    let sharded = table.and_then(|table| scope.sharded(table)).map(|key| &key.table.name);
    let Some(table) = sharded else {
        return DdlPlan::new(Vec::new(), vec![Step::Nodes(text.to_owned())]);
    };
    let function = format!("{}()", scope.slice(&function.span));
    let asks = format!(
        "(SELECT prosrc FROM pg_catalog.pg_proc WHERE oid = pg_catalog.to_regprocedure({})) ~* {}",
        Literal(&function),
        Literal(&format!(r"\m{NAMES}\M"))
    );
    let reads = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
         WHERE p.oid = pg_catalog.to_regprocedure({}) AND l.lanname = 'c' AND p.prosrc IN ({REFINT}))",
        Literal(&function)
    );
    let reads = Refusal {
        message: format!("a trigger of the sharded table {table} can't look for rows of others"),
        detail: "check_primary_key and check_foreign_key would see the rows of one partition's node only.",
        hint: "Declare a foreign key.".to_owned(),
    }
    .when(&reads);
    let home = format!("{}; {reads}; {text}", refusing(&asks, Some(table)));
    let step = Step::HomeAndOthers { home, others: text.to_owned() };
    DdlPlan { more: More::Nothing, ..DdlPlan::new(Vec::new(), vec![step]) }
}

/// CREATE OR REPLACE FUNCTION: the condition under which triggers of sharded tables would see the names
/// of partitions, with one of the tables.
pub(super) fn replaced(function: &Name, scope: &Scope<'_>) -> Option<String> {
    let lower = scope.text.to_ascii_lowercase();
    let asks = ["tg_table_name", "tg_relname", "tg_relid"].iter().any(|name| lower.contains(name));
    let tables = scope.map.tables().iter();
    let tables: Vec<String> = tables
        .filter(|table| matches!(table.kind, TableKind::Sharded { .. }))
        .map(|table| format!("pg_catalog.to_regclass({})", Literal(&table.name.to_string())))
        .collect();
    let function = format!("{}()", scope.slice(&function.span));
    (asks && !tables.is_empty()).then(|| {
        format!(
            "EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgfoid = pg_catalog.to_regprocedure({}) \
             AND tgrelid IN ({}))",
            Literal(&function),
            tables.join(", ")
        )
    })
}

/// Refuses, on the home node, where the condition holds.
pub(super) fn refusing(condition: &str, table: Option<&TableName>) -> String {
    let of = table
        .map_or_else(|| "a sharded table".to_owned(), |table| format!("the sharded table {table}"));
    let name = table.map_or("orders", |table| table.name.as_str());
    Refusal {
        message: format!("a trigger of {of} can't ask for the name of its table"),
        detail: "TG_TABLE_NAME and TG_RELID would be those of the partition in which a row is.",
        hint: format!(
            "Give it as an argument, EXECUTE FUNCTION f({}), and read TG_ARGV[0].",
            Literal(name)
        ),
    }
    .when(condition)
}

/// What PostgreSQL itself is to refuse.
struct Refusal {
    message: String,
    detail: &'static str,
    hint: String,
}

impl Refusal {
    /// The statement that does it where the condition holds.
    fn when(&self, condition: &str) -> String {
        let body = format!(
            "BEGIN IF {condition} THEN RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = {}, DETAIL = {}, \
             HINT = {}; END IF; END",
            Literal(&self.message),
            Literal(self.detail),
            Literal(&self.hint)
        );
        format!("DO {}", Literal(&body))
    }
}
