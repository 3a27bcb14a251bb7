//! The last step on one node, in one transaction: the old tables go to a schema of their own, and their
//! twins take their names.

use super::super::error::MoveError;
use super::super::import::define::texts;
use super::super::import::swap::{IDENTITIES, SERIALS, VIEWS, WAITING, stop_vacuum};
use super::super::look;
use super::super::names::quoted;
use super::super::session::Session;
use super::{behind, beside, twin_leaf, twins};
use crate::ids::{JobId, NodeId};
use crate::shard_map::leaf_name;
use crate::shard_move::{ImportedTable, Part};
use crate::sql::{Literal, TableName};

/// The longest that any statement of the step may take, in ms: it has nothing to look through.
const STATEMENT_TIMEOUT_MS: u64 = 5_000;
/// How many numbers of an identity column are left out: more than are asked for in the moment of the
/// exchange.
const LEFT_OUT: u32 = 10_000;
/// A table's partitions: schema and name.
const PARTITIONS: &str = "SELECT n.nspname::text, c.relname::text FROM pg_inherits i \
     JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE i.inhparent = $1 ORDER BY 1, 2";
/// Extended statistics: how they are dropped, and made again, with their owner.
const STATISTICS: &str = "SELECT format('DROP STATISTICS %I.%I', n.nspname, s.stxname), \
     format('%s; ALTER STATISTICS %I.%I OWNER TO %I', pg_get_statisticsobjdef(s.oid), n.nspname, \
     s.stxname, pg_get_userbyid(s.stxowner)) FROM pg_statistic_ext s \
     JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = $1 ORDER BY 1";
/// The object ids of tables and of their partitions.
const WITH_PARTITIONS: &str = "SELECT array(SELECT unnest($1::oid[]) UNION \
     SELECT inhrelid FROM pg_inherits WHERE inhparent = ANY ($1))";

/// A table on the node.
struct Old {
    name: TableName,
    oid: u32,
    partitions: Vec<TableName>,
    /// The twin's partitions.
    leaves: Vec<TableName>,
}

/// What is done on one node, read before anybody waits.
pub(super) struct Swap {
    pub(super) session: Session,
    pub(super) node: NodeId,
    job: JobId,
    names: Vec<String>,
    parents: Vec<u32>,
    /// With partitions.
    oids: Vec<u32>,
    statements: Vec<String>,
}

/// A fingerprint of the tables and their partitions on a node.
pub(super) async fn shape(
    session: &Session,
    tables: &[ImportedTable],
) -> Result<String, MoveError> {
    let mut oids = Vec::new();
    for table in tables {
        oids.push(look::oid(session, &table.name).await?);
    }
    look::shape(session, &with_partitions(session, &oids).await?).await
}

async fn with_partitions(session: &Session, oids: &[u32]) -> Result<Vec<u32>, MoveError> {
    let rows = session.rows("looking at partitions", WITH_PARTITIONS, &[&oids]).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

impl Swap {
    /// Looks at what is there.
    pub(super) async fn read(
        session: Session,
        job: JobId,
        tables: &[ImportedTable],
        (node, targets): (NodeId, &[Part]),
    ) -> Result<Self, MoveError> {
        let mut all = Vec::new();
        for table in tables {
            let oid = look::oid(&session, &table.name).await?;
            let rows = session.rows("looking at partitions", PARTITIONS, &[&oid]).await?;
            let name = |row: &tokio_postgres::Row| {
                TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))
            };
            let partitions = rows.iter().map(name).collect();
            let parts = targets.iter().filter(|part| part.node == node);
            let leaves =
                parts.map(|part| twin_leaf(job, &leaf_name(&table.name, part.shard))).collect();
            all.push(Old { name: table.name.clone(), oid, partitions, leaves });
        }
        let mut statements = vec![format!("CREATE SCHEMA {}", quoted(&behind(job)))];
        let mut then = Vec::new();
        for table in &all {
            let (before, after) = of_table(&session, job, table).await?;
            statements.extend(before);
            then.extend(after);
        }
        statements.extend(then);
        let parents: Vec<u32> = all.iter().map(|table| table.oid).collect();
        let oids = with_partitions(&session, &parents).await?;
        let names = all.iter().map(|table| table.name.to_string()).collect();
        Ok(Self { session, node, job, names, parents, oids, statements })
    }

    /// Opens the transaction: from now on nobody writes the tables.
    pub(super) async fn lock(&self, lock_timeout_ms: u64) -> Result<(), MoveError> {
        stop_vacuum(&self.session, &self.oids).await;
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms}; \
             SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}{}",
            self.lock_all("EXCLUSIVE")
        );
        self.session.run("locking the tables", &sql).await
    }

    fn lock_all(&self, mode: &str) -> String {
        if self.names.is_empty() {
            return String::new();
        }
        format!("; LOCK TABLE {} IN {mode} MODE", self.names.join(", "))
    }

    /// Under the lock: whether the tables are as they were.
    pub(super) async fn is_as_it_was(&self, shape: &str) -> Result<bool, MoveError> {
        Ok(look::shape(&self.session, &self.oids).await? == shape)
    }

    /// Lets the twins take the tables' places, and leaves that prepared under `gid`. Whoever waits to
    /// define something would do it to a table that nobody uses any more.
    pub(super) async fn prepare(&self, gid: &str) -> Result<Option<String>, MoveError> {
        let lock = format!("SELECT 1{}", self.lock_all("ACCESS EXCLUSIVE"));
        self.session.run("locking the tables", &lock).await?;
        if let Some(waiting) =
            texts(&self.session, WAITING, &[&self.oids]).await?.into_iter().next()
        {
            return Ok(Some(waiting));
        }
        let views = texts(&self.session, VIEWS, &[&self.parents]).await?;
        let sql = format!(
            "{}; DROP SCHEMA {}; PREPARE TRANSACTION {}",
            self.statements.iter().chain(&views).cloned().collect::<Vec<_>>().join("; "),
            quoted(&beside(self.job)),
            Literal(gid)
        );
        self.session.run("exchanging the tables", &sql).await?;
        Ok(None)
    }
}

