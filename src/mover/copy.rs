//! The slots, the empty tables, and the rows of the slots' snapshots. A lane that was copied is not
//! copied again; one that was not starts from nothing: a snapshot does not outlive the connection
//! that made it.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::cleanup;
use super::context::MoverContext;
use super::error::MoveError;
use super::lane::{OneLane, dealt_by, lanes};
use super::look;
use super::names;
use super::position;
use super::progress::Live;
use super::session::Session;
use super::walsender::WalSender;
use crate::ids::ShardId;
use crate::shard_move::{Event, Move, MovedTable};
use crate::sql::{Literal, TableName};

/// Rows and bytes.
type Copied = (u64, u64);

/// Makes slots and tables, and copies what is not copied yet.
pub(super) async fn copy(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    context.progress.forget(mv.id);
    let rows_expected = expected(context, mv).await?;
    context.progress.update(mv.id, |live| {
        live.rows_expected = rows_expected;
        live.copy_began = Some(Instant::now());
    });
    let (mut rows, mut bytes) = (0, 0);
    for target in mv.targets() {
        let copied = copy_target(context, mv, target.shard).await?;
        rows += copied.0;
        bytes += copied.1;
    }
    context.progress.update(mv.id, |live| live.copy_ended = Some(Instant::now()));
    context.pass("copied")?;
    Ok(Event::Copied { rows, bytes })
}

