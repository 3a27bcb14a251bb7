//! One connection to a node: bytes out, frames in, and what is known of its session.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BackendError, Moment, PreparedNumbers, Settings, Stream, Trace};
use crate::ids::NodeId;
use crate::wire::{
    CancelKey, Frame, TransactionStatus, body, frame_at, parameter_status, read_error,
};

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 32 * 1024;

/// One logged-in connection to a node.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Stream,
    pub(super) incoming: BytesMut,
    pub(super) node_name: Arc<str>,
    pub(super) user: Arc<str>,
    /// The node that it leads to.
    pub node: NodeId,
    /// For cancel requests.
    pub key: CancelKey,
    /// What the last `ReadyForQuery` said; `None` while an answer is outstanding.
    pub status: Option<TransactionStatus>,
    /// The values of the settings that the server reports.
    pub parameters: Arc<BTreeMap<String, String>>,
    /// The settings that it was given.
    pub settings: Arc<Settings>,
    /// Notifications that came beside answers to statements of the proxy's own, for the client.
    pub notifications: Vec<Bytes>,
    /// How often the server has reported a setting's value.
    pub reports: u64,
    /// Rows that statements returned or changed since somebody last took note.
    pub rows: u64,
    /// The prepared statements that it has, by the proxy's own numbers.
    pub prepared: PreparedNumbers,
    /// Who used it last, and what is left of that.
    pub trace: Trace,
    /// Statements of the proxy's own under way whose answers come first, and that nobody is told of.
    pub(super) own_commands: usize,
    /// Answers for other sessions come behind the one that is outstanding ([`super::Trip`]).
    pub(super) shared: bool,
    /// Since when it has been open.
    pub opened_at: Moment,
    /// Since when it has been idle.
    pub idle_since: Moment,
}

