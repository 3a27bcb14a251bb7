//! What keeps plain tables from being imported: all reasons, each with what to do about it.

use super::super::error::MoveError;
use super::super::names::list;
use super::super::session::Session;
use super::Plain;
use super::define::texts;
use crate::shard_map::{KeyType, Method, ShardMap, TableKind};
use crate::shard_move::Import;
use crate::sql::TableName;

/// Reasons that the catalog knows, by the tables' object ids.
const REASONS: [&str; 11] = [
    // What the table is.
    "SELECT c.oid::regclass || CASE WHEN c.relkind = 'p' \
     THEN ' is partitioned already: make it anew through foreshard, and COPY its rows into it' \
     WHEN c.relkind <> 'r' THEN ' is no table' \
     WHEN c.relispartition THEN ' is a partition of another table: DETACH it' \
     WHEN c.relpersistence <> 'p' THEN ' is unlogged: ALTER TABLE … SET LOGGED' \
     WHEN c.reloftype <> 0 THEN ' is of a type: ALTER TABLE … NOT OF' \
     ELSE ' takes part in inheritance: ALTER TABLE … NO INHERIT' END FROM pg_class c \
     WHERE c.oid = ANY ($1) AND (c.relkind <> 'r' OR c.relpersistence <> 'p' OR c.relispartition \
     OR c.reloftype <> 0 \
     OR EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)))",
    "SELECT objid::regclass || ' belongs to an extension' FROM pg_depend \
     WHERE classid = 'pg_class'::regclass AND objid = ANY ($1) AND deptype = 'e'",
    // Constraints that partitioned tables do not have, or not like this.
    "SELECT format('constraint %I of %s %s', conname, conrelid::regclass, CASE \
     WHEN contype = 'x' THEN 'excludes rows, which partitions can''t do together: drop it' \
     WHEN connoinherit THEN 'is NO INHERIT: make it anew without that' \
     ELSE 'is not validated: ALTER TABLE … VALIDATE CONSTRAINT' END) FROM pg_constraint \
     WHERE conrelid = ANY ($1) AND conname !~ '^foreshard_' AND (contype = 'x' OR contype = 'c' \
     AND (connoinherit OR NOT convalidated) OR contype = 'f' AND NOT convalidated)",
    "SELECT indexrelid::regclass || ' is no valid index: REINDEX or drop it' FROM pg_index \
     WHERE indrelid = ANY ($1) AND NOT (indisvalid AND indisready)",
    "SELECT format('trigger %I of %s is FOR EACH STATEMENT, or has transition tables: it would run on each \
     node that has rows, and see the rows of that node only; make it FOR EACH ROW, without REFERENCING', \
     t.tgname, t.tgrelid::regclass) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
     WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND p.pronamespace <> \
     coalesce(to_regnamespace('foreshard'), 0) AND (t.tgtype & 1 = 0 OR t.tgoldtable IS NOT NULL \
     OR t.tgnewtable IS NOT NULL)",
    "SELECT format('trigger %I of %s calls %s, which asks for its table''s name: on a partition that is \
     the partition''s; give it as an argument of the trigger instead (TG_ARGV[0])', t.tgname, \
     t.tgrelid::regclass, p.oid::regprocedure) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
     WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgtype & 1 = 1 \
     AND p.prosrc ~* '\\mtg_(table_name|relname|relid)\\M'",
    "SELECT format('trigger %I of %s calls %s, which would look for rows of one node only: declare a foreign \
     key instead', t.tgname, t.tgrelid::regclass, p.oid::regprocedure) FROM pg_trigger t \
     JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c' \
     WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal \
     AND p.prosrc IN ('check_primary_key', 'check_foreign_key')",
    // What would be left with the old table.
    "SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0) || ' uses the row type of ' \
     || c.oid::regclass || ': drop it, and make it again afterwards' FROM pg_class c \
     JOIN pg_type t ON t.oid = c.reltype JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass \
     AND d.refobjid IN (t.oid, t.typarray) AND d.deptype = 'n' WHERE c.oid = ANY ($1)",
    "SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0) || ' depends on ' || d.refobjid::regclass \
     || ' itself: drop it, and make it again afterwards if that is possible then' FROM pg_depend d \
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1) AND ( \
     d.classid IN ('pg_proc'::regclass, 'pg_publication_rel'::regclass) \
     OR d.classid = 'pg_rewrite'::regclass AND NOT EXISTS (SELECT FROM pg_rewrite r \
     JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v' \
     WHERE r.oid = d.objid AND r.rulename = '_RETURN') \
     OR d.classid = 'pg_policy'::regclass AND NOT EXISTS (SELECT FROM pg_policy p \
     WHERE p.oid = d.objid AND p.polrelid = d.refobjid)) \
     UNION ALL SELECT format('publication %I publishes %s, which is going to be several tables: ', \
     p.pubname, c.oid::regclass) || 'drop it, and make one for other tables' FROM pg_publication p \
     JOIN pg_class c ON c.oid = ANY ($1) WHERE p.puballtables OR EXISTS ( \
     SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace)",
    "SELECT format('a subscription writes %s: drop it', srrelid::regclass) FROM pg_subscription_rel \
     WHERE srrelid = ANY ($1) UNION ALL SELECT DISTINCT objoid::regclass || ' has a security label, which \
     would be lost: SECURITY LABEL … IS NULL' FROM pg_seclabel \
     WHERE classoid = 'pg_class'::regclass AND objoid = ANY ($1)",
    "SELECT format('policy %I of %s asks other rows by a sub-SELECT, and a node has only some: ', \
     polname, polrelid::regclass) || 'write it without one' FROM pg_policy \
     WHERE polrelid = ANY ($1) AND concat(pg_get_expr(polqual, polrelid), \
     pg_get_expr(polwithcheck, polrelid)) ~* '\\mselect\\M'",
];
/// The columns of a key: name, type, whether it has a modifier, whether it may be NULL, whether it is
/// generated, and its collation.
const KEY: &str = "SELECT a.attname::text, format_type(a.atttypid, NULL), a.atttypmod <> -1, \
     NOT a.attnotnull, a.attgenerated <> '', coalesce(c.collname::text, '') FROM pg_attribute a \
     LEFT JOIN pg_collation c ON c.oid = a.attcollation \
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($2)";
/// Unique indexes: name, its constraint's kind if there is one, the columns that it compares.
const UNIQUE: &str = "SELECT i.relname::text, coalesce(k.contype::text, ''), array(SELECT a.attname::text \
     FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS key (attnum, at) \
     LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = key.attnum AND key.attnum > 0 \
     WHERE key.at <= x.indnkeyatts ORDER BY key.at) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
     LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.conrelid = x.indrelid \
     AND k.contype IN ('p', 'u') WHERE x.indrelid = $1 AND x.indisunique ORDER BY 1";
