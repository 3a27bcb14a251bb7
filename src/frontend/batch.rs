//! What is under way in the extended protocol between two `Sync`s: messages on their way to one
//! node, and the answers that are due.
//!
//! Most answers are the node's own. Some are dropped (to a `Parse` that the client did not send),
//! some are the proxy's (to a `Parse` that the node did not need).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::session::ClientSession;
use super::statements::Prepared;
use crate::executor::{Cost, Fault, Verdict, pump, relay_copy_in};
use crate::ids::NodeId;
use crate::load::Access;
use crate::wire::put_frame;

/// Messages for the node are sent once they are this many bytes, even before a `Sync`.
pub(super) const OUT_BYTES_MAX: usize = 256 * 1024;

/// The exchange under way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The node that it goes to.
    pub node: Option<NodeId>,
    /// What is still to be sent.
    pub out: BytesMut,
    /// What is still to be answered, in order.
    pub due: VecDeque<Due>,
    /// Something was sent to the node since its last `Sync`.
    pub in_exchange: bool,
    /// Something was executed since the last `Sync`.
    pub executed: bool,
    /// After an error: everything up to `Sync` is skipped.
    pub skipping: bool,
    /// Texts of `Parse` that no node has got yet.
    pub unparsed: Vec<Arc<Prepared>>,
    /// The text of the node's unnamed statement.
    pub unnamed: Option<Arc<Prepared>>,
    /// The client's portals.
    pub portals: HashMap<Vec<u8>, Portal>,
    /// What it costs, and since when.
    pub cost: Option<(Cost, Instant)>,
}

/// A portal.
#[derive(Debug, Clone)]
pub(super) enum Portal {
    /// On a node, under the client's name.
    Native(NodeId),
    /// The proxy runs it in steps of its own.
    Ours(Arc<Prepared>, Bytes),
}

/// An answer that is due.
#[derive(Debug)]
pub(super) enum Due {
    /// The node's answer to this message.
    Node {
        /// The message's tag; of a `Describe` of a statement `d`.
        message: u8,
        /// Whether the client gets it.
        seen: bool,
        /// The statement that a `Parse` gives to the connection.
        number: u64,
    },
    /// The proxy's own.
    Ours(Bytes),
}

impl Due {
    pub(super) fn seen(message: u8) -> Self {
        Self::Node { message, seen: true, number: 0 }
    }

    pub(super) fn unseen(message: u8) -> Self {
        Self::Node { message, seen: false, number: 0 }
    }

    /// Whether a frame with this tag ends the answer.
    fn ends_with(message: u8, tag: u8) -> bool {
        match message {
            b'P' => tag == b'1',
            b'B' => tag == b'2',
            b'D' | b'd' => matches!(tag, b'T' | b'n'),
            b'E' => matches!(tag, b'C' | b'I' | b's'),
            b'C' => tag == b'3',
            _ => tag == b'Z',
        }
    }
}

impl Batch {
    /// Nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        !self.in_exchange && self.out.is_empty() && self.due.is_empty() && self.unparsed.is_empty()
    }

    /// Adds a cost to that of the exchange.
    pub(super) fn add_cost(&mut self, cost: Cost) {
        let (sum, _) = self.cost.get_or_insert_with(|| (Cost::none(Access::Read), Instant::now()));
        if cost.access == Access::Write {
            sum.access = Access::Write;
        }
        for shard in cost.shards {
            if !sum.shards.contains(&shard) {
                sum.shards.push(shard);
            }
        }
    }

    /// Forgets the exchange; portals live on inside a transaction block.
    pub(super) fn reset(&mut self, in_transaction: bool) {
        self.node = None;
        self.out.clear();
        self.due.clear();
        self.in_exchange = false;
        self.executed = false;
        self.unnamed = None;
        self.cost = None;
        if !in_transaction {
            self.portals.clear();
        }
    }
}