/// About how many rows there are, as the planner of each source estimates.
async fn expected(context: &MoverContext, mv: &Move) -> Result<u64, MoveError> {
    let mut expected = 0;
    for source in mv.sources() {
        let session = Session::open(context, mv, source.node).await?;
        for table in mv.leaves_of(source.shard) {
            let sql = format!("EXPLAIN SELECT FROM ONLY {}", table.leaf);
            let plan = session.rows("estimating the rows of a table", &sql, &[]).await?;
            let plan: String = plan.first().map(|row| row.get(0)).unwrap_or_default();
            let rows = plan.split("rows=").nth(1).and_then(|rest| rest.split(' ').next());
            expected += rows.and_then(|rows| rows.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(expected)
}

/// All lanes of a target, unless all of them were copied before.
async fn copy_target(
    context: &MoverContext,
    mv: &Move,
    target: ShardId,
) -> Result<Copied, MoveError> {
    let (mut done, mut rows, mut bytes) = (true, 0, 0);
    let of_target = || lanes(mv).filter(move |lane| lane.lane.target.shard == target);
    for lane in of_target() {
        done &= is_copied(context, lane).await?;
    }
    if done {
        tracing::info!(%target, "the copy of an earlier try is there");
        return Ok((mv.rows_copied, mv.bytes_copied));
    }
    for lane in of_target() {
        let source = Session::open(context, mv, lane.lane.source.node).await?;
        cleanup::drop_slot(&source, &lane.slot()).await?;
    }
    let Some(node) = of_target().map(|lane| lane.lane.target.node).next() else {
        return Ok((0, 0));
    };
    let destination = Session::open(context, mv, node).await?;
    let tables = mv.tables_for(target);
    cleanup::drop_unattached(&destination, tables.iter().map(|table| &table.new_leaf)).await?;
    for lane in of_target() {
        destination.run("removing the position", &position::remove(&lane.slot())).await?;
    }
    for table in &tables {
        destination.run("making a table", &create(table)).await?;
    }
    for lane in of_target() {
        let copied = copy_lane(context, lane).await?;
        rows += copied.0;
        bytes += copied.1;
    }
    Ok((rows, bytes))
}

/// Whether an earlier try committed the lane's copy, and its stream is still there.
async fn is_copied(context: &MoverContext, lane: OneLane<'_>) -> Result<bool, MoveError> {
    let destination = Session::open(context, lane.mv, lane.lane.target.node).await?;
    if position::find(&destination, lane).await?.is_none() {
        return Ok(false);
    }
    let source = Session::open(context, lane.mv, lane.lane.source.node).await?;
    let sql = "SELECT FROM pg_replication_slots WHERE slot_name = $1 \
         AND database = current_database() AND wal_status IS DISTINCT FROM 'lost'";
    Ok(!source.rows("looking for the slot", sql, &[&lane.slot()]).await?.is_empty())
}

pub(super) async fn copy_lane(
    context: &MoverContext,
    lane: OneLane<'_>,
) -> Result<Copied, MoveError> {
    let mv = lane.mv;
    let source = Session::open(context, mv, lane.lane.source.node).await?;
    let destination = Session::open(context, mv, lane.lane.target.node).await?;
    let before = file_nodes(&source, &lane.lane.tables).await?;
    let mut sender = WalSender::open(context, mv, lane.lane.source.node).await?;
    let deadline = Duration::from_millis(context.config.slot_deadline_ms);
    let slot = sender.create_slot(&lane.slot(), false, deadline).await?;
    context.pass("slot_made")?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        Literal(&slot.snapshot)
    );
    source.run("taking the slot's snapshot", &begin).await?;
    drop(sender);
    let leaves: Vec<String> = lane.lane.tables.iter().map(|t| format!("ONLY {}", t.leaf)).collect();
    if !leaves.is_empty() {
        let sql = format!("LOCK TABLE {} IN ACCESS SHARE MODE", leaves.join(", "));
        source.run("holding the tables", &sql).await?;
    }
    if file_nodes(&source, &lane.lane.tables).await? != before {
        // TRUNCATE and rewrites do not heed snapshots: what is there is not what the stream follows.
        let text = "a table was truncated or rewritten while the copy began";
        return Err(MoveError::Busy(text.to_owned()));
    }
    let begin = "BEGIN; SET LOCAL session_replication_role = replica";
    destination.run("opening the copy", begin).await?;
    let mut pipe = Pipe { context, lane, source, destination, pace: Pace::new(context) };
    let (mut rows, mut bytes) = (0, 0);
    for table in &lane.lane.tables {
        let (table_rows, table_bytes) = pipe.copy_table(table).await?;
        rows += table_rows;
        bytes += table_bytes;
    }
    context.pass("copy_uncommitted")?;
    let sql = format!("{}; COMMIT", position::reset(lane, slot.consistent));
    pipe.destination.run_long("committing the copy", &sql).await?;
    Ok((rows, bytes))
}

/// The files of the leaves: others after a TRUNCATE or a rewrite.
async fn file_nodes(source: &Session, tables: &[MovedTable]) -> Result<Vec<String>, MoveError> {
    let mut nodes = Vec::new();
    for table in tables {
        let TableName { schema, name } = &table.leaf;
        let sql = "SELECT coalesce(pg_relation_filenode(c.oid)::text, '') FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
        let rows = source.rows("looking at a table's file", sql, &[schema, name]).await?;
        nodes.push(rows.first().map(|row| row.get(0)).unwrap_or_default());
    }
    Ok(nodes)
}

/// A plain table with the parent's columns and checks. Its indexes are built after the copy, and
/// autovacuum must not hold it when it is to be attached.
fn create(table: &MovedTable) -> String {
    format!(
        "CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY \
         EXCLUDING STATISTICS) WITH (autovacuum_enabled = off)",
        table.new_leaf, table.parent
    )
}

struct Pipe<'a> {
    context: &'a MoverContext,
    lane: OneLane<'a>,
    source: Session,
    destination: Session,
    pace: Pace,
}

impl Pipe<'_> {
    /// Rows and bytes of one table, through bounded buffers.
    async fn copy_table(&mut self, table: &MovedTable) -> Result<Copied, MoveError> {
        let format = if table.builtin_types { "binary" } else { "text" };
        let (leaf, new_leaf, columns) = (&table.leaf, &table.new_leaf, names::columns(table));
        let parent = look::oid(&self.source, dealt_by(table)).await?;
        let out = match self.lane.given(table, parent) {
            None => format!("COPY {leaf} ({columns}) TO STDOUT (FORMAT {format})"),
            Some(given) => format!(
                "COPY (SELECT {columns} FROM ONLY {leaf} WHERE {given}) TO STDOUT (FORMAT {format})"
            ),
        };
        let into = format!("COPY {new_leaf} ({columns}) FROM STDIN (FORMAT {format})");
        let doing = "copying out of a table";
        let from = self.source.client.copy_out(&out).await.map_err(self.source.failed(doing))?;
        let doing = "copying into a table";
        let to = self.destination.client.copy_in::<_, Bytes>(&into).await;
        let (mut from, mut to) = (pin!(from), pin!(to.map_err(self.destination.failed(doing))?));
        let mut bytes = 0;
        let id = self.lane.mv.id;
        let before = self.context.progress.of(id).map_or(0, |live| live.rows_copied);
        while let Some(chunk) = from.next().await {
            let chunk = chunk.map_err(self.source.failed("copying out of a table"))?;
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            bytes += len;
            self.pace.wait_for(len).await;
            to.feed(chunk).await.map_err(self.destination.failed(doing))?;
            // PostgreSQL sends a row a message.
            self.context.progress.update(id, |live| {
                live.bytes_copied += len;
                live.rows_copied += 1;
            });
            metrics::counter!("foreshard_mover_copied_bytes_total").increment(len);
        }
        let rows = to.finish().await.map_err(self.destination.failed(doing))?;
        self.context.progress.update(id, |live| live.rows_copied = before + rows);
        if let Some(live) = self.context.progress.of(id) {
            note(self.lane.mv.shard, &live);
        }
        metrics::counter!("foreshard_mover_copied_rows_total").increment(rows);
        Ok((rows, bytes))
    }
}

/// For who looks at the metrics.
fn note(shard: ShardId, live: &Live) {
    let told = live.told(Instant::now());
    let shard = shard.to_string();
    metrics::gauge!("foreshard_mover_copy_bytes_per_second", "shard" => shard.clone())
        .set(told.bytes_per_second);
    metrics::gauge!("foreshard_mover_copy_left_seconds", "shard" => shard)
        .set(told.copy_left_seconds.unwrap_or_default());
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
