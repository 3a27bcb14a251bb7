//! A SELECT over several nodes whose results are concatenated: all nodes work at once, their rows
//! pass one node after the other, or merged ([`Order`]).

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::pump::{Verdict, pump};
use super::run::{Cost, query_message};
use super::{Client, Fault, Order, Session};
use crate::ids::NodeId;
use crate::wire::{Reply, ServerError, SqlState, command_count, command_tag};

/// One SELECT for several nodes.
#[derive(Debug)]
pub struct Scatter<'a> {
    /// The nodes, each with what it costs there.
    pub nodes: &'a [(NodeId, Cost)],
    /// The messages that run it on a node, up to a `Query` or a `Sync`.
    pub messages: &'a [u8],
    /// Whether the client gets the description of the columns.
    pub describe: bool,
    /// How the rows are merged; without it, they pass one node after the other.
    pub order: Option<&'a Order>,
}

impl<'a> Scatter<'a> {
    /// The rows pass one node after the other.
    pub fn one_by_one(nodes: &'a [(NodeId, Cost)], messages: &'a [u8], describe: bool) -> Self {
        Self { nodes, messages, describe, order: None }
    }
}

/// What came of it.
pub(super) struct Passed {
    pub(super) rows: u64,
    /// The client was told of an error.
    pub(super) failed: bool,
}

/// The limits of a scatter, and what they still allow.
pub(super) struct Watch {
    rows: Option<u64>,
    bytes: Option<u64>,
    deadline: Option<Instant>,
    /// The limit that was passed.
    pub(super) over: Option<ServerError>,
}

impl Watch {
    /// Of rows of one node there is no limit.
    fn begin(session: &Session, several: bool) -> Self {
        let config = session.engine.config();
        let some = |limit: u64| (several && limit > 0).then_some(limit);
        let time = some(config.scatter_timeout_ms).map(Duration::from_millis);
        Self {
            rows: some(config.scatter_rows_max),
            bytes: some(config.scatter_bytes_max),
            deadline: time.map(|time| Instant::now() + time),
            over: None,
        }
    }

    /// Whether a row, of which the beginning is here, may still pass.
    pub(super) fn allows(&mut self, frame: &[u8]) -> bool {
        let length = frame.get(1..5).and_then(|length| length.try_into().ok());
        let length = u64::from(length.map_or(0, u32::from_be_bytes));
        for (left, cost, what) in [(&mut self.rows, 1, "rows"), (&mut self.bytes, length, "bytes")]
        {
            let Some(left) = left else { continue };
            match left.checked_sub(cost) {
                Some(rest) => *left = rest,
                None => self.over = Some(too_much(what)),
            }
        }
        self.over.is_none()
    }

    /// Whether an error is the end of the time, which it takes note of.
    pub(super) fn is_late(&mut self) -> bool {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late {
            self.over = Some(too_late());
        }
        late
    }
}

fn too_late() -> ServerError {
    let message = "passing rows of several nodes on took longer than is allowed";
    ServerError::new(SqlState::QUERY_CANCELED, message)
        .with_hint("Restrict the statement, or raise executor.scatter_timeout_ms.")
}

fn too_much(what: &str) -> ServerError {
    let message = format!("the statement gives more {what} of several nodes than is allowed");
    ServerError::new(SqlState("54000"), message)
        .with_hint(format!("Restrict the statement, or raise executor.scatter_{what}_max."))
}

impl Session {
    /// Runs a SELECT on several nodes and passes all rows on, then one command tag. Leaves
    /// `ReadyForQuery` to the caller. An error of any node ends it; the rows before it have passed.
    pub async fn scatter(
        &mut self,
        scatter: &Scatter<'_>,
        client: &mut Client,
    ) -> Result<(), Fault> {
        let nodes: SmallVec<[NodeId; 4]> = scatter.nodes.iter().map(|(node, _)| *node).collect();
        for node in &nodes {
            self.member(*node).await?;
        }
        let Passed { rows, failed } = self.pass_in_time(scatter, &nodes, client).await?;
        if failed {
            self.fail();
        } else {
            client.put(Reply::CommandComplete(&format!("SELECT {rows}")));
        }
        if self.in_transaction() { Ok(()) } else { self.finish().await }
    }

