//! The system catalog as the application thinks of its tables: a sharded table is a plain one, its
//! partitions are not there, and the foreign keys that only they have are its own.
//!
//! The home node gets views of the catalog, in schemas of their own, under the names of what they
//! stand for; statements that only read get those schemas in the places of `pg_catalog` and
//! `information_schema`. All else is sent as it was written, and nothing is analysed anew.

use std::ops::Range;

use crate::sql::{Ident, Literal, Place, PlaceUse, Strings, TableName, places};

use super::ddl::splice;
use super::kept;

/// Views of `pg_catalog`.
const CATALOG: &str = "foreshard_catalog";
/// The same with the columns that every table has and a view has not.
const SYSTEM: &str = "foreshard_system";
/// Views of `information_schema`.
const INFORMATION: &str = "foreshard_information";

/// The schemas on the home node that have them.
pub const CATALOG_SCHEMAS: [&str; 3] = [CATALOG, SYSTEM, INFORMATION];

/// Tables of the catalog that have views of their own.
pub const CATALOG_TABLES: [&str; 11] = [
    "pg_class",
    "pg_constraint",
    "pg_depend",
    "pg_index",
    "pg_inherits",
    "pg_namespace",
    "pg_partitioned_table",
    "pg_proc",
    "pg_rewrite",
    "pg_trigger",
    "pg_type",
];
/// Views of `pg_catalog` that are made anew upon those.
pub const CATALOG_VIEWS: [&str; 4] = ["pg_indexes", "pg_matviews", "pg_tables", "pg_views"];
/// Views of `information_schema` that are made anew upon those.
pub const INFORMATION_VIEWS: [&str; 21] = [
    "check_constraints",
    "column_domain_usage",
    "column_options",
    "column_privileges",
    "column_udt_usage",
    "columns",
    "constraint_column_usage",
    "constraint_table_usage",
    "element_types",
    "key_column_usage",
    "referential_constraints",
    "role_column_grants",
    "role_table_grants",
    "schemata",
    "table_constraints",
    "table_privileges",
    "tables",
    "triggered_update_columns",
    "triggers",
    "view_table_usage",
    "views",
];
/// A setting with which `pg_dump` protects itself against views; to it, the server has none.
const FORBIDS_VIEWS: &str = "restrict_nonsystem_relation_kind";
/// Functions that would name partitions or what stands behind a view, or show that there is some.
const FUNCTIONS: [&str; 3] = ["pg_get_constraintdef", "pg_get_indexdef", "pg_get_viewdef"];

/// The text as it is sent to the home node; `None` if that is as it was written. Names without a
/// schema mean the catalog if `pg_catalog` comes first in the search path, as `unqualified` says.
pub fn shown(text: &str, strings: Strings, unqualified: bool) -> Option<String> {
    rewritten(text, strings, unqualified, &[])
}

/// The same, but for the tables `kept`.
fn rewritten(text: &str, strings: Strings, unqualified: bool, kept: &[&str]) -> Option<String> {
    let folded = text.to_ascii_lowercase();
    if !folded.contains("pg_") && !folded.contains("information_schema") {
        return None;
    }
    let found = places(text, strings);
    // A client that forbids itself views of users would see no catalog.
    let forbids = folded.contains(FORBIDS_VIEWS);
    let edit = |place: &Place| {
        if kept.contains(&place.name.as_str()) {
            return None;
        }
        let forbids = forbids && place.use_ == PlaceUse::Table && place.name == "pg_settings";
        let schema = match schema_of(place, found.system_columns, unqualified) {
            None if forbids => CATALOG,
            schema => schema?,
        };
        Some((place.span.clone(), format!("{schema}.{}", Ident::new(&place.name))))
    };
    let edits: Vec<(Range<usize>, String)> = found.places.iter().filter_map(edit).collect();
    (!edits.is_empty()).then(|| splice(text, &edits))
}

