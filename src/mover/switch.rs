//! The switch: gate, drain, detach, the rest of the stream, attach, the new map, gate.
//!
//! Until the source has detached nothing has changed and the gate opens again. From then on the
//! gate stays closed, whatever fails, until [`settle`] knows who has the shard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::apply::{Applier, Target};
use super::build::{attach, bounds};
use super::context::{MoverContext, now_unix_ms};
use super::error::MoveError;
use super::names::{self, quoted};
use super::session::{Session, jitter};
use super::settle::{Owner, settle};
use crate::catalog::{CatalogError, Change, Expect, Record, Versioned};
use crate::executor::ClosedGate;
use crate::shard_map::ShardMap;
use crate::shard_move::{Event, Move, MovedTable, State};
use crate::sql::Literal;

/// How long and how often the destination's parents are asked for, in ms.
const ATTACH_LOCK: (u64, u32) = (300, 3);
/// How often a commit of the map is tried that another writer of the map was faster than.
const COMMIT_TRIES: u32 = 20;

/// How a switch ended.
pub(super) enum Switched {
    /// The catalog has it; and how long the gate was closed, if this process closed it.
    Yes(Box<Versioned<Move>>, Option<Duration>),
    /// It was given up before anything changed; the stream goes on.
    Later(Event),
    /// It was undone; the stream has to be started anew.
    Undone(Event),
}

/// Why the source did not let go of the shard.
enum Obstacle {
    /// Statements, or a lock: again after a while with an open gate. Nothing has changed.
    Passing(String),
    /// It failed. Nothing has changed.
    Before(MoveError),
    /// It may have let go.
    Unknown(MoveError),
}

/// Tries to switch, a few times. An error after the source detached is settled before this returns.
pub(super) async fn switch(
    context: &MoverContext,
    mv: &Versioned<Move>,
    applier: &mut Applier<'_>,
    stopping: &CancellationToken,
) -> Result<Switched, MoveError> {
    let source = Session::open(context, &mv.record, mv.record.from).await?;
    let destination = Session::open(context, &mv.record, mv.record.to).await?;
    let ends = Ends { context, mv, source, destination, stopping };
    let mut reason = String::new();
    for attempt in 0..context.config.switch_tries.max(1) {
        match ends.attempt(applier, attempt).await {
            Ok(switched) => return Ok(switched),
            Err(Obstacle::Before(error) | Obstacle::Unknown(error)) => return Err(error),
            Err(Obstacle::Passing(why)) => reason = why,
        }
        let pause = jitter(context.config.backoff(25, attempt));
        applier.advance(&Target::Never, sleep(pause)).await?;
    }
    let wait = context.config.backoff(context.config.switch_backoff_ms, mv.record.postponed);
    let wait = u64::try_from(jitter(wait).as_millis()).unwrap_or(u64::MAX);
    Ok(Switched::Later(Event::Postponed { reason, retry_unix_ms: now_unix_ms() + wait }))
}

/// Takes up a switch that another process left, or an earlier try: settles it and stores the
/// outcome. The gate must be closed.
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

