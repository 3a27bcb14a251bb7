//! Rows of a statement on their way into another: in memory while they are few, else in a file
//! without a name.

use std::io::{self, SeekFrom};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::session::ClientSession;
use crate::executor::Fault;
use crate::wire::{Frame, ServerError, SqlState, frame_at};

/// The most bytes of rows in memory.
const MEMORY_BYTES: usize = 4 << 20;
/// Bytes asked of the socket or the file at a time.
const READ_BYTES: usize = 64 * 1024;
/// A portion has no more bytes than these and one row.
const PORTION_BYTES: usize = 1 << 20;

/// The rows of one statement.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// The `RowDescription`, a frame.
    pub columns: Option<Bytes>,
    /// How many rows there are.
    pub count: u64,
    /// `DataRow`s as frames: all, or those behind the ones in the file.
    rows: BytesMut,
    file: Option<File>,
    /// What was read of it, and not taken.
    part: BytesMut,
    /// Its bytes that were not read yet.
    unread: u64,
    error: Option<Bytes>,
}

impl ClientSession {
    /// Runs a query for its rows, however many there are.
    pub(super) async fn spool<F>(&mut self, work: F) -> Result<Spool, Fault>
    where
        F: AsyncFnOnce(&mut Self) -> Result<(), Fault>,
    {
        let mut spool =
            self.answering(work, Spool::receive).await?.map_err(|error| no_room(&error))?;
        if let Some(frame) = spool.error.take() {
            return Err(Fault::Reported(frame));
        }
        spool.rewind().await.map_err(|error| no_room(&error))?;
        Ok(spool)
    }
}

impl Spool {
    /// Takes all that comes; it comes to its end also where it can't be kept.
    async fn receive(mut far: UnixStream) -> io::Result<Self> {
        let mut spool = Self::default();
        let mut incoming = BytesMut::new();
        let received = spool.take_from(&mut far, &mut incoming).await;
        if received.is_err() {
            tokio::io::copy(&mut far, &mut tokio::io::sink()).await?;
        }
        received.map(|()| spool)
    }

    async fn take_from(&mut self, far: &mut UnixStream, incoming: &mut BytesMut) -> io::Result<()> {
        loop {
            while let Some(frame) = next_frame(incoming)? {
                match frame[0] {
                    b'T' => self.columns = Some(frame),
                    b'E' => self.error = self.error.take().or(Some(frame)),
                    b'D' => {
                        self.count += 1;
                        self.rows.extend_from_slice(&frame);
                    }
                    _ => {}
                }
            }
            if self.rows.len() >= MEMORY_BYTES {
                self.write().await?;
            }
            incoming.reserve(READ_BYTES);
            if far.read_buf(incoming).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Puts what is in memory into the file.
    async fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(unnamed_file(&std::env::temp_dir()).await?),
        };
        file.write_all(&self.rows).await?;
        self.unread += self.rows.len() as u64;
        self.rows.clear();
        Ok(())
    }

    async fn rewind(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.flush().await?;
            file.seek(SeekFrom::Start(0)).await?;
        }
        Ok(())
    }

    /// The next rows, `most` at the most; none at the end. With `usize::MAX` all that are left.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) async fn portion(&mut self, most: usize) -> Result<Vec<Bytes>, Fault> {
        self.next_rows(most).await.map_err(|error| no_room(&error))
    }

    async fn next_rows(&mut self, most: usize) -> io::Result<Vec<Bytes>> {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        while portion.len() < most && (most == usize::MAX || bytes < PORTION_BYTES) {
            let frame = match next_frame(&mut self.part)? {
                None if self.unread > 0 => {
                    self.read().await?;
                    continue;
                }
                None => next_frame(&mut self.rows)?,
                frame => frame,
            };
            let Some(frame) = frame else { break };
            bytes += frame.len();
            portion.push(frame);
        }
        Ok(portion)
    }

    /// Reads more of the file.
    async fn read(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.part.reserve(READ_BYTES);
        let read = file.read_buf(&mut self.part).await?;
        self.unread = self.unread.saturating_sub(read as u64);
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// A file that nobody else can open, and that goes with the process.
async fn unnamed_file(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("foreshard-rows-{:016x}", rand::random::<u64>()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).await?;
    tokio::fs::remove_file(&path).await?;
    Ok(file)
}

/// Takes the first frame, once all of it is there.
fn next_frame(bytes: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let Some(Frame { len, .. }) = frame_at(bytes).map_err(malformed)? else { return Ok(None) };
    Ok((bytes.len() >= len).then(|| bytes.split_to(len).freeze()))
}

fn no_room(error: &io::Error) -> Fault {
    tracing::warn!(%error, "rows between nodes can't be kept");
    let message = format!("rows between nodes can't be kept in a temporary file: {error}");
    let hint = "They are in the folder that TMPDIR names to the proxy, /tmp by default.";
    ServerError::new(SqlState("53100"), message).with_hint(hint).into()
}