/// The schema of what is shown instead.
fn schema_of(place: &Place, system_columns: bool, unqualified: bool) -> Option<&'static str> {
    let name = place.name.as_str();
    let catalog = match place.schema.as_deref() {
        Some("information_schema") => {
            let table = place.use_ != PlaceUse::Call;
            return (table && INFORMATION_VIEWS.contains(&name)).then_some(INFORMATION);
        }
        Some(schema) => schema == "pg_catalog",
        None => unqualified,
    };
    match place.use_ {
        _ if !catalog => None,
        PlaceUse::Call => FUNCTIONS.contains(&name).then_some(CATALOG),
        _ if CATALOG_VIEWS.contains(&name) => Some(CATALOG),
        _ if !CATALOG_TABLES.contains(&name) => None,
        _ => Some(if system_columns { SYSTEM } else { CATALOG }),
    }
}

/// A table of the catalog with its columns, in order, and their types.
#[derive(Debug, Clone)]
pub struct CatalogTable {
    /// Its name.
    pub name: String,
    /// Names and types of its columns.
    pub columns: Vec<(String, String)>,
}

/// What makes the views of the catalog's tables on the home node; those that are there go.
pub fn catalog_tables(tables: &[CatalogTable], sharded: &[TableName]) -> Vec<String> {
    let schemas = CATALOG_SCHEMAS.join(", ");
    let mut all = vec![format!("DROP SCHEMA IF EXISTS {schemas} CASCADE")];
    all.extend(CATALOG_SCHEMAS.iter().map(|schema| format!("CREATE SCHEMA {schema}")));
    all.extend(helpers(sharded));
    for table in tables {
        for (schema, system) in [(CATALOG, false), (SYSTEM, true)] {
            let query = query_of(table, system);
            all.push(format!("CREATE VIEW {schema}.{} AS {query}", table.name));
        }
    }
    all.push(format!(
        "CREATE VIEW {CATALOG}.pg_settings AS SELECT * FROM pg_catalog.pg_settings \
         WHERE name <> '{FORBIDS_VIEWS}'"
    ));
    all.extend(FUNCTION_DEFINITIONS.map(str::to_owned));
    all
}

/// What makes a view anew that stands on others, by its definition; `schema` is the one it is in.
pub fn catalog_view(schema: &str, name: &str, definition: &str) -> String {
    let own = if schema == "pg_catalog" { CATALOG } else { INFORMATION };
    let definition = definition.trim().trim_end_matches(';');
    // Functions take whole rows of these.
    let query = rewritten(definition, Strings::Standard, true, &["pg_proc", "pg_type"]);
    let query = query.unwrap_or_else(|| definition.to_owned());
    format!("CREATE VIEW {own}.{} AS {query}", Ident::new(name))
}

/// What lets everybody read them, as everybody reads the catalog.
pub fn catalog_grants() -> Vec<String> {
    let schemas = CATALOG_SCHEMAS.join(", ");
    vec![
        format!("GRANT USAGE ON SCHEMA {schemas} TO PUBLIC"),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schemas} TO PUBLIC"),
    ]
}

