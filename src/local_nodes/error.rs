//! Why a node on this machine does not run.

use std::io;
use std::path::PathBuf;

/// Why a node on this machine does not run. Its text is for the terminal of who started it.
#[derive(Debug, thiserror::Error)]
pub enum LocalNodeError {
    /// There is no PostgreSQL server on this machine, or only an old one.
    #[error(
        "no PostgreSQL 15 or newer was found (looked in {searched}).\n\
         Install the server, for example: sudo apt-get install postgresql"
    )]
    NoBinaries {
        /// The folders that were looked in.
        searched: String,
    },
    /// The data folder was made by a PostgreSQL of another major version.
    #[error(
        "{folder} holds data of PostgreSQL {found}, but only PostgreSQL {installed} is installed"
    )]
    OtherVersion {
        /// The node's folder.
        folder: PathBuf,
        /// The major version that made it.
        found: u32,
        /// The major version at hand.
        installed: u32,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else.
    #[error("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")]
    NoAccount,
    /// The unprivileged user can't enter a folder on the way to the data.
    #[error(
        "node {name} would run as user {account}, who may not enter {blocked}.\n\
         Choose a data folder that this user can reach, for example below /var/lib or /tmp"
    )]
    Unreachable {
        /// The node.
        name: String,
        /// The user.
        account: String,
        /// The folder that keeps it out.
        blocked: PathBuf,
    },
    /// The port is in use by another program.
    #[error("node {name}: port {port} of 127.0.0.1 is in use by another program")]
    PortInUse {
        /// The node.
        name: String,
        /// The port.
        port: u16,
    },
    /// A file or folder can't be read or made.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program of PostgreSQL can't be run, or failed.
    #[error("node {name}: {program} failed:\n{output}")]
    Program {
        /// The node.
        name: String,
        /// `initdb` or `postgres`.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// The server ended, or did not become ready in time.
    #[error("node {name} {what}. The end of {log}:\n{tail}")]
    NotReady {
        /// The node.
        name: String,
        /// What happened instead.
        what: String,
        /// The server's log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server did not end in time.
    #[error("node {name} (process {pid}) did not stop within {seconds} s")]
    NotStopped {
        /// The node.
        name: String,
        /// The process id of its postmaster.
        pid: i32,
        /// How long it was given.
        seconds: u64,
    },
}
