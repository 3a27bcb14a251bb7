//! One connection to a node: bytes out, frames in, and what is known of its session.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{BackendError, Settings, Stream};
use crate::ids::NodeId;
use crate::wire::{CancelKey, Frame, TransactionStatus, frame_at, parameter_status};

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
    pub parameters: BTreeMap<String, String>,
    /// The settings that it was given.
    pub settings: Arc<Settings>,
    /// The prepared statements that it has, by the proxy's own numbers.
    pub prepared: HashSet<u64>,
    /// Since when it has been idle.
    pub idle_since: Instant,
}

impl Connection {
    /// Sends bytes that start one or more messages; an answer is outstanding from now on. Not
    /// cancel safe: a connection that was cut off here must be dropped, and is, as its status is
    /// unknown.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.status = None;
        self.stream.write_all(bytes).await.map_err(|source| self.broken(source))
    }

    /// Sends more bytes of an exchange under way, a COPY's data for one.
    pub async fn send_more(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.stream.write_all(bytes).await.map_err(|source| self.broken(source))
    }

    /// What was received and not yet taken.
    pub fn incoming(&mut self) -> &mut BytesMut {
        &mut self.incoming
    }

    /// Receives more bytes. Cancel safe.
    pub async fn receive(&mut self) -> Result<(), BackendError> {
        self.incoming.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.incoming).await {
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(source) => Err(self.broken(source)),
        }
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
                let frame = self.incoming.split_to(len).freeze();
                self.note(tag, &frame);
                return Ok((tag, frame));
            }
            self.receive().await?;
        }
    }

    /// Takes note of a frame that tells something about the session.
    pub fn note(&mut self, tag: u8, frame: &[u8]) {
        let body = frame.get(5..).unwrap_or_default();
        if tag == b'Z' {
            self.status = body.first().map(|byte| TransactionStatus::from_byte(*byte));
        } else if tag == b'S'
            && let Ok((name, value)) = parameter_status(body)
        {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            self.parameters.insert(text(name), text(value));
        }
    }

    /// Drops the first `len` bytes of what was received.
    pub fn consume(&mut self, len: usize) {
        self.incoming.advance(len);
    }

    /// Whether it can go back to its pool: idle, nothing outstanding.
    pub(super) fn is_clean(&self) -> bool {
        self.status == Some(TransactionStatus::Idle) && self.incoming.is_empty()
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
