//! The definitions of a plain table's partitioned twin: the same statements for the home node, where
//! it waits in a schema of its own, and for the others, where it gets the table's name at once.

use tokio_postgres::types::ToSql;

use super::super::error::MoveError;
use super::super::names::{list, quoted};
use super::super::session::Session;
use super::Plain;
use crate::ids::NodeId;
use crate::planner::sequence_start;
use crate::shard_map::Method;
use crate::sql::{Literal, TableName};

/// Columns as CREATE TABLE has them; `$2` is the schema, quoted, in which sequences of identity
/// columns are made.
const COLUMNS: &str = "SELECT format('%I %s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod), \
     CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN (SELECT format(' COLLATE %I.%I', \
     n.nspname, c.collname) FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace \
     WHERE c.oid = a.attcollation) ELSE '' END, \
     CASE WHEN a.attgenerated = 's' THEN format(' GENERATED ALWAYS AS (%s) STORED', \
     pg_get_expr(d.adbin, d.adrelid)) \
     WHEN a.attidentity <> '' THEN format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %s.%I START \
     WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s%s)', \
     CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, $2::text, s.relname, \
     q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, \
     CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END) \
     WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) ELSE '' END, \
     CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END) \
     FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     LEFT JOIN pg_depend own ON a.attidentity <> '' AND own.refclassid = 'pg_class'::regclass \
     AND own.refobjid = a.attrelid AND own.refobjsubid = a.attnum AND own.deptype = 'i' \
     AND own.classid = 'pg_class'::regclass \
     LEFT JOIN pg_class s ON s.oid = own.objid LEFT JOIN pg_sequence q ON q.seqrelid = s.oid \
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
const CHECKS: &str = "SELECT format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) \
     FROM pg_constraint WHERE conrelid = $1 AND contype = 'c' AND conname !~ '^foreshard_' \
     ORDER BY conname";
