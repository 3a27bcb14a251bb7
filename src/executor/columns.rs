//! Keeps the map's knowledge of columns equal to the home node's catalog.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::run::query_message;
use super::transaction::Transaction;
use super::{Engine, Fault, Session};
use crate::backend::NodeAddress;
use crate::backend::RaiseError;
use crate::catalog::{CatalogError, Expect};
use crate::shard_map::{Column, Identity, ShardMap};
use crate::sql::{Literal, TableName};

/// How long a node's catalog may take to be read.
const DEADLINE: Duration = Duration::from_secs(20);
/// How soon it is looked again whether what the stored map says is committed.
const SHORTLY: Duration = Duration::from_millis(5);

/// The columns of one table, in order.
const COLUMNS: &str = "\
    SELECT a.attname::text, a.atttypid, a.attgenerated <> '', \
    CASE WHEN a.attidentity <> '' THEN pg_catalog.format('nextval(%L::regclass)', \
    pg_catalog.pg_get_serial_sequence(pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname)) \
    WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END, \
    a.attidentity::text \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') \
    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// Why the columns could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum ColumnsError {
    /// The home node did not answer.
    #[error("reading columns from the home node failed")]
    Node(#[from] tokio_postgres::Error),
    /// The proxy was replaced, or the node could not be told of it.
    #[error(transparent)]
    Fenced(#[from] RaiseError),
    /// The catalog did not take the new map.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The part of a transaction on which its end hangs is still at work.
    #[error("whether a transaction is committed is not decided yet")]
    Undecided,
    /// It is so old that its node does not know any more what came of it.
    #[error("what came of transaction {0} is not known: finish what it has prepared by hand")]
    Forgotten(String),
}

impl ColumnsError {
    /// Whether another session of the node is at work on what was to be finished.
    pub(super) fn is_busy(&self) -> bool {
        let state = if let Self::Node(error) = self { error.code() } else { None };
        matches!(self, Self::Undecided)
            || state == Some(&tokio_postgres::error::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
    }
}

impl Engine {
    /// Reads the columns of these tables from the home node; stores and publishes the map if they
    /// differ from what it says.
    pub async fn refresh_columns(&self, tables: &[TableName]) -> Result<(), ColumnsError> {
        if tables.is_empty() {
            return Ok(());
        }
        let found = self.read_columns(tables).await?;
        self.store_columns(&found).await
    }

    /// The columns of these tables on the home node, as the map has them.
    pub async fn read_columns<'a>(
        &self,
        tables: &'a [TableName],
    ) -> Result<Vec<(&'a TableName, Vec<Column>)>, ColumnsError> {
        let map = self.live_map.snapshot();
        let look = async |client: &Client| {
            let mut found = Vec::new();
            for table in tables {
                let rows = client.query(COLUMNS, &[&table.schema, &table.name]).await?;
                let columns = rows.iter().map(|row| Column {
                    name: row.get(0),
                    type_oid: row.get(1),
                    generated: row.get(2),
                    default: row.get(3),
                    identity: identity(row.get(4)),
                });
                found.push((table, columns.collect::<Vec<_>>()));
            }
            Ok(found)
        };
        ask(&self.nodes[map.home().index()], &map, look).await
    }

    async fn store_columns(&self, found: &[(&TableName, Vec<Column>)]) -> Result<(), ColumnsError> {
        let differs = |map: &ShardMap, table: &TableName, columns: &Vec<Column>| {
            map.table(table).is_some_and(|known| known.columns != *columns)
        };
        self.change_map(|stored| {
            let changed = found.iter().filter(|(table, columns)| differs(stored, table, columns));
            changed.fold(None, |map: Option<ShardMap>, (table, columns)| {
                Some(map.as_ref().unwrap_or(stored).with_columns(table, columns.clone()))
            })
        })
        .await
    }

    /// Stores and publishes what `change` makes of the stored map, anew if another changed it
    /// meanwhile; nothing if it says so, or no map is stored yet.
    pub async fn change_map(
        &self,
        change: impl Fn(&ShardMap) -> Option<ShardMap>,
    ) -> Result<(), ColumnsError> {
        loop {
            let Some(stored) = self.catalog.get::<ShardMap>("").await? else { return Ok(()) };
            if self.cluster.keeps_map() {
                sleep(SHORTLY).await;
                continue;
            }
            let Some(map) = change(&stored.record) else {
                // It may be one whose commit had no answer in time.
                self.live_map.publish(stored.record);
                return Ok(());
            };
            match self.catalog.put(&map, Expect::At(stored.revision)).await {
                Ok(_) => {
                    self.live_map.publish(map);
                    return Ok(());
                }
                Err(CatalogError::Conflict(_) | CatalogError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Does `work` on a service connection to a node; names are shown with their schemas there.
pub(super) async fn ask<T>(
    node: &NodeAddress,
    map: &ShardMap,
    work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T, ColumnsError> {
    let asked = node.ask(map.database(), async |client: &Client| {
        client.batch_execute("SET search_path = ''").await?;
        work(client).await
    });
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(late()),
    }
}

/// [`COLUMNS`] with the table in it.
fn columns_of(table: &TableName) -> String {
    let (head, rest) = COLUMNS.split_once("$1").unwrap_or_default();
    let (middle, tail) = rest.split_once("$2").unwrap_or_default();
    format!("{head}{}{middle}{}{tail}", Literal(&table.schema), Literal(&table.name))
}

/// A row of [`COLUMNS`], as text.
fn column_of(row: Vec<Option<String>>) -> Option<Column> {
    let mut values = row.into_iter();
    Some(Column {
        name: values.next()??,
        type_oid: values.next()??.parse().ok()?,
        generated: values.next()?.as_deref() == Some("t"),
        default: values.next()?,
        identity: identity(values.next()?.as_deref()),
    })
}

/// `pg_attribute.attidentity`
fn identity(letter: Option<&str>) -> Identity {
    match letter {
        Some("a") => Identity::Always,
        Some("d") => Identity::ByDefault,
        _ => Identity::No,
    }
}

fn late() -> ColumnsError {
    ColumnsError::Catalog(CatalogError::Store {
        doing: "reading columns",
        source: Box::new(std::io::Error::from(std::io::ErrorKind::TimedOut)),
    })
}

impl Session {
    /// The transaction sees the columns that its own definitions have made, until it ends.
    ///
    /// # Errors
    /// What the home node says.
    pub async fn see_own_columns(&mut self) -> Result<(), Fault> {
        let map = self.engine.live_map.snapshot();
        let mut tables = self.transaction.changed_tables.clone();
        tables.retain(|table| map.table(table).is_some());
        tables.sort_unstable();
        tables.dedup();
        let mut own = Vec::new();
        for table in tables {
            let rows = self.rows_of(map.home(), &query_message(&columns_of(&table))).await?;
            own.push((table, rows.into_iter().filter_map(column_of).collect()));
        }
        self.transaction.own_map = Some(Arc::new(map.seen_with(&own)));
        self.transaction.own_columns = own;
        Ok(())
    }

    /// The map in force as the session's transaction sees it, if it has changed columns itself.
    pub fn own_map(&self) -> Option<Arc<ShardMap>> {
        let Transaction { own_columns, own_map, .. } = &self.transaction;
        if own_columns.is_empty() {
            return None;
        }
        let map = own_map.as_ref().filter(|map| map.epoch() == self.engine.live_map.epoch());
        Some(
            map.cloned()
                .unwrap_or_else(|| Arc::new(self.engine.live_map.load().seen_with(own_columns))),
        )
    }

    /// After a transaction with DDL: the map learns the new columns. If it can't, statements that
    /// need them are refused until it can.
    pub(super) async fn read_changed_columns(&mut self) {
        let tables = std::mem::take(&mut self.transaction.changed_tables);
        if let Err(error) = self.engine.refresh_columns(&tables).await {
            tracing::error!(%error, "the columns of changed tables could not be read");
        }
        if self.transaction.ddl.is_some()
            && let Err(error) = self.engine.refresh_derived().await
        {
            tracing::error!(%error, "views over sharded tables could not be read");
        }
        if self.transaction.ddl.is_some()
            && let Err(error) = self.engine.refresh_lookups().await
        {
            tracing::error!(%error, "which lookups there are could not be read");
        }
    }
}
