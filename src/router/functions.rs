//! What PostgreSQL's own functions do that bears on a route. A function that is not listed may do
//! anything.

use std::sync::LazyLock;

use super::Leaves;
use crate::sql::{
    Call, Constant, ConstantValue, Query, Source, Statement, TableRef, Test, VOLATILE,
};

/// The same result for the same arguments on every node, at any time; no aggregates, and no sets
/// of rows. Sorted.
const PURE: &str = include_str!("pure.txt");

/// The same on every node under the same settings; also such as give sets of rows, and ARRAY of a
/// subquery. Sorted.
const SETTLED: &str = include_str!("settled.txt");

static PURE_NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| PURE.lines().collect());
static SETTLED_NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| SETTLED.lines().collect());

/// Harmless on whichever node, when no table is read.
const ANYWHERE: [&str; 23] = [
    "clock_timestamp",
    "current_catalog",
    "current_database",
    "current_date",
    "current_role",
    "current_schema",
    "current_setting",
    "current_time",
    "current_timestamp",
    "current_user",
    "gen_random_uuid",
    "generate_series",
    "localtime",
    "localtimestamp",
    "now",
    "pg_backend_pid",
    "pg_sleep",
    "random",
    "session_user",
    "statement_timestamp",
    "transaction_timestamp",
    "user",
    "version",
];

/// Of many rows; harmless where all rows are on one node.
const AGGREGATES: [&str; 20] = [
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "dense_rank",
    "every",
    "first_value",
    "json_agg",
    "jsonb_agg",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "ntile",
    "rank",
    "row_number",
    "string_agg",
    "sum",
];

/// Of many rows, in whatever order.
const ORDERLESS: [&str; 6] = ["bool_and", "bool_or", "count", "every", "max", "min"];

/// Put their rows one behind the other.
const ORDERED: [&str; 8] = [
    "array_agg",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "range_agg",
    "string_agg",
    "xmlagg",
];

/// Leave something in the session that lasts, or take it away.
const STATE: [&str; 10] = [
    "dblink_connect",
    "dblink_disconnect",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "set_config",
];

/// Run a query that they are given as text, or read tables that are named so. Sorted.
const RUN_TEXT: [&str; 19] = [
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
];

/// Whether a function runs a text that may name one of `tables`: it says so, or is not known.
pub(super) fn runs_text_of<'a>(call: &Call, mut tables: impl Iterator<Item = &'a str>) -> bool {
    if RUN_TEXT.binary_search(&call.name.as_str()).is_err() {
        return false;
    }
    let whole = call.name.starts_with("database_") || call.name.starts_with("schema_");
    // With three arguments it takes no text.
    let taken =
        if call.name == "ts_rewrite" { call.arguments.get(1) } else { call.arguments.first() };
    let text = match taken {
        Some(Some(Constant { value: ConstantValue::String(text), .. })) if !whole => text,
        _ => return call.name != "ts_rewrite" && tables.next().is_some(),
    };
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    tables.any(|table| words.contains(&table.to_lowercase().as_str()))
}

/// Leave what `currval` and `lastval` answer, or read it.
const SEQUENCES: [&str; 4] = ["currval", "lastval", "nextval", "setval"];

/// What is wrong with a call on another node than the home node.
const HOME_ONLY: [(&str, &str); 6] = [
    ("nextval", "Sequences live on the home node."),
    ("currval", "Sequences live on the home node."),
    ("lastval", "Sequences live on the home node."),
    ("setval", "Sequences live on the home node."),
    ("pg_notify", "Who listens does so on the home node."),
    ("pg_export_snapshot", "A snapshot holds for one node only."),
];

fn built_in(call: &Call) -> bool {
    call.schema.as_deref().is_none_or(|schema| schema == "pg_catalog")
}

fn listed(call: &Call, list: &[&str]) -> bool {
    built_in(call) && list.binary_search(&call.name.as_str()).is_ok()
}

/// Whether the same arguments give the same result on every node.
pub(super) fn is_pure(call: &Call) -> bool {
    built_in(call) && PURE_NAMES.binary_search(&call.name.as_str()).is_ok()
}

/// Whether it is computed anew for each row, or else once for a whole statement: on every node another
/// value.
pub(super) fn is_volatile(call: &Call) -> bool {
    listed(call, &VOLATILE)
}

/// Types that look like calls where they have a length: `numeric(10, 2)`.
const TYPES: [&str; 7] = ["bit", "bpchar", "char", "decimal", "numeric", "varbit", "varchar"];

/// Whether PostgreSQL's function (or type with a length) of this name gives the same on every node.
pub fn is_pure_function(name: &str) -> bool {
    PURE_NAMES.binary_search(&name).is_ok() || TYPES.binary_search(&name).is_ok()
}