impl Connection {
    /// Sends bytes that start one or more messages; an answer is outstanding from now on. Not
    /// cancel safe: a connection that was cut off here must be dropped, and is, as its status is
    /// unknown.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.status = None;
        self.stream.send(bytes).await.map_err(|source| self.broken(source))
    }

    /// The same as far as the socket takes it at once: how many bytes it has taken. Before 0 nothing
    /// has happened, what is left after more is for [`Connection::send_more`].
    pub fn send_at_once(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
        let sent = self.stream.send_at_once(bytes);
        if !matches!(sent, Ok(0)) {
            self.status = None;
        }
        sent.map_err(|source| self.broken(source))
    }

    /// The same for bytes that start with so many statements of the proxy's own, by the extended
    /// protocol: their answers are dropped. If one fails, the connection counts as broken.
    pub async fn send_after_own(
        &mut self,
        commands: usize,
        bytes: &[u8],
    ) -> Result<(), BackendError> {
        self.own_commands += commands;
        self.send(bytes).await
    }

    /// Sends more bytes of an exchange under way, a COPY's data for one.
    pub async fn send_more(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.stream.write_all(bytes).await.map_err(|source| self.broken(source))
    }

    /// Sends more bytes of an exchange under way, and receives meanwhile: a server that waits for
    /// us to read does not read.
    pub async fn send_and_receive(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        let mut sent = 0;
        while sent < bytes.len() {
            let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
            self.incoming.reserve(READ_BYTES);
            let moved = tokio::select! {
                biased;
                wrote = writer.write(&bytes[sent..]) => {
                    if let Ok(count) = wrote {
                        sent += count;
                    }
                    wrote
                }
                read = reader.read_buf(&mut self.incoming) => read,
            };
            match moved {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(source) => return Err(self.broken(source)),
            }
        }
        Ok(())
    }

    /// What was received and not yet taken.
    pub fn incoming(&mut self) -> &mut BytesMut {
        &mut self.incoming
    }

    /// Receives more bytes. Cancel safe.
    pub async fn receive(&mut self) -> Result<(), BackendError> {
        loop {
            self.incoming.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.incoming).await {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) if self.own_commands == 0 => return Ok(()),
                Ok(_) => self.drop_own_answers()?,
                Err(source) => return Err(self.broken(source)),
            }
            if self.own_commands == 0 && !self.incoming.is_empty() {
                return Ok(());
            }
        }
    }

    /// Receives more bytes of an answer that nothing of the proxy's own comes before.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BackendError>> {
        self.incoming.reserve(READ_BYTES);
        match self.stream.poll_receive(context, &mut self.incoming) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                Poll::Ready(Err(self.broken(io::ErrorKind::UnexpectedEof.into())))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(source)) => Poll::Ready(Err(self.broken(source))),
        }
    }

    /// Whether answers to statements of the proxy's own come first.
    pub fn owes_own(&self) -> bool {
        self.own_commands > 0
    }

    /// Drops the answers to statements of the proxy's own from the beginning of what was received.
    fn drop_own_answers(&mut self) -> Result<(), BackendError> {
        while self.own_commands > 0
            && let Some(Frame { tag, len }) = self.peek()?
            && len <= self.incoming.len()
        {
            match tag {
                b'C' => self.own_commands -= 1,
                // It was on its way while the session was idle.
                b'A' => {
                    let frame = self.incoming.split_to(len).freeze();
                    self.notifications.push(frame);
                    continue;
                }
                b'E' => {
                    let told = read_error(body(&self.incoming[..len]));
                    if told.severity != "ERROR" {
                        return Err(self.broken(io::Error::other(told.message)));
                    }
                    let (node, code) = (self.node_name.to_string(), told.code);
                    return Err(BackendError::NotBegun { node, code, message: told.message });
                }
                _ => self.note(0..len),
            }
            self.consume(len);
        }
        Ok(())
    }

    /// The header of the frame that starts what was received.
    pub fn peek(&self) -> Result<Option<Frame>, BackendError> {
        self.frame_after(0)
    }

    /// The header of the frame `at` bytes into what was received.
    pub fn frame_after(&self, at: usize) -> Result<Option<Frame>, BackendError> {
        frame_at(&self.incoming[at..]).map_err(|source| self.protocol(source))
    }

    /// The next whole frame. Keeps the status and the reported parameters current. Cancel safe.
    pub async fn frame(&mut self) -> Result<(u8, Bytes), BackendError> {
        loop {
            if let Some(Frame { tag, len }) = self.peek()?
                && len <= self.incoming.len()
            {
                self.note(0..len);
                return Ok((tag, self.incoming.split_to(len).freeze()));
            }
            self.receive().await?;
        }
    }

    /// Takes note of what the frame at these places of [`Connection::incoming`] tells about the
    /// session.
    pub fn note(&mut self, frame: Range<usize>) {
        let Some([tag, _, _, _, _, body @ ..]) = self.incoming.get(frame) else { return };
        if *tag == b'Z' {
            self.status = body.first().map(|byte| TransactionStatus::from_byte(*byte));
        } else if *tag == b'C' {
            self.rows += rows_of(body);
        } else if *tag == b'S'
            && let Ok((name, value)) = parameter_status(body)
        {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            Arc::make_mut(&mut self.parameters).insert(text(name), text(value));
            self.reports += 1;
        }
    }

    /// Drops the first `len` bytes of what was received.
    pub fn consume(&mut self, len: usize) {
        self.incoming.advance(len);
    }

    /// Whether it can go back to its pool: idle, nothing outstanding.
    pub(super) fn is_clean(&self) -> bool {
        self.status == Some(TransactionStatus::Idle) && self.incoming.is_empty() && !self.shared
    }

    /// Whether the node has closed it or said something while it was idle.
    pub(super) fn is_stale(&mut self) -> bool {
        !self.stream.is_quiet()
    }

    /// An error of this connection's socket.
    pub(super) fn broken(&self, source: io::Error) -> BackendError {
        BackendError::Broken { node: self.node_name.to_string(), source }
    }

    fn protocol(&self, source: crate::wire::Malformed) -> BackendError {
        BackendError::Protocol { node: self.node_name.to_string(), source }
    }
}

/// The rows that the body of a `CommandComplete` tells: the number at its end. Read backwards, as
/// each statement pays for it.
pub fn rows_of(body: &[u8]) -> u64 {
    let (mut rows, mut place) = (0u64, 1u64);
    for byte in body.iter().rev().skip(1) {
        match byte {
            b'0'..=b'9' => {
                rows = rows.saturating_add(place.saturating_mul(u64::from(byte - b'0')));
                place = place.saturating_mul(10);
            }
            b' ' => return rows,
            _ => return 0,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::rows_of;

    #[test]
    fn a_command_tag_tells_its_rows() {
        let tags: [(&[u8], u64); 7] = [
            (b"SELECT 1\0", 1),
            (b"INSERT 0 120\0", 120),
            (b"UPDATE 18446744073709551615\0", u64::MAX),
            (b"BEGIN\0", 0),
            (b"COPY 7\0", 7),
            (b"\0", 0),
            (b"", 0),
        ];
        for (tag, rows) in tags {
            assert_eq!(rows_of(tag), rows, "{}", String::from_utf8_lossy(tag));
        }
    }
}
