//! Applies the stream of a slot at the destination: each transaction of the source exactly once,
//! since the position is stored in the same transaction as the rows.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pg_walstream::LogicalReplicationMessage as Message;
use pg_walstream::LogicalReplicationParser;
use tokio::time::{Instant, sleep_until, timeout};

use super::batch::{self, Relations};
use super::change::{Change, Relation};
use super::context::MoverContext;
use super::error::MoveError;
use super::lane::Stream;
use super::look;
use super::names;
use super::position;
use super::session::Session;
use super::walsender::{Received, WalSender};
use super::window::Windows;
use super::writer::Writer;
use crate::ids::{Lsn, MoveId};
use crate::shard_move::MovedTable;

/// How often the source hears how far the destination is.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How often the source is asked how far it is while a position is waited for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long the next message is waited for before what is pending is written.
const LINGER: Duration = Duration::from_millis(1);
/// How long transactions wait for others to be written with, if there is always another.
const PATIENCE: Duration = Duration::from_millis(5);
/// Messages that are taken without a look at anything else.
const BURST: usize = 256;
/// Bytes of changes that are written together, at the most but for the last change.
const PENDING_BYTES: usize = 4 << 20;
/// How many times that in a transaction of the source that is larger: each run has a savepoint, of
/// which there should be few.
const LARGE: usize = 8;

/// Where to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Exactly here: transactions that committed before it are applied, none from it on.
    Position(Lsn),
    /// After the transaction that wrote this marker.
    Marker(String),
    /// Nowhere.
    Never,
}

/// The mark that the switch wrote where it attached the shard: what comes before it were the changes
/// of the move itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Nothing counts yet.
    Awaited,
    /// The transaction that wrote it is under way.
    Found,
    /// The destination knows of it; or the stream needs none.
    Noted,
}

/// A stream under way.
pub(super) struct Applier<'a> {
    context: &'a MoverContext,
    id: MoveId,
    slot: String,
    /// With the condition that finds the stream's rows among those of others.
    tables: Vec<(MovedTable, Option<String>)>,
    source: WalSender,
    destination: Writer,
    parser: LogicalReplicationParser,
    relations: Relations,
    /// Changes that are not written yet, as they came.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// Of a copy in several snapshots, with what is pending instead of that.
    windows: Option<(Windows, Vec<Change>)>,
    /// Where the source's transaction committed.
    commit: Lsn,
    /// When the first of the transactions that end at [`Self::batch_end`] ended.
    pending_since: Instant,
    /// The end of the last transaction of the source that is pending or open.
    batch_end: Option<Lsn>,
    /// Whether the source's transaction has begun and not ended.
    inside: bool,
    /// Whether that transaction was applied before.
    skipping: bool,
    /// Begun, but from the target on: not looked at yet.
    ahead: Option<Message>,
    marker: Option<String>,
    /// Of a way back: where its stream begins to count.
    mark: Mark,
    /// Everything that committed before it is committed at the destination.
    applied: Lsn,
    /// The same, and is not lost should the destination crash.
    safe: Lsn,
    /// Whether something is committed that is not safe yet.
    unsafely: bool,
    /// The stream was read up to here.
    seen: Lsn,
    /// The same for those who look on, as [`Lsn`]'s number.
    shown: Arc<AtomicU64>,
    /// Messages received.
    received: u64,
    reported_at: Instant,
    changes: u64,
}

impl<'a> Applier<'a> {
    /// Goes on where the destination's stored position says.
    pub(super) async fn start(
        context: &'a MoverContext,
        stream: &Stream<'_>,
    ) -> Result<Self, MoveError> {
        let (mv, slot) = (stream.mv, stream.slot());
        let destination = Session::open(context, mv, stream.to()).await?;
        let applied = position::read(&destination, &slot).await?.applied;
        let mut tables = Vec::new();
        for (lane, table) in stream.tables() {
            let parent = look::oid(&destination, &table.parent).await?;
            tables.push((table.clone(), lane.gotten(table, parent)));
        }
        let mut source = WalSender::open(context, mv, stream.from()).await?;
        source.start(&slot, applied, &slot).await?;
        Ok(Self {
            context,
            id: mv.id,
            slot,
            tables,
            source,
            destination: Writer::new(destination).await?,
            parser: LogicalReplicationParser::with_protocol_version(1),
            relations: Relations::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            windows: None,
            commit: applied,
            pending_since: Instant::now(),
            batch_end: None,
            inside: false,
            skipping: false,
            ahead: None,
            marker: None,
            mark: if applied == Lsn(0) { Mark::Awaited } else { Mark::Noted },
            applied,
            safe: applied,
            unsafely: false,
            seen: applied,
            shown: Arc::new(AtomicU64::new(applied.0)),
            received: 0,
            reported_at: Instant::now(),
            changes: 0,
        })
    }

