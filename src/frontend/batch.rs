//! What is under way in the extended protocol between two `Sync`s: messages on their way to one
//! node, and the answers that are due.
//!
//! Most answers are the node's own. Some are dropped (to a `Parse` that the client did not send),
//! some are the proxy's (to a `Parse` that the node did not need).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use foldhash::HashMap;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::session::ClientSession;
use super::statements::Prepared;
use crate::executor::{Cost, Fault, Verdict, pump, relay_copy_in};
use crate::ids::NodeId;
use crate::load::Access;
use crate::wire::{ServerError, put_frame};

/// Messages for the node are sent once they are this many bytes, even before a `Sync`.
pub(super) const OUT_BYTES_MAX: usize = 256 * 1024;

/// Stands for a `Describe` whose `NoData` the client does not get.
const ROWS: u8 = b'R';

/// A client's name of a portal or a prepared statement.
pub(super) type Name = SmallVec<[u8; 24]>;

/// The exchange under way.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent marks")]
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
    /// The search path, or how strings are read, may be another one after it.
    pub changes_reading: bool,
    /// The client's `Sync` came in the middle of a COPY, and is to be forgotten.
    pub sync_is_lost: bool,
    /// It is the proxy's own, for EXECUTE in the simple protocol: the client gets only what a
    /// `Query` is answered with.
    pub quiet: bool,
    /// What is executed is in a block that `Sync` ends.
    pub widened: bool,
    /// After an error: everything up to `Sync` is skipped.
    pub skipping: bool,
    /// Texts of `Parse` that no node has got yet.
    pub unparsed: Vec<Arc<Prepared>>,
    /// Named statements of which the client has not heard yet that they are parsed, with their numbers:
    /// after an error before that they don't exist.
    pub unsure: Vec<(Name, u64)>,
    /// The text of the node's unnamed statement.
    pub unnamed: Option<Arc<Prepared>>,
    /// The client's portals.
    pub portals: HashMap<Name, Portal>,
    /// What it costs, and since when.
    pub cost: Option<(Cost, Instant)>,
}

/// A portal.
#[derive(Debug, Clone)]
pub(super) enum Portal {
    /// On a node, under the client's name.
    Native(NodeId),
    /// The proxy runs it in steps of its own.
    Ours {
        /// Its statement.
        prepared: Arc<Prepared>,
        /// The body of the client's `Bind`.
        bind: Bytes,
        /// Behind how many savepoints of the block it was made.
        depth: usize,
    },
    /// The cursor of this name, which stands where rows were brought together.
    Declared(String),
}

/// An answer that is due.
#[derive(Debug)]
pub(super) enum Due {
    /// The node's answer to this message.
    Node {
        /// The message's tag; of a `Describe` of a statement `d`, of one for `Query` [`ROWS`].
        message: u8,
        /// Whether the client gets it.
        seen: bool,
        /// The statement that a `Parse` gives to the connection.
        number: u64,
    },
    /// The proxy's own.
    Ours(Bytes),
    /// The proxy's own that the statement with this number is parsed.
    Parsed(u64),
}

