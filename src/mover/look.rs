//! What a node's catalog says about a moved table.

use tokio_postgres::Row;

use super::error::MoveError;
use super::session::Session;
use crate::shard_move::MovedTable;
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
     AND t.typname ~ '^_?reg') \
     FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
     ORDER BY a.attnum";

/// Constraints and indexes without their names, which may differ from node to node.
const KEYS: &str = "SELECT contype::text || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = $1 AND contype IN ('p', 'u', 'x', 'c') \
     UNION ALL SELECT CASE WHEN indisunique THEN 'unique' ELSE 'index' END \
     || substring(pg_get_indexdef(indexrelid) FROM ' USING .*') \
     FROM pg_index WHERE indrelid = $1 ORDER BY 1";

/// A column as a node has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeenColumn {
    pub(super) name: String,
    pub(super) type_name: String,
    not_null: bool,
    pub(super) generated: bool,
    collation: String,
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

/// Whether each of the leaves is attached on this node: all, none, or a mixture (an error).
pub(super) async fn attached(session: &Session, tables: &[MovedTable]) -> Result<bool, MoveError> {
    let mut attached = 0;
    for moved in tables {
        let leaf = table(session, &moved.leaf).await?;
        attached += usize::from(leaf.is_some_and(|leaf| leaf.parent.is_some()));
    }
    if attached != 0 && attached != tables.len() {
        let text = "has attached some tables of the shard and not others: somebody else changed \
             them; attach or detach them by hand";
        return Err(MoveError::Refused(format!("node {} {text}", session.node)));
    }
    Ok(attached > 0)
}
