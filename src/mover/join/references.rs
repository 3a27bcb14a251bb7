//! The rows of reference tables on a node that joins: copied while writers go on, then made equal
//! while they wait, bucket by bucket where something was written meanwhile.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};

use super::super::differ::Copy;
use super::super::error::MoveError;
use super::super::look::{self, PRIMARY_KEY};
use super::super::names;
use super::super::session::Session;
use crate::shard_map::{ShardMap, TableKind};

/// A reference table that both nodes have.
pub(super) struct Reference {
    name: String,
    /// That COPY carries: not the generated ones.
    columns: String,
    identity: String,
    format: &'static str,
}

/// The reference tables that exist.
pub(super) async fn existing(home: &Session, map: &ShardMap) -> Result<Vec<Reference>, MoveError> {
    let mut all = Vec::new();
    for table in map.tables().iter().filter(|table| table.kind == TableKind::Reference) {
        let Some(seen) = look::table(home, &table.name).await? else { continue };
        let (columns, builtin) = look::columns(home, seen.oid).await?;
        let columns = columns.iter().filter(|column| !column.generated).map(|column| &column.name);
        let columns = names::list(columns);
        let key = look::names(home, seen.oid, PRIMARY_KEY).await?;
        let identity = if key.is_empty() { columns.clone() } else { names::list(&key) };
        let format = if builtin { "binary" } else { "text" };
        all.push(Reference { name: table.name.to_string(), columns, identity, format });
    }
    Ok(all)
}

impl Reference {
    /// Copies the rows that `condition` names; how many.
    async fn copy_rows(
        &self,
        home: &Session,
        target: &Session,
        condition: &str,
    ) -> Result<u64, MoveError> {
        let Self { name, columns, format, .. } = self;
        let out = format!(
            "COPY (SELECT {columns} FROM ONLY {name} WHERE {condition}) TO STDOUT (FORMAT {format})"
        );
        let into = format!("COPY {name} ({columns}) FROM STDIN (FORMAT {format})");
        let (reading, writing) = ("reading a reference table", "writing a reference table");
        let from = home.client.copy_out(&out).await.map_err(home.failed(reading))?;
        let to = target.client.copy_in::<_, Bytes>(&into).await;
        let (mut from, mut to) = (pin!(from), pin!(to.map_err(target.failed(writing))?));
        while let Some(chunk) = from.next().await {
            let chunk = chunk.map_err(home.failed(reading))?;
            to.feed(chunk).await.map_err(target.failed(writing))?;
        }
        to.finish().await.map_err(target.failed(writing))
    }

    /// Copies all rows into the empty table.
    pub(super) async fn copy(&self, home: &Session, target: &Session) -> Result<u64, MoveError> {
        self.copy_rows(home, target, "true").await
    }

    /// Makes the target's rows those that the home node has now; how many rows it had to copy.
    pub(super) async fn repair(&self, home: &Session, target: &Session) -> Result<u64, MoveError> {
        let Self { name, columns, identity, .. } = self;
        let copy = |session| Copy {
            session,
            table: name,
            parts: false,
            columns,
            identity,
            condition: "true",
        };
        let (here, there) = (copy(home).sums().await?, copy(target).sums().await?);
        let buckets = here.differing(&there);
        if buckets.is_empty() {
            return Ok(0);
        }
        let condition = copy(home).in_buckets(&buckets);
        let delete = format!("DELETE FROM ONLY {name} WHERE {condition}");
        target.run_long("emptying buckets of a reference table", &delete).await?;
        self.copy_rows(home, target, &condition).await
    }
}