/// Everything beside, with the privileges that are granted by default taken back first; `$2` is the new table's name, `$3` its schema, both quoted.
const REST: &str = "WITH t AS (SELECT c.*, $2::text AS new FROM pg_class c WHERE c.oid = $1), \
     columns AS (SELECT a.*, t.new, y.typstorage FROM t JOIN pg_attribute a ON a.attrelid = t.oid \
     JOIN pg_type y ON y.oid = a.atttypid WHERE a.attnum > 0 AND NOT a.attisdropped), \
     keys AS (SELECT k.oid, k.conname, k.contype, t.new FROM t \
     JOIN pg_constraint k ON k.conrelid = t.oid AND k.conname !~ '^foreshard_'), \
     indexes AS (SELECT i.oid, i.relname, x.indisunique, t.new, substr(pg_get_indexdef(i.oid), \
     1 + length(format('CREATE %sINDEX %I ON %s%I.%I ', CASE WHEN x.indisunique THEN 'UNIQUE ' END, \
     i.relname, CASE WHEN t.relkind = 'p' THEN 'ONLY ' END, n.nspname, t.relname))) AS rest, EXISTS (SELECT FROM pg_constraint k \
     WHERE k.conindid = i.oid AND k.contype IN ('p', 'u', 'x')) AS of_key FROM t \
     JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_index x ON x.indrelid = t.oid \
     JOIN pg_class i ON i.oid = x.indexrelid), \
     triggers AS (SELECT g.oid, g.tgname, g.tgenabled, t.new, pg_get_triggerdef(g.oid) AS text, \
     format(' ON %I.%I ', n.nspname, t.relname) AS on_old FROM t \
     JOIN pg_namespace n ON n.oid = t.relnamespace \
     JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal), \
     policies AS (SELECT p.*, t.new FROM t JOIN pg_policy p ON p.polrelid = t.oid) \
     SELECT text FROM ( \
     SELECT 1 AS at, format('ALTER TABLE %s OWNER TO %I', new, pg_get_userbyid(relowner)) AS text FROM t \
     UNION ALL SELECT 2, format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE %s', new, attname, \
     CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' \
     ELSE 'EXTENDED' END) FROM columns WHERE attstorage <> typstorage \
     UNION ALL SELECT 2, format('ALTER TABLE %s ALTER COLUMN %I SET COMPRESSION %s', new, attname, \
     CASE attcompression WHEN 'p' THEN 'pglz' ELSE 'lz4' END) FROM columns WHERE attcompression <> '' \
     UNION ALL SELECT 2, format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', new, attname, \
     attstattarget) FROM columns WHERE attstattarget >= 0 \
     UNION ALL SELECT 3, format('ALTER TABLE %s ADD CONSTRAINT %I %s', new, conname, \
     pg_get_constraintdef(oid)) FROM keys WHERE contype IN ('p', 'u') \
     UNION ALL SELECT 4, format('CREATE %sINDEX %I ON %s %s', \
     CASE WHEN indisunique THEN 'UNIQUE ' END, relname, new, rest) FROM indexes WHERE NOT of_key \
     UNION ALL SELECT 5, overlay(text PLACING format(' ON %s ', new) \
     FROM strpos(text, on_old) FOR length(on_old)) FROM triggers \
     UNION ALL SELECT 6, format('ALTER TABLE %s %s TRIGGER %I', new, CASE tgenabled \
     WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, tgname) \
     FROM triggers WHERE tgenabled <> 'O' \
     UNION ALL SELECT 7, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', new) FROM t WHERE relrowsecurity \
     UNION ALL SELECT 7, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', new) FROM t \
     WHERE relforcerowsecurity \
     UNION ALL SELECT 8, concat(format('CREATE POLICY %I ON %s AS %s FOR %s TO ', polname, new, \
     CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, \
     CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' \
     WHEN 'd' THEN 'DELETE' ELSE 'ALL' END), \
     (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', ') \
     FROM unnest(polroles) AS role), \
     ' USING (' || pg_get_expr(polqual, polrelid) || ')', \
     ' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')') FROM policies \
     UNION ALL SELECT 8, format('DO %L', format('DECLARE r text; BEGIN FOR r IN SELECT DISTINCT CASE grantee \
     WHEN 0 THEN ''PUBLIC'' ELSE quote_ident(pg_get_userbyid(grantee)) END FROM pg_catalog.pg_class c, \
     pg_catalog.aclexplode(c.relacl) WHERE c.oid = %L::regclass AND grantee <> c.relowner LOOP \
     EXECUTE ''REVOKE ALL ON TABLE '' || %L || '' FROM '' || r; END LOOP; END', new, new)) FROM t \
     UNION ALL SELECT 9, format('REVOKE ALL ON TABLE %s FROM %I', new, pg_get_userbyid(relowner)) \
     FROM t WHERE relacl IS NOT NULL \
     UNION ALL SELECT 10, format('GRANT %s ON TABLE %s TO %s%s', privilege_type, new, \
     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END) FROM t, aclexplode(relacl) \
     UNION ALL SELECT 11, format('GRANT %s (%I) ON TABLE %s TO %s%s', privilege_type, attname, new, \
     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END) FROM columns, aclexplode(attacl) \
     UNION ALL SELECT 12, format('COMMENT ON TABLE %s IS %L', new, obj_description(oid, 'pg_class')) \
     FROM t WHERE obj_description(oid, 'pg_class') IS NOT NULL \
     UNION ALL SELECT 12, format('COMMENT ON COLUMN %s.%I IS %L', new, attname, \
     col_description(attrelid, attnum)) FROM columns WHERE col_description(attrelid, attnum) IS NOT NULL \
     UNION ALL SELECT 12, format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, new, \
     obj_description(oid, 'pg_constraint')) FROM keys \
     WHERE contype IN ('p', 'u', 'c') AND obj_description(oid, 'pg_constraint') IS NOT NULL \
     UNION ALL SELECT 12, format('COMMENT ON INDEX %s.%I IS %L', $3::text, relname, \
     obj_description(oid, 'pg_class')) FROM indexes WHERE obj_description(oid, 'pg_class') IS NOT NULL \
     UNION ALL SELECT 12, format('COMMENT ON TRIGGER %I ON %s IS %L', tgname, new, \
     obj_description(oid, 'pg_trigger')) FROM triggers WHERE obj_description(oid, 'pg_trigger') IS NOT NULL \
     UNION ALL SELECT 12, format('COMMENT ON POLICY %I ON %s IS %L', polname, new, \
     obj_description(oid, 'pg_policy')) FROM policies WHERE obj_description(oid, 'pg_policy') IS NOT NULL \
     ) AS all_of_it ORDER BY at, text";
