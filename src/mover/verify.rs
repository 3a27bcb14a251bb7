//! Compares both sides at one WAL position, while traffic goes on.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::join;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::apply::{Applier, Target};
use super::back;
use super::catch_up::care;
use super::context::MoverContext;
use super::differ::{Copy, name_rows};
use super::error::MoveError;
use super::lane::{OneLane, Stream, dealt_by, streams};
use super::look::{self, PRIMARY_KEY};
use super::names;
use super::session::Session;
use super::walsender::{NewSlot, WalSender};
use crate::ids::Lsn;
use crate::shard_move::{Event, Move, MovedTable, Proof};
use crate::sql::{Literal, TableName};

/// Rows and their checksum, of each table.
type Sums = Vec<(u64, String)>;

/// Compares rows and checksums of every table of every stream. A difference is a refusal: the move
/// must not switch.
pub(super) async fn verify(
    context: &MoverContext,
    mv: &Move,
    appliers: &mut [Applier<'_>],
) -> Result<Event, MoveError> {
    let proofs = compare(context, mv, appliers).await?;
    let armed = CancellationToken::new();
    let arm = async {
        let back = back::arm(context, mv).await;
        armed.cancel();
        back
    };
    let (back, cared) = join!(arm, care(appliers, || armed.cancelled()));
    cared?;
    let back = back?;
    context.pass("verified")?;
    Ok(Event::Verified { proofs, back })
}

/// What was equal, of each table of every stream.
pub(super) async fn compare(
    context: &MoverContext,
    mv: &Move,
    appliers: &mut [Applier<'_>],
) -> Result<Vec<Proof>, MoveError> {
    let (all_done, left) = (CancellationToken::new(), AtomicUsize::new(appliers.len()));
    let one = async |stream, applier: &mut Applier<'_>| {
        let proofs = Box::pin(verify_stream(context, stream, applier)).await;
        if left.fetch_sub(1, Ordering::Relaxed) == 1 || proofs.is_err() {
            all_done.cancel();
        }
        // A stream that nobody reads would be cut off while the others are compared.
        applier.advance(&Target::Never, all_done.cancelled()).await?;
        proofs
    };
    let streams = streams(mv);
    let all = streams.iter().zip(appliers.iter_mut()).map(|(stream, applier)| one(stream, applier));
    Ok(try_join_all(all).await?.into_iter().flatten().collect())
}

async fn verify_stream(
    context: &MoverContext,
    stream: &Stream<'_>,
    applier: &mut Applier<'_>,
) -> Result<Vec<Proof>, MoveError> {
    let (mv, from, to) = (stream.mv, stream.from(), stream.to());
    let source = Session::open(context, mv, from).await?;
    let destination = Session::open(context, mv, to).await?;
    let mut sender = WalSender::open(context, mv, from).await?;
    // The stream stands still until it is known where it has to stop.
    let slot = beside(snapshot_slot(context, stream, &mut sender), async |done| {
        applier.hold(done).await.map(|()| true)
    });
    let slot = slot.await?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        Literal(&slot.snapshot)
    );
    source.run("taking the snapshot of a comparison", &begin).await?;
    drop(sender);
    let reached = applier.advance(&Target::Position(slot.consistent), pending()).await?;
    debug_assert!(reached, "only a signal stops it before");
    // The first statement takes the snapshot: exactly the source's transactions before that point.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1";
    destination.run("taking the snapshot of a comparison", begin).await?;
    let tables = stream.compared();
    let both = async {
        let (here, there) =
            join!(sums(&source, &tables, Side::Source), sums(&destination, &tables, Side::Target));
        Ok((here?, there?))
    };
    let both = beside(both, async |done| applier.advance(&Target::Never, done).await);
    let (here, there) = both.await?;
    let Some(at) = here.iter().zip(&there).position(|(here, there)| here != there) else {
        return Ok(proofs(&tables, slot.consistent, here));
    };
    let ((lane, table), here, there) = (&tables[at], &here[at], &there[at]);
    let text = format!(
        "table {} differs at {}: the source has {} rows with checksum {}, the destination {} with {}",
        table.new_leaf, slot.consistent, here.0, here.1, there.0, there.1
    );
    let named = named(&source, &destination, *lane, table);
    let rows = beside(named, async |done| applier.advance(&Target::Never, done).await).await?;
    Err(MoveError::Differs { text, rows })
}