/// Foreign keys from or to some tables: name, both tables, and their columns in pairs.
const FOREIGN: &str = "SELECT k.conname::text, fn.nspname::text, f.relname::text, tn.nspname::text, \
     t.relname::text, array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (n, at) \
     JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.n ORDER BY at), \
     array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS c (n, at) \
     JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.n ORDER BY at) \
     FROM pg_constraint k JOIN pg_class f ON f.oid = k.conrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace \
     JOIN pg_class t ON t.oid = k.confrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace \
     WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = ANY ($1) OR k.confrelid = ANY ($1)) \
     ORDER BY 2, 3, 1";

/// All that speaks against the import of these tables, as far as the home node's catalog tells.
pub(super) async fn reasons(
    home: &Session,
    map: &ShardMap,
    import: &Import,
    tables: &[Plain],
) -> Result<Vec<String>, MoveError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut all = Vec::new();
    for sql in REASONS {
        all.extend(texts(home, sql, &[&oids]).await?);
    }
    all.extend(of_columns(home, import, tables).await?);
    all.extend(of_foreign_keys(home, map, tables, &oids).await?);
    Ok(all)
}

/// All that speaks against another shard key for these partitioned tables, as far as any node's catalog
/// tells.
pub(in super::super) async fn of_partitioned(
    session: &Session,
    oids: &[u32],
) -> Result<Vec<String>, MoveError> {
    let mut all = Vec::new();
    for sql in &REASONS[1..] {
        all.extend(texts(session, sql, &[&oids]).await?);
    }
    Ok(all)
}

/// All that keeps these tables' columns and unique indexes from this shard key.
pub(in super::super) async fn of_columns(
    home: &Session,
    import: &Import,
    tables: &[Plain],
) -> Result<Vec<String>, MoveError> {
    let mut all = Vec::new();
    let method = import.bounds.first().and_then(crate::shard_map::Bounds::method);
    for table in tables {
        all.extend(of_key(home, import, table, method).await?);
        all.extend(of_unique(home, table).await?);
    }
    let others = |it: &crate::shard_map::Bounds| matches!(it, crate::shard_map::Bounds::Others(_));
    if method == Some(Method::List) && !import.bounds.iter().any(others) {
        all.push(format!(
            "group {} has no shard for values that it does not list, and the tables may have some: \
             say default: true",
            import.group
        ));
    }
    Ok(all)
}

