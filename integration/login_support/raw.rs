//! A client that speaks bytes: what a driver would never send, and exactly what came back.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use foreshard::wire::{body, put_frame, put_startup, read_error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection of bytes.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    received: BytesMut,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Raw<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, received: BytesMut::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// A startup packet with these parameters.
    pub async fn start(&mut self, parameters: &[(&str, &str)]) {
        self.start_speaking(0, parameters).await;
    }

    /// A startup packet of this minor version of protocol 3.
    pub async fn start_speaking(&mut self, minor: u16, parameters: &[(&str, &str)]) {
        let mut out = BytesMut::new();
        put_startup(parameters, &mut out);
        out[6..8].copy_from_slice(&minor.to_be_bytes());
        self.send(&out).await;
    }

    /// A frame with this body.
    pub async fn frame(&mut self, tag: u8, content: &[u8]) {
        let mut out = BytesMut::new();
        put_frame(tag, &mut out, |out| out.put_slice(content));
        self.send(&out).await;
    }

    /// The next byte, outside of any frame.
    pub async fn byte(&mut self) -> u8 {
        self.fill(1).await.expect("a byte");
        self.received.split_to(1)[0]
    }

    /// The next frame's tag and body; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        self.fill(5).await?;
        let header = [self.received[1], self.received[2], self.received[3], self.received[4]];
        let len = usize::try_from(u32::from_be_bytes(header)).unwrap() + 1;
        self.fill(len).await?;
        let frame = self.received.split_to(len);
        Some((frame[0], body(&frame).to_vec()))
    }

    /// Reads up to the next frame with this tag; its body.
    pub async fn until(&mut self, tag: u8) -> Vec<u8> {
        loop {
            let (found, content) = self.next().await.expect("the stream goes on");
            if found == tag {
                return content;
            }
            assert_ne!(found, b'E', "{:?}", read_error(&content));
        }
    }

    /// Reads up to an error, and that it is the last word; its code and message.
    pub async fn refused(&mut self) -> (String, String) {
        loop {
            let (tag, content) = self.next().await.expect("an error before the end");
            if tag == b'E' {
                let error = read_error(&content);
                assert_eq!(error.severity, "FATAL", "{error:?}");
                assert!(self.next().await.is_none(), "nothing after {error:?}");
                return (error.code, error.message);
            }
        }
    }

    /// Whether the other side ends the connection.
    pub async fn ended(&mut self) -> bool {
        while self.next().await.is_some() {}
        true
    }

    async fn fill(&mut self, len: usize) -> Option<()> {
        while self.received.len() < len {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            if !matches!(read.expect("an answer in time"), Ok(1..)) {
                return None;
            }
        }
        Some(())
    }
}
