//! Whom the server runs as: PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User, chown, geteuid};

use super::LocalNodeError;

/// An unprivileged user, used when this process is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name, for messages.
    pub(super) name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// Whom to run the server as; `None` to run it as the current user.
    pub(super) fn choose() -> Result<Option<Self>, LocalNodeError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok()?);
        let user = user.ok_or(LocalNodeError::NoAccount)?;
        Ok(Some(Self { name: user.name, uid: user.uid, gid: user.gid }))
    }

    /// Makes `command` run as this user.
    pub(super) fn apply(&self, command: &mut Command) {
        command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
    }

    /// Gives `path` to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), LocalNodeError> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(|errno| LocalNodeError::File {
            doing: "giving the server's user",
            path: path.to_owned(),
            source: errno.into(),
        })
    }

    /// The first folder on the way to `path` that this user may not enter.
    pub(super) fn blocked_at(&self, path: &Path) -> Option<PathBuf> {
        let mut way: Vec<&Path> = path.ancestors().skip(1).collect();
        way.reverse();
        way.into_iter().find(|folder| !self.may_enter(folder)).map(Path::to_owned)
    }

    fn may_enter(&self, folder: &Path) -> bool {
        let Ok(metadata) = fs::metadata(folder) else { return true };
        let bit = if metadata.uid() == self.uid.as_raw() {
            0o100
        } else if metadata.gid() == self.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        metadata.mode() & bit != 0
    }
}
