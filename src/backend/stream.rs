//! A socket to a node or from a client: TCP, TLS or Unix.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::NodeAddress;
use super::certificate::end_point;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// TLS over TCP. What was written is sent by a flush, or when it is read from next.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to a node, over TLS where its address says so, or to the socket of PostgreSQL in a
    /// folder. Cancel safe; give it a deadline.
    pub async fn connect(node: &NodeAddress) -> io::Result<Self> {
        if node.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", node.host, node.port);
            return UnixStream::connect(path).await.map(Self::Unix);
        }
        let stream = TcpStream::connect((node.host.as_str(), node.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match node.tls.protect(stream, &node.host).await? {
            Ok(stream) => Self::Tls(Box::new(TlsStream::Client(*stream))),
            Err(stream) => Self::Tcp(stream),
        })
    }

    /// The hash of the server's certificate, for a connection to a node over TLS.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        let Self::Tls(stream) = self else { return None };
        end_point(stream.get_ref().1.peer_certificates()?.first()?)
    }

    /// Sends what the socket takes at once, and tells how many bytes these are: all, mostly. Over TLS
    /// none.
    pub fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(_) => return Ok(0),
        };
        match taken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            taken => taken,
        }
    }

    /// Sends all of it. What a socket takes at once, as it mostly does, costs no more than that.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = self.send_at_once(bytes)?;
        if taken < bytes.len() {
            self.write_all(&bytes[taken..]).await?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Receives more bytes, behind those of `buffer`: how many, 0 at the end. Nothing is lost between
    /// two polls.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        pin!(self.read_buf(buffer)).poll(context)
    }

    /// Whether nothing has arrived that was not read, not even the end.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Tcp(stream) => would_block(stream.try_read(&mut byte)),
            Self::Unix(stream) => would_block(stream.try_read(&mut byte)),
            Self::Tls(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                let mut buffer = ReadBuf::new(&mut byte);
                Pin::new(stream).poll_read(&mut context, &mut buffer).is_pending()
            }
        }
    }
}

fn would_block(read: io::Result<usize>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => {
                // What the other side waits for may not be sent yet.
                if let Poll::Ready(Err(error)) = Pin::new(&mut *stream).poll_flush(context) {
                    return Poll::Ready(Err(error));
                }
                Pin::new(stream).poll_read(context, buffer)
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