/// `ParseComplete`
const PARSED: &[u8] = b"1\0\0\0\x04";

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
            b'D' | b'd' | ROWS => matches!(tag, b'T' | b'n'),
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

    /// The answer to a `Describe` of a portal.
    pub(super) fn described(&self) -> Due {
        Due::seen(if self.quiet { ROWS } else { b'D' })
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
        self.sync_is_lost = false;
        self.changes_reading = false;
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
            self.batch.in_exchange = true;
            self.batch.out = out;
            self.batch.out.clear();
        }
        loop {
            loop {
                match self.batch.due.front() {
                    Some(Due::Ours(reply)) => self.client.relay(reply).await?,
                    Some(Due::Parsed(number)) => {
                        let number = *number;
                        self.client.relay(PARSED).await?;
                        self.batch.heard_of(number);
                    }
                    _ => break,
                }
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
        let (mut copy_in, mut lost, mut named) = (false, Vec::new(), None);
        let bytes = pump(&mut member.guard, client, |tag, frame| {
            let Some(Due::Node { message, seen, number }) = batch.due.front() else {
                return Verdict::DropLast;
            };
            let (message, seen, number) = (*message, *seen, *number);
            if tag == b'E' {
                let verdict = batch.note_error(&mut lost);
                if memchr::memmem::find(frame, b"\"fs_").is_some() {
                    named = Some(frame.to_vec());
                    return Verdict::DropLast;
                }
                return verdict;
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
            if seen && message == b'P' {
                batch.heard_of(number);
            }
            let seen = seen && (message != ROWS || tag == b'T');
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
        if let Some(frame) = named {
            client.relay(&with_client_names(&frame, &self.statements)).await?;
        }
        if copy_in {
            bytes += relay_copy_in(&mut member.guard, client).await?;
            // A Sync that came before the data meant nothing to the node.
            let before = self.batch.due.len();
            self.batch.due.retain(|due| !matches!(due, Due::Node { message: b'S', .. }));
            self.batch.sync_is_lost |= self.batch.due.len() < before;
            let mut flush = BytesMut::new();
            put_frame(b'H', &mut flush, |_| ());
            member.guard.send_more(&flush).await?;
        }
        Ok(bytes)
    }

    /// Sends what is under way and relays its answers, without ending the implicit transaction.
    pub(super) async fn flush_batch(&mut self) -> Result<(), Fault> {
        if !self.batch.out.is_empty() {
            put_frame(b'H', &mut self.batch.out, |_| ());
            self.session.note_outset();
        }
        self.drain().await.map(drop)
    }

    /// Sends `Sync` and relays what is due; the transaction's state is the session's then.
    /// `false` if it was swallowed by a COPY.
    pub(super) async fn sync_batch(&mut self) -> Result<bool, Fault> {
        if self.batch.widened {
            return Box::pin(self.sync_widened()).await;
        }
        let Some(node) = self.batch.node.filter(|_| self.batch.has_exchange()) else {
            self.drain().await?;
            self.end_batch().await?;
            if !self.session.in_transaction() {
                self.session.finish().await?;
            }
            return Ok(true);
        };
        put_frame(b'S', &mut self.batch.out, |_| ());
        self.batch.due.push_back(Due::unseen(b'S'));
        let bytes = self.drain().await?;
        if std::mem::take(&mut self.batch.sync_is_lost) {
            return Ok(false);
        }
        if let Some((cost, started)) = self.batch.cost.take() {
            self.session.record(node, &cost, started.elapsed(), bytes);
        }
        self.batch.in_exchange = false;
        // Finishes the transaction, too, if it is over.
        self.session.settle(node).await?;
        self.end_batch().await.map(|()| true)
    }

    /// A `Query` in the middle of an exchange: what came before it goes first, and it ends the
    /// exchange. The node that it must go to then, if any; an error if it can't be sent.
    pub(super) async fn query_in_batch(&mut self) -> Result<Option<NodeId>, Fault> {
        self.flush_unparsed().await?;
        if !self.is_plain() && self.batch.executed && !self.session.in_transaction() {
            return Err(ServerError::refused(
                "a simple query can't share an implicit transaction with the extended protocol",
                "It may need other nodes than the statements before it.",
                "Send Sync before it.",
            )
            .into());
        }
        if !self.is_plain() {
            self.end_exchange().await?;
            return Ok(None);
        }
        self.flush_batch().await?;
        let node = self.batch.node.filter(|_| self.batch.in_exchange);
        if !self.batch.skipping {
            self.batch.reset(self.session.in_transaction());
        }
        Ok(node)
    }

    /// At `Sync`: what was to be parsed behind an error was not.
    pub(super) fn stop_skipping(&mut self) {
        self.batch.skipping = false;
        self.batch.unparsed.clear();
        for (name, _) in self.batch.unsure.drain(..) {
            self.statements.remove(&name);
        }
    }

    pub(super) async fn end_batch(&mut self) -> Result<(), Fault> {
        if self.batch.changes_reading {
            self.session.refresh_search_path().await?;
            self.renew_templates();
        }
        self.batch.reset(self.session.in_transaction());
        Ok(())
    }
}

/// An error that names a prepared statement as the client does, not by the proxy's own name.
pub(super) fn with_client_names(
    frame: &[u8],
    statements: &HashMap<Name, Arc<Prepared>>,
) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(b'E', &mut out, |out| {
        let mut rest = frame.get(5..).unwrap_or_default();
        while let Some(at) = memchr::memmem::find(rest, b"\"fs_") {
            let (before, name) = rest.split_at(at + 1);
            out.extend_from_slice(before);
            let end = memchr::memchr(b'"', name).unwrap_or(name.len());
            let known = statements.iter().find(|(_, prepared)| prepared.is_known_as(&name[..end]));
            out.extend_from_slice(known.map_or(&name[..end], |(client, _)| client));
            rest = &name[end..];
        }
        out.extend_from_slice(rest);
    });
    out
}

impl Batch {
    /// Something is, or is about to be, outstanding on the node.
    pub(super) fn has_exchange(&self) -> bool {
        self.in_exchange || !self.out.is_empty()
    }

    /// The client hears that the statement with this number is parsed.
    fn heard_of(&mut self, number: u64) {
        if let Some(at) = self.unsure.iter().position(|(_, known)| *known == number) {
            self.unsure.remove(at);
        }
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