/// Sequences that the table's defaults take numbers from, and those of its identity columns: schema,
/// name, whether of an identity column, the column that owns it, the type's largest number, how
/// CREATE SEQUENCE makes it, its owner, and its grants.
const SEQUENCES: &str = "SELECT DISTINCT n.nspname::text, s.relname::text, \
     coalesce(own.deptype = 'i', false), o.attname::text, least(q.seqmax, CASE o.atttypid \
     WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 \
     ELSE 9223372036854775807 END)::bigint, \
     format('AS %s START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s%s', \
     format_type(q.seqtypid, NULL), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, \
     CASE WHEN q.seqcycle THEN ' CYCLE' END), pg_get_userbyid(s.relowner)::text, \
     array(SELECT format('GRANT %s ON SEQUENCE %%s TO %s%s', privilege_type, \
     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END) FROM aclexplode(s.relacl) ORDER BY 1) \
     FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace \
     JOIN pg_sequence q ON q.seqrelid = s.oid \
     LEFT JOIN pg_depend own ON own.classid = 'pg_class'::regclass AND own.objid = s.oid \
     AND own.refclassid = 'pg_class'::regclass AND own.refobjid = $1 AND own.deptype IN ('a', 'i') \
     LEFT JOIN pg_attribute o ON o.attrelid = own.refobjid AND o.attnum = own.refobjsubid \
     WHERE s.relkind = 'S' AND (own.objid IS NOT NULL OR EXISTS (SELECT FROM pg_attrdef d \
     JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid \
     WHERE d.adrelid = $1 AND u.refclassid = 'pg_class'::regclass AND u.refobjid = s.oid)) \
     ORDER BY 1, 2";
/// Functions that users made and that the table calls: by triggers, defaults, checks, indexes,
/// policies. As statements.
const FUNCTIONS: &str = "SELECT rtrim(pg_get_functiondef(p.oid)), format('ALTER FUNCTION %s OWNER TO %I', \
     p.oid::regprocedure, pg_get_userbyid(p.proowner)) FROM pg_proc p WHERE p.oid >= 16384 \
     AND p.prokind = 'f' AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass \
     AND e.objid = p.oid AND e.deptype = 'e') AND p.oid IN ( \
     SELECT tgfoid FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal UNION \
     SELECT d.refobjid FROM pg_depend d WHERE d.refclassid = 'pg_proc'::regclass AND ( \
     d.classid = 'pg_attrdef'::regclass AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = $1) \
     OR d.classid = 'pg_constraint'::regclass \
     AND d.objid IN (SELECT oid FROM pg_constraint WHERE conrelid = $1) \
     OR d.classid = 'pg_class'::regclass AND d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = $1) \
     OR d.classid = 'pg_policy'::regclass AND d.objid IN (SELECT oid FROM pg_policy WHERE polrelid = $1))) \
     ORDER BY p.oid";

/// A sequence of a table.
struct Sequence {
    schema: String,
    name: String,
    of_identity: bool,
    /// The column that it belongs to.
    column: Option<String>,
    /// The largest number that it can give.
    limit: i64,
    made: String,
    owner: String,
    grants: Vec<String>,
}

