//! A node's data folder: made by `initdb` once, configured at each start.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::account::Account;
use super::{Binaries, LocalNodeError, NodeSpec};

/// Longest path of a Unix socket, in bytes, on any system that matters.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A data folder that a server can be started on.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) binaries: Binaries,
    pub(super) account: Option<Account>,
    /// PostgreSQL's data folder, inside the node's folder.
    pub(super) data: PathBuf,
    /// The server's log file.
    pub(super) log: PathBuf,
}

impl Cluster {
    /// Makes the folder of `spec` if it is new, and writes its configuration.
    pub(super) async fn prepare(spec: &NodeSpec) -> Result<Self, LocalNodeError> {
        let account = Account::choose()?;
        let folder = make_folder(spec, account.as_ref())?;
        let data = folder.join("data");
        let found = major_of(&data)?;
        let binaries = Binaries::find(found)?;
        if let Some(found) = found.filter(|found| *found != binaries.major()) {
            let installed = binaries.major();
            return Err(LocalNodeError::OtherVersion { folder, found, installed });
        }
        let cluster = Self { binaries, account, data, log: folder.join("postgres.log") };
        if found.is_none() {
            cluster.initdb(spec).await?;
        }
        cluster.configure(spec)?;
        Ok(cluster)
    }

    /// A command that runs a program of PostgreSQL as the server's user.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        if let Some(account) = &self.account {
            account.apply(&mut command);
        }
        command.current_dir(self.data.parent().unwrap_or(Path::new("/")));
        command
    }

    /// The folder of the server's Unix socket, if a socket's path fits there.
    pub(super) fn socket_folder(&self) -> Option<&Path> {
        let folder = self.data.parent()?;
        let bytes = folder.as_os_str().len() + "/.s.PGSQL.65535.lock".len();
        (bytes < SOCKET_PATH_BYTES_MAX).then_some(folder)
    }

    /// The last lines of the server's log.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Makes the data in a folder beside and renames it, so that a crash leaves no half of it.
    async fn initdb(&self, spec: &NodeSpec) -> Result<(), LocalNodeError> {
        let making = self.data.with_extension("making");
        // C.UTF-8 is missing on some systems; C knows only the letters of ASCII.
        let mut failure = String::new();
        for ctype in ["C.UTF-8", "C"] {
            remove_folder(&making)?;
            let output = self.run_initdb(spec, &making, ctype).await?;
            if output.status.success() {
                return fs::rename(&making, &self.data).map_err(file("naming", &self.data));
            }
            failure = String::from_utf8_lossy(&output.stderr).into_owned();
            if !failure.contains("locale") {
                break;
            }
        }
        let program = "initdb";
        Err(LocalNodeError::Program { name: spec.name.clone(), program, output: failure })
    }

    async fn run_initdb(
        &self,
        spec: &NodeSpec,
        data: &Path,
        ctype: &str,
    ) -> Result<Output, LocalNodeError> {
        let mut command = self.command("initdb");
        command.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        command.arg(format!("--lc-ctype={ctype}"));
        if !spec.durable {
            command.arg("--no-sync");
        }
        command.arg("--pgdata").arg(data);
        let failed = |source: io::Error| LocalNodeError::Program {
            name: spec.name.clone(),
            program: "initdb",
            output: source.to_string(),
        };
        tokio::process::Command::from(command).kill_on_drop(true).output().await.map_err(failed)
    }

    /// Writes the settings of this start into a file of their own, which `postgresql.conf` includes.
    /// What a DBA sets with ALTER SYSTEM wins over them.
    fn configure(&self, spec: &NodeSpec) -> Result<(), LocalNodeError> {
        let settings = self.data.join("foreshard.conf");
        fs::write(&settings, self.settings(spec)).map_err(file("writing", &settings))?;
        if let Some(account) = &self.account {
            account.own(&settings)?;
        }
        let main = self.data.join("postgresql.conf");
        let mut text = fs::read_to_string(&main).map_err(file("reading", &main))?;
        let include = "include 'foreshard.conf'";
        if !text.lines().any(|line| line == include) {
            text.extend(["\n", include, "\n"]);
            fs::write(&main, text).map_err(file("writing", &main))?;
        }
        Ok(())
    }

    fn settings(&self, spec: &NodeSpec) -> String {
        let sockets = self.socket_folder().map(|f| f.display().to_string().replace('\'', "''"));
        let on = if spec.durable { "on" } else { "off" };
        format!(
            "# Written by foreshard at each start; use ALTER SYSTEM for settings of your own.\n\
             listen_addresses = '127.0.0.1'\n\
             port = {port}\n\
             unix_socket_directories = '{sockets}'\n\
             wal_level = logical\n\
             max_connections = 300\n\
             max_prepared_transactions = 300\n\
             max_replication_slots = 32\n\
             max_wal_senders = 32\n\
             max_locks_per_transaction = 256\n\
             max_logical_replication_workers = 2\n\
             shared_buffers = 128MB\n\
             max_wal_size = 2GB\n\
             jit = off\n\
             fsync = {on}\n\
             full_page_writes = {on}\n\
             cluster_name = '{name}'\n\
             log_line_prefix = '%m [%p] %q%a/%u@%d '\n",
            port = spec.port,
            sockets = sockets.unwrap_or_default(),
            name = spec.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
        )
    }
}

/// Makes the node's folder, in the hands of the server's user; its absolute path.
fn make_folder(spec: &NodeSpec, account: Option<&Account>) -> Result<PathBuf, LocalNodeError> {
    let folder = &spec.folder;
    fs::create_dir_all(folder).map_err(file("making the folder", folder))?;
    let folder = folder.canonicalize().map_err(file("reading", folder))?;
    if let Some(account) = account {
        if let Some(blocked) = account.blocked_at(&folder) {
            let (name, account) = (spec.name.clone(), account.name.clone());
            return Err(LocalNodeError::Unreachable { name, account, blocked });
        }
        account.own(&folder)?;
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
        .map_err(file("closing to others", &folder))?;
    Ok(folder)
}

/// The major version that made a data folder; `None` if there is none yet.
fn major_of(data: &Path) -> Result<Option<u32>, LocalNodeError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("reading", &path)(error)),
    }
}

fn remove_folder(folder: &Path) -> Result<(), LocalNodeError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file("removing", folder)(error))
        }
        _ => Ok(()),
    }
}

/// Says with which file it went wrong.
pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocalNodeError {
    let path = path.to_owned();
    move |source| LocalNodeError::File { doing, path, source }
}
