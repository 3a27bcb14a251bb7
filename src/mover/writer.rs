//! Writes the changes of a stream at the destination, each source transaction exactly once, since the
//! position is stored in the same transaction as the rows; and sees to it that each change touched
//! what it touched at the source.
//!
//! A run of changes goes as few statements ([`super::batch`]). Should one of them fail, or touch other
//! rows than it should, the run is taken back and done change by change: that tells which one it is,
//! or shows that only their order was the trouble.

use std::collections::{HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

use super::batch::{self, Relations, Step};
use super::change::{Change, RawText};
use super::error::MoveError;
use super::position;
use super::session::Session;
use crate::ids::Lsn;
use crate::sql::TableName;

/// Fewer changes go one by one, which is one round trip.
const RUN_MIN: usize = 12;
/// Statements that are under way together.
const PIPELINED_MAX: usize = 500;
/// Prepared statements past which the next run makes its own anew.
const STATEMENTS_MAX: usize = 500;

/// Settings of a session that applies changes: no triggers and foreign keys, since their effects are
/// in the stream; and a row is looked up by its key, however many are at once.
const SETTINGS: &str = "SET session_replication_role = replica; SET enable_seqscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";

/// A destination that changes are written to.
pub(super) struct Writer {
    session: Session,
    statements: HashMap<String, Statement>,
    /// Whether a transaction is open.
    open: bool,
    /// Whether the open transaction has a savepoint.
    savepoint: bool,
    /// The tables of which a statement of many rows failed.
    plain: HashSet<TableName>,
}

impl Writer {
    /// Over a session of its own.
    pub(super) async fn new(session: Session) -> Result<Self, MoveError> {
        session.run("switching triggers off", SETTINGS).await?;
        Ok(Self {
            session,
            statements: HashMap::new(),
            open: false,
            savepoint: false,
            plain: HashSet::new(),
        })
    }

    /// Whether changes are written that are not committed.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Opens a transaction, if none is.
    pub(super) async fn open(&mut self) -> Result<(), MoveError> {
        if !self.open {
            self.session.run("opening a batch", "BEGIN").await?;
            (self.open, self.savepoint) = (true, false);
        }
        Ok(())
    }

    /// Commits, with the position that everything before is applied. A commit that need not be safe
    /// at once may be lost with the node, but not without those after it.
    pub(super) async fn commit(
        &mut self,
        slot: &str,
        end: Lsn,
        safe: bool,
    ) -> Result<(), MoveError> {
        let lazily = if safe { "" } else { "SET LOCAL synchronous_commit = off; " };
        let sql = format!("{lazily}{}; COMMIT", position::advance(slot, end));
        self.session.run("committing a batch", &sql).await?;
        self.open = false;
        Ok(())
    }

    /// Sees to it that all that was committed is safe.
    pub(super) async fn secure(&self, slot: &str, end: Lsn) -> Result<(), MoveError> {
        self.session.run("making batches safe", &position::advance(slot, end)).await
    }

    /// Writes what these messages tell, in the open transaction; how many changes it were.
    pub(super) async fn write(
        &mut self,
        messages: &[Bytes],
        relations: &Relations,
    ) -> Result<u64, MoveError> {
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        if messages.len() < RUN_MIN {
            self.open().await?;
            self.change_by_change(messages, relations).await?;
        } else if !self.together(messages, relations).await? {
            self.change_by_change(messages, relations).await?;
        }
        Ok(u64::try_from(messages.len()).unwrap_or(u64::MAX))
    }

    /// Writes these changes one by one, in a transaction that is opened if none is; how many it were.
    pub(super) async fn write_changes(&mut self, changes: &[Change]) -> Result<u64, MoveError> {
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        self.open().await?;
        for some in changes.chunks(PIPELINED_MAX) {
            self.pipelined(some).await?;
        }
        Ok(u64::try_from(changes.len()).unwrap_or(u64::MAX))
    }

    /// In few statements; whether that went well. If not nothing has happened.
    async fn together(
        &mut self,
        messages: &[Bytes],
        relations: &Relations,
    ) -> Result<bool, MoveError> {
        let plain = |table: &TableName| self.plain.contains(table);
        let steps = batch::together(messages, relations, |it| plain(&it.table.new_leaf))?;
        let sql = match (self.open, self.savepoint) {
            (false, _) => "BEGIN; SAVEPOINT run",
            (true, false) => "SAVEPOINT run",
            (true, true) => "RELEASE SAVEPOINT run; SAVEPOINT run",
        };
        self.session.run("opening a batch", sql).await?;
        (self.open, self.savepoint) = (true, true);
        for step in steps {
            let Err(error) = self.step(&step).await else { continue };
            let Some(code) = refusal(&error) else { return Err(error) };
            // Not what the node said of it: that may name rows.
            tracing::info!(code, "a run of changes is written one by one");
            metrics::counter!("foreshard_mover_runs_one_by_one_total").increment(1);
            // Another order of the changes may have two rows in each other's way for a moment.
            let in_the_way = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];
            let by_order = in_the_way.iter().any(|it| it.code() == code);
            if let (Step::Insert(rows) | Step::Update(rows) | Step::Delete(rows), false) =
                (&step, by_order)
            {
                self.plain.insert(rows.relation.table.new_leaf.clone());
            }
            self.session.run("taking a run back", "ROLLBACK TO SAVEPOINT run").await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn step(&mut self, step: &Step) -> Result<(), MoveError> {
        let (sql, rows, touched) = match step {
            Step::Singles(changes) => return self.pipelined(changes).await,
            Step::Insert(rows) => {
                let (sql, data) = rows.copy();
                let touched = self.copy(&sql, data).await?;
                (sql, rows, touched)
            }
            Step::Update(rows) => {
                let (sql, arrays) = rows.update()?;
                let touched = self.execute(&sql, &arrays).await?;
                (sql, rows, touched)
            }
            Step::Delete(rows) => {
                let (sql, arrays) = rows.delete()?;
                let touched = self.execute(&sql, &arrays).await?;
                (sql, rows, touched)
            }
        };
        if u64::try_from(rows.rows.len()).is_ok_and(|expected| expected == touched) {
            return Ok(());
        }
        let expected = rows.rows.len();
        Err(MoveError::Stream(format!(
            "{touched} rows instead of {expected} were touched by {sql}"
        )))
    }

    async fn copy(&mut self, sql: &str, data: Bytes) -> Result<u64, MoveError> {
        self.prepare(sql).await?;
        let doing = "applying inserts";
        let sink = self.session.client.copy_in::<_, Bytes>(&self.statements[sql]).await;
        let mut sink = pin!(sink.map_err(self.session.failed(doing))?);
        sink.feed(data).await.map_err(self.session.failed(doing))?;
        sink.finish().await.map_err(self.session.failed(doing))
    }

    async fn execute(&mut self, sql: &str, arrays: &[RawText]) -> Result<u64, MoveError> {
        self.prepare(sql).await?;
        let count = self.session.client.execute_raw(&self.statements[sql], arrays).await;
        count.map_err(self.session.failed("applying changes"))
    }

    /// Each change as a statement of its own.
    async fn change_by_change(
        &mut self,
        messages: &[Bytes],
        relations: &Relations,
    ) -> Result<(), MoveError> {
        for some in messages.chunks(PIPELINED_MAX) {
            self.pipelined(&batch::one_by_one(some, relations)?).await?;
        }
        Ok(())
    }

    /// Sends changes in one go, in order, and checks what each touched.
    async fn pipelined(&mut self, changes: &[Change]) -> Result<(), MoveError> {
        for change in changes {
            self.prepare(&change.sql).await?;
        }
        let client = &self.session.client;
        let mut sent: Vec<Pin<Box<dyn Future<Output = _> + Send>>> = Vec::new();
        let mut counts = Vec::with_capacity(changes.len());
        for change in changes {
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
        for (count, change) in counts.into_iter().zip(changes) {
            let count = count.map_err(self.session.failed("applying a change"))?;
            if change.one_row && count != 1 {
                let fault = format!("{count} rows instead of one were touched by {}", change.sql);
                return Err(MoveError::Stream(fault));
            }
        }
        Ok(())
    }

    async fn prepare(&mut self, sql: &str) -> Result<(), MoveError> {
        if self.statements.contains_key(sql) {
            return Ok(());
        }
        let prepared = self.session.client.prepare(sql).await;
        let statement = prepared.map_err(self.session.failed("preparing a change"))?;
        self.statements.insert(sql.to_owned(), statement);
        Ok(())
    }
}

/// The SQLSTATE with which the destination refused a statement; empty if it touched other rows than it
/// should. `None` if it is not there any more.
fn refusal(error: &MoveError) -> Option<String> {
    match error {
        MoveError::Stream(_) => Some(String::new()),
        MoveError::Node { source, .. } if !source.is_closed() => {
            let code = source.code()?.code();
            (!code.starts_with("57")).then(|| code.to_owned())
        }
        _ => None,
    }
}
