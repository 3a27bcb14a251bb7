//! Applies the streams until what is left of them is small and any back-off of the switch is over.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::apply::{Applier, Target};
use super::context::{MoverContext, now_unix_ms};
use super::error::MoveError;
use super::lane::{Sessions, streams};
use super::session::Session;
use crate::ids::Lsn;
use crate::shard_move::{Event, Move};

/// How long the stream is applied before its lag is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A stream that reaches in this time where the source was at its begin has caught up, however much
/// the source writes meanwhile.
const NEAR: Duration = Duration::from_millis(100);
/// Longest time without a word from the source while its stream is behind. A transaction that takes
/// longer to decode or to apply is no stall.
const STALL: Duration = Duration::from_mins(2);
/// A stream that has so often reached where the source was, and is still not near, does not get nearer on
/// nodes that are that busy: whether it is near enough the switch finds out, which may be put off.
const ROUNDS: u32 = 10;

/// Applies until all streams are caught up. Without a limit of time as long as they make progress.
pub(super) async fn catch_up(
    context: &MoverContext,
    mv: &Move,
    appliers: &mut [Applier<'_>],
) -> Result<Event, MoveError> {
    let sessions = Sessions::open(context, mv).await?;
    let mut progressed_at = Instant::now();
    let mut ways: Vec<Way> = appliers.iter().map(|_| Way::default()).collect();
    let (mut rounds, mut best) = (0, Duration::MAX);
    loop {
        let before: u64 = appliers.iter().map(Applier::received).sum();
        let mut steps = Vec::new();
        for ((stream, applier), way) in streams(mv).iter().zip(appliers.iter_mut()).zip(&mut ways) {
            steps.push(way.step(sessions.on(stream.from())?, applier));
        }
        try_join_all(steps).await?;
        let reached = ways.iter().all(|way| way.lag.is_some());
        let lags = || ways.iter().filter_map(|way| way.lag.as_ref());
        let lag_bytes = lags().map(|lag| lag.bytes).max().unwrap_or(0);
        let slowest = lags().map(|lag| lag.took).max().unwrap_or_default();
        if reached {
            note_lag(context, mv, lag_bytes);
            rounds = if slowest < best / 2 { 0 } else { rounds + 1 };
            best = best.min(slowest);
            ways.iter_mut().for_each(|way| way.lag = None);
        }
        let near = lag_bytes <= context.config().lag_threshold_bytes || slowest <= NEAR;
        if reached && (near || rounds >= ROUNDS) {
            let wait_ms = mv.not_before_unix_ms.saturating_sub(now_unix_ms());
            if wait_ms == 0 {
                return Ok(Event::CaughtUp);
            }
            let wait = LOOK_EVERY.min(Duration::from_millis(wait_ms));
            care(appliers, || sleep(wait)).await?;
        }
        if reached || appliers.iter().map(Applier::received).sum::<u64>() > before {
            progressed_at = Instant::now();
        } else if progressed_at.elapsed() > STALL {
            return Err(MoveError::Timeout("the next change of the stream"));
        }
    }
}

/// How far a stream is behind.
struct Lag {
    /// What the source has written since it was looked at.
    bytes: u64,
    /// How long it took to get where it was then.
    took: Duration,
}

/// A stream on its way to where its source was at some time.
#[derive(Default)]
struct Way {
    /// Where the source was, and when; `None` once the stream is there.
    goal: Option<(Lsn, Instant)>,
    /// What was left of the stream when it was last there.
    lag: Option<Lag>,
}

impl Way {
    /// Applies a while. A goal that is not reached stays: on a busy node another one in its place might
    /// never be.
    async fn step(&mut self, source: &Session, applier: &mut Applier<'_>) -> Result<(), MoveError> {
        let (end, began) = match self.goal {
            Some(goal) => goal,
            None => (source.wal_end().await?, Instant::now()),
        };
        self.goal = Some((end, began));
        if applier.advance(&Target::Position(end), sleep(LOOK_EVERY)).await? {
            let took = began.elapsed();
            let bytes = source.wal_end().await?.0.saturating_sub(applier.seen().0);
            *self = Self { goal: None, lag: Some(Lag { bytes, took }) };
        }
        Ok(())
    }
}

/// Applies all streams until the signals.
pub(super) async fn care<F: Future<Output = ()>>(
    appliers: &mut [Applier<'_>],
    signal: impl Fn() -> F,
) -> Result<(), MoveError> {
    let all = appliers.iter_mut().map(|applier| applier.advance(&Target::Never, signal()));
    try_join_all(all).await.map(drop)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn note_lag(context: &MoverContext, mv: &Move, lag_bytes: u64) {
    context.progress.update(mv.id, |live| live.lag_bytes = lag_bytes);
    metrics::gauge!("foreshard_mover_lag_bytes", "shard" => mv.shard.to_string())
        .set(lag_bytes as f64);
}