/// Where the twin is made.
#[derive(Clone, Copy)]
pub(in super::super) enum Place<'a> {
    /// On the home node, in this schema, beside the plain table.
    Beside(&'a str),
    /// On this other node, under the table's own name.
    Node(NodeId),
}

/// The statements that make a table's partitioned twin at a place, without partitions, as the home
/// node's catalog says now.
pub(in super::super) async fn statements(
    home: &Session,
    table: &Plain,
    method: Method,
    place: Place<'_>,
) -> Result<Vec<String>, MoveError> {
    let schema = match place {
        Place::Beside(schema) => schema,
        Place::Node(_) => table.name.schema.as_str(),
    };
    let (new, schema) = (TableName::new(schema, table.name.name.as_str()), quoted(schema));
    let mut columns = texts(home, COLUMNS, &[&table.oid, &schema]).await?;
    columns.extend(texts(home, CHECKS, &[&table.oid]).await?);
    let sequences = sequences(home, table.oid).await?;
    let mut all = Vec::new();
    if let Place::Node(_) = place {
        for row in home.rows("reading functions", FUNCTIONS, &[&table.oid]).await? {
            all.extend([row.get::<_, String>(0), row.get(1)]);
        }
        all.extend(sequences.iter().filter(|it| !it.of_identity).map(|sequence| {
            let name = TableName::new(sequence.schema.as_str(), sequence.name.as_str());
            format!("CREATE SEQUENCE IF NOT EXISTS {name} {}", sequence.made)
        }));
    }
    let columns = columns.join(", ");
    let (method, key) = (method.word().to_uppercase(), list(&table.key));
    all.push(format!("CREATE TABLE {new} ({columns}) PARTITION BY {method} ({key})"));
    let new_name = new.to_string();
    all.extend(texts(home, REST, &[&table.oid, &new_name, &schema]).await?);
    for sequence in &sequences {
        all.extend(sequence.finish(&new, place));
    }
    Ok(all)
}

impl Sequence {
    /// What follows the table that it belongs to. On the home node a sequence that is no identity's
    /// stays the one that it is.
    fn finish(&self, table: &TableName, place: Place<'_>) -> Vec<String> {
        let (schema, node) = match place {
            Place::Beside(_) if !self.of_identity => return Vec::new(),
            Place::Beside(schema) => (schema, None),
            Place::Node(node) => (self.schema.as_str(), Some(node)),
        };
        let name = TableName::new(schema, self.name.as_str()).to_string();
        let mut all = Vec::new();
        if !self.of_identity {
            all.push(format!("ALTER SEQUENCE {name} OWNER TO {}", quoted(&self.owner)));
            if let Some(column) = &self.column {
                all.push(format!("ALTER SEQUENCE {name} OWNED BY {table}.{}", quoted(column)));
            }
        }
        all.extend(self.grants.iter().map(|grant| grant.replacen("%s", &name, 1)));
        if let Some(node) = node {
            let start = sequence_start(self.limit, node);
            all.push(format!("SELECT pg_catalog.setval({}, {start})", Literal(&name)));
        }
        all
    }
}

async fn sequences(home: &Session, oid: u32) -> Result<Vec<Sequence>, MoveError> {
    let rows = home.rows("reading sequences", SEQUENCES, &[&oid]).await?;
    let sequence = |row: &tokio_postgres::Row| Sequence {
        schema: row.get(0),
        name: row.get(1),
        of_identity: row.get(2),
        column: row.get(3),
        limit: row.get(4),
        made: row.get(5),
        owner: row.get(6),
        grants: row.get(7),
    };
    Ok(rows.iter().map(sequence).collect())
}

/// The first column of each row.
pub(in super::super) async fn texts(
    session: &Session,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<String>, MoveError> {
    let rows = session.rows("reading definitions", sql, parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
