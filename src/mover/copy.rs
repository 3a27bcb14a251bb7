//! The slots, the empty tables, and the rows of the slots' snapshots, segment by segment. A stream that
//! was copied is not copied again. One that was cut off goes on, in a newer snapshot, since a snapshot
//! does not outlive the connection that made it; the stream brings all tables to that one then.

use std::future::pending;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::Fuse;
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;
use tokio_postgres::CopyOutStream;

use super::apply::{Applier, Target};
use super::build;
use super::cleanup;
use super::context::MoverContext;
use super::error::MoveError;
use super::lane::{OneLane, Stream, dealt_by, parcels};
use super::look;
use super::names;
use super::pace::Pace;
use super::position;
use super::progress::Live;
use super::segments::{self, Segment};
use super::session::Session;
use super::walsender::WalSender;
use super::window::Windows;
use crate::ids::{Lsn, ShardId};
use crate::shard_move::{Event, Move, MovedTable};
use crate::sql::{Literal, TableName};

/// Rows and bytes.
type Copied = (u64, u64);

/// Makes slots and tables, and copies what is not copied yet.
pub(super) async fn copy(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    context.progress.forget(mv.id);
    for node in mv.nodes() {
        // One of an earlier try may be about to commit a segment.
        Session::open(context, mv, node).await?.end_earlier_sessions(mv).await?;
    }
    let rows_expected = expected(context, mv).await?;
    context.progress.update(mv.id, |live| {
        live.rows_expected = rows_expected;
        live.copy_began = Some(Instant::now());
    });
    let (mut rows, mut bytes) = (0, 0);
    for parcel in parcels(mv) {
        let copied = copy_parcel(context, mv, &parcel).await?;
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

/// How much of a stream's rows an earlier try has copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Nothing.
    Nothing,
    /// Something, whose stream is gone.
    Lost,
    /// Some segments, or all of them in several snapshots.
    Some,
    /// Everything: so much.
    All(Copied),
}

/// What streams bring to the same tables, but for what was copied before.
async fn copy_parcel(
    context: &MoverContext,
    mv: &Move,
    parcel: &[Stream<'_>],
) -> Result<Copied, MoveError> {
    let mut done = Vec::new();
    for stream in parcel {
        done.push(done_of(context, stream).await?);
    }
    // What was copied of a stream that is lost can't be told from what others brought.
    let some = |done: &Done| matches!(done, Done::Some | Done::All(_));
    let goes_on = done.iter().any(some) && !done.contains(&Done::Lost);
    if !goes_on {
        start_anew(context, mv, parcel).await?;
    }
    let (mut rows, mut bytes) = (0, 0);
    for (stream, done) in parcel.iter().zip(done) {
        match done {
            Done::All(copied) if goes_on => {
                rows += copied.0;
                bytes += copied.1;
                was_there(context, stream, copied);
                continue;
            }
            Done::Nothing if goes_on => forget(context, stream).await?,
            _ => {}
        }
        let copied = copy_stream(context, stream, goes_on && done == Done::Some).await;
        if let Err(MoveError::Anew(_)) = &copied {
            for stream in parcel {
                let destination = Session::open(context, mv, stream.to()).await?;
                let forget = position::remove(&stream.slot());
                destination.run("forgetting what was copied", &forget).await?;
            }
        }
        let copied = copied?;
        rows += copied.0;
        bytes += copied.1;
    }
    Ok((rows, bytes))
}

/// Counts what an earlier try has copied.
fn was_there(context: &MoverContext, stream: &Stream<'_>, (rows, bytes): Copied) {
    tracing::info!(slot = stream.slot(), "the copy of an earlier try is there");
    context.progress.update(stream.mv.id, |live| {
        live.rows_copied += rows;
        live.bytes_copied += bytes;
    });
}

/// What is left of a stream's rows, into tables that are there and that no other stream brings the
/// same rows to; how much that is with what was there. Needs the sessions of earlier tries ended.
///
/// # Errors
/// [`MoveError::Anew`] if what was copied can't be gone on with.
pub(super) async fn copy_rest(
    context: &MoverContext,
    stream: &Stream<'_>,
) -> Result<Copied, MoveError> {
    match done_of(context, stream).await? {
        Done::Nothing => {
            forget(context, stream).await?;
            copy_stream(context, stream, false).await
        }
        Done::Some => copy_stream(context, stream, true).await,
        Done::All(copied) => {
            was_there(context, stream, copied);
            Ok(copied)
        }
        Done::Lost => Err(MoveError::Anew(format!("the slot {} is lost", stream.slot()))),
    }
}

/// Removes the slot of a stream of which nothing was copied, and what was noted.
async fn forget(context: &MoverContext, stream: &Stream<'_>) -> Result<(), MoveError> {
    let source = Session::open(context, stream.mv, stream.from()).await?;
    cleanup::drop_slot(&source, &stream.slot()).await?;
    let destination = Session::open(context, stream.mv, stream.to()).await?;
    destination.run("removing the position", &position::remove(&stream.slot())).await
}

/// Removes what an earlier try has made of a parcel, and makes the empty tables.
async fn start_anew(
    context: &MoverContext,
    mv: &Move,
    parcel: &[Stream<'_>],
) -> Result<(), MoveError> {
    for stream in parcel {
        forget(context, stream).await?;
    }
    let Some(first) = parcel.first() else { return Ok(()) };
    let destination = Session::open(context, mv, first.to()).await?;
    // Several streams bring rows to the same tables.
    let tables: Vec<&MovedTable> = first.tables().map(|(_, table)| table).collect();
    cleanup::drop_unattached(&destination, tables.iter().map(|table| &table.new_leaf)).await?;
    for table in &tables {
        destination.run("making a table", &create(table)).await?;
    }
    Ok(())
}

/// What an earlier try committed of a stream's copy, if its slot is still there.
async fn done_of(context: &MoverContext, stream: &Stream<'_>) -> Result<Done, MoveError> {
    let (mv, slot) = (stream.mv, stream.slot());
    let destination = Session::open(context, mv, stream.to()).await?;
    // An earlier version may not have made all of it.
    destination.run("making the position table", position::CREATE_TABLE).await?;
    let segments = segments::list(&destination, &slot).await?;
    let done = match position::find(&destination, &slot).await? {
        Some(position) if segments.is_empty() => Done::All(position.copied),
        _ if segments.iter().any(|segment| segment.copied.is_some()) => Done::Some,
        _ => return Ok(Done::Nothing),
    };
    let source = Session::open(context, mv, stream.from()).await?;
    let sql = "SELECT FROM pg_replication_slots WHERE slot_name = $1 \
         AND database = current_database() AND wal_status IS DISTINCT FROM 'lost'";
    let is_left = !source.rows("looking for the slot", sql, &[&slot]).await?.is_empty();
    Ok(if is_left { done } else { Done::Lost })
}

/// Copies what a stream brings into tables that are there; `goes_on` with what is left of an earlier
/// try.
async fn copy_stream(
    context: &MoverContext,
    stream: &Stream<'_>,
    goes_on: bool,
) -> Result<Copied, MoveError> {
    let (mv, slot) = (stream.mv, stream.slot());
    let source = Session::open(context, mv, stream.from()).await?;
    let destination = Session::open(context, mv, stream.to()).await?;
    let mut left = goes_on;
    if goes_on {
        let all = segments::list(&destination, &slot).await?;
        tell(context, mv, &all);
        left = all.iter().any(|segment| segment.copied.is_none());
    }
    let mut begun_at = None;
    if left || !goes_on {
        let at = snapshot(context, stream, &source, goes_on).await?;
        begun_at = Some(at);
        if !goes_on {
            let bytes_each = context.config().copy_segment_bytes;
            segments::plan(stream, &source, &destination, bytes_each).await?;
        }
        let all = segments::list(&destination, &slot).await?;
        if !goes_on {
            tell(context, mv, &all);
        }
        let mut pipe = Pipe { context, stream, source, destination, pace: Pace::default() };
        pipe.copy(&all, at).await?;
    }
    let destination = Session::open(context, mv, stream.to()).await?;
    let all = segments::list(&destination, &slot).await?;
    finish(context, stream, &destination, &all, begun_at).await?;
    Ok(sum(&all))
}

fn sum(all: &[Segment]) -> Copied {
    let rows = all.iter().map(|segment| segment.rows).sum();
    (rows, all.iter().map(|segment| segment.bytes).sum())
}

/// Shows how many segments are done.
fn tell(context: &MoverContext, mv: &Move, all: &[Segment]) {
    let done = || all.iter().filter(|segment| segment.copied.is_some());
    context.progress.update(mv.id, |live| {
        live.segments += count(all.len());
        live.segments_done += count(done().count());
        live.rows_copied += done().map(|segment| segment.rows).sum::<u64>();
        live.bytes_copied += done().map(|segment| segment.bytes).sum::<u64>();
    });
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

/// Opens a transaction at the source that sees what was committed before the answer: where the stream
/// begins, or, to go on with a copy, now.
async fn snapshot(
    context: &MoverContext,
    stream: &Stream<'_>,
    source: &Session,
    goes_on: bool,
) -> Result<Lsn, MoveError> {
    let before = file_nodes(source, stream).await?;
    let mut sender = WalSender::open(context, stream.mv, stream.from()).await?;
    let deadline = Duration::from_millis(context.config().slot_deadline_ms);
    let name = if goes_on { stream.verify_slot() } else { stream.slot() };
    let slot = sender.create_slot(&name, goes_on, deadline).await?;
    context.pass("slot_made")?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        Literal(&slot.snapshot)
    );
    source.run("taking the slot's snapshot", &begin).await?;
    drop(sender);
    let leaves: Vec<String> = stream.tables().map(|(_, t)| format!("ONLY {}", t.leaf)).collect();
    if !leaves.is_empty() {
        let sql = format!("LOCK TABLE {} IN ACCESS SHARE MODE", leaves.join(", "));
        source.run("holding the tables", &sql).await?;
    }
    if file_nodes(source, stream).await? != before {
        // TRUNCATE and rewrites do not heed snapshots: what is there is not what the stream follows.
        let text = "a table was truncated or rewritten while the copy began";
        return Err(MoveError::Busy(text.to_owned()));
    }
    Ok(slot.consistent)
}

/// After the last segment: where the copy was made in several snapshots, the stream brings all of it
/// to the last one. Then nothing is left that tells of segments.
async fn finish(
    context: &MoverContext,
    stream: &Stream<'_>,
    destination: &Session,
    all: &[Segment],
    begun_at: Option<Lsn>,
) -> Result<(), MoveError> {
    let snapshots = || all.iter().filter_map(|segment| segment.copied);
    let (first, last) = (snapshots().min().or(begun_at), snapshots().max().or(begun_at));
    let (Some(first), Some(last)) = (first, last) else {
        return Err(MoveError::Anew("it is not known where it began".to_owned()));
    };
    let slot = stream.slot();
    let counted = position::set_copied(&slot, sum(all));
    let forget = format!("{counted}; {}", segments::remove(&slot));
    if first == last {
        let sql = format!("BEGIN; {}; {forget}; COMMIT", position::reset(&slot, first));
        return destination.run_long("committing the copy", &sql).await;
    }
    if position::find(destination, &slot).await?.is_none() {
        let sql = format!("BEGIN; {}; COMMIT", position::reset(&slot, first));
        destination.run("noting where the stream begins", &sql).await?;
    }
    let source = Session::open(context, stream.mv, stream.from()).await?;
    let mut windows = Windows::default();
    for (_, table) in stream.tables() {
        let of_table = all.iter().filter(|segment| segment.is_of(table));
        let first = of_table.filter_map(|segment| segment.copied).min();
        windows.0.extend(first.map(|first| (table.leaf.clone(), first)));
        if segments::has_key(table) {
            build::primary_key(table, &source, destination).await?;
        }
    }
    let mut applier = Applier::start_in(context, stream, windows).await?;
    Box::pin(applier.advance(&Target::Position(last), pending())).await?;
    drop(applier);
    context.pass("window_passed")?;
    let sql = format!("BEGIN; {}; {forget}; COMMIT", position::reach(&slot, last));
    destination.run("committing the copy", &sql).await
}

/// The files of the leaves: others after a TRUNCATE or a rewrite.
async fn file_nodes(source: &Session, stream: &Stream<'_>) -> Result<Vec<String>, MoveError> {
    let mut nodes = Vec::new();
    for (_, table) in stream.tables() {
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
    stream: &'a Stream<'a>,
    source: Session,
    destination: Session,
    pace: Pace,
}

impl Pipe<'_> {
    /// Copies the segments that are left, each in a transaction of its own.
    async fn copy(&mut self, all: &[Segment], at: Lsn) -> Result<(), MoveError> {
        let slot = self.stream.slot();
        for (lane, table) in self.stream.tables() {
            let key = segments::key(&self.source, table).await?;
            let left = |it: &&Segment| it.is_of(table) && it.copied.is_none();
            for segment in all.iter().filter(left) {
                let begin = "BEGIN; SET LOCAL session_replication_role = replica";
                self.destination.run("opening the copy", begin).await?;
                let condition = segment.condition(table, &key);
                let (rows, bytes) = self.copy_rows(lane, table, condition).await?;
                segment.note(&self.destination, &slot, (at, rows, bytes)).await?;
                self.context.pass("copy_uncommitted")?;
                self.destination.run_long("committing a segment", "COMMIT").await?;
                self.context.progress.update(lane.mv.id, |live| live.segments_done += 1);
                self.context.pass("segment_copied")?;
            }
        }
        Ok(())
    }

    /// Rows and bytes of a part of a table, through bounded buffers.
    async fn copy_rows(
        &mut self,
        lane: OneLane<'_>,
        table: &MovedTable,
        condition: Option<String>,
    ) -> Result<Copied, MoveError> {
        let format = if table.builtin_types { "binary" } else { "text" };
        let (leaf, new_leaf, columns) = (&table.leaf, &table.new_leaf, names::columns(table));
        let parent = look::oid(&self.source, dealt_by(table)).await?;
        let given = lane.given(table, parent).map(|given| format!("({given})"));
        let conditions: Vec<String> = given.into_iter().chain(condition).collect();
        let out = if conditions.is_empty() {
            format!("COPY {leaf} ({columns}) TO STDOUT (FORMAT {format})")
        } else {
            let conditions = conditions.join(" AND ");
            format!(
                "COPY (SELECT {columns} FROM ONLY {leaf} WHERE {conditions}) \
                 TO STDOUT (FORMAT {format})"
            )
        };
        let into = format!("COPY {new_leaf} ({columns}) FROM STDIN (FORMAT {format})");
        let doing = "copying out of a table";
        let from = self.source.client.copy_out(&out).await.map_err(self.source.failed(doing))?;
        let doing = "copying into a table";
        let to = self.destination.client.copy_in::<_, Bytes>(&into).await;
        let (mut from, mut to) =
            (pin!(from.fuse()), pin!(to.map_err(self.destination.failed(doing))?));
        let id = lane.mv.id;
        let before = self.context.progress.of(id).map_or(0, |live| live.rows_copied);
        let limit = || self.context.config().copy_bytes_per_second;
        let mut bytes = 0;
        loop {
            let chunk = next_chunk(from.as_mut(), || Pace::chunk(limit())).await;
            let (rows, data) = chunk.map_err(self.source.failed("copying out of a table"))?;
            if rows == 0 {
                break;
            }
            let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
            self.pace.wait_for(len, limit).await;
            to.feed(data).await.map_err(self.destination.failed(doing))?;
            bytes += len;
            self.context.progress.update(id, |live| {
                live.bytes_copied += len;
                live.rows_copied += rows;
            });
            metrics::counter!("foreshard_mover_copied_bytes_total").increment(len);
        }
        let rows = to.finish().await.map_err(self.destination.failed(doing))?;
        self.context.progress.update(id, |live| live.rows_copied = before + rows);
        if let Some(live) = self.context.progress.of(id) {
            note(lane.mv.shard, &live);
        }
        metrics::counter!("foreshard_mover_copied_rows_total").increment(rows);
        Ok((rows, bytes))
    }
}

/// The next rows of a table that is copied, as many as make up `enough` bytes; none at its end.
async fn next_chunk(
    mut from: Pin<&mut Fuse<CopyOutStream>>,
    enough: impl Fn() -> usize,
) -> Result<(u64, Bytes), tokio_postgres::Error> {
    let (mut rows, mut data) = (0, BytesMut::new());
    while data.len() < enough() {
        // PostgreSQL sends a row a message.
        let Some(row) = from.next().await.transpose()? else { break };
        rows += 1;
        if data.is_empty() && row.len() >= enough() {
            return Ok((rows, row));
        }
        data.put_slice(&row);
    }
    Ok((rows, data.freeze()))
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
