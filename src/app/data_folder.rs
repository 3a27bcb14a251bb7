//! The folder of `foreshard dev`: its lock, the ports of its nodes, the policy of its data.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataFolderError {
    /// Another `foreshard dev` has it.
    #[error("the data folder {0} is in use by another foreshard; --data chooses another one")]
    InUse(PathBuf),
    /// There is no home folder to put it in.
    #[error("there is no home folder; --data says where the data shall be kept")]
    NoHome,
    /// A file in it can't be read or written.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The policy's name in the folder.
pub(super) const POLICY: &str = "policy.yaml";

/// A folder that no other process uses while this value lives.
#[derive(Debug)]
pub(super) struct DataFolder {
    pub(super) path: PathBuf,
    _lock: Flock<File>,
}

impl DataFolder {
    /// Takes the folder at `path`, or the default one; makes it if it is not there.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, DataFolderError> {
        let path = path.map_or_else(default_path, |path| Ok(path.to_owned()))?;
        fs::create_dir_all(&path).map_err(file("making the data folder", &path))?;
        let path = path.canonicalize().map_err(file("reading the data folder", &path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(file("making", &lock_path))?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(DataFolderError::InUse(path)),
            Err((_, errno)) => Err(file("locking", &lock_path)(errno.into())),
        }
    }

    /// The folder of a node; others may pass through this one to it.
    pub(super) fn node(&self, name: &str) -> Result<PathBuf, DataFolderError> {
        if geteuid().is_root() {
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&self.path, open).map_err(file("opening", &self.path))?;
        }
        Ok(self.path.join(name))
    }

    /// The port of each node at the last start.
    pub(super) fn ports(&self) -> Result<BTreeMap<String, u16>, DataFolderError> {
        let path = self.path.join("nodes.json");
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| file("reading", &path)(error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(file("reading", &path)(error)),
        }
    }

    /// Keeps the port of each node for the next start.
    pub(super) fn store_ports(&self, ports: &BTreeMap<String, u16>) -> Result<(), DataFolderError> {
        let path = self.path.join("nodes.json");
        let text = serde_json::to_string_pretty(ports);
        let text = text.map_err(|error| file("writing", &path)(error.into()))?;
        fs::write(&path, text).map_err(file("writing", &path))
    }

    /// The policy of the last start, if it had one.
    pub(super) fn policy(&self) -> Option<PathBuf> {
        Some(self.path.join(POLICY)).filter(|path| path.exists())
    }
}

/// Keeps a policy in a data folder for the next start.
pub(super) fn keep_policy(folder: &Path, policy: &Path) -> Result<(), DataFolderError> {
    let kept = folder.join(POLICY);
    if policy.canonicalize().ok() == kept.canonicalize().ok() {
        return Ok(());
    }
    fs::copy(policy, &kept).map(drop).map_err(file("writing", &kept))
}

/// `/var/lib/foreshard` for root, since the server's user can't enter root's home; for others as
/// the XDG base directory specification says.
fn default_path() -> Result<PathBuf, DataFolderError> {
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/foreshard"));
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let shared = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    shared.map(|folder| folder.join("foreshard")).ok_or(DataFolderError::NoHome)
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataFolderError {
    let path = path.to_owned();
    move |source| DataFolderError::File { doing, path, source }
}
