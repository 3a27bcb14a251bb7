//! The last step on the home node, in one transaction: the plain table gets the name of a partition,
//! its twin the table's name, and the one is attached to the other.

use super::super::error::MoveError;
use super::super::look;
use super::super::names::quoted;
use super::super::session::Session;
use super::define::texts;
use super::{Plain, helper_check};
use crate::ids::{JobId, ShardId};
use crate::shard_map::{Bounds, leaf_name};
use crate::sql::{Literal, TableName};

/// What only the parent is to have: it is taken from the partition. `$2` is its name, quoted.
const STRIP: &str = "SELECT text FROM ( \
     SELECT 1 AS at, format('DROP TRIGGER %I ON %s', tgname, $2::text) AS text FROM pg_trigger \
     WHERE tgrelid = $1 AND NOT tgisinternal \
     UNION ALL SELECT 1, format('DROP POLICY %I ON %s', polname, $2) FROM pg_policy WHERE polrelid = $1 \
     UNION ALL SELECT 2, format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY', \
     $2) FROM pg_class WHERE oid = $1 AND (relrowsecurity OR relforcerowsecurity) \
     UNION ALL SELECT DISTINCT 3, format('REVOKE ALL ON TABLE %s FROM %s', $2, \
     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) \
     FROM pg_class c, LATERAL (SELECT * FROM aclexplode(c.relacl) UNION ALL SELECT e.* \
     FROM pg_attribute a, aclexplode(a.attacl) e WHERE a.attrelid = c.oid AND NOT a.attisdropped) g \
     WHERE c.oid = $1 AND grantee <> c.relowner) s ORDER BY at, text";
/// Sequences of identity columns: name, column, and an increment that changes nothing.
pub(in super::super) const IDENTITIES: &str = "SELECT s.relname::text, a.attname::text, q.seqincrement FROM pg_attribute a \
     JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
     AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i' \
     JOIN pg_class s ON s.oid = d.objid JOIN pg_sequence q ON q.seqrelid = s.oid \
     WHERE a.attrelid = $1 AND a.attidentity <> ''";
/// Sequences that belong to columns: schema, name, column.
pub(in super::super) const SERIALS: &str = "SELECT n.nspname::text, s.relname::text, a.attname::text FROM pg_depend d \
     JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace \
     JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
     AND d.refobjid = $1 AND d.deptype = 'a'";
const INDEXES: &str = "SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
     WHERE x.indrelid = $1 ORDER BY 1";
/// Views that read one of the tables, as they are made.
pub(in super::super) const VIEWS: &str = "SELECT format('CREATE OR REPLACE VIEW %I.%I %sAS %s', n.nspname, v.relname, \
     CASE WHEN v.reloptions IS NOT NULL THEN format('WITH (%s) ', (SELECT string_agg(format('%s = %L', \
     split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') FROM unnest(v.reloptions) o)) END, \
     rtrim(pg_get_viewdef(v.oid), ';')) FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace \
     WHERE v.relkind = 'v' AND v.oid IN (SELECT r.ev_class FROM pg_depend d \
     JOIN pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass \
     AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1)) ORDER BY v.oid";
/// Who waits for one of the tables to change its definition: what waits would be done to the twin, on
/// this node alone.
pub(in super::super) const WAITING: &str = "SELECT 'a statement that changes ' || l.relation::regclass || ' waits' \
     FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = ANY ($1) AND NOT l.granted \
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')";
/// Autovacuum gives way to those who wait long for a lock; the step waits for milliseconds.
const STOP_VACUUM: &str = "SELECT pg_cancel_backend(l.pid)::text FROM pg_locks l \
     JOIN pg_stat_activity a ON a.pid = l.pid AND a.backend_type = 'autovacuum worker' \
     WHERE l.locktype = 'relation' AND l.relation = ANY ($1) AND l.granted";
