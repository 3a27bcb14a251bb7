//! The client's socket as the executor sees it: frames to read, replies to buffer and flush.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reports::Reports;
use super::{CancelTarget, Engine, Fault};
use crate::backend::Stream;
use crate::wire::{Frame, HEADER, Malformed, Reply, ServerError, frame_at};

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 16 * 1024;
/// Replies are sent when this many bytes of them wait, or when the proxy would wait.
const WRITE_BYTES: usize = 16 * 1024;
/// How much of a client that was told its last is read and dropped, in bytes, and how long.
const LAST_BYTES: usize = 1 << 20;
const LAST_WAIT: Duration = Duration::from_millis(500);

/// One client's connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Of its session, which may have been cancelled by the proxy itself.
    target: Option<Arc<CancelTarget>>,
    /// Knows what its tables are called.
    engine: Option<Arc<Engine>>,
    /// What it is told of settings before the next `ReadyForQuery`.
    reports: Reports,
    /// How many errors of nodes were passed on to it.
    errors: u64,
}

/// Why a client's connection can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It went away, with or without saying so.
    #[error("the client's connection broke")]
    Broken(#[from] io::Error),
    /// It sent what no client sends.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Client {
    /// Takes over a connected socket.
    pub fn new(stream: Stream) -> Self {
        let (incoming, outgoing) = (BytesMut::new(), BytesMut::new());
        let (target, engine, reports) = (None, None, Reports::default());
        Self { stream, incoming, outgoing, target, engine, reports, errors: 0 }
    }

    /// Gives the socket back; what was received and not consumed is lost.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// What was received and not yet consumed.
    pub fn incoming(&self) -> &[u8] {
        &self.incoming
    }

    /// The header of the next frame, if all of it is here; it starts [`Client::incoming`].
    pub fn whole_frame(&self) -> Result<Option<Frame>, Malformed> {
        Ok(frame_at(&self.incoming)?.filter(|frame| frame.len <= self.incoming.len()))
    }

    /// Receives more bytes; `false` at the end of the stream. Sends what waits first. Cancel safe
    /// once that is sent.
    pub async fn receive(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.incoming.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.incoming).await? > 0)
    }

    /// The same without sending anything.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.incoming.reserve(READ_BYTES);
        self.stream.poll_receive(context, &mut self.incoming).map_ok(|count| count > 0)
    }

    /// The header of the next frame once all of it is here; it starts [`Client::incoming`]. `None`
    /// at the end of the stream.
    pub async fn frame(&mut self) -> Result<Option<Frame>, ClientError> {
        self.frame_after(0).await
    }

    /// The same for a frame of `limit` bytes at the most: from a client that has not logged in.
    pub async fn frame_within(&mut self, limit: usize) -> Result<Option<Frame>, ClientError> {
        while self.incoming.len() < HEADER {
            if !self.receive().await? {
                return Ok(None);
            }
        }
        match frame_at(&self.incoming)? {
            Some(frame) if frame.len > limit => Err(Malformed("a frame is too long").into()),
            _ => self.frame().await,
        }
    }

    /// The header of the frame that starts `at` bytes into what was received, once all of it is
    /// here; `None` at the end of the stream.
    pub async fn frame_after(&mut self, at: usize) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = frame_at(&self.incoming[at..])? {
                let missing = (at + frame.len).saturating_sub(self.incoming.len());
                if missing == 0 {
                    return Ok(Some(frame));
                }
                self.incoming.reserve(missing);
            }
            if !self.receive().await? {
                return Ok(None);
            }
        }
    }

    /// Drops the first `len` bytes of what was received.
    pub fn consume(&mut self, len: usize) {
        self.incoming.advance(len);
    }

    /// Takes the first `len` bytes of what was received.
    pub fn take(&mut self, len: usize) -> BytesMut {
        self.incoming.split_to(len)
    }

    /// Puts back what was taken last.
    pub fn give_back(&mut self, mut taken: BytesMut) {
        taken.unsplit(std::mem::take(&mut self.incoming));
        self.incoming = taken;
    }

    /// Adds a reply to those that wait to be sent.
    pub fn put(&mut self, reply: Reply<'_>) {
        if matches!(reply, Reply::Ready(_)) {
            self.put_reports();
        }
        reply.put(&mut self.outgoing);
    }

    /// A setting has this value now, as far as the client knows it had the other one: it hears of it
    /// before the next `ReadyForQuery`, as from a server.
    pub(super) fn report(&mut self, name: &str, value: &str, before: Option<&str>) {
        self.reports.note(name, value, before);
    }

    /// Whether it is to hear of settings.
    pub(super) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Adds what it is to hear of settings.
    pub fn put_reports(&mut self) {
        self.reports.put(&mut self.outgoing);
    }

    /// Hears what another one was to hear that stood in its place.
    pub fn inherit(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.reports, &mut other.reports);
    }

    /// Adds an error or a notice of the proxy's own.
    pub fn put_error(&mut self, error: &ServerError) {
        self.put(Reply::Error(error));
    }

    /// Its session is the one that cancel requests reach by this, and its tables are this engine's.
    pub fn belongs_to(&mut self, target: &Arc<CancelTarget>, engine: &Arc<Engine>) {
        (self.target, self.engine) = (Some(Arc::clone(target)), Some(Arc::clone(engine)));
    }

    /// What the client gets instead of a node's error, if the proxy was the cause of that, or of its names.
    pub(super) async fn instead_of(&self, frame: &[u8]) -> Option<BytesMut> {
        let Some(error) = self.target.as_ref()?.instead_of(frame) else {
            return Box::pin(self.engine.as_ref()?.with_tables(frame)).await;
        };
        let mut out = BytesMut::new();
        Reply::Error(&error).put(&mut out);
        Some(out)
    }

    /// The fault as the client is to hear of it, which can't be told any more once its transaction is
    /// over.
    pub async fn told(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Reported(frame) => {
                let instead = self.instead_of(&frame).await.map(BytesMut::freeze);
                Fault::Reported(instead.unwrap_or(frame))
            }
            other => other,
        }
    }

    /// How many errors of nodes were passed on to the client in their answers.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    pub(super) fn note_error(&mut self) {
        self.errors += 1;
    }

    /// Adds a node's error.
    pub async fn relay_error(&mut self, frame: &[u8]) -> io::Result<()> {
        match self.instead_of(frame).await {
            Some(instead) => self.relay(&instead).await,
            None => self.relay(frame).await,
        }
    }

    /// Adds bytes of a server to those that wait, if these are still few then; else it is for
    /// [`Client::relay`] to do.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> bool {
        let fits = self.has_room(bytes.len());
        if fits {
            self.outgoing.extend_from_slice(bytes);
        }
        fits
    }

    /// Whether the bytes that wait are still few with so many more.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.outgoing.len() + len < WRITE_BYTES
    }

    /// Sends bytes of a server, for which there is room, if it may be now and where nothing waits and the
    /// client has said no more; else they wait. An error is left to the next who sends.
    pub(super) fn pass_on(&mut self, bytes: &[u8], now: bool) {
        let sent = if now && self.outgoing.is_empty() && self.incoming.is_empty() {
            self.stream.send_at_once(bytes).unwrap_or_default()
        } else {
            0
        };
        self.outgoing.extend_from_slice(&bytes[sent..]);
    }

    /// Adds bytes of a server to those that wait; sends when they are many. This is where a slow
    /// client presses back.
    pub async fn relay(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.keep(bytes) {
            return Ok(());
        }
        if self.outgoing.is_empty() && bytes.len() >= WRITE_BYTES {
            return self.stream.write_all(bytes).await;
        }
        self.outgoing.extend_from_slice(bytes);
        self.flush().await
    }

    /// Sends what waits, as far as the socket takes it at once; whether that was all.
    pub fn flush_at_once(&mut self) -> io::Result<bool> {
        if !self.outgoing.is_empty() {
            let sent = self.stream.send_at_once(&self.outgoing)?;
            if sent < self.outgoing.len() {
                self.outgoing.advance(sent);
                return Ok(false);
            }
            self.outgoing.clear();
        }
        Ok(true)
    }

    /// Sends what waits.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            self.stream.send(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    /// Sends what waits and ends the connection in a way that lets the last words arrive: what the
    /// client has still sent is read and dropped for a moment, else its system would forget them.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await?;
        self.incoming.clear();
        let drain = async {
            let mut dropped = 0;
            while dropped < LAST_BYTES && self.stream.read_buf(&mut self.incoming).await? > 0 {
                dropped += self.incoming.len();
                self.incoming.clear();
            }
            Ok(())
        };
        tokio::time::timeout(LAST_WAIT, drain).await.unwrap_or(Ok(()))
    }

    /// Answers one byte outside of any frame: to a request for TLS.
    pub async fn write_byte(&mut self, byte: u8) -> io::Result<()> {
        self.stream.write_all(&[byte]).await
    }
}
