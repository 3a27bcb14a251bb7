//! Applies the stream until what is left of it is small and any back-off of the switch is over.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::apply::{Applier, Target};
use super::context::{MoverContext, now_unix_ms};
use super::error::MoveError;
use super::session::Session;
use crate::shard_move::{Event, Move};

/// How long the stream is applied before its lag is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest time without a word from the source while its stream is behind. A transaction that takes
/// longer to decode or to apply is no stall.
const STALL: Duration = Duration::from_mins(2);

/// Applies until caught up. Without a limit of time as long as it makes progress.
pub(super) async fn catch_up(
    context: &MoverContext,
    mv: &Move,
    applier: &mut Applier<'_>,
) -> Result<Event, MoveError> {
    let source = Session::open(context, mv, mv.from).await?;
    let mut progressed_at = Instant::now();
    loop {
        let (before, end) = (applier.received(), source.wal_end().await?);
        let reached = applier.advance(&Target::Position(end), sleep(LOOK_EVERY)).await?;
        let lag_bytes = source.wal_end().await?.0.saturating_sub(applier.seen().0);
        note_lag(context, mv, lag_bytes);
        if reached && lag_bytes <= context.config.lag_threshold_bytes {
            let wait_ms = mv.not_before_unix_ms.saturating_sub(now_unix_ms());
            if wait_ms == 0 {
                return Ok(Event::CaughtUp);
            }
            let wait = LOOK_EVERY.min(Duration::from_millis(wait_ms));
            applier.advance(&Target::Never, sleep(wait)).await?;
        }
        if reached || applier.received() > before {
            progressed_at = Instant::now();
        } else if progressed_at.elapsed() > STALL {
            return Err(MoveError::Timeout("the next change of the stream"));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn note_lag(context: &MoverContext, mv: &Move, lag_bytes: u64) {
    context.progress.update(mv.id, |live| live.lag_bytes = lag_bytes);
    metrics::gauge!("foreshard_mover_lag_bytes", "shard" => mv.shard.to_string())
        .set(lag_bytes as f64);
}
