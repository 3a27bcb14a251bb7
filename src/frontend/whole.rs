//! The extended protocol's most frequent exchange, from Parse or Bind to Sync with all messages at
//! hand: where it is a statement of one key it goes to its node in one go, and the answer comes back as
//! to a `Query`. Everything else, and all that needs a look, goes message by message.

use std::sync::Arc;

use bytes::BytesMut;

use super::batch::{Portal, with_client_names};
use super::session::ClientSession;
use super::simple::Way;
use super::statements::Prepared;
use crate::backend::Ride;
use crate::executor::{ClientError, Cost, Fault};
use crate::ids::NodeId;
use crate::router::{Params, Template};
use crate::runtime::{apart, aside};
use crate::wire::{Bind, FIRST_USER_OID, Parse, frame_at};

/// A Describe of the unnamed portal.
const DESCRIBE: &[u8] = b"D\0\0\0\x06P\0";
/// An Execute of the unnamed portal, without a limit.
const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";
const SYNC: &[u8] = b"S\0\0\0\x04";
/// Before the body of a message.
const HEADER: usize = 5;

/// Where the messages of an exchange lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    /// Where Bind begins: after Parse, if there is one.
    bind: usize,
    /// Where what follows Bind begins.
    rest: usize,
    /// The length of all.
    len: usize,
}

impl Exchange {
    /// One at the beginning of these bytes, all of it: Parse or not, Bind, Describe or not, Execute,
    /// Sync.
    fn in_front(bytes: &[u8]) -> Option<Self> {
        let end_of = |at: usize| {
            let frame = frame_at(bytes.get(at..)?).ok()??;
            Some(at + frame.len).filter(|end| *end < bytes.len())
        };
        let bind = if bytes.first() == Some(&b'P') { end_of(0)? } else { 0 };
        if bytes.get(bind) != Some(&b'B') {
            return None;
        }
        let rest = end_of(bind)?;
        let after = &bytes[rest..];
        let described = if after.starts_with(DESCRIBE) { DESCRIBE.len() } else { 0 };
        let executed = after[described..].strip_prefix(EXECUTE)?;
        executed.starts_with(SYNC).then_some(())?;
        Some(Self { bind, rest, len: rest + described + EXECUTE.len() + SYNC.len() })
    }
}

/// An exchange of one statement of one key, whose gate was passed.
struct Errand {
    node: NodeId,
    cost: Cost,
    /// What the client's statement is.
    prepared: Arc<Prepared>,
    template: Arc<Template>,
}

/// What its node is sent.
enum Sent {
    /// The client's bytes.
    AsItIs,
    /// These instead.
    Instead(BytesMut),
    /// That is known once the session has a connection to the node.
    Later,
    /// It has to be looked at message by message.
    Otherwise,
}

impl ClientSession {
    /// An exchange in front of what the client has sent. Nothing else is under way.
    pub(super) fn whole_exchange(&self) -> Option<Exchange> {
        Exchange::in_front(self.client.incoming())
    }

    /// Does an exchange in one go; no if its messages are to be looked at one by one: then they are as
    /// they were (while a COPY takes rows, Sync is not what it is here).
    pub(super) async fn exchange(&mut self, exchange: Exchange) -> Result<bool, ClientError> {
        let messages = self.client.take(exchange.len);
        let Some(errand) = self.errand(exchange, &messages) else {
            self.client.give_back(messages);
            return Ok(false);
        };
        let mut sent = match self.boarded(&errand, exchange, &messages) {
            None => self.sent(&errand, exchange, &messages),
            Some((ride, sent)) => match self.session.ride(errand.node, ride).await {
                Ok(true) => sent,
                Ok(false) => self.sent(&errand, exchange, &messages),
                Err(fault) => {
                    self.keep_unnamed(&errand.prepared);
                    aside(|| self.tell_ready(fault)).await?;
                    return Ok(true);
                }
            },
        };
        if let Sent::Later = sent {
            if let Err(fault) = apart(self.session.member(errand.node)).await {
                aside(|| self.tell_ready(fault)).await?;
                return Ok(true);
            }
            sent = self.sent(&errand, exchange, &messages);
        }
        let instead = match sent {
            Sent::AsItIs => None,
            Sent::Instead(bytes) => Some(bytes),
            Sent::Later | Sent::Otherwise => {
                self.client.give_back(messages);
                return Ok(false);
            }
        };
        if let Err(fault) = self.run_errand(errand, &messages, instead).await {
            aside(|| self.tell_ready(fault)).await?;
        }
        Ok(true)
    }

