//! What a node needs before it can have rows: everything that the others have beside home tables and
//! partitions, as `pg_dump` writes it.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::super::context::MoverContext;
use super::super::error::MoveError;
use super::super::names::quoted;
use super::super::session::Session;
use super::left_out;
use crate::backend::{NodeAddress, TlsMode};
use crate::ids::NodeId;
use crate::planner::{CATALOG_SCHEMAS, sequence_start};
use crate::shard_map::ShardMap;

/// How long `pg_dump` may take.
pub(super) const DEADLINE: Duration = Duration::from_mins(5);

/// Relations that are no tables of the policy, and the sequences that belong to them.
const OTHERS: &str = "WITH other AS (SELECT c.oid, n.nspname, c.relname FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
     AND n.nspname !~ '^pg_' AND n.nspname !~ '^(information_schema|foreshard(_catalog|_system|_information)?)$' \
     AND NOT EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS policy (schema, name) \
     WHERE n.nspname = policy.schema AND c.relname = policy.name)) \
     SELECT nspname::text, relname::text FROM other \
     UNION SELECT n.nspname::text, s.relname::text FROM pg_depend d \
     JOIN other ON other.oid = d.refobjid JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' \
     JOIN pg_namespace n ON n.oid = s.relnamespace \
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
     AND d.deptype IN ('a', 'i') ORDER BY 1, 2";

/// Sequences of columns, with the largest number of the column's type.
const SEQUENCES: &str = "SELECT s.oid::bigint, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 \
     WHEN 'int4'::regtype THEN 2147483647 ELSE 9223372036854775807 END::bigint \
     FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' \
     JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
     AND d.deptype IN ('a', 'i')";

/// Definitions in two parts: what rows need, and what is better made after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) before_rows: String,
    pub(super) after_rows: String,
}

/// Reads the definitions of a node that has them; of the home node only where there is no other.
pub(super) async fn dump(
    context: &MoverContext,
    map: &ShardMap,
    name: &str,
) -> Result<Schema, MoveError> {
    let others = map.members().map(|(node, _)| node).filter(|node| *node != map.home());
    let node = others.chain([map.home()]).next().unwrap_or(map.home());
    let session = Session::open_as(context, name.to_owned(), node).await?;
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        map.tables().iter().map(|it| (it.name.schema.as_str(), it.name.name.as_str())).unzip();
    let others = session.rows("looking for tables", OTHERS, &[&schemas, &names]).await?;
    let version = version(&session).await?;
    let (schemas, names): (Vec<String>, Vec<String>) =
        others.iter().map(|row| (row.get(0), row.get(1))).unzip();
    let gone = left_out::resting_on(&session, &schemas, &names).await?;
    let excluded = |(schema, name): (&String, &String)| {
        format!("--exclude-table={}.{}", quoted(schema), quoted(name))
    };
    let left_out: Vec<String> = schemas.iter().zip(&names).map(excluded).collect();
    let address = context.address(node)?;
    let secrets = Secrets::write(address)?;
    let part = async |section: &str| {
        if gone.is_empty() {
            let text = run(address, map.database(), &secrets, section, &left_out).await?;
            return Ok::<_, MoveError>(readable(&text, version));
        }
        let folder = Secrets::folder().map_err(|error| {
            MoveError::Busy(format!("a folder for pg_dump can't be made: {error}"))
        })?;
        let archive = folder.path().join("archive");
        let to = ["--format=custom".to_owned(), format!("--file={}", archive.display())];
        let arguments: Vec<String> = left_out.iter().cloned().chain(to).collect();
        run(address, map.database(), &secrets, section, &arguments).await?;
        Ok(readable(&left_out::restore(&archive, &gone).await?, version))
    };
    Ok(Schema { before_rows: part("pre-data").await?, after_rows: part("post-data").await? })
}