/// Stores the new map and the move's state in one commit, and puts the map in force.
async fn commit(
    context: &MoverContext,
    mv: &Versioned<Move>,
) -> Result<Versioned<Move>, MoveError> {
    let switched = mv.record.clone().on_event(Event::Switched, now_unix_ms())?;
    for _ in 0..COMMIT_TRIES {
        let map = context
            .catalog
            .get::<ShardMap>("")
            .await?
            .ok_or_else(|| MoveError::Refused("the catalog holds no shard map".to_owned()))?;
        let stored = context.catalog.get::<Move>(&mv.record.id()).await?;
        if let Some(stored) = stored.filter(|stored| stored.record.state == State::Switched) {
            // A commit whose answer was lost.
            context.live_map.publish(map.record);
            return Ok(stored);
        }
        if map.record.node_of(switched.shard) != switched.from {
            let text = "the catalog's map has the shard elsewhere than the move says";
            return Err(MoveError::Refused(text.to_owned()));
        }
        let next = map.record.with_shard_on(switched.shard, switched.to);
        let change = Change::new()
            .put(&next, Expect::At(map.revision))?
            .put(&switched, Expect::At(mv.revision))?;
        match context.catalog.commit(change).await {
            Ok(revision) => {
                context.pass("switched")?;
                context.live_map.publish(next);
                return Ok(Versioned { record: switched, revision });
            }
            Err(CatalogError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(MoveError::Busy("the map changed under every try to commit it".to_owned()))
}

/// Both nodes of one switch.
struct Ends<'a> {
    context: &'a MoverContext,
    mv: &'a Versioned<Move>,
    source: Session,
    destination: Session,
    stopping: &'a CancellationToken,
}

impl Ends<'_> {
    /// One try. The stream is applied all the while, so that little is left of it when it counts.
    async fn attempt(&self, applier: &mut Applier<'_>, attempt: u32) -> Result<Switched, Obstacle> {
        let shard = self.mv.record.shard;
        let wal_end = self.source.wal_end().await.map_err(Obstacle::Before)?;
        let marker = names::marker(&self.mv.record, wal_end, attempt);
        let Some(gate) = self.context.hold(shard) else {
            return Err(Obstacle::Passing("the shard's gate is closed already".to_owned()));
        };
        let (left, stayed) = (CancellationToken::new(), CancellationToken::new());
        let leave = async {
            let result = self.leave(gate, &marker).await;
            if result.is_ok() {
                left.cancel();
            } else {
                stayed.cancel();
            }
            result
        };
        let deadline = Duration::from_millis(self.context.config.marker_deadline_ms);
        let give_up = async {
            tokio::select! {
                () = stayed.cancelled() => {}
                () = async { left.cancelled().await; sleep(deadline).await } => {}
            }
        };
        let target = Target::Marker(marker.clone());
        let (result, reached) = tokio::join!(leave, applier.advance(&target, give_up));
        match result {
            Ok(()) => {}
            Err(Obstacle::Unknown(error)) => return self.settled(error).await,
            Err(Obstacle::Before(error)) if error.ends_the_driver() => {
                return Err(Obstacle::Before(error));
            }
            Err(obstacle) => {
                self.context.release(shard);
                reached.map_err(Obstacle::Before)?;
                return Err(obstacle);
            }
        }
        match self.arrive(reached).await {
            Ok(stored) => Ok(Switched::Yes(Box::new(stored), self.context.release(shard))),
            Err(error) => self.settled(error).await,
        }
    }

    /// Waits until nobody is inside the gate, and lets the source let go of the shard.
    async fn leave(&self, gate: Arc<ClosedGate>, marker: &str) -> Result<(), Obstacle> {
        let deadline = Duration::from_millis(self.context.config.drain_deadline_ms);
        let drained = timeout(deadline, gate.drained()).await;
        drop(gate);
        if drained.is_err() {
            let why = "statements or transactions on the shard did not end in time";
            return Err(Obstacle::Passing(why.to_owned()));
        }
        self.context.pass("drained").map_err(Obstacle::Before)?;
        if let Err(error) = self.source.run("detaching the shard", &self.detach(marker)).await {
            // Not committed, so not done. The session may be beyond a rollback: then it is closed.
            let rolled_back = self.source.run("rolling back", "ROLLBACK").await;
            if error.is_lock_timeout() && rolled_back.is_ok() {
                let why = "another transaction on the source holds a lock on the shard's tables";
                return Err(Obstacle::Passing(why.to_owned()));
            }
            return Err(Obstacle::Before(error));
        }
        let committed = self.source.run("committing the detachment", "COMMIT").await;
        committed.map_err(Obstacle::Unknown)?;
        self.context.pass("detached").map_err(Obstacle::Unknown)
    }

    /// An open transaction that detaches all leaves and marks the end of their stream.
    fn detach(&self, marker: &str) -> String {
        let tables = &self.mv.record.tables;
        let lock_timeout = self.context.config.lock_timeout_ms;
        let mut sql = vec![format!("BEGIN; SET LOCAL lock_timeout = {lock_timeout}")];
        if !tables.is_empty() {
            let parents: Vec<_> = tables.iter().map(|t| format!("ONLY {}", t.parent)).collect();
            sql.push(format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", parents.join(", ")));
        }
        sql.extend(tables.iter().map(|MovedTable { parent, leaf, .. }| {
            format!("ALTER TABLE {parent} DETACH PARTITION {leaf}")
        }));
        let (prefix, marker) = (Literal(names::MARKER_PREFIX), Literal(marker));
        sql.push(format!("SELECT pg_logical_emit_message(true, {prefix}, {marker})"));
        sql.join("; ")
    }

    /// Attaches at the destination, which has every row by now, and tells the catalog.
    async fn arrive(&self, reached: Result<bool, MoveError>) -> Result<Versioned<Move>, MoveError> {
        if !reached? {
            return Err(MoveError::Timeout("applying the rest of the stream"));
        }
        self.context.pass("marker_applied")?;
        let mv = &self.mv.record;
        let mut sql = attach(mv, bounds(self.context, mv)?);
        let helper = quoted(&names::helper_check(mv));
        sql.extend(mv.tables.iter().map(|MovedTable { leaf, .. }| {
            format!("ALTER TABLE {leaf} DROP CONSTRAINT {helper}, RESET (autovacuum_enabled)")
        }));
        if !sql.is_empty() {
            let sql = sql.join("; ");
            self.destination.run_with_locks("attaching the shard", &sql, ATTACH_LOCK).await?;
        }
        self.context.pass("attached")?;
        commit(self.context, self.mv).await
    }

    /// After an error in the middle: finds out who has the shard, however long it takes, and opens
    /// the gate then.
    async fn settled(&self, error: MoveError) -> Result<Switched, Obstacle> {
        if error.ends_the_driver() {
            return Err(Obstacle::Unknown(error));
        }
        let reason = error.story();
        tracing::warn!(error = reason, "switch failed in the middle");
        for tries in 0.. {
            match resume(self.context, self.mv, reason.clone()).await {
                Ok(Switched::Yes(stored, _)) => {
                    let pause = self.context.release(self.mv.record.shard);
                    return Ok(Switched::Yes(stored, pause));
                }
                Ok(other) => {
                    self.context.release(self.mv.record.shard);
                    return Ok(other);
                }
                Err(error) if error.ends_the_driver() => return Err(Obstacle::Unknown(error)),
                Err(error) => {
                    tracing::error!(error = error.story(), "who owns the shard is not known yet");
                }
            }
            let wait = self.context.config.backoff(100, tries);
            if timeout(wait, self.stopping.cancelled()).await.is_ok() {
                break;
            }
        }
        Err(Obstacle::Unknown(MoveError::Stopped))
    }
}