    /// Where it goes in one go. What is kept of it across a wait would be much.
    fn errand(&mut self, exchange: Exchange, messages: &[u8]) -> Option<Errand> {
        let bind = Bind::read(&messages[exchange.bind + HEADER..exchange.rest]).ok()?;
        let parsed = exchange.bind > 0;
        let unnamed = bind.portal.is_empty() && bind.statement.is_empty() == parsed;
        if !unnamed || !bind.values.iter().flatten().all(|value| value.is_ascii()) {
            return None;
        }
        let prepared = if parsed {
            self.unnamed(&messages[HEADER..exchange.bind])?
        } else {
            Arc::clone(self.statements.get(bind.statement)?)
        };
        let known = prepared.types.iter().all(|oid| *oid < FIRST_USER_OID);
        let template = self.template(&prepared.text);
        if !known || !template.is_plain() || self.session.check_not_failed().is_err() {
            return None;
        }
        let params = Params {
            types: &prepared.types,
            formats: &bind.formats,
            values: &bind.values,
            looked_up: None,
            literals: &[],
        };
        match self.way_of_point(&prepared.text, &params, &template)? {
            Way::Node(node, cost) => Some(Errand { node, cost, prepared, template }),
            _ => None,
        }
    }

    /// What its node is sent: a statement that is prepared has another name there.
    fn sent(&mut self, errand: &Errand, exchange: Exchange, messages: &[u8]) -> Sent {
        let Errand { node, cost, prepared, template } = errand;
        if exchange.bind > 0 {
            return Sent::AsItIs;
        }
        let Some(given) = self.on_leaf_at_once(*node, prepared, template, cost) else {
            return Sent::Later;
        };
        let held = self.session.at_once(*node);
        let has = held.is_some_and(|member| member.guard.prepared.has(given.number));
        let named = has.then(|| self.named(&given, exchange, messages)).flatten();
        named.map_or(Sent::Otherwise, Sent::Instead)
    }

    /// The messages with the statement's name on its node.
    fn named(&mut self, given: &Prepared, exchange: Exchange, messages: &[u8]) -> Option<BytesMut> {
        let bind = Bind::read(&messages[exchange.bind + HEADER..exchange.rest]).ok()?;
        let mut out = std::mem::take(&mut self.batch.out);
        bind.put_as(given.server_name.as_bytes(), &mut out);
        out.extend_from_slice(&messages[exchange.rest..]);
        Some(out)
    }

    /// Comes along on a trip that another session has opened.
    pub(super) fn board(&mut self, node: NodeId, messages: &[u8], cost: &Cost) -> Option<Ride> {
        if !cost.brief {
            return None;
        }
        self.session.boarding(node)?.board(messages)
    }

    /// The same with an exchange, and what its node is sent there.
    fn boarded(
        &mut self,
        errand: &Errand,
        exchange: Exchange,
        messages: &[u8],
    ) -> Option<(Ride, Sent)> {
        let Errand { node, cost, prepared, template } = errand;
        if exchange.bind > 0 {
            return Some((self.board(*node, messages, cost)?, Sent::AsItIs));
        }
        if !cost.brief {
            return None;
        }
        let trip = self.session.boarding(*node)?;
        let leaf = self.leaf_of(*node, prepared, template, cost);
        let given = match leaf {
            Some((leaf, shard)) if self.session.go_to_leaf(shard) => leaf,
            _ => Arc::clone(prepared),
        };
        if !trip.has(given.number) {
            return None;
        }
        let mut out = self.named(&given, exchange, messages)?;
        let Some(ride) = trip.board(&out) else {
            out.clear();
            self.batch.out = out;
            return None;
        };
        Some((ride, Sent::Instead(out)))
    }