/// Views that say what is hidden.
fn helpers(sharded: &[TableName]) -> Vec<String> {
    let name =
        |table: &TableName| format!("({}, {})", Literal(&table.schema), Literal(&table.name));
    let names: Vec<String> = sharded.iter().map(name).collect();
    vec![
        format!(
            "CREATE VIEW {CATALOG}.sharded AS SELECT c.oid, c.relnamespace, c.relname \
             FROM (VALUES {}) AS t (schema_name, table_name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema_name \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name \
             AND c.relkind = 'p'",
            names.join(", ")
        ),
        format!(
            "CREATE VIEW {CATALOG}.leaves AS SELECT i.inhrelid AS oid, i.inhparent AS parent \
             FROM pg_catalog.pg_inherits i JOIN {CATALOG}.sharded s ON s.oid = i.inhparent"
        ),
        // Also those that are not attached: on their way, or left behind.
        format!(
            "CREATE VIEW {CATALOG}.hidden_tables AS SELECT oid FROM {CATALOG}.leaves \
             UNION SELECT c.oid FROM pg_catalog.pg_class c JOIN {CATALOG}.sharded s \
             ON s.relnamespace = c.relnamespace AND pg_catalog.starts_with(s.relname, \
             pg_catalog.regexp_replace(c.relname, '_s[0-9]+$', '')) \
             WHERE c.relkind = 'r' AND c.relname ~ '_s[0-9]+$' AND (pg_catalog.length(c.relname) > 58 \
             OR s.relname = pg_catalog.regexp_replace(c.relname, '_s[0-9]+$', ''))"
        ),
        format!(
            "CREATE VIEW {CATALOG}.hidden AS SELECT oid FROM {CATALOG}.hidden_tables \
             UNION ALL SELECT indexrelid FROM pg_catalog.pg_index \
             WHERE indrelid IN (SELECT oid FROM {CATALOG}.hidden_tables) \
             UNION ALL SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace IN ({})",
            own_schemas()
        ),
        // The rules of kept views, each with that of the view which has the user's query.
        format!(
            "CREATE VIEW {CATALOG}.kept_rules AS SELECT DISTINCT w.oid, q.oid AS query, v.oid AS view \
             FROM pg_catalog.pg_rewrite w \
             JOIN pg_catalog.pg_class m ON m.oid = w.ev_class AND m.relkind = 'm' \
             JOIN pg_catalog.pg_depend d ON d.objid = w.oid \
             AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
             JOIN pg_catalog.pg_class v ON v.oid = d.refobjid AND v.relkind = 'v' \
             AND v.relnamespace = pg_catalog.to_regnamespace({}) \
             JOIN pg_catalog.pg_rewrite q ON q.ev_class = v.oid",
            Literal(kept::SCHEMA)
        ),
    ]
}

/// What a table of the catalog shows.
fn query_of(table: &CatalogTable, system: bool) -> String {
    let name = table.name.as_str();
    let list = |lifted: bool| {
        let column = |(column, kind): &(String, String)| match value(name, column, lifted) {
            Some(value) => format!("CAST({value} AS {kind}) AS {column}"),
            None => format!("t.{column}"),
        };
        let mut columns: Vec<String> = table.columns.iter().map(column).collect();
        if system {
            let own = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];
            columns.extend(own.map(|column| format!("t.{column}")));
        }
        columns.join(", ")
    };
    let from = format!("SELECT {} FROM pg_catalog.{name} t", list(false));
    let hidden = |column: &str| {
        format!("{from} WHERE t.{column} NOT IN (SELECT h.oid FROM {CATALOG}.hidden h)")
    };
    match name {
        "pg_class" => hidden("oid"),
        "pg_index" => hidden("indrelid"),
        "pg_inherits" => hidden("inhrelid"),
        "pg_rewrite" => hidden("ev_class"),
        "pg_trigger" => format!(
            "{} AND t.tgfoid NOT IN (SELECT f.oid FROM pg_catalog.pg_proc f \
             WHERE f.pronamespace IN ({}))",
            hidden("tgrelid"),
            own_schemas()
        ),
        "pg_constraint" => format!(
            "{} UNION ALL SELECT {} FROM pg_catalog.pg_constraint t \
             JOIN {CATALOG}.leaves l ON l.oid = t.conrelid \
             WHERE t.contype = 'f' AND t.conparentid = 0 AND l.oid = \
             (SELECT pg_catalog.min(m.oid) FROM {CATALOG}.leaves m WHERE m.parent = l.parent)",
            hidden("conrelid"),
            list(true)
        ),
        "pg_partitioned_table" => {
            format!("{from} WHERE t.partrelid NOT IN (SELECT s.oid FROM {CATALOG}.sharded s)")
        }
        "pg_proc" => format!("{from} WHERE t.pronamespace NOT IN ({})", own_schemas()),
        "pg_type" => format!(
            "{from} WHERE t.typnamespace NOT IN ({}) AND NOT (t.typrelid <> 0 \
             AND t.typrelid IN (SELECT h.oid FROM {CATALOG}.hidden_tables h)) \
             AND NOT (t.typelem <> 0 AND t.typcategory = 'A' AND EXISTS (SELECT \
             FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid \
             AND e.typrelid <> 0 AND e.typrelid IN (SELECT h.oid FROM {CATALOG}.hidden_tables h)))",
            own_schemas()
        ),
        // pg_dump puts a kept view behind the tables of its query.
        "pg_depend" => format!(
            "{from} UNION ALL SELECT {} FROM pg_catalog.pg_depend t JOIN {CATALOG}.kept_rules k \
             ON t.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND t.objid = k.query \
             WHERE t.refobjid <> k.view",
            list(true)
        ),
        _ => format!("{from} WHERE t.oid NOT IN ({})", own_schemas()),
    }
}

