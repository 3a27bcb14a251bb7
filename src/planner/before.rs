//! What of two tables speaks against writing the one before the other, where PostgreSQL writes both in
//! one statement whose parts see nothing of each other, and whose constraints are looked at when all is done.

use crate::router::{Before, Written};
use crate::sql::Literal;

/// Foreign keys, between tables and not their partitions, and what they lead to.
const LINKS: &str = "\
    links (child, parent, of_child, of_parent, follows) AS (\
    SELECT coalesce(c.inhparent, k.conrelid), coalesce(p.inhparent, k.confrelid), \
    (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a \
    WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)), \
    (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a \
    WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)), \
    k.confdeltype NOT IN ('a', 'r') OR k.confupdtype NOT IN ('a', 'r') \
    FROM pg_catalog.pg_constraint k LEFT JOIN pg_catalog.pg_inherits c ON c.inhrelid = k.conrelid \
    LEFT JOIN pg_catalog.pg_inherits p ON p.inhrelid = k.confrelid WHERE k.contype = 'f'), \
    gone (t) AS (SELECT l.child FROM links l JOIN written w ON l.parent = w.t \
    WHERE l.follows AND (w.deletes OR w.sets && l.of_parent) \
    UNION SELECT l.child FROM gone g JOIN links l ON l.parent = g.t WHERE l.follows), \
    touched (t) AS (SELECT t FROM written UNION SELECT t FROM later UNION SELECT t FROM gone) ";

/// What speaks against it in any case.
const BETWEEN: &str = "\
    SELECT 'both are the same table' FROM written JOIN later USING (t) \
    UNION ALL SELECT 'a table is not known' FROM touched WHERE t IS NULL \
    UNION ALL SELECT 'there is a foreign key between them' FROM links l, written w, later o \
    WHERE l.child = w.t AND l.parent = o.t AND (w.inserts OR w.sets && l.of_child) \
    OR l.child = o.t AND l.parent = w.t AND (w.deletes OR w.sets && l.of_parent)";

/// What speaks against it where rows are changed or deleted afterwards. A trigger is harmless where its code
/// plainly computes something of its row.
const BEHIND: &str = "\
    UNION ALL SELECT 'rows of the one go with those of the other' FROM gone JOIN later USING (t) \
    UNION ALL SELECT 'there is row security' FROM pg_catalog.pg_class c JOIN touched ON c.oid = t \
    WHERE c.relrowsecurity \
    UNION ALL SELECT 'there is a rule' FROM pg_catalog.pg_rewrite r JOIN touched ON r.ev_class = t \
    UNION ALL SELECT 'there is inheritance' FROM pg_catalog.pg_class c JOIN touched ON c.oid = t \
    WHERE c.relkind NOT IN ('r', 'p') OR c.relkind = 'r' AND (c.relhassubclass OR c.relispartition) \
    UNION ALL SELECT 'there is a trigger' FROM pg_catalog.pg_trigger g JOIN touched ON g.tgrelid = t \
    JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid \
    JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace \
    JOIN pg_catalog.pg_language l ON l.oid = f.prolang \
    WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND n.nspname NOT IN ('foreshard', 'pg_catalog') \
    AND NOT (l.lanname = 'plpgsql' AND coalesce(g.tgqual::text !~ ':funcid', true) \
    AND pg_catalog.regexp_replace(f.prosrc, 'distinct\\s+from', '', 'gi') !~* \
    '\\m(select|insert|update|delete|merge|perform|execute|call|from|table|truncate|copy)\\M' \
    AND pg_catalog.regexp_replace(f.prosrc, '\\m(now|clock_timestamp|statement_timestamp|lower|upper\
    |initcap|trim|btrim|length|coalesce|nullif|greatest|least|round|concat|if|elsif|and|or|not|in|when)\
    \\s*\\(', '', 'gi') !~ '[[:alnum:]_\"]\\s*\\(')";

/// Asks a node for what speaks against the write before the others, a text a row. `home` says that it is
/// the home node; `None` where there is nothing to ask.
pub fn obstacles(before: &Before, home: bool) -> Option<String> {
    let here = |table: &&Written| home || !table.home;
    let later: Vec<String> = before.others.iter().filter(here).map(oid).collect();
    let write = Some(&before.write).filter(here)?;
    if later.is_empty() {
        return None;
    }
    let sets: Vec<String> = write.sets.iter().map(|name| Literal(name).to_string()).collect();
    let behind = if before.adds { "" } else { BEHIND };
    Some(format!(
        "WITH RECURSIVE written (t, inserts, deletes, sets) AS (\
         SELECT {}, {}, {}, ARRAY[{}]::pg_catalog.text[]), \
         later (t) AS (VALUES ({})), {LINKS} {BETWEEN} {behind}",
        oid(write),
        write.inserts,
        write.deletes,
        sets.join(", "),
        later.join("), (")
    ))
}

fn oid(table: &Written) -> String {
    format!("pg_catalog.to_regclass({})::pg_catalog.oid", Literal(&table.name))
}