/// Some of the rows that differ, in the snapshots of both sessions.
async fn named(
    source: &Session,
    destination: &Session,
    lane: OneLane<'_>,
    table: &MovedTable,
) -> Result<Vec<String>, MoveError> {
    let (from, to) = (table.leaf.to_string(), table.new_leaf.to_string());
    let columns = names::columns(table);
    let key = look::names(source, look::oid(source, &table.leaf).await?, PRIMARY_KEY).await?;
    let identity = if key.is_empty() { columns.clone() } else { names::list(&key) };
    let given = lane.given(table, look::oid(source, dealt_by(table)).await?);
    let gotten = lane.gotten(table, look::oid(destination, &table.parent).await?);
    let parts = table.across.is_some();
    let copy = |session, table, condition| Copy {
        session,
        table,
        parts,
        columns: &columns,
        identity: &identity,
        condition,
    };
    let here = copy(source, &from, given.as_deref().unwrap_or("true"));
    let there = copy(destination, &to, gotten.as_deref().unwrap_or("true"));
    let (here_sums, there_sums) = (here.sums().await?, there.sums().await?);
    name_rows((&here, &here_sums), (&there, &there_sums)).await
}

/// A slot for its snapshot alone; it goes with its connection.
async fn snapshot_slot(
    context: &MoverContext,
    stream: &Stream<'_>,
    sender: &mut WalSender,
) -> Result<NewSlot, MoveError> {
    let deadline = Duration::from_millis(context.config().slot_deadline_ms);
    sender.create_slot(&stream.verify_slot(), true, deadline).await
}

/// Does `work` while the stream is cared for until it is done.
async fn beside<T>(
    work: impl Future<Output = Result<T, MoveError>>,
    care: impl AsyncFnOnce(WaitForCancellationFuture<'_>) -> Result<bool, MoveError>,
) -> Result<T, MoveError> {
    let done = CancellationToken::new();
    let work = async {
        let result = work.await;
        done.cancel();
        result
    };
    let (result, cared) = tokio::join!(work, care(done.cancelled()));
    cared?;
    result
}

/// Which end of a stream is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

/// Rows and checksum of the lane's part of each table, in the session's snapshot.
async fn sums(
    session: &Session,
    tables: &[(OneLane<'_>, MovedTable)],
    side: Side,
) -> Result<Sums, MoveError> {
    let mut all = Vec::with_capacity(tables.len());
    for (lane, table) in tables {
        let (leaf, condition) = match side {
            Side::Source => {
                let parent = look::oid(session, dealt_by(table)).await?;
                (&table.leaf, lane.given(table, parent))
            }
            Side::Target => {
                let parent = look::oid(session, &table.parent).await?;
                (&table.new_leaf, lane.gotten(table, parent))
            }
        };
        let sql = sum(table, leaf, condition.as_deref());
        let row = session.client.query_one(&sql, &[]).await;
        let row = row.map_err(session.failed("summing up a table"))?;
        let rows: i64 = row.get(0);
        all.push((u64::try_from(rows).unwrap_or_default(), row.get(1)));
    }
    Ok(all)
}

/// Count and checksum of a leaf's rows, which does not depend on their order; a row's text is the
/// same on both nodes since the sessions' settings are.
fn sum(table: &MovedTable, leaf: &TableName, condition: Option<&str>) -> String {
    format!(
        "SELECT count(*), coalesce(sum(hash), 0)::text || ' ' || coalesce(bit_xor(hash), 0)::text \
         FROM (SELECT hashtextextended(ROW({})::text COLLATE \"C\", 0) AS hash FROM {} \
         WHERE {}) AS hashed",
        names::columns(table),
        from(table, leaf),
        condition.unwrap_or("true"),
    )
}

/// A table of a comparison as it stands in FROM: where rows go across, both are partitioned.
fn from(table: &MovedTable, name: &TableName) -> String {
    if table.across.is_some() { name.to_string() } else { format!("ONLY {name}") }
}

fn proofs(tables: &[(OneLane<'_>, MovedTable)], lsn: Lsn, sums: Sums) -> Vec<Proof> {
    let proof = |((_, table), (rows, checksum)): (&(OneLane<'_>, MovedTable), _)| Proof {
        leaf: table.new_leaf.clone(),
        rows,
        checksum,
        lsn,
    };
    tables.iter().zip(sums).map(proof).collect()
}
