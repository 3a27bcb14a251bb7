//! The switch: gates, drain, detach, the rest of the streams, attach, the new map, gates.
//!
//! Until a source has detached nothing has changed and the gates open again. From then on they stay
//! closed, whatever fails, until [`settle`] knows who has the rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::apply::{Applier, Target};
use super::catch_up::care;
use super::commit::commit;
use super::context::{Hiding, MoverContext, now_unix_ms};
use super::detach::{self, Given, Way};
use super::error::MoveError;
use super::lane::{Sessions, streams};
use super::names;
use super::phases::Phases;
use super::position;
use super::rehearse::rehearse;
use super::session::{Session, jitter};
use super::settle::{Owner, attach_all_but, settle};
use crate::catalog::Versioned;
use crate::executor::ClosedGate;
use crate::ids::Epoch;
use crate::shard_move::{Event, Kind, Move};

/// How long and how often the destination's parents are asked for, in ms.
const ATTACH_LOCK: (u64, u32) = (300, 3);
/// How long the first tries wait for statements under way; it doubles up to what is configured.
const FIRST_DRAIN_MS: u64 = 40;
/// How often the switch of several shards of a node may be put off because somebody holds a lock that
/// it needs: one shard alone can do without that lock.
const LOCKED_OUT: u32 = 6;
/// How long a stream that is behind may catch up behind closed gates.
const LAST_LAG: Duration = Duration::from_millis(50);

/// How a switch ended.
pub(super) enum Switched {
    /// The catalog has it; and how long the gates were closed, if this process closed them.
    Yes(Box<Versioned<Move>>, Option<Duration>),
    /// It was given up before anything changed; the streams go on.
    Later(Event),
    /// It was undone; the streams have to be started anew.
    Undone(Event),
}

/// Why the sources did not let go.
enum Obstacle {
    /// Statements: again after a while with open gates. Nothing has changed.
    Passing(String),
    /// Somebody holds a lock that plain detachment needs. Nothing has changed.
    Locked(String),
    /// It failed. Nothing has changed.
    Before(MoveError),
    /// It may have let go.
    Unknown(MoveError),
}

/// Tries to switch, a few times. An error after a source detached is settled before this returns.
pub(super) async fn switch(
    context: &MoverContext,
    mv: &Versioned<Move>,
    appliers: &mut [Applier<'_>],
    stopping: &CancellationToken,
) -> Result<Switched, MoveError> {
    let sessions = Sessions::open(context, &mv.record).await?;
    let givers = detach::given(&mv.record, &sessions).await?;
    let rehearsed = CancellationToken::new();
    let rehearsal = async {
        let result = rehearse(context, &mv.record, &sessions, &givers).await;
        rehearsed.cancel();
        result
    };
    let (result, cared) = tokio::join!(rehearsal, care(appliers, || rehearsed.cancelled()));
    cared.and(result)?;
    let mut ends = Ends::new(context, mv, (sessions, givers), stopping);
    let (mut reason, mut locked) = (String::new(), false);
    for attempt in 0..context.config().switch_tries.max(1) {
        match ends.attempt(appliers, attempt).await {
            Ok(switched) => return Ok(switched),
            Err(Obstacle::Before(error) | Obstacle::Unknown(error)) => return Err(error),
            Err(Obstacle::Passing(why)) => (reason, locked) = (why, false),
            Err(Obstacle::Locked(why)) => {
                (reason, locked) = (why, true);
                ends.go_concurrently().await?;
            }
        }
        let pause = jitter(context.config().backoff(25, attempt));
        care(appliers, || sleep(pause)).await?;
    }
    let postponed = mv.record.postponed;
    if postponed >= context.config().postponements_max {
        let text =
            format!("the switch was put off {postponed} times, the last time since {reason}");
        return Err(MoveError::Refused(text));
    }
    if locked && postponed >= LOCKED_OUT && mv.record.kind() == Kind::Batch {
        let text = format!(
            "the shards can't be switched together since {reason}: ask for each by a move of its own, \
             which gets by without that lock"
        );
        return Err(MoveError::Refused(text));
    }
    let wait = context.config().backoff(context.config().switch_backoff_ms, postponed);
    let wait = u64::try_from(jitter(wait).as_millis()).unwrap_or(u64::MAX);
    Ok(Switched::Later(Event::Postponed { reason, retry_unix_ms: now_unix_ms() + wait }))
}

/// Takes up a switch that another process left, or an earlier try: settles it and stores the
/// outcome. The gates must be closed.
pub(super) async fn resume(
    context: &MoverContext,
    mv: &Versioned<Move>,
    reason: String,
) -> Result<Switched, MoveError> {
    if settle(context, &mv.record).await? == Owner::Destination {
        let stored = commit(context, mv).await?;
        return Ok(Switched::Yes(Box::new(stored), None));
    }
    Ok(Switched::Undone(Event::Postponed { reason, retry_unix_ms: now_unix_ms() }))
}

/// All nodes of one switch.
struct Ends<'a> {
    context: &'a MoverContext,
    mv: &'a Versioned<Move>,
    sessions: Sessions,
    givers: Vec<Given>,
    stopping: &'a CancellationToken,
    way: Way,
    /// For each giver, the sessions that detach concurrently.
    hiders: Vec<Vec<Session>>,
    phases: Phases,
}

