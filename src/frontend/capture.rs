//! Runs a statement as if a client had sent it, and keeps its answer.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::session::ClientSession;
use crate::backend::Stream;
use crate::executor::{Client, Fault};
use crate::wire::{Frame, ServerError, SqlState, command_count, command_tag, frame_at};

/// The most bytes of an answer that are kept.
const BYTES_MAX: usize = 256 << 20;
/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 64 * 1024;

/// A statement's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The `RowDescription`, a frame.
    pub columns: Option<Bytes>,
    /// The `DataRow`s, frames.
    pub rows: Vec<Bytes>,
    /// The `NoticeResponse`s, frames.
    pub notices: Vec<Bytes>,
    /// The last command tag.
    pub tag: String,
}

impl Answer {
    /// The count at the end of the tag.
    pub(super) fn count(&self) -> u64 {
        command_count(&self.tag).unwrap_or_default()
    }
}

impl ClientSession {
    /// Puts a client in the place of the session's own whose answers are kept, while `work` runs.
    pub(super) async fn capture<F>(&mut self, work: F) -> Result<Answer, Fault>
    where
        F: AsyncFnOnce(&mut Self) -> Result<(), Fault>,
    {
        let kept = self.answering(work, keep).await??;
        if kept.len() >= BYTES_MAX {
            return Err(too_much().into());
        }
        read(kept.freeze())
    }

    /// The same; `keeping` gets the bytes of the answers. It has to read all of them.
    pub(super) async fn answering<F, K>(
        &mut self,
        work: F,
        keeping: impl FnOnce(UnixStream) -> K,
    ) -> Result<K::Output, Fault>
    where
        F: AsyncFnOnce(&mut Self) -> Result<(), Fault>,
        K: Future,
    {
        let (near, far) = UnixStream::pair()?;
        let own = std::mem::replace(&mut self.client, Client::new(Stream::Unix(near)));
        let working = async {
            let worked = work(self).await;
            let flushed = self.client.flush().await;
            // The end of what is to be kept.
            let mut near = std::mem::replace(&mut self.client, own);
            self.client.inherit(&mut near);
            drop(near);
            worked.and(flushed.map_err(Fault::from))
        };
        let (worked, kept) = tokio::join!(working, keeping(far));
        worked.map(|()| kept)
    }
}

/// All of it, up to the most that is kept.
async fn keep(mut far: UnixStream) -> std::io::Result<BytesMut> {
    let mut kept = BytesMut::new();
    loop {
        kept.reserve(READ_BYTES);
        if far.read_buf(&mut kept).await? == 0 {
            return Ok(kept);
        }
        if kept.len() > BYTES_MAX {
            kept.truncate(BYTES_MAX);
            tokio::io::copy(&mut far, &mut tokio::io::sink()).await?;
            return Ok(kept);
        }
    }
}

/// Reads the frames of an answer; its error is the fault.
fn read(mut kept: Bytes) -> Result<Answer, Fault> {
    let mut answer = Answer::default();
    while let Some(Frame { tag, len }) =
        frame_at(&kept).map_err(crate::executor::ClientError::from)?
    {
        if kept.len() < len {
            break;
        }
        let frame = kept.split_to(len);
        match tag {
            b'T' => answer.columns = Some(frame),
            b'D' => answer.rows.push(frame),
            b'N' => answer.notices.push(frame),
            b'C' => command_tag(&frame[5..]).clone_into(&mut answer.tag),
            b'E' => return Err(Fault::Reported(frame)),
            _ => {}
        }
    }
    Ok(answer)
}

fn too_much() -> ServerError {
    ServerError::new(
        SqlState("54000"),
        format!("the statement moves more than {} MB between nodes", BYTES_MAX >> 20),
    )
    .with_hint("Restrict it to fewer rows, or use COPY.")
}
