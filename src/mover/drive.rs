//! Takes one move from its stored state to its end: does what the state says, stores the outcome,
//! and so on.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::apply::Applier;
use super::context::{MoverContext, now_unix_ms};
use super::error::MoveError;
use super::keep::{self, Kept};
use super::lane::streams;
use super::session::Session;
use super::switch::{self, Switched};
use super::{build, catch_up, check, cleanup, copy, prepare, verify};
use crate::catalog::{CatalogError, Expect, Record, Versioned};
use crate::shard_move::{Action, Event, Move, State};

/// The first wait after a failure; doubles each time.
const BACKOFF_MS: u64 = 250;

/// What an action led to.
enum Outcome {
    /// To be stored.
    Event(Event),
    /// Stored already, with the map.
    Stored(Box<Versioned<Move>>, Option<Duration>),
    /// Somebody else has written the record.
    Changed,
}

/// One move under way.
struct Driver<'a> {
    context: &'a MoverContext,
    stopping: &'a CancellationToken,
    mv: Versioned<Move>,
    /// One a stream, while they are applied.
    appliers: Vec<Applier<'a>>,
    /// Whether the state was read from the catalog, so that another process may have begun it.
    inherited: bool,
    failures: u32,
}

/// Drives `mv` until it is finished, or until the proxy stops.
pub(super) async fn drive(
    context: &MoverContext,
    mv: Versioned<Move>,
    stopping: &CancellationToken,
) -> Result<(), MoveError> {
    let _no_ddl = tokio::select! {
        () = stopping.cancelled() => return Err(MoveError::Stopped),
        shared = context.ddl_lock.shared() => shared,
    };
    let appliers = Vec::new();
    let mut driver = Driver { context, stopping, mv, appliers, inherited: true, failures: 0 };
    while driver.mv.record.next_action() != Action::Rest {
        let result = driver.perform_until_stopped().await;
        driver.absorb(result).await?;
    }
    driver.finished();
    Ok(())
}

