//! What most statements do on their one node, without a future of its own for each step: they go there
//! at once, and their answer comes in one piece. Whatever does not is left to `run` and `pump`.

use std::future::poll_fn;
use std::ops::Range;

use super::session::Member;
use super::{Client, Fault, Session};
use crate::backend::{Guard, rows_of, share};
use crate::ids::NodeId;
use crate::runtime::aside;
use crate::wire::{TransactionStatus, frame_at};

/// Before the body of a frame.
const HEADER: usize = 5;

/// An answer that is all there and that the client gets as it is.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    /// Its length in bytes, `ReadyForQuery` included.
    len: usize,
    /// Rows that statements returned or changed.
    rows: u64,
    status: TransactionStatus,
    /// Where types or columns are described in it, once at the most.
    described: Option<Range<usize>>,
}

impl Whole {
    /// One at the beginning of these bytes, if nothing in it has to be looked at: rows, what describes
    /// them, and that statements were parsed, bound and run.
    fn in_front(bytes: &[u8]) -> Option<Self> {
        let (mut at, mut rows, mut described) = (0, 0u64, None);
        loop {
            let frame = frame_at(bytes.get(at..)?).ok()??;
            let body = bytes.get(at + HEADER..at + frame.len)?;
            let here = at..at + frame.len;
            at = here.end;
            match frame.tag {
                b'D' | b'I' | b'n' | b'1' | b'2' | b'3' | b's' => {}
                b'C' => rows = rows.saturating_add(rows_of(body)),
                b'T' | b't' if described.is_none() => described = Some(here),
                b'Z' => {
                    let status = TransactionStatus::from_byte(*body.first()?);
                    return Some(Self { len: at, rows, status, described });
                }
                _ => return None,
            }
        }
    }
}

impl Member {
    /// Sends the client's bytes as far as they are taken at once: how many. Before 0 nothing has
    /// happened; the rest after more is for [`Member::send_rest`].
    pub(super) fn send_at_once(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.guard.trace.stale_sequences || !self.preface.is_empty() {
            return Ok(0);
        }
        Ok(self.guard.send_at_once(bytes)?)
    }

    /// Sends what was not taken at once: all of `bytes`, or what is behind the first `sent` of them.
    pub(super) async fn send_rest(&mut self, bytes: &[u8], sent: usize) -> Result<(), Fault> {
        match sent {
            0 => self.send(bytes).await,
            _ => Ok(self.guard.send_more(&bytes[sent..]).await?),
        }
    }
}

impl Session {
    /// The place of a connection to `node` that needs nothing and that nothing has to be waited for,
    /// outside of a transaction block. `None` says nothing: [`Session::place_of`] knows what is to be done.
    pub(super) fn place_at_once(&mut self, node: NodeId) -> Option<usize> {
        if self.members.iter().any(|member| member.node == node) {
            return self.ready_place(node);
        }
        let in_block = self.transaction.begin.is_some() || self.transaction.begun_unseen;
        if in_block || self.engine.doubts.any() {
            return None;
        }
        let mut guard = self.pools[node.index()].try_checkout(&self.ticket)?;
        if let Some(learned) = self.ticket.look_done().ok()? {
            self.settings = learned;
        }
        share(&mut guard.settings, &mut self.settings).then(|| self.add(node, guard))
    }

    /// The connection to `node` that needs nothing, if it is there at once.
    pub fn at_once(&mut self, node: NodeId) -> Option<&mut Member> {
        let at = self.place_at_once(node)?;
        self.members.get_mut(at)
    }

    /// Waits for the answer of the connection at this place, and hands it to the client if it is plain and
    /// came in one piece: its length. If `None`, it is all still to be looked at. It waits with the client's
    /// other bytes where something comes before: whoever hears that a definition is made may ask any proxy.
    pub(super) async fn answer_at_once(
        &mut self,
        at: usize,
        client: &mut Client,
    ) -> Result<Option<u64>, Fault> {
        let Member { guard, ride, .. } = &mut self.members[at];
        // It may have come with the answer of who was before on its trip.
        let here = !guard.incoming().is_empty();
        if guard.owes_own() || here && ride.is_none() {
            return Ok(None);
        }
        if !here {
            if !client.flush_at_once()? {
                aside(|| client.flush()).await?;
            }
            poll_fn(|context| guard.poll_receive(context)).await?;
        }
        let waits = self.may_have_left_something();
        Ok(hand_over(&mut self.members[at].guard, client, waits))
    }

    /// Takes note that `node`'s statement was a transaction of its own, and ends that, if there is
    /// nothing to look at. If not, nothing has happened.
    pub(super) fn settle_at_once(&mut self, node: NodeId) -> bool {
        let settled = self.note_seen(node) == Some(TransactionStatus::Idle)
            && !self.may_have_left_something();
        if settled {
            self.note_members();
            self.release();
        }
        settled
    }
}

/// Hands a plain answer that is all there to the client, at once unless it `waits`; its length.
fn hand_over(guard: &mut Guard, client: &mut Client, waits: bool) -> Option<u64> {
    let Whole { len, rows, status, described } = Whole::in_front(guard.incoming())?;
    if client.has_reports() || !client.has_room(len) {
        return None;
    }
    let (connection, pool) = guard.parts();
    if described.is_some_and(|at| !pool.describe_at_once(&mut connection.incoming()[at])) {
        return None;
    }
    client.pass_on(&guard.incoming()[..len], !waits);
    guard.consume(len);
    guard.rows += rows;
    guard.status = Some(status);
    Some(len as u64)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::Whole;
    use crate::wire::{TransactionStatus, put_frame};

    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for (tag, body) in frames {
            put_frame(*tag, &mut out, |out| out.extend_from_slice(body));
        }
        out.to_vec()
    }

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_ends_at_ready_for_query() {
        let row: &[u8] = b"\0\x01\0\0\0\x01Z";
        let answer = frames(&[
            (b'T', b"\0\x01v\0"),
            (b'D', row),
            (b'D', row),
            (b'C', b"SELECT 2\0"),
            (b'Z', b"T"),
        ]);
        let status = TransactionStatus::Open;
        let described = Some(0..frames(&[(b'T', b"\0\x01v\0")]).len());
        let whole = Whole { len: answer.len(), rows: 2, status, described };
        assert_eq!(Whole::in_front(&answer).as_ref(), Some(&whole));
        for len in 0..answer.len() {
            assert_eq!(Whole::in_front(&answer[..len]), None, "{len}");
        }
        let more = [answer, frames(&[(b'A', b"\0\0\0\x01c\0\0")])].concat();
        assert_eq!(Whole::in_front(&more), Some(whole));
    }

    #[test]
    fn what_has_to_be_looked_at_is_left() {
        for tag in *b"ESNAGHWdcvR" {
            let answer = frames(&[(b'C', b"SET\0"), (tag, b"\0\0\0\0\0"), (b'Z', b"I")]);
            assert_eq!(Whole::in_front(&answer), None, "{}", char::from(tag));
        }
        assert_eq!(Whole::in_front(b"C\0\0\0\x01"), None);
        let twice = frames(&[(b't', b"\0\0"), (b'T', b"\0\0"), (b'Z', b"I")]);
        assert_eq!(Whole::in_front(&twice), None);
    }
}