impl ClientSession {
    /// Sends what is to be sent with a `Flush` or `Sync` behind it, and relays all that is due.
    /// After an error of the node's the batch skips; what was due is gone, but for a `Sync`.
    pub(super) async fn drain(&mut self) -> Result<u64, Fault> {
        let mut bytes = self.batch.out.len() as u64;
        if let Some(node) = self.batch.node
            && !self.batch.out.is_empty()
        {
            let out = std::mem::take(&mut self.batch.out);
            let member = self.session.member(node).await?;
            member.send(&out).await?;
            member.skip_own_answers().await?;
            self.batch.in_exchange = true;
            self.batch.out = out;
            self.batch.out.clear();
        }
        loop {
            while let Some(Due::Ours(reply)) = self.batch.due.front() {
                self.client.relay(reply).await?;
                self.batch.due.pop_front();
            }
            let (Some(node), false) = (self.batch.node, self.batch.due.is_empty()) else {
                return Ok(bytes);
            };
            bytes += self.relay_due(node).await?;
        }
    }

    /// Relays the node's answers up to the next that is the proxy's, or to the last that is due.
    async fn relay_due(&mut self, node: NodeId) -> Result<u64, Fault> {
        let (batch, client) = (&mut self.batch, &mut self.client);
        let member = self.session.member(node).await?;
        let (mut copy_in, mut lost) = (false, Vec::new());
        let bytes = pump(&mut member.guard, client, |tag, _| {
            let Some(Due::Node { message, seen, .. }) = batch.due.front() else {
                return Verdict::DropLast;
            };
            let (message, seen) = (*message, *seen);
            if tag == b'E' {
                return batch.note_error(&mut lost);
            }
            if tag == b'G' {
                copy_in = true;
                return Verdict::ForwardLast;
            }
            if !Due::ends_with(message, tag) {
                let forwards = seen || matches!(tag, b'N' | b'S' | b'A');
                return if forwards { Verdict::Forward } else { Verdict::Drop };
            }
            batch.due.pop_front();
            let last = !matches!(batch.due.front(), Some(Due::Node { .. }));
            match (seen, last) {
                (true, true) => Verdict::ForwardLast,
                (true, false) => Verdict::Forward,
                (false, true) => Verdict::DropLast,
                (false, false) => Verdict::Drop,
            }
        });
        let mut bytes = bytes.await?;
        for number in lost {
            member.guard.prepared.remove(number);
        }
        if copy_in {
            bytes += relay_copy_in(&mut member.guard, client, true).await?;
            if !batch.due.iter().any(|due| matches!(due, Due::Node { message: b'S', .. })) {
                batch.due.push_back(Due::unseen(b'S'));
            }
        }
        Ok(bytes)
    }

    /// Sends what is under way and relays its answers, without ending the implicit transaction.
    pub(super) async fn flush_batch(&mut self) -> Result<(), Fault> {
        if !self.batch.out.is_empty() {
            put_frame(b'H', &mut self.batch.out, |_| ());
        }
        self.drain().await.map(drop)
    }

    /// Sends `Sync` and relays what is due; the transaction's state is the session's then.
    pub(super) async fn sync_batch(&mut self) -> Result<(), Fault> {
        let Some(node) = self.batch.node.filter(|_| self.batch.has_exchange()) else {
            self.drain().await?;
            return self.end_batch().await;
        };
        put_frame(b'S', &mut self.batch.out, |_| ());
        self.batch.due.push_back(Due::unseen(b'S'));
        let bytes = self.drain().await?;
        if let Some((cost, started)) = self.batch.cost.take() {
            self.session.record(node, &cost, started.elapsed(), bytes);
        }
        self.batch.in_exchange = false;
        self.session.settle(node).await?;
        self.end_batch().await
    }

    async fn end_batch(&mut self) -> Result<(), Fault> {
        self.batch.reset(self.session.in_transaction());
        if !self.session.in_transaction() {
            self.session.finish().await?;
        }
        Ok(())
    }
}

impl Batch {
    /// Something is, or is about to be, outstanding on the node.
    fn has_exchange(&self) -> bool {
        self.in_exchange || !self.out.is_empty()
    }

    /// The node has reported an error: it skips to `Sync`, and so does the client's side.
    fn note_error(&mut self, lost: &mut Vec<u64>) -> Verdict {
        self.skipping = true;
        let sync = self.due.iter().any(|due| matches!(due, Due::Node { message: b'S', .. }));
        for due in self.due.drain(..) {
            if let Due::Node { message: b'P', number, .. } = due {
                lost.push(number);
            }
        }
        if sync {
            self.due.push_back(Due::unseen(b'S'));
            return Verdict::Forward;
        }
        Verdict::ForwardLast
    }
}
