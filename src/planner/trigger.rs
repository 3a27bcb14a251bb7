//! Triggers of sharded tables: they fire on partitions, and their functions see the names of these.

use super::More;
use super::ddl::{DdlPlan, Scope, Step};
use crate::shard_map::TableKind;
use crate::sql::{Literal, Name, TableName};

/// What in a trigger function's code is that of a partition.
const NAMES: &str = "tg_(table_name|relname|relid)";

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
    home_checks(&asks, text, table)
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
    let (message, hint) = (
        format!("a trigger of {of} can't ask for the name of its table"),
        format!(
            "Give it as an argument, EXECUTE FUNCTION f({}), and read TG_ARGV[0].",
            Literal(name)
        ),
    );
    let body = format!(
        "BEGIN IF {condition} THEN RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = {}, DETAIL = \
         'TG_TABLE_NAME and TG_RELID would be those of the partition in which a row is.', HINT = {}; \
         END IF; END",
        Literal(&message),
        Literal(&hint)
    );
    format!("DO {}", Literal(&body))
}

fn home_checks(condition: &str, text: &str, table: &TableName) -> DdlPlan {
    let home = format!("{}; {text}", refusing(condition, Some(table)));
    let step = Step::HomeAndOthers { home, others: text.to_owned() };
    DdlPlan { more: More::Nothing, ..DdlPlan::new(Vec::new(), vec![step]) }
}