impl<'a> Ends<'a> {
    fn new(
        context: &'a MoverContext,
        mv: &'a Versioned<Move>,
        (sessions, givers): (Sessions, Vec<Given>),
        stopping: &'a CancellationToken,
    ) -> Self {
        let (way, hiders, phases) = (Way::Plainly, Vec::new(), Phases::default());
        Self { context, mv, sessions, givers, stopping, way, hiders, phases }
    }

    /// Detaches concurrently from now on, if it can: one shard at a time can be on its way out of a
    /// node, and nothing that holds its keys can be attached beside it.
    async fn go_concurrently(&mut self) -> Result<(), MoveError> {
        let mv = &self.mv.record;
        let apart = mv.lanes.iter().all(|lane| lane.source.node != lane.target.node);
        let one_by_one = mv.sources().len() == self.givers.len();
        let can = !self.givers.iter().any(|given| given.only_plainly);
        if self.way == Way::Plainly && can && apart && one_by_one {
            self.way = Way::Concurrently;
            for given in &self.givers {
                self.hiders.push(given.hiders(self.context, &self.mv.record).await?);
            }
        }
        Ok(())
    }

    /// One try. The streams are applied all the while, so that little is left of them when it
    /// counts.
    async fn attempt(
        &self,
        appliers: &mut [Applier<'_>],
        attempt: u32,
    ) -> Result<Switched, Obstacle> {
        let Some(first) = self.givers.first() else {
            return Err(Obstacle::Before(MoveError::Refused("there is no source".to_owned())));
        };
        let source = self.sessions.on(first.node).map_err(Obstacle::Before)?;
        let wal_end = source.wal_end().await.map_err(Obstacle::Before)?;
        let marker = names::marker(&self.mv.record, wal_end, attempt);
        let _hiding = self.make_room().await?;
        let gates = self.context.hold_all(&self.mv.record);
        self.phases.begin();
        let (left, stayed) = (CancellationToken::new(), CancellationToken::new());
        let seen: Vec<_> = appliers.iter().map(Applier::watch_seen).collect();
        let leave = async {
            let result = self.leave(gates, &marker, attempt, &seen).await;
            if result.is_ok() {
                left.cancel();
            } else {
                stayed.cancel();
            }
            result
        };
        let deadline = Duration::from_millis(self.context.config().marker_deadline_ms);
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
        match result {
            Ok(()) => {}
            Err(Obstacle::Unknown(error)) => return self.settled(error).await,
            Err(Obstacle::Before(error)) if error.ends_the_driver() => {
                return Err(Obstacle::Before(error));
            }
            Err(obstacle) => {
                self.context.release_all(&self.mv.record);
                reached.map_err(Obstacle::Before)?;
                return Err(obstacle);
            }
        }
        match self.arrive(reached).await {
            Ok(stored) => {
                let pause = self.context.release_all(&self.mv.record);
                self.phases.reached("stored");
                self.phases.tell();
                Ok(Switched::Yes(Box::new(stored), pause))
            }
            Err(error) => self.settled(error).await,
        }
    }

    /// Before sources are left concurrently: no other shard may be on its way out of them.
    async fn make_room(&self) -> Result<Option<Hiding<'_>>, Obstacle> {
        if self.way == Way::Plainly {
            return Ok(None);
        }
        let nodes = self.givers.iter().map(|given| given.node).collect();
        let busy = || Obstacle::Passing("another shard is on its way out of the node".to_owned());
        let hiding = self.context.hide_on(nodes).ok_or_else(busy)?;
        for given in &self.givers {
            let source = self.sessions.on(given.node).map_err(Obstacle::Before)?;
            match given.finish_others(source, self.context.config().lock_timeout_ms).await {
                Err(error) if error.is_lock_timeout() => return Err(busy()),
                finished => finished.map_err(Obstacle::Before)?,
            }
        }
        Ok(Some(hiding))
    }

