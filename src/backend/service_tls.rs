//! TLS for the service connections, which `tokio_postgres` makes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::end_point;
use super::tls::{NodeTls, shake_hands};

/// A service connection's socket under TLS.
#[derive(Debug)]
pub struct ServiceStream<S>(TlsStream<S>);

/// What makes it.
#[derive(Clone)]
pub struct ServiceConnector {
    connector: Option<TlsConnector>,
    host: String,
}

type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<ServiceStream<S>>> + Send>>;

impl<S> MakeTlsConnect<S> for NodeTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = ServiceStream<S>;
    type TlsConnect = ServiceConnector;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<ServiceConnector> {
        Ok(ServiceConnector { connector: self.connector().cloned(), host: host.to_owned() })
    }
}

impl<S> TlsConnect<S> for ServiceConnector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = ServiceStream<S>;
    type Error = io::Error;
    type Future = Connecting<S>;

    fn connect(self, stream: S) -> Connecting<S> {
        Box::pin(async move {
            let connector =
                self.connector.ok_or_else(|| io::Error::other("TLS is not configured"))?;
            Ok(ServiceStream(shake_hands(connector, stream, self.host).await?))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for ServiceStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match certificate.and_then(|certificate| end_point(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServiceStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServiceStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
