//! The slot, the empty tables, and the rows of the slot's snapshot. Starts from nothing each time:
//! a snapshot does not outlive the connection that made it.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::cleanup;
use super::context::MoverContext;
use super::error::MoveError;
use super::names;
use super::position;
use super::session::Session;
use super::walsender::WalSender;
use crate::shard_move::{Event, Move, MovedTable};
use crate::sql::Literal;

/// Makes slot and tables anew and copies.
pub(super) async fn copy(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    context.progress.forget(mv.id);
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    cleanup::drop_slot(&source, &names::slot(mv)).await?;
    cleanup::drop_unattached(&destination, &mv.tables).await?;
    for table in &mv.tables {
        destination.run("making a table", &create(table)).await?;
    }
    let mut sender = WalSender::open(context, mv, mv.from).await?;
    let deadline = Duration::from_millis(context.config.slot_deadline_ms);
    let slot = sender.create_slot(&names::slot(mv), false, deadline).await?;
    context.pass("slot_made")?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        Literal(&slot.snapshot)
    );
    source.run("taking the slot's snapshot", &begin).await?;
    drop(sender);
    let begin = "BEGIN; SET LOCAL session_replication_role = replica";
    destination.run("opening the copy", begin).await?;
    let mut pipe = Pipe { context, mv, source, destination, pace: Pace::new(context) };
    let (mut rows, mut bytes) = (0, 0);
    for table in &mv.tables {
        let (table_rows, table_bytes) = pipe.copy_table(table).await?;
        rows += table_rows;
        bytes += table_bytes;
    }
    context.pass("copy_uncommitted")?;
    let sql = format!("{}; COMMIT", position::reset(mv, slot.consistent));
    pipe.destination.run_long("committing the copy", &sql).await?;
    context.pass("copied")?;
    Ok(Event::Copied { rows, bytes })
}

/// A plain table with the parent's columns and checks. Its indexes are built after the copy, and
/// autovacuum must not hold it when it is to be attached.
fn create(table: &MovedTable) -> String {
    format!(
        "CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY \
         EXCLUDING STATISTICS) WITH (autovacuum_enabled = off)",
        table.leaf, table.parent
    )
}

struct Pipe<'a> {
    context: &'a MoverContext,
    mv: &'a Move,
    source: Session,
    destination: Session,
    pace: Pace,
}

impl Pipe<'_> {
    /// Rows and bytes of one table, through bounded buffers.
    async fn copy_table(&mut self, table: &MovedTable) -> Result<(u64, u64), MoveError> {
        // Arrays and rows of types that users made carry object ids, which differ between nodes.
        let format = if table.builtin_types { "binary" } else { "text" };
        let (leaf, columns) = (&table.leaf, names::columns(table));
        let out = format!("COPY {leaf} ({columns}) TO STDOUT (FORMAT {format})");
        let into = format!("COPY {leaf} ({columns}) FROM STDIN (FORMAT {format})");
        let doing = "copying out of a table";
        let from = self.source.client.copy_out(&out).await.map_err(self.source.failed(doing))?;
        let doing = "copying into a table";
        let to = self.destination.client.copy_in::<_, Bytes>(&into).await;
        let (mut from, mut to) = (pin!(from), pin!(to.map_err(self.destination.failed(doing))?));
        let mut bytes = 0;
        while let Some(chunk) = from.next().await {
            let chunk = chunk.map_err(self.source.failed("copying out of a table"))?;
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            bytes += len;
            self.pace.wait_for(len).await;
            to.feed(chunk).await.map_err(self.destination.failed(doing))?;
            self.context.progress.update(self.mv.id, |live| live.bytes_copied += len);
            metrics::counter!("foreshard_mover_copied_bytes_total").increment(len);
        }
        let rows = to.finish().await.map_err(self.destination.failed(doing))?;
        self.context.progress.update(self.mv.id, |live| live.rows_copied += rows);
        metrics::counter!("foreshard_mover_copied_rows_total").increment(rows);
        Ok((rows, bytes))
    }
}

/// Keeps a copy under its bandwidth.
struct Pace {
    bytes_per_second: u64,
    began: Instant,
    bytes: u64,
}

impl Pace {
    fn new(context: &MoverContext) -> Self {
        let bytes_per_second = context.config.copy_bytes_per_second;
        Self { bytes_per_second, began: Instant::now(), bytes: 0 }
    }

    async fn wait_for(&mut self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        self.bytes += bytes;
        let due_ms = self.bytes.saturating_mul(1_000) / self.bytes_per_second;
        tokio::time::sleep_until(self.began + Duration::from_millis(due_ms)).await;
    }
}