    /// The unnamed statement of a Parse: the one that the client has, if it is the same.
    fn unnamed(&self, body: &[u8]) -> Option<Arc<Prepared>> {
        let parse = Parse::read(body).ok().filter(|parse| parse.name.is_empty())?;
        let text = std::str::from_utf8(parse.text).ok().filter(|text| text.is_ascii())?;
        let same = |it: &&Arc<Prepared>| *it.text == *text && it.types == parse.types;
        match self.statements.get(parse.name).filter(same) {
            Some(known) => Some(Arc::clone(known)),
            None => Some(Prepared::unnamed(text, None, &parse.types)),
        }
    }

    /// The client's unnamed statement is this one now, if it is an unnamed one.
    fn keep_unnamed(&mut self, prepared: &Arc<Prepared>) {
        if prepared.number == 0 {
            let known = self.statements.get(&b""[..]);
            if !known.is_some_and(|known| Arc::ptr_eq(known, prepared)) {
                self.statements.insert(b""[..].into(), Arc::clone(prepared));
            }
        }
    }

    async fn run_errand(
        &mut self,
        errand: Errand,
        messages: &[u8],
        instead: Option<BytesMut>,
    ) -> Result<(), Fault> {
        let Errand { node, cost, prepared, .. } = errand;
        self.keep_unnamed(&prepared);
        let (statements, client) = (&self.statements, &mut self.client);
        let rewrite = |frame: &[u8]| with_client_names(frame, statements);
        let bytes = instead.as_deref().unwrap_or(messages);
        self.session.run_exchange((node, bytes), client, &cost, rewrite).await?;
        if let Some(mut out) = instead {
            out.clear();
            self.batch.out = out;
        }
        if self.session.in_transaction() {
            self.batch.portals.insert(b""[..].into(), Portal::Native(node));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{DESCRIBE, EXECUTE, Exchange, SYNC};
    use crate::wire::{put_frame, put_parse};

    fn bind() -> BytesMut {
        let mut out = BytesMut::new();
        put_frame(b'B', &mut out, |out| out.extend_from_slice(b"\0\0\0\0\0\0\0\0"));
        out
    }

    #[test]
    fn an_exchange_is_seen_once_all_of_it_is_there_and_nothing_else_is_taken_for_one() {
        let mut parse = BytesMut::new();
        put_parse(b"", b"SELECT 1", &[], &mut parse);
        let (parse, bind) = (parse.to_vec(), bind().to_vec());
        for (first, described) in [(true, true), (true, false), (false, true), (false, false)] {
            let parse: &[u8] = if first { &parse } else { &[] };
            let describe: &[u8] = if described { DESCRIBE } else { &[] };
            let whole = [parse, &bind, describe, EXECUTE, SYNC].concat();
            let expected =
                Exchange { bind: parse.len(), rest: parse.len() + bind.len(), len: whole.len() };
            assert_eq!(Exchange::in_front(&whole), Some(expected));
            let more = [&whole, &b"Q\0\0\0\x05\0"[..]].concat();
            assert_eq!(Exchange::in_front(&more), Some(expected));
            for len in 0..whole.len() {
                assert_eq!(Exchange::in_front(&whole[..len]), None, "{len}");
            }
        }
        let flush: &[u8] = b"H\0\0\0\x04";
        let limit: &[u8] = b"E\0\0\0\x09\0\0\0\0\x01";
        let statement: &[u8] = b"D\0\0\0\x06S\0";
        for others in [
            [&parse[..], &bind, EXECUTE, flush],
            [&parse, &bind, limit, SYNC],
            [&bind, statement, EXECUTE, SYNC],
            [&parse, &parse, EXECUTE, SYNC],
            [&bind, EXECUTE, EXECUTE, SYNC],
        ] {
            assert_eq!(Exchange::in_front(&others.concat()), None, "{others:?}");
        }
    }
}
