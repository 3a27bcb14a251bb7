//! Whether all nodes have the same rows in their copies of the reference tables.
//!
//! First without a lock: equal is equal. Copies that seem to differ may only have been read between
//! the commits of two nodes: they are compared again in snapshots that were taken while nobody wrote
//! the table, which keeps writers waiting for milliseconds.

use super::super::differ::{Copy, Sums, name_rows};
use super::super::error::MoveError;
use super::super::look::{self, PRIMARY_KEY, Seen};
use super::super::names;
use super::super::session::{Session, jitter};
use super::{Auditor, finding, unknown};
use crate::ids::NodeId;
use crate::shard_map::{ShardMap, TableKind};
use crate::shard_move::{Finding, FindingKind, Report};
use crate::sql::{Literal, TableName};

/// How long and how often all copies of a table are asked for, in ms.
const LOCK: (u64, u32) = (300, 20);

/// Compares all reference tables.
pub(super) async fn look(auditor: &Auditor<'_>, report: &mut Report) -> Result<(), MoveError> {
    let map = auditor.map();
    let nodes = home_last(&map);
    let mut sessions = Vec::new();
    for node in nodes {
        match auditor.session(node).await {
            Ok(session) => sessions.push(session),
            Err(error) => report.findings.push(unknown(&map, node, &error)),
        }
    }
    for table in map.tables().iter().filter(|table| table.kind == TableKind::Reference) {
        let found = compare(auditor, &map, &table.name, &sessions, report).await;
        if let Err(error) = found {
            let what = format!("{}: {}", table.name, error.story());
            report.findings.push(finding(FindingKind::Unknown, &map.node(map.home()).name, what));
        }
    }
    Ok(())
}

/// The order in which a write takes the nodes.
fn home_last(map: &ShardMap) -> Vec<NodeId> {
    let others = map.members().map(|(node, _)| node).filter(|node| *node != map.home());
    others.chain([map.home()]).collect()
}

/// What the copies of a table have in common.
struct Compared {
    name: String,
    columns: String,
    identity: String,
}

impl Compared {
    fn copy<'a>(&'a self, session: &'a Session) -> Copy<'a> {
        let Self { name, columns, identity } = self;
        Copy { session, table: name, parts: false, columns, identity, condition: "true" }
    }
}

async fn compare(
    auditor: &Auditor<'_>,
    map: &ShardMap,
    table: &TableName,
    sessions: &[Session],
    report: &mut Report,
) -> Result<(), MoveError> {
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for session in sessions {
        match look::table(session, table).await? {
            Some(seen) => there.push((session, seen)),
            None => missing.push(&session.node),
        }
    }
    let Some((last, seen)) = there.last() else { return Ok(()) };
    for node in missing {
        let what = format!("the reference table {table} is missing");
        report.findings.push(finding(FindingKind::Wrong, node, what));
    }
    let compared = compared(table, last, seen).await?;
    let mut equal = Vec::new();
    for (session, other) in &there {
        if same_columns(session, other, (last, seen)).await? {
            equal.push(*session);
        } else {
            let what =
                format!("the reference table {table} has other columns than on {}", last.node);
            report.findings.push(finding(FindingKind::Wrong, &session.node, what));
        }
    }
    let mut all = Vec::new();
    for session in &equal {
        all.push(compared.copy(session).sums().await?);
    }
    report.tables += u64::try_from(all.len()).unwrap_or_default();
    report.rows += all.iter().map(Sums::rows).sum::<u64>();
    if all.windows(2).any(|pair| pair[0] != pair[1]) {
        let nodes: Vec<&str> = equal.iter().map(|session| session.node.as_str()).collect();
        report.findings.extend(compare_still(auditor, map, &compared, &nodes).await?);
    }
    Ok(())
}

async fn compared(
    table: &TableName,
    session: &Session,
    seen: &Seen,
) -> Result<Compared, MoveError> {
    let (mut columns, _) = look::columns(session, seen.oid).await?;
    columns.sort();
    let columns = names::list(columns.iter().map(|column| &column.name));
    let key = look::names(session, seen.oid, PRIMARY_KEY).await?;
    let identity = if key.is_empty() { columns.clone() } else { names::list(&key) };
    Ok(Compared { name: table.to_string(), columns, identity })
}