/// Who has held a lock on one of the tables for the longest.
const HOLDERS: &str = "SELECT format('session %s of %s (%s) uses %s', a.pid, coalesce(a.usename, 'nobody'), \
     coalesce(a.state, a.backend_type), l.relation::regclass) FROM pg_locks l \
     JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'relation' AND l.relation = ANY ($1) \
     AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND a.pid <> pg_backend_pid() ORDER BY a.xact_start LIMIT 1";
/// The longest that any statement of the step may take, in ms: it has nothing to look through.
const STATEMENT_TIMEOUT_MS: u64 = 2_000;

/// Everything that the step does, read before anybody waits.
pub(super) struct Swap {
    oids: Vec<u32>,
    names: Vec<String>,
    /// The tables' definitions as they were when this was read.
    shape: String,
    statements: Vec<String>,
}

/// Why a try of the step came to nothing; nothing has changed then.
pub(super) enum Obstacle {
    /// Others hold locks, or wait for some.
    Passing(String),
    /// Definitions were changed meanwhile.
    Changed,
    /// It failed.
    Failed(MoveError),
}

impl From<MoveError> for Obstacle {
    fn from(error: MoveError) -> Self {
        if error.is_lock_timeout() {
            return Self::Passing("transactions that use the tables do not end in time".to_owned());
        }
        Self::Failed(error)
    }
}

impl Swap {
    /// Reads what is to be done to the tables on the home node.
    pub(super) async fn read(
        home: &Session,
        tables: &[Plain],
        (job, beside): (JobId, &str),
        (shard, bounds): (ShardId, &Bounds),
    ) -> Result<Self, MoveError> {
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let mut statements = Vec::new();
        for table in tables {
            statements.extend(of_table(home, table, beside, shard).await?);
        }
        for table in tables {
            let (name, leaf) = (&table.name, leaf_name(&table.name, shard));
            let values = bounds.for_values(table.key.len());
            statements.push(format!("ALTER TABLE {name} ATTACH PARTITION {leaf} {values}"));
            if let Bounds::Hash { .. } = bounds {
                let check = quoted(&helper_check(job));
                statements.push(format!("ALTER TABLE {leaf} DROP CONSTRAINT {check}"));
            }
        }
        statements.extend(texts(home, VIEWS, &[&oids]).await?);
        statements.push(format!("DROP SCHEMA {}", quoted(beside)));
        let shape = look::shape(home, &oids).await?;
        let names = tables.iter().map(|table| table.name.to_string()).collect();
        Ok(Self { oids, names, shape, statements })
    }

    /// Does it, and leaves it prepared under `gid`.
    pub(super) async fn prepare(
        &self,
        home: &Session,
        gid: &str,
        lock_timeout_ms: u64,
    ) -> Result<(), Obstacle> {
        stop_vacuum(home, &self.oids).await;
        let prepared = self.try_prepare(home, gid, lock_timeout_ms).await;
        if prepared.is_err() {
            home.run("rolling back", "ROLLBACK").await?;
        }
        prepared
    }

    /// Who is in the way, if somebody still is.
    pub(super) async fn holder(&self, home: &Session) -> Result<Option<String>, MoveError> {
        holder(home, &self.oids).await
    }

    async fn try_prepare(
        &self,
        home: &Session,
        gid: &str,
        lock_timeout_ms: u64,
    ) -> Result<(), Obstacle> {
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms}; \
             SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}; \
             LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE",
            self.names.join(", ONLY ")
        );
        home.run("locking the tables", &sql).await?;
        if let Some(waiting) = texts(home, WAITING, &[&self.oids]).await?.into_iter().next() {
            return Err(Obstacle::Passing(waiting));
        }
        if look::shape(home, &self.oids).await? != self.shape {
            return Err(Obstacle::Changed);
        }
        home.run("attaching the tables", &self.statements.join("; ")).await?;
        let sql = format!("PREPARE TRANSACTION {}", Literal(gid));
        Ok(home.run("preparing the import", &sql).await?)
    }
}

