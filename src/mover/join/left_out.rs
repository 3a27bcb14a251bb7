//! What a dump of the home node leaves out beside home tables: what rests on their types, such as a
//! function that gives their rows. No other node has it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::super::error::MoveError;
use super::super::session::Session;
use super::schema::DEADLINE;

/// Objects that rest on relations, given by schema and name, and belong to no table: their catalog and OID
/// as a table of contents has them. What belongs to a table of the policy stays, and is not made then.
const RESTS: &str = "WITH RECURSIVE gone (class, object) AS ( \
     SELECT 'pg_class'::regclass::oid, c.oid FROM unnest($1::text[], $2::text[]) AS other (schema, name) \
     JOIN pg_namespace n ON n.nspname = other.schema \
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = other.name \
     UNION SELECT next.class, next.object FROM gone, LATERAL ( \
       SELECT d.classid AS class, d.objid AS object FROM pg_depend d \
       WHERE d.refclassid = gone.class AND d.refobjid = gone.object \
       UNION ALL SELECT 'pg_type'::regclass, c.reltype FROM pg_class c \
       WHERE gone.class = 'pg_class'::regclass AND c.oid = gone.object AND c.relkind = 'c') next) \
     SELECT DISTINCT class::bigint, object::bigint FROM gone WHERE class IN ('pg_proc'::regclass, \
     'pg_cast'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass, \
     'pg_statistic_ext'::regclass) \
     OR class = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t \
     LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid = object \
     AND t.typelem = 0 AND (c.oid IS NULL OR c.relkind = 'c')) \
     OR class = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = object AND c.relkind = 'c') \
     ORDER BY 1, 2";

/// Catalogs and OIDs of what rests on these relations.
pub(super) async fn resting_on(
    session: &Session,
    schemas: &[String],
    names: &[String],
) -> Result<Vec<(i64, i64)>, MoveError> {
    let doing = "looking for what rests on home tables";
    let rows = session.rows(doing, RESTS, &[&schemas, &names]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The definitions in an archive of `pg_dump` without these objects.
pub(super) async fn restore(archive: &Path, gone: &[(i64, i64)]) -> Result<String, MoveError> {
    let mut command = Command::new("pg_restore");
    let contents = said(command.arg("--list").arg(archive)).await?;
    let list = archive.with_extension("list");
    std::fs::write(&list, without(&contents, gone)).map_err(|error| {
        MoveError::Busy(format!("a list for pg_restore can't be written: {error}"))
    })?;
    let mut command = Command::new("pg_restore");
    said(command.arg("--use-list").arg(&list).arg("--file=-").arg(archive)).await
}

async fn said(command: &mut Command) -> Result<String, MoveError> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await;
    let output = output.map_err(|_| MoveError::Timeout("pg_restore"))?.map_err(|error| {
        MoveError::Refused(format!(
            "pg_restore can't be run here: {error}; install PostgreSQL's client programs"
        ))
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(MoveError::Refused(format!("pg_restore failed: {said}")));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| MoveError::Refused("pg_restore wrote something that is not UTF-8".to_owned()))
}

/// An entry of a table of contents: `217; 1255 16390 FUNCTION public f() postgres`.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    object: (i64, i64),
    kind: &'a str,
    schema: &'a str,
    /// Its name, behind that its owner; of a comment or rights the kind of their object stands before it.
    rest: &'a str,
}

impl<'a> Entry<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (_, line) = line.split_once("; ")?;
        let mut parts = line.splitn(5, ' ');
        let object = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { object, kind: parts.next()?, schema: parts.next()?, rest: parts.next()? })
    }

    /// Whether it is about the other one.
    fn is_of(&self, other: &Entry<'_>) -> bool {
        let named = self.rest.split_once(' ').is_some_and(|(_, named)| named == other.rest);
        matches!(self.kind, "ACL" | "COMMENT") && self.schema == other.schema && named
    }
}

/// A table of contents without these objects, their comments and rights.
fn without(contents: &str, gone: &[(i64, i64)]) -> String {
    let entries: Vec<_> = contents.lines().map(|line| (line, Entry::read(line))).collect();
    let is_gone = |entry: &Entry<'_>| gone.contains(&entry.object);
    let left: Vec<Entry<'_>> = entries.iter().filter_map(|(_, it)| *it).filter(is_gone).collect();
    let kept = entries.iter().filter(|(_, entry)| {
        entry.is_none_or(|entry| !is_gone(&entry) && !left.iter().any(|it| entry.is_of(it)))
    });
    kept.map(|(line, _)| *line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn what_is_left_out_goes_with_its_comment_and_rights() {
        let contents = "; Archive\n217; 1255 16390 FUNCTION public f(x integer) me\n\
             218; 1255 16391 FUNCTION public g(x integer) me\n\
             3301; 0 0 COMMENT public FUNCTION f(x integer) me\n\
             3302; 0 0 ACL public FUNCTION f(x integer) me\n\
             3303; 0 0 COMMENT other FUNCTION f(x integer) me\n";
        let left = without(contents, &[(1255, 16390)]);
        let numbers: Vec<&str> = left.lines().filter_map(|line| line.split(';').next()).collect();
        assert_eq!(numbers, ["", "218", "3303"]);
    }
}
