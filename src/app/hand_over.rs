//! A restart that refuses nobody: a new process takes over the sockets that clients connect to, and
//! serves once the old one has ended. Who connects meanwhile waits in the sockets' queue.
//!
//! The old process offers its sockets at a Unix socket in the data folder. It closes the connection
//! over which it gave them by ending; only then is the catalog free for the new one.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::net::UnixListener;

/// Sockets that are handed over at the most: the port and the Unix socket.
const SOCKETS_MAX: usize = 2;
/// How long the old process may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Where the old process offers its sockets; the file goes with it.
#[derive(Debug)]
pub(super) struct Offer {
    listener: UnixListener,
    file: PathBuf,
}

/// The old process, which now ends.
#[derive(Debug)]
pub(super) struct Ending(UnixStream);

impl Offer {
    pub(super) fn new(data_folder: &Path) -> io::Result<Self> {
        let file = path(data_folder);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&file)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, file })
    }

    /// Waits for a process that wants to take over. Cancel safe.
    pub(super) async fn wanted(&self) -> io::Result<Wanted> {
        let (stream, _) = self.listener.accept().await?;
        stream.writable().await?;
        Ok(Wanted(stream))
    }
}

/// A process that wants to take over.
pub(super) struct Wanted(tokio::net::UnixStream);

impl Wanted {
    /// Gives it the sockets. It waits from now on until this process has ended.
    pub(super) fn give(self, sockets: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("there are more sockets than can be handed over"));
        }
        sendmsg(&self.0, &[IoSlice::new(b"s")], &mut control, SendFlags::empty())?;
        // Its end tells the other that everything is free: the end of the process closes it.
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.file) {
            tracing::debug!(%error, "the hand-over's socket was gone already");
        }
    }
}

/// Takes over the sockets of the process that serves with this data folder. From now on it ends.
pub(super) fn take_over(data_folder: &Path) -> io::Result<(Vec<OwnedFd>, Ending)> {
    let stream = UnixStream::connect(path(data_folder))?;
    stream.set_read_timeout(Some(ANSWER))?;
    let (mut byte, mut sockets) = ([0], Vec::new());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    if sockets.is_empty() {
        return Err(io::Error::other("it gave no sockets"));
    }
    stream.set_read_timeout(None)?;
    Ok((sockets, Ending(stream)))
}

impl Ending {
    /// Waits until the old process has ended; blocks.
    pub(super) fn wait(mut self) -> io::Result<()> {
        self.0.read_to_end(&mut Vec::new()).map(drop)
    }
}

fn path(data_folder: &Path) -> PathBuf {
    data_folder.join("handover.sock")
}
