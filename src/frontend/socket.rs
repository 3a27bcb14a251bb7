//! Where clients arrive: the TCP port and the Unix socket.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::rules::Origin;
use crate::backend::Stream;

/// What clients connect to.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connected client on its way from one runtime to another.
#[derive(Debug)]
pub(super) enum Arrival {
    Tcp(StdTcpStream),
    Unix(StdUnixStream),
}

/// The file of a Unix socket; removed when it is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Another process has the socket now.
    left: AtomicBool,
}

fn socket_path(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

impl Door {
    pub(super) async fn tcp(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp)
    }

    /// PostgreSQL's socket in this folder. One that nobody answers at any more is replaced.
    pub(super) fn unix(folder: &Path, port: u16) -> io::Result<Self> {
        let path = socket_path(folder, port);
        if path.exists() {
            if StdUnixStream::connect(&path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        let file = SocketFile { path, left: AtomicBool::new(false) };
        // Like PostgreSQL's: it is the authentication that decides who gets in.
        std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o777))?;
        Ok(Self::Unix(listener, file))
    }

    /// Doors that another process has left open.
    pub(super) fn inherited(sockets: Vec<OwnedFd>, folder: Option<&Path>) -> io::Result<Vec<Self>> {
        let mut doors = Vec::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            if index == 0 {
                let listener = StdTcpListener::from(socket);
                listener.set_nonblocking(true)?;
                doors.push(Self::Tcp(TcpListener::from_std(listener)?));
                continue;
            }
            let Some(folder) = folder else { continue };
            let listener = StdUnixListener::from(socket);
            listener.set_nonblocking(true)?;
            let port = doors.first().and_then(Self::address).map_or(0, |address| address.port());
            let file = SocketFile { path: socket_path(folder, port), left: AtomicBool::new(false) };
            doors.push(Self::Unix(UnixListener::from_std(listener)?, file));
        }
        Ok(doors)
    }

    /// A socket of its own for another process, which keeps the door open.
    pub(super) fn leave_open(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener, file) => {
                file.left.store(true, Ordering::Relaxed);
                listener.as_fd().try_clone_to_owned()
            }
        }
    }

    /// The address of the port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The next client. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Arrival::Tcp),
            Self::Unix(listener, _) => listener.accept().await?.0.into_std().map(Arrival::Unix),
        }
    }
}

impl Arrival {
    /// For the runtime of the caller, and where it comes from.
    pub(super) fn open(self) -> io::Result<(Stream, Origin)> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let ends = (stream.peer_addr()?.ip(), stream.local_addr()?.ip());
                let origin = Origin { addresses: Some(ends), ..Origin::default() };
                Ok((Stream::Tcp(TcpStream::from_std(stream)?), origin))
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                let stream = UnixStream::from_std(stream)?;
                let system_user = Some(stream.peer_cred()?.uid());
                Ok((Stream::Unix(stream), Origin { system_user, ..Origin::default() }))
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the file of the Unix socket was gone already");
        }
    }
}