/// The OIDs of the proxy's own schemas, as a query.
fn own_schemas() -> String {
    let own = ["foreshard", kept::SCHEMA].into_iter().chain(CATALOG_SCHEMAS);
    let own: Vec<String> = own.map(|schema| Literal(schema).to_string()).collect();
    format!("SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname IN ({})", own.join(", "))
}

/// What a column shows instead of its value; `lifted` of a foreign key that only partitions have, and of
/// what a kept view depends on.
fn value(table: &str, column: &str, lifted: bool) -> Option<String> {
    let sharded = |then: &str| {
        let is = format!("t.oid IN (SELECT s.oid FROM {CATALOG}.sharded s)");
        Some(format!("CASE WHEN {is} THEN {then} ELSE t.{column} END"))
    };
    let indexes = format!(
        "SELECT x.indexrelid FROM pg_catalog.pg_index x \
         JOIN {CATALOG}.sharded s ON s.oid = x.indrelid"
    );
    let of_leaves = |what: &str, which: &str| {
        format!(
            "(SELECT {what} FROM pg_catalog.pg_class p JOIN {CATALOG}.leaves l ON l.oid = p.oid \
             WHERE l.parent = t.oid{which})"
        )
    };
    let numbers = |leaf: &str, parent: &str| {
        format!(
            "(SELECT pg_catalog.array_agg(coalesce(b.attnum, k.n) ORDER BY k.place) \
             FROM pg_catalog.unnest(t.{column}) WITH ORDINALITY AS k (n, place) \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {leaf} AND a.attnum = k.n \
             LEFT JOIN pg_catalog.pg_attribute b ON b.attrelid = {parent} AND b.attname = a.attname)"
        )
    };
    let target = format!(
        "coalesce((SELECT r.parent FROM {CATALOG}.leaves r WHERE r.oid = t.confrelid), t.confrelid)"
    );
    match (table, column) {
        ("pg_class", "relkind") => Some(format!(
            "CASE WHEN t.relkind = 'p' AND t.oid IN (SELECT s.oid FROM {CATALOG}.sharded s) \
             THEN 'r' WHEN t.relkind = 'I' AND t.oid IN ({indexes}) THEN 'i' ELSE t.relkind END"
        )),
        ("pg_class", "relam") => sharded("2"),
        ("pg_class", "relhassubclass") => Some(format!(
            "t.relhassubclass AND t.oid NOT IN (SELECT s.oid FROM {CATALOG}.sharded s) \
             AND t.oid NOT IN ({indexes})"
        )),
        ("pg_class", "relhastriggers") => sharded(&format!(
            "t.relhastriggers OR coalesce({}, false)",
            of_leaves("pg_catalog.bool_or(p.relhastriggers)", "")
        )),
        // The storage is that of the partitions.
        ("pg_class", "reloptions") => sharded(&format!(
            "coalesce(t.reloptions, {})",
            of_leaves("p.reloptions", " ORDER BY p.oid LIMIT 1")
        )),
        ("pg_depend", "objid") if lifted => Some("k.oid".to_owned()),
        // A foreign key depends on the index of what it references.
        ("pg_depend", "refobjid") => Some(format!(
            "CASE WHEN t.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass \
             AND t.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN \
             coalesce((SELECT i.inhparent FROM pg_catalog.pg_inherits i \
             JOIN pg_catalog.pg_index x ON x.indexrelid = i.inhparent \
             JOIN {CATALOG}.sharded s ON s.oid = x.indrelid WHERE i.inhrelid = t.refobjid), \
             t.refobjid) ELSE t.refobjid END"
        )),
        ("pg_constraint", "conrelid") if lifted => Some("l.parent".to_owned()),
        ("pg_constraint", "confrelid") if lifted => Some(target),
        ("pg_constraint", "conindid") if lifted => Some(format!(
            "CASE WHEN t.confrelid IN (SELECT r.oid FROM {CATALOG}.leaves r) THEN \
             coalesce((SELECT i.inhparent FROM pg_catalog.pg_inherits i \
             WHERE i.inhrelid = t.conindid), t.conindid) ELSE t.conindid END"
        )),
        ("pg_constraint", "conkey") if lifted => Some(numbers("t.conrelid", "l.parent")),
        ("pg_constraint", "confkey") if lifted => Some(numbers("t.confrelid", &target)),
        _ => None,
    }
}

