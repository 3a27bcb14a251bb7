//! What a node's catalog says about a moved table.

use tokio::time::timeout;
use tokio_postgres::{Row, Statement};

use super::error::MoveError;
use super::session::{QUICK, Session};
use crate::sql::TableName;

/// A table as a node has it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) oid: u32,
    /// `p` partitioned, `r` plain.
    pub(super) kind: String,
    /// `p` permanent, `u` unlogged.
    pub(super) persistence: String,
    /// `d` primary key, `f` full, `i` index, `n` nothing.
    pub(super) identity: String,
    /// `HASH (tenant_id)`; empty if not partitioned.
    pub(super) partition_key: String,
    /// The role that owns it.
    pub(super) owner: String,
    /// The partitioned table that it is attached to, by object id.
    pub(super) parent: Option<u32>,
    /// `FOR VALUES WITH (modulus 4, remainder 3)`; empty if not attached.
    pub(super) bounds: String,
    pub(super) has_primary_key: bool,
}

const TABLE: &str = "SELECT c.oid, c.relkind::text, c.relpersistence::text, c.relreplident::text, \
     coalesce(CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END, ''), \
     pg_get_userbyid(c.relowner)::text, i.inhparent, \
     coalesce(pg_get_expr(c.relpartbound, c.oid), ''), \
     EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p') \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND NOT i.inhdetachpending \
     WHERE n.nspname = $1 AND c.relname = $2";

const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), \
     a.attnotnull, a.attgenerated <> '', \
     coalesce((SELECT c.collname::text FROM pg_collation c WHERE c.oid = a.attcollation), ''), \
     a.atttypid >= 16384 OR EXISTS (SELECT FROM pg_type t WHERE t.oid = a.atttypid \
     AND t.typname ~ '^_?reg'), \
     (SELECT coalesce(string_agg(e.enumlabel::text, ',' ORDER BY e.enumsortorder), '') \
     FROM pg_type t JOIN pg_enum e ON e.enumtypid IN (t.oid, t.typelem, t.typbasetype) \
     WHERE t.oid = a.atttypid) \
     FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
     ORDER BY a.attnum";

/// Constraints and indexes without their names, which may differ from node to node.
const KEYS: &str = "SELECT contype::text || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = $1 AND contype IN ('p', 'u', 'x', 'c') \
     UNION ALL SELECT CASE WHEN indisunique THEN 'unique' ELSE 'index' END \
     || substring(pg_get_indexdef(indexrelid) FROM ' USING .*') \
     FROM pg_index WHERE indrelid = $1 ORDER BY 1";

/// The columns that name a row, in order: of the primary key.
pub(super) const PRIMARY_KEY: &str = "SELECT a.attname::text FROM pg_index x JOIN pg_attribute a \
     ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey::int2[]) \
     WHERE x.indrelid = $1 AND x.indisprimary \
     ORDER BY array_position(x.indkey::int2[], a.attnum)";

/// A column as a node has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeenColumn {
    pub(super) name: String,
    pub(super) type_name: String,
    not_null: bool,
    pub(super) generated: bool,
    collation: String,
    /// Of an enum, or an array or domain of one: its values, which may differ from node to node.
    labels: String,
}

/// The table of this name; `None` if the node has none.
pub(super) async fn table(session: &Session, name: &TableName) -> Result<Option<Seen>, MoveError> {
    let rows = session.rows("looking at a table", TABLE, &[&name.schema, &name.name]).await?;
    Ok(rows.first().map(|row: &Row| Seen {
        oid: row.get(0),
        kind: row.get(1),
        persistence: row.get(2),
        identity: row.get(3),
        partition_key: row.get(4),
        owner: row.get(5),
        parent: row.get(6),
        bounds: row.get(7),
        has_primary_key: row.get(8),
    }))
}

/// The object id of a table that must be there.
pub(super) async fn oid(session: &Session, name: &TableName) -> Result<u32, MoveError> {
    let gone = || MoveError::Refused(format!("node {} has lost {name}", session.node));
    table(session, name).await?.map(|table| table.oid).ok_or_else(gone)
}

/// The columns of a table, in order, and whether their binary form means the same on every node: it
/// does not where it holds object ids, as in types that users made (ids from 16384 on) and regclass.
pub(super) async fn columns(
    session: &Session,
    oid: u32,
) -> Result<(Vec<SeenColumn>, bool), MoveError> {
    let rows = session.rows("looking at a table's columns", COLUMNS, &[&oid]).await?;
    let builtin = !rows.iter().any(|row| row.get::<_, bool>(5));
    let columns = rows.iter().map(|row| SeenColumn {
        name: row.get(0),
        type_name: row.get(1),
        not_null: row.get(2),
        generated: row.get(3),
        collation: row.get(4),
        labels: row.get(6),
    });
    Ok((columns.collect(), builtin))
}