/// What is done to a table before any twin has its name, and after.
async fn of_table(
    session: &Session,
    job: JobId,
    table: &Old,
) -> Result<(Vec<String>, Vec<String>), MoveError> {
    let Old { name, oid, partitions, leaves } = table;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let old = quoted(&behind(job));
    let twin = TableName::new(beside(job), name.name.as_str());
    for row in session.rows("reading statistics", STATISTICS, &[oid]).await? {
        before.push(row.get::<_, String>(0));
        after.push(row.get::<_, String>(1));
    }
    for row in session.rows("reading sequences", SERIALS, &[oid]).await? {
        let sequence = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let column = quoted(row.get(2));
        before.push(format!("ALTER SEQUENCE {sequence} OWNED BY NONE"));
        after.push(format!("ALTER SEQUENCE {sequence} OWNED BY {name}.{column}"));
    }
    for row in session.rows("reading sequences", IDENTITIES, &[oid]).await? {
        let sequence: String = row.get(0);
        let new = TableName::new(twin.schema.as_str(), sequence.as_str());
        let sequence = TableName::new(name.schema.as_str(), sequence.as_str());
        before.push(numbers(&sequence, &new));
    }
    before.push(format!("ALTER TABLE {name} SET SCHEMA {old}"));
    before.extend(partitions.iter().map(|it| format!("ALTER TABLE {it} SET SCHEMA {old}")));
    let mut first = vec![format!("ALTER TABLE {twin} SET SCHEMA {}", quoted(&name.schema))];
    let place = quoted(&name.schema);
    first.extend(leaves.iter().map(|leaf| format!("ALTER TABLE {leaf} SET SCHEMA {place}")));
    for column in twins::always_columns(session, *oid).await? {
        first.push(twins::always(name, &column, "ALWAYS"));
    }
    first.extend(after);
    Ok((before, first))
}

/// Numbers of an identity column go on. Whoever asks the old sequence now waits for its lock, and takes a
/// number of it then: so the new one leaves some out, and the old one ends before them.
fn numbers(old: &TableName, new: &TableName) -> String {
    let (old_text, new_text) = (old.to_string(), new.to_string());
    let (old_name, new_name) = (Literal(&old_text), Literal(&new_text));
    format!(
        "DO $foreshard$ DECLARE step bigint; last numeric; called boolean; most numeric; least numeric; \
         ahead numeric; BEGIN \
         SELECT seqincrement, seqmax, seqmin INTO step, most, least FROM pg_catalog.pg_sequence \
         WHERE seqrelid = {old_name}::pg_catalog.regclass; \
         EXECUTE pg_catalog.format('ALTER SEQUENCE %s INCREMENT BY %s NO CYCLE', {old_name}, step); \
         SELECT last_value, is_called INTO last, called FROM {old}; \
         ahead := last + step::numeric * {LEFT_OUT}; \
         IF ahead BETWEEN least AND most THEN \
         EXECUTE pg_catalog.format('ALTER SEQUENCE %s %s %s', {old_name}, \
         CASE WHEN step > 0 THEN 'MAXVALUE' ELSE 'MINVALUE' END, ahead); \
         PERFORM pg_catalog.setval({new_name}, ahead::bigint, true); \
         ELSE PERFORM pg_catalog.setval({new_name}, last::bigint, called); \
         PERFORM pg_catalog.setval({old_name}, (CASE WHEN step > 0 THEN most ELSE least END)::bigint, \
         true); END IF; END $foreshard$"
    )
}