/// The functions: they say the tables' names for those of partitions, and no ONLY.
const FUNCTION_DEFINITIONS: [&str; 10] = [
    "CREATE FUNCTION foreshard_catalog.pg_get_constraintdef(oid, boolean) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT coalesce((SELECT pg_catalog.replace(pg_catalog.pg_get_constraintdef($1, $2), \
     ' REFERENCES ' || c.confrelid::pg_catalog.regclass || '(', \
     ' REFERENCES ' || l.parent::pg_catalog.regclass || '(') \
     FROM pg_catalog.pg_constraint c JOIN foreshard_catalog.leaves l ON l.oid = c.confrelid \
     WHERE c.oid = $1), pg_catalog.pg_get_constraintdef($1, $2)) $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_constraintdef(oid) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT foreshard_catalog.pg_get_constraintdef($1, false) $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_indexdef(oid) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_index x \
     JOIN foreshard_catalog.sharded s ON s.oid = x.indrelid WHERE x.indexrelid = $1) \
     THEN pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef($1), ' ON ONLY ', ' ON ') \
     ELSE pg_catalog.pg_get_indexdef($1) END $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_indexdef(oid, integer, boolean) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT CASE WHEN $2 = 0 AND EXISTS (SELECT FROM pg_catalog.pg_index x \
     JOIN foreshard_catalog.sharded s ON s.oid = x.indrelid WHERE x.indexrelid = $1) \
     THEN pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef($1, $2, $3), ' ON ONLY ', ' ON ') \
     ELSE pg_catalog.pg_get_indexdef($1, $2, $3) END $$",
    // The view with the query that a kept view was made of.
    "CREATE FUNCTION foreshard_catalog.query_view(oid) RETURNS oid \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT coalesce((SELECT v.oid FROM pg_catalog.pg_rewrite w \
     JOIN pg_catalog.pg_class m ON m.oid = w.ev_class AND m.relkind = 'm' \
     JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
     AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
     JOIN pg_catalog.pg_class v ON v.oid = d.refobjid AND v.relkind = 'v' \
     AND v.relnamespace = pg_catalog.to_regnamespace('foreshard_kept') \
     WHERE w.ev_class = $1 LIMIT 1), $1) $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_viewdef(oid) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT pg_catalog.pg_get_viewdef(foreshard_catalog.query_view($1)) $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_viewdef(oid, boolean) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT pg_catalog.pg_get_viewdef(foreshard_catalog.query_view($1), $2) $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_viewdef(oid, integer) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ \
     SELECT pg_catalog.pg_get_viewdef(foreshard_catalog.query_view($1), $2) $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_viewdef(text) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ SELECT \
     pg_catalog.pg_get_viewdef(foreshard_catalog.query_view($1::pg_catalog.regclass)) $$",
    "CREATE FUNCTION foreshard_catalog.pg_get_viewdef(text, boolean) RETURNS text \
     LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$ SELECT \
     pg_catalog.pg_get_viewdef(foreshard_catalog.query_view($1::pg_catalog.regclass), $2) $$",
];