    /// Waits until nobody is inside the gates, and lets the sources let go.
    async fn leave(
        &self,
        gates: Vec<Arc<ClosedGate>>,
        marker: &str,
        attempt: u32,
        seen: &[Arc<AtomicU64>],
    ) -> Result<(), Obstacle> {
        let shards: Vec<_> = self.mv.record.sources().iter().map(|it| it.shard).collect();
        let drained = timeout(self.drain_deadline(attempt), async {
            let here = join_all(gates.iter().map(|gate| gate.drained()));
            tokio::join!(here, self.context.drain_elsewhere(&shards)).1
        });
        let drained = drained.await;
        drop(gates);
        let Ok(closed) = drained else {
            let why = "statements or transactions on the shard did not end in time";
            return Err(Obstacle::Passing(why.to_owned()));
        };
        closed.map_err(Obstacle::Before)?;
        self.phases.reached("drained");
        self.context.pass("drained").map_err(Obstacle::Before)?;
        if !self.is_near(seen).await.map_err(Obstacle::Before)? {
            let why = "a large transaction is still to be applied";
            return Err(Obstacle::Passing(why.to_owned()));
        }
        let lock_timeout = self.context.config().lock_timeout_ms;
        let epoch = Epoch(self.context.live_map.load().epoch().0 + 1);
        for given in &self.givers {
            let source = self.sessions.on(given.node).map_err(Obstacle::Before)?;
            let address = self.context.address(given.node).map_err(Obstacle::Before)?;
            let words = detach::last_words(address, marker, epoch);
            let let_go = match self.way {
                Way::Plainly => given.detach(source, &words, lock_timeout).await,
                Way::Concurrently => given.freeze(source, &words, lock_timeout).await,
            };
            if let Err(error) = let_go {
                return Err(self.not_left(error).await);
            }
        }
        self.phases.reached("let_go");
        for given in &self.givers {
            let source = self.sessions.on(given.node).map_err(Obstacle::Unknown)?;
            let committed = source.run("committing the detachment", "COMMIT").await;
            committed.map_err(Obstacle::Unknown)?;
        }
        self.phases.reached("committed");
        let passed = match self.way {
            Way::Plainly => "detached",
            Way::Concurrently => "frozen",
        };
        self.context.pass(passed).map_err(Obstacle::Unknown)
    }

    /// Nothing is committed, so nothing is done. A session may be beyond a rollback: then it is
    /// closed.
    async fn not_left(&self, error: MoveError) -> Obstacle {
        let mut rolled_back = true;
        for given in &self.givers {
            let source = match self.sessions.on(given.node) {
                Ok(source) => source.run("rolling back", "ROLLBACK").await,
                Err(error) => Err(error),
            };
            rolled_back &= source.is_ok();
        }
        if error.is_lock_timeout() && rolled_back {
            let why = "another transaction on the source holds a lock on the shard's tables";
            return Obstacle::Locked(why.to_owned());
        }
        Obstacle::Before(error)
    }

    /// The longest wait for statements under way: short at first, since others wait meanwhile.
    fn drain_deadline(&self, attempt: u32) -> Duration {
        let tries = self.mv.record.postponed.saturating_add(attempt).min(16);
        let most = self.context.config().drain_deadline_ms;
        Duration::from_millis((FIRST_DRAIN_MS << tries).min(most))
    }

    /// Whether little enough of the streams is left that their end can be waited for: a large
    /// transaction may have been committed just now.
    async fn is_near(&self, seen: &[Arc<AtomicU64>]) -> Result<bool, MoveError> {
        let mut far = Vec::new();
        for (stream, seen) in streams(&self.mv.record).iter().zip(seen) {
            let end = self.sessions.on(stream.from())?.wal_end().await?;
            far.push((end.0.saturating_sub(self.context.config().lag_threshold_bytes), seen));
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

    /// Attaches at the destinations, which have every row by now, and tells the catalog.
    async fn arrive(
        &self,
        reached: Result<Vec<bool>, MoveError>,
    ) -> Result<Versioned<Move>, MoveError> {
        if reached?.contains(&false) {
            return Err(MoveError::Timeout("applying the rest of the stream"));
        }
        self.phases.reached("applied");
        self.context.pass("marker_applied")?;
        let mv = &self.mv.record;
        if self.way == Way::Concurrently {
            for stream in streams(mv) {
                let session = self.sessions.on(stream.to())?;
                let sql = position::set_arrived(&stream.slot(), true);
                session.run("noting that everything arrived", &sql).await?;
            }
            self.context.pass("arrived")?;
            let hide = self.givers.iter().zip(&self.hiders).map(|(given, hiders)| async move {
                given.hide(self.sessions.on(given.node)?, hiders).await
            });
            try_join_all(hide).await?;
            self.context.pass("hidden")?;
        }
        self.phases.reached("hidden");
        attach_all_but(mv, &self.sessions, &[], ATTACH_LOCK).await?;
        self.phases.reached("attached");
        self.context.pass("attached")?;
        commit(self.context, self.mv).await
    }

    /// After an error in the middle: finds out who has the shard, however long it takes, and opens
    /// the gates then.
    async fn settled(&self, error: MoveError) -> Result<Switched, Obstacle> {
        if error.ends_the_driver() {
            return Err(Obstacle::Unknown(error));
        }
        let reason = error.story();
        tracing::warn!(error = reason, "switch failed in the middle");
        for tries in 0.. {
            match resume(self.context, self.mv, reason.clone()).await {
                Ok(Switched::Yes(stored, _)) => {
                    let pause = self.context.release_all(&self.mv.record);
                    return Ok(Switched::Yes(stored, pause));
                }
                Ok(other) => {
                    self.context.release_all(&self.mv.record);
                    return Ok(other);
                }
                Err(error) if error.ends_the_driver() => return Err(Obstacle::Unknown(error)),
                Err(error) => {
                    tracing::error!(error = error.story(), "who owns the shard is not known yet");
                }
            }
            let wait = self.context.config().backoff(100, tries);
            if timeout(wait, self.stopping.cancelled()).await.is_ok() {
                break;
            }
        }
        Err(Obstacle::Unknown(MoveError::Stopped))
    }
}