/// Whether it may run on whichever node, when no home table is read.
pub(super) fn runs_anywhere(call: &Call) -> bool {
    is_pure(call) || listed(call, &ANYWHERE)
}

/// Whether it writes nothing, as far as is known.
pub(super) fn reads_only(call: &Call) -> bool {
    runs_anywhere(call) || listed(call, &AGGREGATES)
}

/// What it leaves in the session of its server.
pub(super) fn leaves(call: &Call) -> Leaves {
    let name = call.name.as_str();
    let local = |local: &Constant| local.value == ConstantValue::Bool(true);
    if name == "set_config" && matches!(call.arguments.get(2), Some(Some(value)) if local(value)) {
        Leaves::Nothing
    } else if STATE.binary_search(&name).is_ok() {
        Leaves::State
    } else if SEQUENCES.binary_search(&name).is_ok() {
        Leaves::Sequences
    } else if reads_only(call) || is_built_in(call) {
        Leaves::Nothing
    } else {
        Leaves::Unknown
    }
}

/// PostgreSQL's own functions, as `pg_proc` of version 15 has them, sorted.
const BUILT_IN: &str = include_str!("built_in.txt");

/// Whether PostgreSQL itself has a function of this name. One of the user's may have it, too, with
/// other arguments.
fn is_built_in(call: &Call) -> bool {
    static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| BUILT_IN.lines().collect());
    built_in(call) && NAMES.binary_search(&call.name.as_str()).is_ok()
}

/// A setting that the proxy must know of, set by `set_config` in a way that it can't follow: not by
/// a plain `SELECT set_config(…)`, after which it asks.
pub(super) fn hidden_setting(query: &Query, statement: &Statement) -> bool {
    let plain = query.levels.iter().all(|level| level.tables.is_empty() && level.target.is_none());
    let hidden = |name: &&Constant| match &name.value {
        ConstantValue::String(name) => {
            name.eq_ignore_ascii_case("standard_conforming_strings")
                || name.eq_ignore_ascii_case("search_path") && !(plain && statement.has("select"))
        }
        _ => true,
    };
    query.functions.iter().filter(|call| call.name == "set_config").any(|call| {
        if let Some(Some(name)) = call.arguments.first() {
            return hidden(&name);
        }
        let names = settings(query);
        names.is_empty() || names.iter().any(hidden)
    })
}

/// The names in `FROM pg_settings WHERE name = …`, by which clients set what a server may not have.
fn settings(query: &Query) -> Vec<&Constant> {
    let [level] = query.levels.as_slice() else { return Vec::new() };
    let is_settings = |table: &TableRef| matches!(&table.source, Source::Table(name) if name.name == "pg_settings");
    let names = level.conditions.iter().filter_map(|condition| match &condition.test {
        Test::OneOf(column, names) if column.column == "name" => Some(names),
        _ => None,
    });
    let names = names.flatten().collect();
    if level.tables.len() == 1 && level.tables.iter().all(is_settings) { names } else { Vec::new() }
}

/// Whether a function of this name must not run beside a sharded table.
pub(super) fn is_home_only(name: &str) -> bool {
    name.contains("advisory") || HOME_ONLY.iter().any(|(known, _)| *known == name)
}

/// Whether it may run in a write that is spread over nodes: it gives the same on each, or differs
/// from row to row anyway.
pub(super) fn in_spread_write(call: &Call) -> bool {
    reads_only(call) || is_settled(call)
}

/// Whether the same arguments give the same on every node under the same settings.
fn is_settled(call: &Call) -> bool {
    built_in(call) && SETTLED_NAMES.binary_search(&call.name.as_str()).is_ok()
}

/// Whether it gives the same on every node that has the same rows, in whatever order they are.
pub(super) fn is_same_everywhere(call: &Call) -> bool {
    is_pure(call) || is_settled(call) || listed(call, &ORDERLESS)
}

/// Whether it is an aggregate that puts its rows into an order.
pub(super) fn depends_on_order(call: &Call) -> bool {
    listed(call, &ORDERED)
}

/// Why a call must not run beside a sharded table.
pub(super) fn home_only(call: &Call) -> Option<&'static str> {
    if call.name.contains("advisory") {
        return Some("Advisory locks are held on the home node.");
    }
    HOME_ONLY.iter().find(|(name, _)| *name == call.name).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_lists_are_sorted_for_binary_search() {
        assert!(super::PURE.lines().is_sorted());
        assert!(super::SETTLED.lines().is_sorted());
        assert!(super::VOLATILE.is_sorted());
        assert!(super::ANYWHERE.is_sorted());
        assert!(super::AGGREGATES.is_sorted());
        assert!(super::TYPES.is_sorted());
        assert!(super::STATE.is_sorted());
        assert!(super::SEQUENCES.is_sorted());
        assert!(super::BUILT_IN.lines().is_sorted());
    }
}
