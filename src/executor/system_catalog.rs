//! The views of the system catalog that the home node has for the proxy's clients
//! ([`planner::shown`]): made before the first statement that needs them.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState as NodeState;

use super::columns::{ColumnsError, ask};
use super::{Engine, Fault};
use crate::planner;
use crate::planner::{
    CATALOG_SCHEMAS, CATALOG_TABLES, CATALOG_VIEWS, CatalogTable, INFORMATION_VIEWS,
};
use crate::shard_map::{ShardMap, TableKind};
use crate::sql::{Literal, TableName};
use crate::wire::ServerError;

/// The columns of tables of the catalog.
const COLUMNS: &str = "\
    SELECT c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
    WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relname = ANY ($1) \
    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum";

/// The definitions of views, those first that others stand on.
const VIEWS: &str = "\
    SELECT n.nspname::text, c.relname::text, pg_catalog.pg_get_viewdef(c.oid) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'v' AND (n.nspname = 'pg_catalog' AND c.relname = ANY ($1) \
    OR n.nspname = 'information_schema' AND c.relname = ANY ($2)) ORDER BY c.oid";

/// What the views were made of.
const MADE_OF: &str =
    "SELECT pg_catalog.obj_description(pg_catalog.to_regnamespace($1), 'pg_namespace')";

impl Engine {
    /// Whether the home node has the views. Makes them, where they are lacking or were made for
    /// other tables.
    ///
    /// # Errors
    /// It can't be told now.
    pub async fn has_catalog_views(&self) -> Result<bool, Fault> {
        if !self.config().hide_partitions {
            return Ok(false);
        }
        let map = self.live_map.snapshot();
        let sharded = map.tables().iter().filter(|t| matches!(t.kind, TableKind::Sharded { .. }));
        let sharded: Vec<TableName> = sharded.map(|table| table.name.clone()).collect();
        let mut views = self.catalog_views.lock().await;
        if views.0 == sharded {
            return Ok(views.1);
        }
        let made = self.make_catalog_views(&map, &sharded).await.map_err(|error| {
            let error = &error;
            tracing::warn!(%error, "the views of the system catalog could not be made");
            ServerError::refused(
                "the system catalog can't be shown now",
                format!("The home node did not make the views for it: {}", said(error)),
                "Try again, or set executor.hide_partitions to false.",
            )
        })?;
        *views = (sharded, made);
        Ok(made)
    }

    /// `false` if the proxy's role may not make them.
    async fn make_catalog_views(
        &self,
        map: &ShardMap,
        sharded: &[TableName],
    ) -> Result<bool, ColumnsError> {
        let home = &self.nodes[map.home().index()];
        let made = ask(home, map, async |client: &Client| make(client, sharded).await).await;
        match made {
            Err(ColumnsError::Node(error))
                if error.code() == Some(&NodeState::INSUFFICIENT_PRIVILEGE) =>
            {
                tracing::warn!(%error, "queries of the system catalog show partitions");
                Ok(false)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }
}

/// What a node has said.
fn said(error: &ColumnsError) -> String {
    match error {
        ColumnsError::Node(node) => {
            node.as_db_error().map_or_else(|| node.to_string(), |error| error.message().to_owned())
        }
        other => other.to_string(),
    }
}

async fn make(client: &Client, sharded: &[TableName]) -> Result<(), tokio_postgres::Error> {
    let names: &[&str] = &CATALOG_TABLES;
    let mut tables: Vec<CatalogTable> = Vec::new();
    for row in client.query(COLUMNS, &[&names]).await? {
        let name: String = row.get(0);
        if tables.last().is_none_or(|table| table.name != name) {
            tables.push(CatalogTable { name, columns: Vec::new() });
        }
        if let Some(table) = tables.last_mut() {
            table.columns.push((row.get(1), row.get(2)));
        }
    }
    let mut statements = planner::catalog_tables(&tables, sharded);
    let (catalog, information): (&[&str], &[&str]) = (&CATALOG_VIEWS, &INFORMATION_VIEWS);
    for row in client.query(VIEWS, &[&catalog, &information]).await? {
        statements.push(planner::catalog_view(row.get(0), row.get(1), row.get(2)));
    }
    statements.extend(planner::catalog_grants());
    let mut hasher = DefaultHasher::new();
    statements.hash(&mut hasher);
    let made_of = format!("The catalog as foreshard shows it: {:016x}", hasher.finish());
    let there = client.query_one(MADE_OF, &[&CATALOG_SCHEMAS[0]]).await?;
    if there.get::<_, Option<String>>(0).as_ref() == Some(&made_of) {
        return Ok(());
    }
    let all = format!(
        "BEGIN READ WRITE; SET LOCAL client_min_messages = warning; \
         SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('foreshard')); {}; \
         COMMENT ON SCHEMA {} IS {}; COMMIT",
        statements.join("; "),
        CATALOG_SCHEMAS[0],
        Literal(&made_of)
    );
    client.batch_execute(&all).await
}
