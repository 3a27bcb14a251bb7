//! One node: the client's bytes go to it, and its answer goes back, both as they are.

use std::time::Duration;

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::copy_relay::relay_copy_in;
use super::pump::{Verdict, pump};
use super::session::Member;
use super::{Client, Fault, Session};
use crate::ids::{NodeId, ShardId};
use crate::load::{Access, Sample, Work};
use crate::runtime::{apart, aside};
use crate::wire::{TransactionStatus, put_frame, put_query};

/// What a statement touched and cost, for the counters of the load.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Its shards; empty for home and reference tables.
    pub shards: SmallVec<[ShardId; 2]>,
    /// Whether it may write.
    pub access: Access,
    /// It reads one row or few by their key: it may share a round trip with others.
    pub brief: bool,
}

impl Cost {
    /// Of one that touches these shards.
    pub fn of(shards: SmallVec<[ShardId; 2]>, access: Access) -> Self {
        Self { shards, access, brief: false }
    }

    /// Of a statement that touches no shard.
    pub fn none(access: Access) -> Self {
        Self::of(SmallVec::new(), access)
    }
}

impl Member {
    /// Sends the client's bytes, after what has to come before them and together with it. What comes
    /// before is of the extended protocol, without its end: had BEGIN been cancelled, the node would
    /// skip all that follows, which would be a transaction of its own otherwise. A connection on
    /// which it fails is as good as broken.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.guard.trace.stale_sequences {
            self.guard.command("DISCARD SEQUENCES").await?;
            self.guard.trace.stale_sequences = false;
        }
        if self.preface.is_empty() {
            return Ok(self.guard.send(bytes).await?);
        }
        let mut together = self.preface.split();
        together.extend_from_slice(bytes);
        let commands = std::mem::take(&mut self.preface_commands);
        Ok(self.guard.send_after_own(commands, &together).await?)
    }

    /// Sends what has to come before the client's next statement now, and waits for it.
    async fn send_preface(&mut self) -> Result<(), Fault> {
        let mut sync = BytesMut::new();
        put_frame(b'S', &mut sync, |_| ());
        self.send(&sync).await?;
        self.guard.finish_command().await?;
        Ok(())
    }
}

impl Session {
    /// Sends messages to a node, in the session's transaction; what comes next answers them.
    pub(super) async fn ask(
        &mut self,
        node: NodeId,
        messages: &[u8],
    ) -> Result<&mut Member, Fault> {
        let member = self.member(node).await?;
        member.send(messages).await?;
        Ok(member)
    }

    /// The rows of a statement of the proxy's own, 10,000 at the most, values in text.
    pub async fn rows_of(
        &mut self,
        node: NodeId,
        messages: &[u8],
    ) -> Result<Vec<Vec<Option<String>>>, Fault> {
        let member = self.ask(node, messages).await?;
        Ok(member.guard.finish_command().await?.whole_rows()?)
    }

    /// Like `ask`; the client hears of reported settings first that are others on this connection. The
    /// place of the connection.
    async fn ask_for(
        &mut self,
        client: &mut Client,
        node: NodeId,
        messages: &[u8],
        brief: bool,
    ) -> Result<usize, Fault> {
        if let Some(at) = self.ridden(node) {
            self.tell_reports(client);
            return Ok(at);
        }
        let at = match self.place_at_once(node) {
            Some(at) => at,
            None => self.place_of(node).await?,
        };
        self.tell_reports(client);
        let shared = if brief { self.gather_riders(at, messages).await } else { None };
        let messages = shared.as_deref().unwrap_or(messages);
        let member = &mut self.members[at];
        let sent = member.send_at_once(messages)?;
        if sent < messages.len() {
            aside(|| member.send_rest(messages, sent)).await?;
        }
        Ok(at)
    }

    /// Runs a simple `Query` frame on one node and relays the answer, `ReadyForQuery` included.
    pub async fn run_query(
        &mut self,
        node: NodeId,
        query: &[u8],
        client: &mut Client,
        cost: &Cost,
    ) -> Result<(), Fault> {
        let started = Instant::now();
        let at = self.ask_for(client, node, query, cost.brief).await?;
        let answered = match self.answer_at_once(at, client).await? {
            Some(bytes) => bytes,
            None => apart(answer_query(&mut self.members[at], client)).await?,
        };
        self.record(node, cost, started.elapsed(), query.len() as u64 + answered);
        if !self.settle_at_once(node) {
            self.settle(node).await?;
        }
        Ok(())
    }

    /// Runs messages of the extended protocol up to `Sync`, none of which copies in, on one node and
    /// relays the answer, `ReadyForQuery` included. An error that names a statement of the proxy's
    /// comes to the client as `rewrite` makes it.
    pub async fn run_exchange(
        &mut self,
        (node, messages): (NodeId, &[u8]),
        client: &mut Client,
        cost: &Cost,
        rewrite: impl Fn(&[u8]) -> BytesMut,
    ) -> Result<(), Fault> {
        let started = Instant::now();
        let at = self.ask_for(client, node, messages, cost.brief).await?;
        let answered = match self.answer_at_once(at, client).await? {
            Some(bytes) => bytes,
            None => apart(answer_exchange(&mut self.members[at], client, rewrite)).await?,
        };
        self.record(node, cost, started.elapsed(), messages.len() as u64 + answered);
        if !self.settle_at_once(node) {
            self.settle(node).await?;
        }
        Ok(())
    }

    /// Runs a text on one node by the simple protocol and relays the answer without its
    /// `ReadyForQuery`.
    pub async fn run_text(
        &mut self,
        node: NodeId,
        text: &str,
        client: &mut Client,
    ) -> Result<(), Fault> {
        self.try_text(node, text, client).await.map(drop)
    }

