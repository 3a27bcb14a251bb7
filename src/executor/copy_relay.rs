//! Passes a client's COPY data on to one node, while the node may speak, too: notices of triggers,
//! or the error that ends the COPY.

use super::{Client, ClientError, Fault};
use crate::backend::Connection;
use crate::wire::{Frame, frame_at};

/// Passes the client's COPY data on to a node, up to its CopyDone or CopyFail, or up to an error of
/// the node's, which is left for the caller. Sync and Flush meanwhile mean nothing to a node. Returns
/// the bytes passed on. Not cancel safe.
pub async fn relay_copy_in(backend: &mut Connection, client: &mut Client) -> Result<u64, Fault> {
    let mut bytes = 0;
    loop {
        let (at, ended) = data_frames(client.incoming())?;
        backend.send_and_receive(&client.incoming()[..at]).await?;
        client.consume(at);
        bytes += at as u64;
        if ended || relay_remarks(backend, client).await? {
            return Ok(bytes);
        }
        client.flush().await?;
        tokio::select! {
            more = client.receive() => {
                if !more? {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
            }
            spoke = backend.receive() => spoke?,
        }
    }
}

/// The bytes of the whole frames that were received, up to the one that ends the data, and whether
/// that is among them.
fn data_frames(incoming: &[u8]) -> Result<(usize, bool), ClientError> {
    let mut at = 0;
    while let Some(Frame { tag, len }) = frame_at(&incoming[at..])?
        && at + len <= incoming.len()
    {
        at += len;
        if matches!(tag, b'c' | b'f') {
            return Ok((at, true));
        }
    }
    Ok((at, false))
}

/// Passes on what a node says beside an answer; whether an answer comes next.
async fn relay_remarks(backend: &mut Connection, client: &mut Client) -> Result<bool, Fault> {
    while let Some(Frame { tag, len }) = backend.peek()? {
        if !matches!(tag, b'N' | b'S' | b'A') {
            return Ok(true);
        }
        if len > backend.incoming().len() {
            return Ok(false);
        }
        let (_, frame) = backend.frame().await?;
        client.relay(&frame).await?;
    }
    Ok(false)
}
