//! Applies the stream of a slot at the destination: each transaction of the source exactly once,
//! since the position is stored in the same transaction as the rows.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use pg_walstream::LogicalReplicationMessage as Message;
use pg_walstream::LogicalReplicationParser;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::Statement;

use super::change::{Change, Relation};
use super::context::MoverContext;
use super::error::MoveError;
use super::lane::OneLane;
use super::look;
use super::names;
use super::position;
use super::session::Session;
use super::walsender::{Received, WalSender};
use crate::ids::{Lsn, MoveId};
use crate::shard_move::MovedTable;

/// How often the source hears how far the destination is.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How often the source is asked how far it is while a position is waited for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Prepared statements past which the next batch makes its own anew.
const STATEMENTS_MAX: usize = 500;

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
    destination: Session,
    parser: LogicalReplicationParser,
    relations: HashMap<u32, Relation>,
    statements: HashMap<String, Statement>,
    /// Changes that are not sent yet.
    pending: Vec<Change>,
    /// Whether the destination's transaction is open.
    open: bool,
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
    /// Everything that committed before it is safe at the destination.
    applied: Lsn,
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
        lane: OneLane<'_>,
    ) -> Result<Self, MoveError> {
        let (mv, slot) = (lane.mv, lane.slot());
        let destination = Session::open(context, mv, lane.lane.target.node).await?;
        let doing = "switching triggers off";
        destination.run(doing, "SET session_replication_role = replica").await?;
        let applied = position::read(&destination, lane).await?.applied;
        let mut tables = Vec::new();
        for table in &lane.lane.tables {
            let parent = look::oid(&destination, &table.parent).await?;
            tables.push((table.clone(), lane.gotten(table, parent)));
        }
        let mut source = WalSender::open(context, mv, lane.lane.source.node).await?;
        source.start(&slot, applied, &slot).await?;
        Ok(Self {
            context,
            id: mv.id,
            slot,
            tables,
            source,
            destination,
            parser: LogicalReplicationParser::with_protocol_version(1),
            relations: HashMap::new(),
            statements: HashMap::new(),
            pending: Vec::new(),
            open: false,
            batch_end: None,
            inside: false,
            skipping: false,
            ahead: None,
            marker: None,
            mark: if applied == Lsn(0) { Mark::Awaited } else { Mark::Noted },
            applied,
            seen: applied,
            shown: Arc::new(AtomicU64::new(applied.0)),
            received: 0,
            reported_at: Instant::now(),
            changes: 0,
        })
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
        loop {
            if !self.inside && self.is_at(target) {
                self.flush().await?;
                return Ok(true);
            }
            if !self.inside && self.ahead.is_none() && !self.source.has_message() {
                self.flush().await?;
            }
            let ask = *target != Target::Never;
            let wake = if ask { asked_at + ASK_EVERY } else { self.reported_at + REPORT_EVERY };
            if let Some(message) = self.ahead.take() {
                self.on_message(message, target).await?;
                continue;
            }
            let message = tokio::select! {
                biased;
                () = &mut signal => return Ok(false),
                received = self.source.receive() => self.take(received?).await?,
                () = sleep_until(wake) => {
                    asked_at = Instant::now();
                    self.report(ask).await?;
                    None
                }
            };
            if let Some(message) = message {
                self.on_message(message, target).await?;
            }
        }
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

    /// The message in what was received, if it holds one.
    async fn take(&mut self, received: Received) -> Result<Option<Message>, MoveError> {
        self.received += 1;
        match received {
            Received::Data(bytes) => {
                let parsed = self.parser.parse_wal_message_bytes(bytes);
                let parsed = parsed.map_err(|error| MoveError::Stream(error.to_string()))?;
                Ok(Some(parsed.message))
            }
            Received::KeepAlive { end, wants_reply } => {
                if !self.inside {
                    self.see(end);
                }
                if wants_reply || self.reported_at.elapsed() > REPORT_EVERY {
                    self.report(false).await?;
                }
                Ok(None)
            }
        }
    }

    async fn on_message(&mut self, message: Message, target: &Target) -> Result<(), MoveError> {
        match message {
            Message::Begin { final_lsn, .. } => {
                if matches!(target, Target::Position(end) if final_lsn >= end.0) {
                    self.ahead = Some(message);
                    return Ok(());
                }
                self.inside = true;
                self.skipping = self.mark == Mark::Awaited || final_lsn < self.applied.0;
            }
            Message::Commit { end_lsn, .. } => {
                self.inside = false;
                self.see(Lsn(end_lsn));
                if !self.skipping || self.mark == Mark::Found {
                    self.batch_end = Some(Lsn(end_lsn));
                }
                if self.mark == Mark::Found {
                    self.context.pass("mark_found")?;
                    self.flush().await?;
                }
            }
            Message::Relation { relation_id, .. } => {
                if let Some(relation) = Relation::of(&message, &self.tables)? {
                    self.relations.insert(relation_id, relation);
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
            message if self.skipping => drop(message),
            message => {
                let changes = self.changes_of(&message)?;
                self.pending.extend(changes);
            }
        }
        if self.pending.len() >= self.context.config.apply_batch_changes.max(1) {
            self.send().await?;
            if !self.inside {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn changes_of(&self, message: &Message) -> Result<Vec<Change>, MoveError> {
        let relation = |id: &u32| {
            let unknown = || MoveError::Stream(format!("relation {id} was never described"));
            self.relations.get(id).ok_or_else(unknown)
        };
        let change = match message {
            Message::Insert { relation_id, tuple } => relation(relation_id)?.insert(tuple),
            Message::Update { relation_id, old_tuple, new_tuple, .. } => {
                relation(relation_id)?.update(old_tuple.as_ref(), new_tuple)
            }
            Message::Delete { relation_id, old_tuple, .. } => {
                relation(relation_id)?.delete(old_tuple)
            }
            Message::Truncate { relation_ids, .. } => {
                let relations: Vec<_> =
                    relation_ids.iter().map(relation).collect::<Result<_, _>>()?;
                return Ok(Relation::truncate(&relations));
            }
            other => Err(MoveError::Stream(format!("unexpected message {other:?}"))),
        };
        change.map(|change| vec![change])
    }

    /// Sends the pending changes in one go, in order, and checks what each touched.
    async fn send(&mut self) -> Result<(), MoveError> {
        if !self.open {
            self.destination.run("opening a batch", "BEGIN").await?;
            self.open = true;
        }
        let changes = std::mem::take(&mut self.pending);
        if self.statements.len() >= STATEMENTS_MAX {
            // Only here: those of one batch are needed together.
            self.statements.clear();
        }
        for change in &changes {
            self.prepare(&change.sql).await?;
        }
        let client = &self.destination.client;
        let mut sent: Vec<Pin<Box<dyn Future<Output = _> + Send>>> = Vec::new();
        let mut counts = Vec::with_capacity(changes.len());
        for change in &changes {
            let statement = &self.statements[&change.sql];
            let mut answer = Box::pin(client.execute_raw(statement, change.parameters.iter()));
            // The first poll puts it on the wire: so they go in this order, and are answered in it.
            match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
                Poll::Ready(count) => counts.push(count),
                Poll::Pending => sent.push(answer),
            }
        }
        for answer in sent {
            counts.push(answer.await);
        }
        for (count, change) in counts.into_iter().zip(&changes) {
            let count = count.map_err(self.destination.failed("applying a change"))?;
            if change.one_row && count != 1 {
                let fault = format!("{count} rows instead of one were touched by {}", change.sql);
                return Err(MoveError::Stream(fault));
            }
        }
        let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        self.changes += count;
        metrics::counter!("foreshard_mover_applied_changes_total").increment(count);
        self.context.progress.update(self.id, |live| live.changes_applied += count);
        Ok(())
    }

    async fn prepare(&mut self, sql: &str) -> Result<(), MoveError> {
        if self.statements.contains_key(sql) {
            return Ok(());
        }
        let prepared = self.destination.client.prepare(sql).await;
        let statement = prepared.map_err(self.destination.failed("preparing a change"))?;
        self.statements.insert(sql.to_owned(), statement);
        Ok(())
    }

    /// Commits what ended, with its position.
    async fn flush(&mut self) -> Result<(), MoveError> {
        let Some(end) = self.batch_end.take() else { return Ok(()) };
        if !self.pending.is_empty() {
            self.send().await?;
        }
        if self.mark == Mark::Found && !self.open {
            self.destination.run("opening a batch", "BEGIN").await?;
            self.open = true;
        }
        if self.open {
            let sql = format!("{}; COMMIT", position::advance(&self.slot, end));
            self.destination.run("committing a batch", &sql).await?;
            self.open = false;
            let noted = std::mem::replace(&mut self.mark, Mark::Noted) == Mark::Found;
            self.context.pass(if noted { "mark_noted" } else { "batch_applied" })?;
        }
        self.applied = self.applied.max(end);
        Ok(())
    }

    /// Tells the source what is safe.
    async fn report(&mut self, wants_reply: bool) -> Result<(), MoveError> {
        let idle = !self.inside && self.batch_end.is_none() && self.ahead.is_none();
        let safe = if idle { self.seen } else { self.applied };
        self.reported_at = Instant::now();
        self.source.report(safe, wants_reply).await
    }
}