    /// The same; whether it ran without an error.
    pub async fn try_text(
        &mut self,
        node: NodeId,
        text: &str,
        client: &mut Client,
    ) -> Result<bool, Fault> {
        let mut ran = true;
        let at = self.ask_for(client, node, &query_message(text), false).await?;
        let member = &mut self.members[at];
        loop {
            let mut copy_in = false;
            let relayed = pump(&mut member.guard, client, |tag, _| match tag {
                b'Z' => Verdict::DropLast,
                b'G' => {
                    copy_in = true;
                    Verdict::ForwardLast
                }
                b'E' => {
                    ran = false;
                    Verdict::Forward
                }
                _ => Verdict::Forward,
            });
            relayed.await?;
            if !copy_in {
                break;
            }
            relay_copy_in(&mut member.guard, client).await?;
        }
        self.settle(node).await?;
        Ok(ran)
    }

    /// Runs messages on one node and relays rows, notices, errors and how it ended; whether it did
    /// so without an error.
    pub async fn run_one(
        &mut self,
        node: NodeId,
        messages: &[u8],
        cost: &Cost,
        client: &mut Client,
    ) -> Result<bool, Fault> {
        let started = Instant::now();
        let at = self.ask_for(client, node, messages, false).await?;
        let member = &mut self.members[at];
        let mut failed = false;
        let bytes = pump(&mut member.guard, client, |tag, _| match tag {
            b'D' | b'N' | b'C' | b's' => Verdict::Forward,
            b'E' => {
                failed = true;
                Verdict::Forward
            }
            b'Z' => Verdict::DropLast,
            _ => Verdict::Drop,
        })
        .await?;
        self.record(node, cost, started.elapsed(), bytes);
        self.settle(node).await?;
        Ok(!failed)
    }

    /// Makes `node` part of the transaction block now, not only with its first statement.
    pub async fn join_block(&mut self, node: NodeId) -> Result<(), Fault> {
        let member = self.member(node).await?;
        if member.preface.is_empty() { Ok(()) } else { member.send_preface().await }
    }

    /// Counts a statement's cost: by shard, or by node where it touched none.
    pub fn record(&mut self, node: NodeId, cost: &Cost, busy: Duration, bytes: u64) {
        if let Some(sample) = self.sampled.take() {
            self.engine.samples.offer(Sample { busy, ..*sample });
        }
        let rows = self.held(node).map_or(0, |member| std::mem::take(&mut member.guard.rows));
        let counters = &self.engine.counters;
        let Some(count) = u32::try_from(cost.shards.len()).ok().filter(|count| *count > 0) else {
            counters.record_node(node, busy);
            return;
        };
        let each = |all: u64| all / u64::from(count);
        let work = Work { busy: busy / count, rows: each(rows), bytes: each(bytes) };
        for shard in &cost.shards {
            counters.record_shard(*shard, cost.access, work);
        }
    }

    /// Takes note of where `node`'s `ReadyForQuery` has left the transaction; lets go of what it
    /// held if it is over.
    pub async fn settle(&mut self, node: NodeId) -> Result<(), Fault> {
        match self.note_seen(node) {
            Some(TransactionStatus::Idle) => apart(self.finish()).await,
            Some(TransactionStatus::Failed) => {
                self.adopt_block(node);
                self.fail();
                Ok(())
            }
            _ => {
                self.adopt_block(node);
                self.unfail();
                Ok(())
            }
        }
    }

    /// After an error that the proxy told: a transaction block has failed; outside of one, what the
    /// statement held is let go of, and connections that are not clean are closed.
    pub fn after_error(&mut self) {
        if self.in_transaction() {
            self.lose_busy();
            self.fail();
        } else {
            self.release();
        }
    }

    /// A text of several statements may have begun a transaction block on its own.
    fn adopt_block(&mut self, node: NodeId) {
        if self.in_transaction() {
            return;
        }
        self.begin("BEGIN");
        self.transaction.begun_unseen = true;
        self.mark_begun(node);
    }
}

/// Relays the answer to a `Query`; its length.
async fn answer_query(member: &mut Member, client: &mut Client) -> Result<u64, Fault> {
    let mut bytes = 0;
    loop {
        let mut copy_in = false;
        bytes += pump(&mut member.guard, client, |tag, _| match tag {
            b'Z' => Verdict::ForwardLast,
            b'G' => {
                copy_in = true;
                Verdict::ForwardLast
            }
            _ => Verdict::Forward,
        })
        .await?;
        if !copy_in {
            return Ok(bytes);
        }
        bytes += relay_copy_in(&mut member.guard, client).await?;
    }
}

/// Relays the answer to an exchange of the extended protocol; its length.
async fn answer_exchange(
    member: &mut Member,
    client: &mut Client,
    rewrite: impl Fn(&[u8]) -> BytesMut,
) -> Result<u64, Fault> {
    let mut bytes = 0;
    loop {
        let mut named = None;
        bytes += pump(&mut member.guard, client, |tag, frame| match tag {
            b'Z' => Verdict::ForwardLast,
            b'E' if memchr::memmem::find(frame, b"\"fs_").is_some() => {
                named = Some(rewrite(frame));
                Verdict::DropLast
            }
            _ => Verdict::Forward,
        })
        .await?;
        let Some(named) = named else { return Ok(bytes) };
        client.relay(&named).await?;
    }
}

/// A `Query` of this text.
pub fn query_message(text: &str) -> BytesMut {
    let mut message = BytesMut::new();
    put_query(text, &mut message);
    message
}