    /// Passes the rows of all nodes on; once its time is over, what is under way is cancelled. A
    /// statement that was over before the request to cancel it arrived has taken too long all the
    /// same: the request may hit what comes next on its connections, so they are given up.
    async fn pass_in_time(
        &mut self,
        scatter: &Scatter<'_>,
        nodes: &[NodeId],
        client: &mut Client,
    ) -> Result<Passed, Fault> {
        let watch = Watch::begin(self, nodes.len() > 1);
        let Some(deadline) = watch.deadline else {
            return Box::pin(self.pass_rows(scatter, nodes, (watch, client))).await;
        };
        let (engine, cancel) = (Arc::clone(&self.engine), Arc::clone(&self.cancel));
        let cancelled = AtomicBool::new(false);
        let passed = {
            let mut late = pin!(async {
                tokio::time::sleep_until(deadline).await;
                cancelled.store(true, Ordering::Relaxed);
                Box::pin(cancel.cancel(&engine)).await;
            });
            let mut passing = Box::pin(self.pass_rows(scatter, nodes, (watch, client)));
            tokio::select! {
                biased;
                passed = &mut passing => {
                    if cancelled.load(Ordering::Relaxed) {
                        late.await;
                    }
                    passed
                }
                () = &mut late => passing.await,
            }
        };
        if !cancelled.into_inner() {
            return passed;
        }
        for node in nodes {
            self.lose(*node);
        }
        passed.and(Err(too_late().into()))
    }

    /// Passes the rows of all nodes on, one node after the other.
    async fn pass_rows(
        &mut self,
        scatter: &Scatter<'_>,
        nodes: &[NodeId],
        (mut watch, client): (Watch, &mut Client),
    ) -> Result<Passed, Fault> {
        if let Some(order) = scatter.order {
            return self.pass_sorted((scatter, order), nodes, (watch, client)).await;
        }
        let started = Instant::now();
        for node in nodes {
            self.member(*node).await?.send(scatter.messages).await?;
        }
        let (mut rows, mut failed) = (0, false);
        for (index, (node, cost)) in scatter.nodes.iter().enumerate() {
            let member = self.member(*node).await?;
            let describe = scatter.describe && index == 0;
            let bytes = pump(&mut member.guard, client, |tag, frame| match tag {
                b'T' if describe => Verdict::Forward,
                b'D' if !failed && !watch.allows(frame) => Verdict::DropLast,
                b'E' if watch.is_late() => Verdict::DropLast,
                b'D' | b'N' if !failed => Verdict::Forward,
                b'C' => {
                    rows += command_count(command_tag(&frame[5..])).unwrap_or_default();
                    Verdict::Drop
                }
                b'E' if !failed => {
                    failed = true;
                    Verdict::Forward
                }
                b'Z' => Verdict::DropLast,
                _ => Verdict::Drop,
            });
            let bytes = bytes.await?;
            self.record(*node, cost, started.elapsed(), bytes);
            if let Some(error) = watch.over.take() {
                for node in nodes {
                    self.lose(*node);
                }
                return Err(error.into());
            }
        }
        Ok(Passed { rows, failed })
    }

    /// Runs a setting of the transaction's on each of its nodes, and on those that join it later.
    pub async fn set_on_all(&mut self, text: &str) -> Result<(), Fault> {
        self.run_unseen_on(self.begun_nodes(), text).await?;
        self.remember(text);
        Ok(())
    }

    /// Runs a text on these nodes, of which the client hears an error at the most.
    pub async fn run_unseen_on(
        &mut self,
        nodes: impl IntoIterator<Item = NodeId>,
        text: &str,
    ) -> Result<(), Fault> {
        let message = query_message(text);
        for node in nodes {
            if let Some(error) = self.run_unseen(node, &message).await? {
                return Err(Fault::Reported(error.freeze()));
            }
        }
        Ok(())
    }

    /// Sends the same messages to a node and drops the answer up to `ReadyForQuery`; the first
    /// error in it, as a frame.
    pub async fn run_unseen(
        &mut self,
        node: NodeId,
        messages: &[u8],
    ) -> Result<Option<BytesMut>, Fault> {
        let member = self.ask(node, messages).await?;
        let mut error = None;
        loop {
            let (tag, frame) = member.guard.frame().await?;
            match tag {
                b'E' if error.is_none() => error = Some(BytesMut::from(&frame[..])),
                b'Z' => return Ok(error),
                _ => {}
            }
        }
    }
}