/// The server's version as a number: 150018.
pub(super) async fn version(session: &Session) -> Result<i32, MoveError> {
    let sql = "SELECT current_setting('server_version_num')::int";
    let rows = session.rows("asking for the version", sql, &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Files of TLS that `pg_dump` has to read, or what it writes; removed when dropped.
struct Secrets(Option<PathBuf>);

impl Secrets {
    /// A folder that nobody else reads.
    fn folder() -> std::io::Result<Self> {
        let name = format!("foreshard-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let folder = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(Some(folder)))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new("."))
    }

    fn write(address: &NodeAddress) -> Result<Self, MoveError> {
        if address.tls.mode() == TlsMode::Disable {
            return Ok(Self(None));
        }
        let written = Self::folder().and_then(|folder| {
            let (files, path) = (address.tls.files(), folder.path());
            write(&path.join("ca"), &files.authorities)?;
            write(&path.join("certificate"), &files.certificate)?;
            write(&path.join("key"), &files.key)?;
            Ok(folder)
        });
        written.map_err(|error| {
            MoveError::Busy(format!("the certificates for pg_dump can't be written: {error}"))
        })
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take()
            && let Err(error) = std::fs::remove_dir_all(&folder)
        {
            tracing::warn!(%error, folder = %folder.display(), "a folder could not be removed");
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

async fn run(
    address: &NodeAddress,
    database: &str,
    secrets: &Secrets,
    section: &str,
    left_out: &[String],
) -> Result<String, MoveError> {
    let mut command = Command::new("pg_dump");
    command
        .args(["--schema-only", "--no-publications", "--no-subscriptions", "--no-tablespaces"])
        .args(["--no-password", "--lock-wait-timeout=10000", "--exclude-schema=foreshard"])
        .arg("--exclude-schema=foreshard_kept")
        .args(CATALOG_SCHEMAS.map(|schema| format!("--exclude-schema={schema}")))
        .arg(format!("--section={section}"))
        .args(left_out);
    connect(&mut command, address, database, secrets);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await;
    let output = output.map_err(|_| MoveError::Timeout("pg_dump"))?.map_err(|error| {
        MoveError::Refused(format!(
            "pg_dump can't be run here: {error}; install PostgreSQL's client programs, of the \
             nodes' version or newer, where foreshard runs"
        ))
    })?;
    let Output { status, stdout, stderr } = output;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr).trim().to_owned();
        return Err(MoveError::Refused(format!("pg_dump of node {} failed: {said}", address.name)));
    }
    String::from_utf8(stdout)
        .map_err(|_| MoveError::Refused("pg_dump wrote something that is not UTF-8".to_owned()))
}

fn connect(command: &mut Command, address: &NodeAddress, database: &str, secrets: &Secrets) {
    command
        .env("PGHOST", &address.host)
        .env("PGPORT", address.port.to_string())
        .env("PGUSER", &address.user)
        .env("PGDATABASE", database)
        .env("PGCLIENTENCODING", "UTF8")
        .env("PGAPPNAME", "foreshard")
        .env("PGCONNECT_TIMEOUT", "10")
        .env_remove("PGOPTIONS")
        .env_remove("PGSERVICE");
    if let Some(password) = &address.password {
        command.env("PGPASSWORD", password.reveal());
    }
    let mode = match address.tls.mode() {
        TlsMode::Disable => "disable",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    };
    command.env("PGSSLMODE", mode);
    let Some(folder) = &secrets.0 else { return };
    let files = address.tls.files();
    if !files.authorities.is_empty() && address.tls.mode() >= TlsMode::VerifyCa {
        command.env("PGSSLROOTCERT", folder.join("ca"));
    }
    if !files.certificate.is_empty() {
        command.env("PGSSLCERT", folder.join("certificate")).env("PGSSLKEY", folder.join("key"));
    }
}

/// Without what only `psql` understands, and what this server does not know.
fn readable(text: &str, version: i32) -> String {
    let for_psql =
        |line: &str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    let unknown = |line: &str| version < 170_000 && line == "SET transaction_timeout = 0;";
    let lines: Vec<&str> = text.lines().collect();
    // Both stand outside of any definition: before the first one and after the last one.
    let first = lines.iter().position(|line| line.starts_with("CREATE ")).unwrap_or(lines.len());
    let last = lines.iter().rposition(|line| for_psql(line)).unwrap_or(lines.len());
    let kept = lines.iter().enumerate().filter(|(at, line)| {
        let outside = *at < first || *at == last;
        !(outside && (for_psql(line) || unknown(line)))
    });
    kept.map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
}

/// Keeps the sequences of columns clear of the home node's.
pub(super) async fn set_sequences_apart(session: &Session, node: NodeId) -> Result<(), MoveError> {
    let doing = "setting the sequences";
    for row in session.rows(doing, SEQUENCES, &[]).await? {
        let (sequence, limit): (i64, i64) = (row.get(0), row.get(1));
        let start = sequence_start(limit, node);
        session.run(doing, &format!("SELECT setval({sequence}::regclass, {start})")).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn only_what_psql_alone_understands_goes() {
        let dump = "--\n\\restrict abc\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\n\
             CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '\n\\restrict x\n' $$;\n\
             --\n\\unrestrict abc";
        let text = readable(dump, 150_018);
        assert!(!text.contains("restrict abc") && !text.contains("transaction_timeout"), "{text}");
        assert!(text.contains("\n\\restrict x\n"), "{text}");
        assert!(readable(dump, 170_000).contains("transaction_timeout"));
    }
}