async fn same_columns(
    session: &Session,
    seen: &Seen,
    (other, of_other): (&Session, &Seen),
) -> Result<bool, MoveError> {
    let (mut here, _) = look::columns(session, seen.oid).await?;
    let (mut there, _) = look::columns(other, of_other.oid).await?;
    here.sort();
    there.sort();
    Ok(here == there)
}

/// The same in snapshots of which none holds half of a write.
async fn compare_still(
    auditor: &Auditor<'_>,
    map: &ShardMap,
    compared: &Compared,
    nodes: &[&str],
) -> Result<Vec<Finding>, MoveError> {
    let tables = format!("ONLY {}", compared.name);
    let sessions = still(auditor, map, &tables, nodes).await?;
    let Some((home, others)) = sessions.split_last() else { return Ok(Vec::new()) };
    let right = compared.copy(home);
    let sums = right.sums().await?;
    let mut findings = Vec::new();
    for other in others {
        let copy = compared.copy(other);
        let found = copy.sums().await?;
        if found != sums {
            let rows = name_rows((&right, &sums), (&copy, &found)).await?;
            let what = format!(
                "the reference table {} is not as on {}: {} rows here, {} there",
                compared.name,
                home.node,
                found.rows(),
                sums.rows()
            );
            let node = other.node.clone();
            findings.push(Finding { kind: FindingKind::Wrong, node, what, rows });
        }
    }
    Ok(findings)
}

/// A session on each of these nodes, the home node last, with a snapshot that was taken while nobody
/// had written the tables, as LOCK names them, and not committed.
pub(super) async fn still(
    auditor: &Auditor<'_>,
    map: &ShardMap,
    tables: &str,
    nodes: &[&str],
) -> Result<Vec<Session>, MoveError> {
    let (lock_timeout_ms, tries) = LOCK;
    let (mut locking, mut reading) = (Vec::new(), Vec::new());
    for node in home_last(map) {
        if nodes.contains(&map.node(node).name.as_str()) {
            locking.push(auditor.session(node).await?);
            reading.push(auditor.session(node).await?);
        }
    }
    for tried in 1.. {
        match snapshots(tables, &locking, lock_timeout_ms).await {
            Ok(snapshots) => {
                let taken = take(&reading, &snapshots).await;
                roll_back(&locking).await?;
                taken?;
                return Ok(reading);
            }
            Err(error) => {
                roll_back(&locking).await?;
                if !error.is_lock_timeout() || tried >= tries {
                    return Err(error);
                }
                tokio::time::sleep(jitter(std::time::Duration::from_millis(lock_timeout_ms))).await;
            }
        }
    }
    Ok(reading)
}

/// Locks the tables everywhere, in the order of writers, and exports a snapshot of each node.
async fn snapshots(
    tables: &str,
    locking: &[Session],
    lock_timeout_ms: u64,
) -> Result<Vec<String>, MoveError> {
    for session in locking {
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms}; LOCK TABLE {tables} IN SHARE MODE"
        );
        session.run("keeping writers of a table away", &sql).await?;
    }
    let mut snapshots = Vec::new();
    for session in locking {
        let rows =
            session.rows("exporting a snapshot", "SELECT pg_export_snapshot()::text", &[]).await?;
        snapshots.push(rows.first().map(|row| row.get(0)).unwrap_or_default());
    }
    Ok(snapshots)
}

async fn take(reading: &[Session], snapshots: &[String]) -> Result<(), MoveError> {
    for (session, snapshot) in reading.iter().zip(snapshots) {
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            Literal(snapshot)
        );
        session.run("taking a snapshot", &sql).await?;
    }
    Ok(())
}

async fn roll_back(sessions: &[Session]) -> Result<(), MoveError> {
    for session in sessions {
        session.run("rolling back", "ROLLBACK").await?;
    }
    Ok(())
}