/// A table's constraints (but foreign keys) and indexes, without their names, sorted.
pub(super) async fn keys(session: &Session, oid: u32) -> Result<Vec<String>, MoveError> {
    let rows = session.rows("looking at a table's indexes", KEYS, &[&oid]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The names of what else hangs on a table, by a query with its object id.
pub(super) async fn names(
    session: &Session,
    oid: u32,
    sql: &'static str,
) -> Result<Vec<String>, MoveError> {
    let rows = session.rows("looking at a table", sql, &[&oid]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How a node holds the leaves of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Partitions of their parents.
    Attached,
    /// On the way from one to the other: `DETACH … CONCURRENTLY` was done for some, or not finished.
    Partly,
    /// Tables of their own, or not there at all.
    Loose,
}

const HOLDS: &str = "SELECT count(*) FILTER (WHERE NOT i.inhdetachpending), \
     count(*) FILTER (WHERE i.inhdetachpending) \
     FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
     JOIN pg_namespace n ON n.nspname = wanted.schema \
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name \
     JOIN pg_inherits i ON i.inhrelid = c.oid";

/// How many leaves a node has attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attachments {
    /// In full.
    pub(super) whole: usize,
    /// Hidden by `DETACH … CONCURRENTLY`, which was not finished.
    pub(super) pending: usize,
}

/// How many of the leaves this node has attached.
pub(super) async fn attachments<'a>(
    session: &Session,
    leaves: impl IntoIterator<Item = &'a TableName>,
) -> Result<Attachments, MoveError> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        leaves.into_iter().map(|leaf| (leaf.schema.as_str(), leaf.name.as_str())).unzip();
    let rows = session.rows("looking at the leaves", HOLDS, &[&schemas, &names]).await?;
    let count = |at: usize| rows.first().map_or(0, |row| row.get::<_, i64>(at));
    let count = |at| usize::try_from(count(at)).unwrap_or_default();
    Ok(Attachments { whole: count(0), pending: count(1) })
}

/// How this node holds the leaves. None at all is loose.
pub(super) async fn hold(session: &Session, leaves: &[&TableName]) -> Result<Hold, MoveError> {
    let Attachments { whole, pending } = attachments(session, leaves.iter().copied()).await?;
    Ok(match (whole, pending) {
        (0, 0) => Hold::Loose,
        (whole, 0) if whole == leaves.len() => Hold::Attached,
        _ => Hold::Partly,
    })
}

const SHAPE: &str = "SELECT coalesce(md5(string_agg(fact, ';' ORDER BY fact)), '') FROM ( \
     SELECT format('%s %s %s %s %s %s %s %s', a.attrelid, a.attnum, a.attname, a.atttypid, \
         a.atttypmod, a.attnotnull, a.attgenerated, a.attcollation) AS fact \
     FROM pg_attribute a WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped \
     UNION ALL SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k \
     WHERE k.conrelid = ANY ($1) AND k.conname !~ '^foreshard_' \
     UNION ALL SELECT pg_get_indexdef(x.indexrelid) FROM pg_index x WHERE x.indrelid = ANY ($1) \
     UNION ALL SELECT format('%s %s', t.tgrelid, t.tgname) FROM pg_trigger t \
     WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgname !~ '^foreshard_' \
     UNION ALL SELECT format('%s %s %s %s', c.oid, c.relrowsecurity, c.relforcerowsecurity, \
         c.relpersistence) FROM pg_class c WHERE c.oid = ANY ($1)) AS facts";

/// A fingerprint of everything about some tables that a move assumes to stay as it is.
pub(super) async fn shape(session: &Session, tables: &[u32]) -> Result<String, MoveError> {
    let prepared = prepare_shape(session).await?;
    prepared_shape(session, &prepared, tables).await
}

/// The question for it, so that it can be asked without a wait.
pub(super) async fn prepare_shape(session: &Session) -> Result<Statement, MoveError> {
    let prepared = timeout(QUICK, session.client.prepare(SHAPE)).await;
    let doing = "preparing to look at the tables' definitions";
    prepared.map_err(|_| MoveError::Timeout(doing))?.map_err(session.failed(doing))
}

/// The same once that is prepared. Its first poll sends the question.
pub(super) async fn prepared_shape(
    session: &Session,
    prepared: &Statement,
    tables: &[u32],
) -> Result<String, MoveError> {
    let doing = "looking at the tables' definitions";
    let rows = timeout(QUICK, session.client.query(prepared, &[&tables])).await;
    let rows = rows.map_err(|_| MoveError::Timeout(doing))?.map_err(session.failed(doing))?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

/// Whether one of these tables has a DEFAULT partition.
pub(super) async fn has_defaults(session: &Session, parents: &[u32]) -> Result<bool, MoveError> {
    let sql = "SELECT FROM pg_partitioned_table WHERE partrelid = ANY ($1) AND partdefid <> 0";
    Ok(!session.rows("looking for DEFAULT partitions", sql, &[&parents]).await?.is_empty())
}
