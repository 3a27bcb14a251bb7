//! The system catalog as the application thinks of its tables: without the partitions that shards
//! are, and with the foreign keys that stand on these.
//!
//! A query of the catalog gets subqueries in the place of catalog tables. What can't be read by the
//! parser goes on as it is: it shows more, and nothing that is wrong.

use std::ops::Range;

use super::names::Names;
use crate::shard_map::TableKind;
use crate::sql::{Ident, Literal, Name, Query, Source, Statement, Verb, call_end};

/// Views of `information_schema` and `pg_catalog` with the column that names a table.
const BY_NAME: [(&str, &str); 11] = [
    ("columns", "table_name"),
    ("column_privileges", "table_name"),
    ("constraint_column_usage", "table_name"),
    ("constraint_table_usage", "table_name"),
    ("key_column_usage", "table_name"),
    ("table_constraints", "table_name"),
    ("table_privileges", "table_name"),
    ("tables", "table_name"),
    ("pg_indexes", "tablename"),
    ("pg_stats", "tablename"),
    ("pg_tables", "tablename"),
];

/// The text with the application's tables in place of the catalog's; `None` if nothing of it shows
/// partitions.
pub(super) fn rewritten(
    text: &str,
    statement: &Statement,
    query: &Query,
    names: &Names<'_>,
) -> Option<String> {
    let features = &query.features;
    let reads = query.verb == Verb::Select && query.levels.iter().all(|l| l.target.is_none());
    if !names.active() || !reads || features.only || features.locking || features.sample {
        return None;
    }
    let shown = Shown::of(names)?;
    let tableoid = statement.has("tableoid");
    if ["ctid", "xmin", "xmax", "cmin", "cmax"].iter().any(|column| statement.has(column))
        || tableoid && query.columns.all
    {
        return None;
    }
    let columns = if tableoid { "tableoid, *" } else { "*" };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut replaced = Vec::new();
    for table in query.levels.iter().flat_map(|level| &level.tables) {
        let Source::Table(name) = &table.source else { continue };
        let Some(shown) = shown.table(name, columns) else { continue };
        let before = text.get(..name.span.start)?.trim_end().as_bytes();
        if before.len() >= 5 && before[before.len() - 5..].eq_ignore_ascii_case(b"table") {
            return None;
        }
        let alias =
            if table.aliased { String::new() } else { format!(" AS {}", Ident::new(&name.name)) };
        if !table.aliased {
            replaced.push(name.name.as_str());
        }
        edits.push((name.span.clone(), format!("({shown}){alias}")));
    }
    let qualifiers = query.columns.qualifiers.iter();
    let own = qualifiers.filter(|qualifier| replaced.contains(&qualifier.table.as_str()));
    edits.extend(own.map(|qualifier| (qualifier.before.clone(), String::new())));
    for call in query.functions.iter().filter(|call| call.name == "pg_get_constraintdef") {
        let end = call_end(text, call.span.start)?;
        let written = text.get(call.span.start..end)?;
        edits.push((call.span.start..end, shown.definition(written)));
    }
    if edits.is_empty() {
        return None;
    }
    edits.sort_by_key(|(span, _)| span.start);
    let (mut out, mut at) = (String::with_capacity(text.len() + 1024), 0);
    for (span, with) in &edits {
        // A call in a call: too odd.
        out.push_str(text.get(at..span.start)?);
        out.push_str(with);
        at = span.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// What is shown.
struct Shown {
    /// The OIDs of the sharded tables, as SQL.
    parents: String,
    /// A regular expression for the names of their partitions, without anchors.
    leaves: String,
}

impl Shown {
    fn of(names: &Names<'_>) -> Option<Self> {
        let (mut parents, mut stems) = (Vec::new(), Vec::new());
        for table in names.map.tables() {
            if matches!(table.kind, TableKind::Sharded { .. }) {
                let name = table.name.to_string();
                parents.push(format!("pg_catalog.to_regclass({})", Literal(&name)));
                stems.push(escaped(&table.name.name));
            }
        }
        (!parents.is_empty()).then(|| Self {
            parents: format!("ARRAY[{}]::pg_catalog.oid[]", parents.join(", ")),
            leaves: format!("(?:{})_s[0-9]+", stems.join("|")),
        })
    }

    /// What stands for a table of the catalog.
    fn table(&self, name: &Name, columns: &str) -> Option<String> {
        let Self { parents, leaves } = self;
        let anchored = Literal(&format!("^{leaves}$")).to_string();
        let leaf_tables = format!(
            "SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = ANY ({parents})"
        );
        let catalog = name.schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
        let information = name.schema.as_deref() == Some("information_schema");
        Some(match name.name.as_str() {
            "pg_class" if catalog => format!(
                "SELECT {columns} FROM pg_catalog.pg_class WHERE oid NOT IN ({leaf_tables} \
                 UNION ALL SELECT h.inhrelid FROM pg_catalog.pg_inherits h \
                 JOIN pg_catalog.pg_index i ON i.indexrelid = h.inhparent \
                 WHERE i.indrelid = ANY ({parents})) \
                 AND NOT (relkind = 'r' AND relname ~ {anchored}) \
                 AND relnamespace IS DISTINCT FROM pg_catalog.to_regnamespace('foreshard')"
            ),
            "pg_namespace" if catalog => {
                format!(
                    "SELECT {columns} FROM pg_catalog.pg_namespace WHERE nspname <> 'foreshard'"
                )
            }
            "pg_constraint" if catalog && columns == "*" => self.constraints(&leaf_tables),
            other => {
                let (_, column) = BY_NAME.iter().find(|(view, _)| *view == other)?;
                let schema = match other.strip_prefix("pg_") {
                    Some(_) if catalog => "pg_catalog",
                    None if information => "information_schema",
                    _ => return None,
                };
                format!("SELECT {columns} FROM {schema}.{other} WHERE {column} !~ {anchored}")
            }
        })
    }

    /// Foreign keys of one partition stand for those of its table.
    fn constraints(&self, leaf_tables: &str) -> String {
        let parents = &self.parents;
        format!(
            "SELECT c.* FROM pg_catalog.pg_constraint c WHERE c.conrelid NOT IN ({leaf_tables}) \
             UNION ALL SELECT (pg_catalog.jsonb_populate_record(c, pg_catalog.jsonb_build_object(\
             'conrelid', h.inhparent::pg_catalog.int8, \
             'confrelid', coalesce(t.inhparent, c.confrelid)::pg_catalog.int8))).* \
             FROM pg_catalog.pg_constraint c \
             JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.conrelid \
             LEFT JOIN pg_catalog.pg_inherits t ON t.inhrelid = c.confrelid \
             AND t.inhparent = ANY ({parents}) \
             WHERE c.contype = 'f' AND h.inhparent = ANY ({parents}) AND c.conrelid = \
             (SELECT pg_catalog.min(m.inhrelid) FROM pg_catalog.pg_inherits m \
             WHERE m.inhparent = h.inhparent)"
        )
    }

    /// A constraint's definition, the tables of partitions in it.
    fn definition(&self, call: &str) -> String {
        let pattern = format!(r#"( REFERENCES (?:[^ (]+\.)?"?{})_s[0-9]+("?\()"#, self.stems());
        format!(
            "(SELECT pg_catalog.regexp_replace({call}, {}, {}) AS pg_get_constraintdef)",
            Literal(&pattern),
            Literal(r"\1\2")
        )
    }

    fn stems(&self) -> &str {
        self.leaves.strip_suffix("_s[0-9]+").unwrap_or(&self.leaves)
    }
}

/// A name as a part of a regular expression.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if !c.is_alphanumeric() && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
