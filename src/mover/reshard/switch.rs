//! The switch: the gates of the whole group, a lock on its tables on every node, the rest of the
//! streams, the exchange of the tables in one transaction over all nodes, the new map, gates.
//!
//! Until the decision is stored with the new map nothing has changed, and the gates open again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::apply::{Applier, Target};
use super::super::catch_up::care;
use super::super::context::MoverContext;
use super::super::detach::last_words;
use super::super::error::MoveError;
use super::super::lane::streams;
use super::super::names;
use super::super::session::{Session, jitter};
use super::swap::Swap;
use super::{Plan, Resharder};
use crate::executor::{ClosedGate, OutsideCommit};
use crate::ids::{Epoch, NodeId, ShardId};
use crate::sql::Literal;

/// How long the first tries wait for statements under way; it doubles up to what is configured.
const FIRST_DRAIN_MS: u64 = 40;
/// How long a stream that is behind may catch up behind closed gates.
const LAST_LAG: Duration = Duration::from_millis(50);

/// How the tries ended.
pub(super) enum Tried {
    /// The new map is in force; statements waited so long at the most.
    Switched(Duration),
    /// Somebody was in the way; nothing has changed.
    Later(String),
}

/// Why one try came to nothing.
enum Obstacle {
    /// Again after a while.
    Passing(String),
    /// It failed.
    Failed(MoveError),
}

impl From<MoveError> for Obstacle {
    fn from(error: MoveError) -> Self {
        if error.is_lock_timeout() {
            return Self::Passing("transactions on the tables do not end in time".to_owned());
        }
        Self::Failed(error)
    }
}

/// The gates of the group's shards, closed until it is dropped.
pub(super) struct Closed<'a> {
    context: &'a MoverContext,
    shards: Vec<ShardId>,
    since: Instant,
    /// Whoever has this dropped in the middle leaves the gates closed: nobody may use the tables
    /// before it is known which ones they are.
    pub(super) undecided: bool,
}

impl<'a> Closed<'a> {
    /// Closes all of them.
    fn all(context: &'a MoverContext, plan: &Plan) -> (Self, Vec<Arc<ClosedGate>>) {
        let since = Instant::now();
        let mut closed = Self { context, shards: Vec::new(), since, undecided: false };
        let mut gates = Vec::new();
        for part in &plan.sources {
            gates.push(context.hold(part.shard));
            closed.shards.push(part.shard);
        }
        (closed, gates)
    }

    /// How long they are closed.
    pub(super) fn pause(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        if !self.undecided {
            for shard in &self.shards {
                self.context.release(*shard);
            }
        }
    }
}

impl Resharder<'_, '_> {
    /// A few tries.
    pub(super) async fn switch(
        &mut self,
        plan: &Plan,
        appliers: &mut [Applier<'_>],
    ) -> Result<Tried, MoveError> {
        let config = self.desk.context.config();
        let mut reason = String::new();
        for attempt in 0..config.switch_tries.max(1) {
            match self.attempt(plan, appliers, attempt).await {
                Ok(pause) => return Ok(Tried::Switched(pause)),
                Err(Obstacle::Failed(error)) => return Err(error),
                Err(Obstacle::Passing(why)) => reason = why,
            }
            let pause = jitter(config.backoff(25, attempt));
            care(appliers, || sleep(pause)).await?;
        }
        Ok(Tried::Later(reason))
    }

    async fn attempt(
        &mut self,
        plan: &Plan,
        appliers: &mut [Applier<'_>],
        attempt: u32,
    ) -> Result<Duration, Obstacle> {
        let context = self.desk.context;
        let mut ends = Ends::open(self, plan).await?;
        let passing = |why: &str| Obstacle::Passing(why.to_owned());
        let (closed, gates) = Closed::all(context, plan);
        let marker = format!("{} {attempt} {}", names::slot(&plan.mv, 0), ends.outside.gid());
        let (left, stayed) = (CancellationToken::new(), CancellationToken::new());
        let seen: Vec<_> = appliers.iter().map(Applier::watch_seen).collect();
        let leave = async {
            let result = ends.leave(plan, gates, (&marker, attempt), &seen).await;
            if result.is_ok() {
                left.cancel();
            } else {
                stayed.cancel();
            }
            result
        };
        let deadline = Duration::from_millis(context.config().marker_deadline_ms);
        let give_up = async || {
            tokio::select! {
                () = stayed.cancelled() => {}
                () = async { left.cancelled().await; sleep(deadline).await } => {}
            }
        };
        let target = Target::Marker(marker.clone());
        let advance = appliers.iter_mut().map(|applier| applier.advance(&target, give_up()));
        let (result, reached) = tokio::join!(leave, join_all(advance));
        let reached: Result<Vec<bool>, MoveError> = reached.into_iter().collect();
        let result = match (result, reached) {
            (Ok(()), Ok(reached)) if reached.iter().all(|reached| *reached) => {
                context.pass("reshard_arrived").map_err(Obstacle::Failed)?;
                ends.prepare().await
            }
            (Ok(()), Ok(_)) => Err(passing("the rest of the stream took too long")),
            (Ok(()) | Err(_), Err(error)) => Err(Obstacle::Failed(error)),
            (Err(obstacle), Ok(_)) => Err(obstacle),
        };
        if let Err(obstacle) = result {
            ends.roll_back().await;
            return Err(obstacle);
        }
        context.pass("reshard_prepared").map_err(Obstacle::Failed)?;
        match self.commit(plan, ends, closed).await? {
            Some(pause) => Ok(pause),
            None => {
                Err(Obstacle::Failed(MoveError::Anew("the map was changed meanwhile".to_owned())))
            }
        }
    }
}

/// All nodes of one try, with the transaction that is going to be prepared on each.
pub(super) struct Ends<'a> {
    context: &'a MoverContext,
    pub(super) outside: OutsideCommit,
    pub(super) swaps: Vec<Swap>,
    /// Where the marker is written, beside the open transactions: what is prepared must not hold the row
    /// by which a newer proxy would be known.
    speakers: Vec<(NodeId, Session)>,
}

impl<'a> Ends<'a> {
    async fn open(work: &Resharder<'a, '_>, plan: &Plan) -> Result<Ends<'a>, MoveError> {
        let context = work.desk.context;
        let outside = OutsideCommit::new(&work.desk.engine);
        let (mut swaps, mut speakers) = (Vec::new(), Vec::new());
        for node in &plan.members {
            let session = Session::open(context, &plan.mv, *node).await?;
            let place = (*node, plan.targets.as_slice());
            swaps.push(Swap::read(session, work.job(), &plan.tables, place).await?);
        }
        for node in plan.mv.nodes() {
            if plan.mv.lanes.iter().any(|lane| lane.source.node == node) {
                speakers.push((node, Session::open(context, &plan.mv, node).await?));
            }
        }
        Ok(Self { context, outside, swaps, speakers })
    }

