//! Compares both sides at one WAL position, while traffic goes on.

use std::future::pending;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::apply::{Applier, Target};
use super::context::MoverContext;
use super::error::MoveError;
use super::names;
use super::session::Session;
use super::walsender::{NewSlot, WalSender};
use crate::ids::Lsn;
use crate::shard_move::{Event, Move, MovedTable, Proof};
use crate::sql::Literal;

/// Rows and their checksum; `None` where a table has no rows to sum.
type Sums = Vec<(u64, String)>;

/// Compares rows and checksums of every table. A difference is a refusal: the move must not switch.
pub(super) async fn verify(
    context: &MoverContext,
    mv: &Move,
    applier: &mut Applier<'_>,
) -> Result<Event, MoveError> {
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    let mut sender = WalSender::open(context, mv, mv.from).await?;
    // The stream stands still until it is known where it has to stop.
    let slot = beside(snapshot_slot(context, mv, &mut sender), async |done| {
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
    let begin =
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM foreshard.moves";
    destination.run("taking the snapshot of a comparison", begin).await?;
    let both = async { tokio::try_join!(sums(&source, mv), sums(&destination, mv)) };
    let both = beside(both, async |done| applier.advance(&Target::Never, done).await);
    let (here, there) = both.await?;
    let proofs = compare(mv, slot.consistent, here, &there)?;
    context.pass("verified")?;
    Ok(Event::Verified(proofs))
}

/// A slot for its snapshot alone; it goes with its connection.
async fn snapshot_slot(
    context: &MoverContext,
    mv: &Move,
    sender: &mut WalSender,
) -> Result<NewSlot, MoveError> {
    let deadline = Duration::from_millis(context.config.slot_deadline_ms);
    sender.create_slot(&names::verify_slot(mv), true, deadline).await
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

/// Rows and checksum of each table, in the session's snapshot. The checksum does not depend on the
/// order of rows; a row's text is the same on both nodes since the sessions' settings are.
async fn sums(session: &Session, mv: &Move) -> Result<Sums, MoveError> {
    let mut all = Vec::with_capacity(mv.tables.len());
    for table in &mv.tables {
        let sql = sum(table);
        let row = session.client.query_one(&sql, &[]).await;
        let row = row.map_err(session.failed("summing up a table"))?;
        let rows: i64 = row.get(0);
        all.push((u64::try_from(rows).unwrap_or_default(), row.get(1)));
    }
    Ok(all)
}

fn sum(table: &MovedTable) -> String {
    format!(
        "SELECT count(*), coalesce(sum(hash), 0)::text || ' ' || coalesce(bit_xor(hash), 0)::text \
         FROM (SELECT hashtextextended(ROW({})::text COLLATE \"C\", 0) AS hash FROM {}) AS hashed",
        names::columns(table),
        table.leaf
    )
}

fn compare(mv: &Move, lsn: Lsn, here: Sums, there: &Sums) -> Result<Vec<Proof>, MoveError> {
    let mut proofs = Vec::with_capacity(here.len());
    for ((table, (rows, checksum)), other) in mv.tables.iter().zip(here).zip(there) {
        if *other != (rows, checksum.clone()) {
            return Err(MoveError::Refused(format!(
                "table {} differs at {lsn}: the source has {rows} rows with checksum {checksum}, \
                 the destination {} with {}",
                table.leaf, other.0, other.1
            )));
        }
        proofs.push(Proof { leaf: table.leaf.clone(), rows, checksum, lsn });
    }
    Ok(proofs)
}
