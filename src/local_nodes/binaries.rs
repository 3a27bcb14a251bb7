//! Finds the server's programs: on PATH, or in the distribution's versioned folders.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::LocalNodeError;

/// The oldest PostgreSQL whose publications can filter rows and columns.
const MAJOR_MIN: u32 = 15;

/// Folders that hold one folder a version: `/usr/lib/postgresql/15/bin`, `/usr/pgsql-15/bin`.
const VERSIONED: [(&str, &str); 3] =
    [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/usr/local/opt", "postgresql@")];

/// The server's programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    /// The programs on PATH, else the newest of the distribution's. With `major`, the programs of
    /// that version if they are installed.
    pub fn find(major: Option<u32>) -> Result<Self, LocalNodeError> {
        let folders = candidates();
        let mut found = folders.iter().filter_map(|folder| Self::at(folder));
        let wanted = match major {
            Some(major) => {
                let found: Vec<_> = found.collect();
                let exact = found.iter().find(|binaries| binaries.major == major).cloned();
                exact.or_else(|| found.first().cloned())
            }
            None => found.next(),
        };
        wanted.ok_or_else(|| {
            let mut searched = folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>();
            searched.insert(0, "PATH".to_owned());
            LocalNodeError::NoBinaries { searched: searched.join(", ") }
        })
    }

    /// The major version: 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The full path of `initdb`, `postgres`, `psql` and so on.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The programs in `folder`, if it has all that a server needs, and new enough.
    fn at(folder: &Path) -> Option<Self> {
        // Links on PATH point at the real programs; the others stand beside those.
        let initdb = folder.join("initdb").canonicalize().ok()?;
        let folder = initdb.parent()?.to_owned();
        let version = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        let major = parse_major(&String::from_utf8_lossy(&version.stdout))?;
        (major >= MAJOR_MIN).then_some(Self { folder, major })
    }
}

/// Folders to look in, the preferred first.
fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|folder| folder.join("initdb").exists());
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in VERSIONED {
        let Ok(entries) = Path::new(parent).read_dir() else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|n| n.strip_prefix(prefix)?.parse().ok());
            versioned.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    versioned.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    on_path.chain(versioned.into_iter().map(|(_, folder)| folder)).collect()
}

/// 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.split("(PostgreSQL) ").nth(1)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_major;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (PostgreSQL) 16", Some(16)),
            ("postgres: command not found", None),
            ("", None),
        ];
        for (text, major) in cases {
            assert_eq!(parse_major(text), major, "{text}");
        }
    }
}