impl Driver<'_> {
    /// Performs the state's action. A stop interrupts it anywhere, but not a switch: that ends by
    /// itself within its deadlines.
    async fn perform_until_stopped(&mut self) -> Result<Outcome, MoveError> {
        let (context, stopping, mv) = (self.context, self.stopping, self.mv.clone());
        if stopping.is_cancelled() {
            return Err(MoveError::Stopped);
        }
        match self.mv.record.state {
            State::Switching => Box::pin(self.switch()).await,
            State::Keeping => tokio::select! {
                () = stopping.cancelled() => Err(MoveError::Stopped),
                kept = Box::pin(self.keep()) => Ok(match kept? {
                    Kept::Event(event) => Outcome::Event(event),
                    Kept::Changed => Outcome::Changed,
                }),
            },
            _ => tokio::select! {
                () = stopping.cancelled() => Err(MoveError::Stopped),
                // It was called off.
                changed = keep::changed(&context.catalog, &mv) => {
                    changed.map(|()| Outcome::Changed)
                }
                outcome = Box::pin(self.perform()) => outcome.map(Outcome::Event),
            },
        }
    }

    /// Keeps the old copies current.
    async fn keep(&mut self) -> Result<Kept, MoveError> {
        if self.inherited {
            if let Some(kept) = keep::wait_for_release(self.context, &self.mv).await? {
                return Ok(kept);
            }
            self.end_earlier_sessions().await?;
            self.inherited = false;
        }
        self.start_appliers().await?;
        keep::keep(self.context, &self.mv, &mut self.appliers).await
    }

    async fn perform(&mut self) -> Result<Event, MoveError> {
        let action = self.mv.record.next_action();
        let is_new = action == Action::Check && self.mv.record.reverses.is_none();
        if self.inherited && !is_new {
            self.end_earlier_sessions().await?;
        }
        self.inherited = false;
        let context = self.context;
        if matches!(action, Action::CatchUp | Action::Verify) {
            self.start_appliers().await?;
        } else {
            self.appliers.clear();
        }
        let (mv, appliers) = (&self.mv.record, &mut self.appliers);
        match action {
            Action::CatchUp => catch_up::catch_up(context, mv, appliers).await,
            Action::Verify => verify::verify(context, mv, appliers).await,
            Action::Check => check::check(context, mv).await,
            Action::Prepare => prepare::prepare(context, mv).await,
            Action::Copy => copy::copy(context, mv).await,
            Action::Build => build::build(context, mv).await,
            Action::CleanUp => cleanup::clean_up(context, mv).await,
            Action::Undo => cleanup::undo(context, mv).await,
            Action::Keep | Action::Switch | Action::Rest => {
                Err(MoveError::Busy("there is nothing to do".to_owned()))
            }
        }
    }

    async fn switch(&mut self) -> Result<Outcome, MoveError> {
        let context = self.context;
        let switched = if self.inherited {
            // Nobody may touch the shard before it is known who has it.
            drop(context.hold_all(&self.mv.record));
            let shards: Vec<_> = self.mv.record.sources().iter().map(|it| it.shard).collect();
            context.close_elsewhere(&shards).await?;
            let reason = "the proxy ended in the middle of the switch".to_owned();
            let resumed = switch::resume(context, &self.mv, reason).await?;
            context.release_all(&self.mv.record);
            self.inherited = false;
            resumed
        } else {
            self.start_appliers().await?;
            switch::switch(context, &self.mv, &mut self.appliers, self.stopping).await?
        };
        Ok(match switched {
            Switched::Yes(stored, pause) => Outcome::Stored(stored, pause),
            Switched::Later(event) => Outcome::Event(event),
            Switched::Undone(event) => {
                self.appliers.clear();
                Outcome::Event(event)
            }
        })
    }

    async fn start_appliers(&mut self) -> Result<(), MoveError> {
        if self.appliers.is_empty() {
            for stream in streams(&self.mv.record) {
                self.appliers.push(Applier::start(self.context, &stream).await?);
            }
        }
        Ok(())
    }

    async fn end_earlier_sessions(&self) -> Result<(), MoveError> {
        let mv = &self.mv.record;
        for node in mv.nodes() {
            let session = Session::open(self.context, mv, node).await?;
            session.end_earlier_sessions(mv).await?;
        }
        Ok(())
    }

    /// Stores what came of an action, or waits after a failure.
    async fn absorb(&mut self, result: Result<Outcome, MoveError>) -> Result<(), MoveError> {
        let result = match result {
            Ok(Outcome::Event(event)) => self.store(event).await,
            Ok(Outcome::Stored(stored, pause)) => {
                self.mv = *stored;
                self.switched(pause).await;
                Ok(())
            }
            Ok(Outcome::Changed) => self.reload().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.failures = 0;
                Ok(())
            }
            Err(error) if error.ends_the_driver() => Err(error),
            Err(error) => self.failed(error).await,
        }
    }

    /// Stores the state after `event`, and the changes that were applied.
    async fn store(&mut self, event: Event) -> Result<(), MoveError> {
        let (now, before) = (now_unix_ms(), self.mv.record.state);
        let mut next = self.mv.record.clone();
        for applier in &mut self.appliers {
            next = next.on_event(Event::Counted { changes: applier.take_changes() }, now)?;
        }
        let next = next.on_event(event, now)?;
        match self.context.catalog.put(&next, Expect::At(self.mv.revision)).await {
            Ok(revision) => self.mv = Versioned { record: next, revision },
            Err(CatalogError::Conflict(_)) => self.reload().await?,
            Err(error) => return Err(error.into()),
        }
        if self.mv.record.state != before {
            tracing::info!(state = self.mv.record.state.word(), "move state");
        }
        Ok(())
    }

    /// Somebody else wrote the record; what it says now is what counts.
    async fn reload(&mut self) -> Result<(), MoveError> {
        let stored = self.context.catalog.get::<Move>(&self.mv.record.id()).await?;
        let gone = || MoveError::Busy("the move's record is gone".to_owned());
        self.mv = stored.ok_or_else(gone)?;
        self.appliers.clear();
        self.inherited = true;
        Ok(())
    }

    async fn switched(&mut self, pause: Option<Duration>) {
        let pause_ms = pause.map(|pause| pause.as_secs_f64() * 1_000.0);
        tracing::info!(state = self.mv.record.state.word(), pause_ms, "move state");
        if let Some(pause) = pause {
            metrics::histogram!("foreshard_mover_pause_seconds").record(pause.as_secs_f64());
        }
        let Some(pause_ms) = pause_ms else { return };
        if let Err(error) = self.store(Event::Paused { pause_ms }).await {
            tracing::warn!(error = error.story(), "the pause of the switch was not stored");
        }
    }

    /// Gives the move up, or notes the trouble and waits before the next try.
    async fn failed(&mut self, error: MoveError) -> Result<(), MoveError> {
        self.failures += 1;
        self.appliers.clear();
        let (state, story) = (self.mv.record.state, error.story());
        let tried_enough = self.failures > self.context.config().failures_max;
        // Old copies are kept for their time.
        let hopeless = !error.is_passing() || (tried_enough && state != State::Keeping);
        let unsettled = state == State::Switching && self.inherited;
        let gives_up = hopeless && state.can_undo() && state != State::Undoing && !unsettled;
        tracing::warn!(error = story, state = state.word(), gives_up, "action of a move failed");
        let error = error.confidential_story();
        let event = if gives_up { Event::Failed { error } } else { Event::Troubled { error } };
        if let Err(error) = self.store(event).await {
            tracing::warn!(error = error.story(), "the trouble of a move was not stored");
        }
        if gives_up {
            self.failures = 0;
            return Ok(());
        }
        cleanup::free_wal(self.context, &self.mv.record).await;
        let wait = self.context.config().backoff(BACKOFF_MS, self.failures);
        match timeout(wait, self.stopping.cancelled()).await {
            Ok(()) => Err(MoveError::Stopped),
            Err(_) => Ok(()),
        }
    }

    fn finished(&self) {
        let mv = &self.mv.record;
        let outcome = mv.state.word();
        metrics::counter!("foreshard_mover_moves_total", "outcome" => outcome).increment(1);
        self.context.progress.forget(mv.id);
    }
}