    /// Waits until nobody is inside the gates, keeps everybody else from writing, and writes the marker.
    async fn leave(
        &self,
        plan: &Plan,
        gates: Vec<Arc<ClosedGate>>,
        (marker, attempt): (&str, u32),
        seen: &[Arc<AtomicU64>],
    ) -> Result<(), Obstacle> {
        let config = self.context.config();
        let drain = (FIRST_DRAIN_MS << attempt.min(16)).min(config.drain_deadline_ms);
        let shards: Vec<_> = plan.sources.iter().map(|part| part.shard).collect();
        let drained = timeout(Duration::from_millis(drain), async {
            let here = join_all(gates.iter().map(|gate| gate.drained()));
            tokio::join!(here, self.context.drain_elsewhere(&shards)).1
        });
        let drained = drained.await;
        drop(gates);
        let Ok(closed) = drained else {
            let why = "statements or transactions on the group did not end in time";
            return Err(Obstacle::Passing(why.to_owned()));
        };
        closed?;
        if !self.is_near(plan, seen).await? {
            let why = "a large transaction is still to be applied";
            return Err(Obstacle::Passing(why.to_owned()));
        }
        let locks = self.swaps.iter().zip(&plan.shapes);
        let locks = locks.map(async |(swap, shape): (&Swap, &String)| {
            swap.lock(config.lock_timeout_ms).await?;
            if swap.is_as_it_was(shape).await? {
                return Ok(());
            }
            Err(MoveError::Refused(format!(
                "the definition of a table was changed on node {} meanwhile: ask for it again",
                swap.session.node
            )))
        });
        // All of them end before anything is rolled back.
        join_all(locks).await.into_iter().collect::<Result<(), MoveError>>()?;
        self.context.pass("reshard_locked").map_err(Obstacle::Failed)?;
        let epoch = Epoch(self.context.live_map.load().epoch().0 + 1);
        for (node, speaker) in &self.speakers {
            let words = last_words(self.context.address(*node)?, marker, epoch);
            speaker.run("writing the marker", &words).await?;
        }
        Ok(())
    }

    /// Whether little enough of the streams is left that their end can be waited for.
    async fn is_near(&self, plan: &Plan, seen: &[Arc<AtomicU64>]) -> Result<bool, MoveError> {
        let mut far = Vec::new();
        for (stream, seen) in streams(&plan.mv).iter().zip(seen) {
            let swap = self.swaps.iter().find(|swap| swap.node == stream.from());
            let Some(swap) = swap else { continue };
            let end = swap.session.wal_end().await?.0;
            far.push((end.saturating_sub(self.context.config().lag_threshold_bytes), seen));
        }
        let until = Instant::now() + LAST_LAG;
        while !far.iter().all(|(near, seen)| seen.load(Ordering::Relaxed) >= *near) {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(true)
    }

    /// Exchanges the tables on every node, and leaves that prepared.
    async fn prepare(&mut self) -> Result<(), Obstacle> {
        let all = join_all(self.swaps.iter().map(|swap| swap.prepare(self.outside.gid()))).await;
        match all.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().next() {
            Some(waiting) => Err(Obstacle::Passing(waiting)),
            None => Ok(()),
        }
    }

    /// Nothing is decided, so nothing is done. What can't be rolled back is left to the resolver.
    pub(super) async fn roll_back(&self) {
        let prepared = format!("ROLLBACK PREPARED {}", Literal(self.outside.gid()));
        for swap in &self.swaps {
            let done = async {
                swap.session.run("rolling back", "ROLLBACK").await?;
                swap.session.run("rolling back", &prepared).await
            };
            if let Err(error) = done.await {
                tracing::info!(error = error.story(), "a node had nothing to roll back");
            }
        }
    }
}