/// Who has held a lock on one of some tables for the longest.
pub(super) async fn holder(home: &Session, oids: &[u32]) -> Result<Option<String>, MoveError> {
    Ok(texts(home, HOLDERS, &[&oids]).await?.into_iter().next())
}

/// Asks autovacuum to leave some tables, if it is there.
pub(in super::super) async fn stop_vacuum(home: &Session, oids: &[u32]) {
    if let Err(error) = texts(home, STOP_VACUUM, &[&oids]).await {
        tracing::info!(error = error.story(), "autovacuum is not asked to give way");
    }
}

/// What is done to one table before it is attached.
async fn of_table(
    home: &Session,
    table: &Plain,
    beside: &str,
    shard: ShardId,
) -> Result<Vec<String>, MoveError> {
    let Plain { name, oid, .. } = table;
    let (leaf, new) = (leaf_name(name, shard), TableName::new(beside, name.name.as_str()));
    let mut all = texts(home, STRIP, &[oid, &name.to_string()]).await?;
    let doing = "reading sequences";
    for row in home.rows(doing, IDENTITIES, &[oid]).await? {
        let (sequence, column): (String, String) = (row.get(0), row.get(1));
        let (old, twin) = (
            TableName::new(name.schema.as_str(), sequence.as_str()),
            TableName::new(beside, sequence.as_str()),
        );
        // It locks the sequence: nobody takes a number that the twin does not know of.
        all.push(format!("ALTER SEQUENCE {old} INCREMENT BY {}", row.get::<_, i64>(2)));
        let twin = twin.to_string();
        let twin = Literal(&twin);
        all.push(format!("SELECT pg_catalog.setval({twin}, last_value, is_called) FROM {old}"));
        all.push(format!("ALTER TABLE {name} ALTER COLUMN {} DROP IDENTITY", quoted(&column)));
    }
    for index in texts(home, INDEXES, &[oid]).await? {
        let old = TableName::new(name.schema.as_str(), index.as_str());
        let new = quoted(&index_name(&name.name, &leaf.name, &index));
        all.push(format!("ALTER INDEX {old} RENAME TO {new}"));
    }
    all.push(format!("ALTER TABLE {name} RENAME TO {}", quoted(&leaf.name)));
    all.push(format!("ALTER TABLE {new} SET SCHEMA {}", quoted(&name.schema)));
    for row in home.rows(doing, SERIALS, &[oid]).await? {
        let sequence = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let column: String = row.get(2);
        all.push(format!("ALTER SEQUENCE {sequence} OWNED BY {name}.{}", quoted(&column)));
    }
    Ok(all)
}

/// The name of a partition's index: it begins with the partition's name, as far as there is room.
fn index_name(table: &str, leaf: &str, index: &str) -> String {
    let rest = match index.strip_prefix(table) {
        Some(rest) => rest.to_owned(),
        None => format!("_{index}"),
    };
    let mut name = format!("{leaf}{rest}");
    if name.len() > 63 {
        // Cut off, two could be the same.
        let mut hash = 0u32;
        name.bytes().for_each(|byte| hash = hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        name.truncate(name.floor_char_boundary(54));
        name = format!("{name}_{hash:08x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::index_name;

    #[test]
    fn the_index_of_a_partition_begins_with_its_name() {
        assert_eq!(index_name("orders", "orders_s3", "orders_pkey"), "orders_s3_pkey");
        assert_eq!(index_name("orders", "orders_s3", "by_day"), "orders_s3_by_day");
        let long = |last: char| "x".repeat(62) + &last.to_string();
        let names = ['a', 'b'].map(|last| index_name("orders", "orders_s3", &long(last)));
        assert!(names.iter().all(|name| name.len() == 63), "{names:?}");
        assert_ne!(names[0], names[1]);
    }
}