async fn of_key(
    home: &Session,
    import: &Import,
    table: &Plain,
    method: Option<Method>,
) -> Result<Vec<String>, MoveError> {
    let rows = home.rows("looking at the key", KEY, &[&table.oid, &table.key]).await?;
    let (mut reasons, name) = (Vec::new(), &table.name);
    for (column, key_type) in table.key.iter().zip(&import.key) {
        let found = rows.iter().find(|row| row.get::<_, &str>(0) == column);
        let Some(row) = found else {
            reasons.push(format!(
                "{name} lacks the shard key column {column:?} of type {}: add it, and fill it",
                key_type.name()
            ));
            continue;
        };
        let (type_name, sized, nullable): (&str, bool, bool) = (row.get(1), row.get(2), row.get(3));
        let collation: &str = row.get(5);
        match KeyType::from_name(type_name) {
            Some(found) if found == *key_type => {}
            Some(_) => reasons.push(format!(
                "the shard key {column:?} of {name} is of type {type_name}, the policy says {}: \
                 change the policy",
                key_type.name()
            )),
            None => reasons.push(format!(
                "the shard key {column:?} of {name} is of type {type_name}, by which rows can't be \
                 told apart on all nodes alike: smallint, integer, bigint, text, varchar, uuid, date and \
                 timestamptz can be shard keys, domains, enums and other types can't"
            )),
        }
        if *key_type == KeyType::Timestamptz && sized {
            reasons.push(format!("the shard key {column:?} of {name} is rounded by its precision"));
        }
        if row.get(4) {
            reasons.push(format!("the shard key {column:?} of {name} is generated"));
        }
        let bytewise = ["C", "POSIX"].contains(&collation);
        let usual = ["", "default"].contains(&collation);
        let by_range = method == Some(Method::Range);
        if by_range && *key_type == KeyType::Text && !bytewise || !bytewise && !usual {
            reasons.push(format!(
                "the shard key {column:?} of {name} has the collation {collation}, in which texts \
                 are ordered or equal in another way: ALTER TABLE {name} ALTER {column} TYPE {} \
                 COLLATE \"C\"",
                key_type.name()
            ));
        }
        if by_range && nullable {
            reasons.push(format!(
                "the shard key {column:?} of {name} may be NULL, which is in no range: ALTER TABLE \
                 {name} ALTER {column} SET NOT NULL"
            ));
        }
    }
    Ok(reasons)
}

/// Uniqueness over all shards can't be kept by each alone.
async fn of_unique(home: &Session, table: &Plain) -> Result<Vec<String>, MoveError> {
    let mut reasons = Vec::new();
    for row in home.rows("looking at unique indexes", UNIQUE, &[&table.oid]).await? {
        let (index, kind): (String, String) = (row.get(0), row.get(1));
        let columns: Vec<Option<String>> = row.get(2);
        let columns: Vec<String> = columns.into_iter().flatten().collect();
        if table.key.iter().all(|key| columns.contains(key)) {
            continue;
        }
        let missing = table.key.iter().filter(|key| !columns.contains(key));
        let all = list(missing.chain(&columns));
        let (name, quoted) = (&table.name, super::super::names::quoted(&index));
        let (what, fix) = match kind.as_str() {
            "p" => (
                "the primary key",
                format!("ALTER TABLE {name} DROP CONSTRAINT {quoted}, ADD PRIMARY KEY ({all})"),
            ),
            "u" => (
                "the unique constraint",
                format!("ALTER TABLE {name} DROP CONSTRAINT {quoted}, ADD UNIQUE ({all})"),
            ),
            _ => (
                "the unique index",
                format!(
                    "CREATE UNIQUE INDEX CONCURRENTLY ON {name} ({all}); DROP INDEX {}",
                    TableName::new(name.schema.as_str(), index.as_str())
                ),
            ),
        };
        reasons.push(format!("{what} {quoted} of {name} lacks the shard key: {fix}"));
    }
    Ok(reasons)
}

async fn of_foreign_keys(
    home: &Session,
    map: &ShardMap,
    tables: &[Plain],
    oids: &[u32],
) -> Result<Vec<String>, MoveError> {
    let imported = |name: &TableName| tables.iter().find(|table| table.name == *name);
    let mut reasons = Vec::new();
    for row in home.rows("looking at foreign keys", FOREIGN, &[&oids]).await? {
        let key: String = row.get(0);
        let from = TableName::new(row.get::<_, String>(1), row.get::<_, String>(2));
        let to = TableName::new(row.get::<_, String>(3), row.get::<_, String>(4));
        let (columns, others): (Vec<String>, Vec<String>) = (row.get(5), row.get(6));
        let what = format!("foreign key {key} of {from} references {to}");
        match (imported(&from), imported(&to)) {
            (Some(from), Some(to)) => {
                let pairs = |a: &String, b: &String| {
                    columns.iter().zip(&others).any(|(own, other)| own == a && other == b)
                };
                if !from.key.iter().zip(&to.key).all(|(a, b)| pairs(a, b)) {
                    reasons.push(format!(
                        "{what} without the shard key, so that rows could be on two nodes: it has to \
                         pair ({}) with ({}), beside what it pairs now, for which {} needs a unique \
                         key with both",
                        list(&from.key),
                        list(&to.key),
                        to.name
                    ));
                }
            }
            (None, _) => reasons.push(format!(
                "{what}, but {from} is not imported: add it to the group, or drop the key"
            )),
            (_, None) => {
                let whole = map.table(&to).is_some_and(|to| to.kind == TableKind::Reference);
                let is_sharded = map.table(&to).is_some() && !whole;
                if is_sharded {
                    reasons.push(format!(
                        "{what}, which is sharded already: drop the key, and add it again afterwards"
                    ));
                } else if !whole {
                    reasons.push(format!(
                        "{what}, which is no table of the group: add it, declare it as a reference \
                         table, or drop the key"
                    ));
                }
            }
        }
    }
    Ok(reasons)
}