    /// The same as long as the tables are as several snapshots had them.
    pub(super) async fn start_in(
        context: &'a MoverContext,
        stream: &Stream<'_>,
        windows: Windows,
    ) -> Result<Self, MoveError> {
        let applier = Self::start(context, stream).await?;
        Ok(Self { windows: Some((windows, Vec::new())), ..applier })
    }

    /// The stream was read up to here.
    pub(super) fn seen(&self) -> Lsn {
        self.seen
    }

    /// Up to where the stream was read, for who looks while it is advanced.
    pub(super) fn watch_seen(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shown)
    }

    /// How many messages the source has sent: as long as it grows, the source is alive and at work.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Changes applied since last asked.
    pub(super) fn take_changes(&mut self) -> u64 {
        std::mem::take(&mut self.changes)
    }

    /// Applies the stream until it is at `target` (then everything up to there is committed, and
    /// the answer is yes) or until `signal`. Can be called again after a signal, not after an error.
    pub(super) async fn advance(
        &mut self,
        target: &Target,
        signal: impl Future<Output = ()>,
    ) -> Result<bool, MoveError> {
        tokio::pin!(signal);
        let mut asked_at = Instant::now();
        // The switch makes it safe with what it commits next.
        let safe = !matches!(target, Target::Marker(_));
        loop {
            if !self.inside && self.is_at(target) {
                self.flush(safe).await?;
                return Ok(true);
            }
            if let Some(message) = self.ahead.take() {
                self.on_message(message, target).await?;
                continue;
            }
            let ask = *target != Target::Never;
            let wake = if ask { asked_at + ASK_EVERY } else { self.reported_at + REPORT_EVERY };
            let lingers = !self.inside && self.batch_end.is_some();
            let write_at = (Instant::now() + LINGER).min(self.pending_since + PATIENCE);
            tokio::select! {
                biased;
                () = &mut signal => return Ok(false),
                received = self.source.receive() => {
                    self.on_received(received?, target).await?;
                    self.take_what_is_there(target).await?;
                }
                () = sleep_until(write_at), if lingers => self.flush(true).await?,
                () = sleep_until(wake) => {
                    asked_at = Instant::now();
                    self.report(ask).await?;
                }
            }
        }
    }

    /// Takes messages that have arrived already, some at once.
    async fn take_what_is_there(&mut self, target: &Target) -> Result<(), MoveError> {
        for _ in 0..BURST {
            let at_target = !self.inside && self.is_at(target);
            if at_target || self.ahead.is_some() || !self.source.has_message() {
                return Ok(());
            }
            let received = self.source.receive().await?;
            self.on_received(received, target).await?;
        }
        Ok(())
    }

    /// Applies nothing until `signal`, and keeps the source from giving the connection up.
    pub(super) async fn hold(&mut self, signal: impl Future<Output = ()>) -> Result<(), MoveError> {
        tokio::pin!(signal);
        while timeout(REPORT_EVERY, &mut signal).await.is_err() {
            self.report(false).await?;
        }
        Ok(())
    }

    fn is_at(&self, target: &Target) -> bool {
        match target {
            Target::Position(end) => match &self.ahead {
                Some(Message::Begin { final_lsn, .. }) => *final_lsn >= end.0,
                _ => self.seen >= *end,
            },
            Target::Marker(token) => self.marker.as_ref() == Some(token),
            Target::Never => false,
        }
    }

    fn see(&mut self, end: Lsn) {
        self.seen = self.seen.max(end);
        self.shown.store(self.seen.0, Ordering::Relaxed);
    }

    async fn on_received(&mut self, received: Received, target: &Target) -> Result<(), MoveError> {
        self.received += 1;
        match received {
            Received::Data(bytes) if batch::changes_rows(&bytes) => {
                if self.skipping {
                    return Ok(());
                }
                self.pending_bytes += bytes.len();
                match &mut self.windows {
                    None => self.pending.push(bytes),
                    Some((windows, changes)) => {
                        let message = batch::parsed(&mut self.parser, &bytes)?;
                        changes.extend(windows.changes(&message, &self.relations, self.commit)?);
                    }
                }
                if self.is_full(LARGE) { self.write().await } else { Ok(()) }
            }
            Received::Data(bytes) => {
                let parsed = self.parser.parse_wal_message_bytes(bytes);
                let parsed = parsed.map_err(|error| MoveError::Stream(error.to_string()))?;
                self.on_message(parsed.message, target).await
            }
            Received::KeepAlive { end, wants_reply } => {
                if !self.inside {
                    self.see(end);
                }
                if wants_reply || self.reported_at.elapsed() > REPORT_EVERY {
                    self.report(false).await?;
                }
                Ok(())
            }
        }
    }

    /// Whether as much is pending as may be, or `times` that.
    fn is_full(&self, times: usize) -> bool {
        let most = self.context.config().apply_batch_changes.max(1).saturating_mul(times);
        let loosely = self.windows.as_ref().map_or(0, |(_, changes)| changes.len());
        self.pending.len() + loosely >= most || self.pending_bytes >= PENDING_BYTES * times
    }

    /// Whether changes wait to be written.
    fn has_pending(&self) -> bool {
        self.pending_bytes > 0
    }

    async fn on_message(&mut self, message: Message, target: &Target) -> Result<(), MoveError> {
        match message {
            Message::Begin { final_lsn, .. } => {
                if matches!(target, Target::Position(end) if final_lsn >= end.0) {
                    self.ahead = Some(message);
                    return Ok(());
                }
                self.inside = true;
                self.commit = Lsn(final_lsn);
                self.skipping = self.mark == Mark::Awaited || final_lsn < self.applied.0;
            }
            Message::Commit { end_lsn, .. } => {
                self.inside = false;
                self.see(Lsn(end_lsn));
                if !self.skipping || self.mark == Mark::Found {
                    if self.batch_end.is_none() {
                        self.pending_since = Instant::now();
                    }
                    self.batch_end = Some(Lsn(end_lsn));
                }
                if self.mark == Mark::Found {
                    self.context.pass("mark_found")?;
                    self.flush(true).await?;
                } else if self.is_full(1) || self.destination.is_open() {
                    self.flush(false).await?;
                }
            }
            Message::Relation { relation_id, .. } => {
                if let Some(relation) = Relation::of(&message, &self.tables)? {
                    self.describe(relation_id, relation).await?;
                }
            }
            Message::Message { prefix, content, .. } if prefix == names::MARKER_PREFIX => {
                let marker = String::from_utf8_lossy(&content).into_owned();
                if self.mark == Mark::Awaited && marker == self.slot {
                    self.mark = Mark::Found;
                }
                self.marker = Some(marker);
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Message { .. } => {}
            other => return Err(MoveError::Stream(format!("unexpected message {other:?}"))),
        }
        Ok(())
    }

    /// What is pending came under the old description.
    async fn describe(&mut self, id: u32, relation: Relation) -> Result<(), MoveError> {
        if self.relations.get(&id).is_some_and(|known| **known == relation) {
            return Ok(());
        }
        if self.has_pending() {
            self.write().await?;
        }
        self.relations.insert(id, Arc::new(relation));
        Ok(())
    }

    /// Writes the pending changes.
    async fn write(&mut self) -> Result<(), MoveError> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let (source, destination) = (&mut self.source, &mut self.destination);
        let count = match &mut self.windows {
            None => {
                let writing = Box::pin(destination.write(&pending, &self.relations));
                source.receive_during(writing).await?
            }
            Some((_, changes)) => {
                let changes = std::mem::take(changes);
                let writing = Box::pin(destination.write_changes(&changes));
                source.receive_during(writing).await?
            }
        };
        self.changes += count;
        metrics::counter!("foreshard_mover_applied_changes_total").increment(count);
        self.context.progress.update(self.id, |live| live.changes_applied += count);
        Ok(())
    }

    /// Commits what ended, with its position. What is `safe` is not lost with the destination.
    async fn flush(&mut self, safe: bool) -> Result<(), MoveError> {
        if let Some(end) = self.batch_end.take() {
            if self.has_pending() {
                self.write().await?;
            }
            if self.mark == Mark::Found {
                self.destination.open().await?;
            }
            if self.destination.is_open() {
                let committing = self.destination.commit(&self.slot, end, safe);
                self.source.receive_during(committing).await?;
                self.unsafely = !safe;
                let noted = std::mem::replace(&mut self.mark, Mark::Noted) == Mark::Found;
                self.context.pass(if noted { "mark_noted" } else { "batch_applied" })?;
            }
            self.applied = self.applied.max(end);
        }
        if safe {
            self.secure().await?;
        }
        Ok(())
    }

    /// Makes what is committed safe.
    async fn secure(&mut self) -> Result<(), MoveError> {
        if self.unsafely && !self.destination.is_open() {
            self.destination.secure(&self.slot, self.applied).await?;
            self.unsafely = false;
        }
        if !self.unsafely {
            self.safe = self.applied;
        }
        Ok(())
    }

    /// Tells the source what is safe.
    async fn report(&mut self, wants_reply: bool) -> Result<(), MoveError> {
        self.secure().await?;
        let idle = !self.inside && self.batch_end.is_none() && self.ahead.is_none();
        let safe = if idle && !self.unsafely { self.seen } else { self.safe };
        self.reported_at = Instant::now();
        self.source.report(safe, wants_reply).await
    }
}
