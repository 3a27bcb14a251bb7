//! Whether each row of a shard satisfies its partition's constraint, which is what PostgreSQL itself
//! says about the partition's bounds.

use tokio::time::sleep;

use super::super::differ::NAMED_MAX;
use super::super::error::MoveError;
use super::super::look::{self, PRIMARY_KEY};
use super::super::names;
use super::super::session::Session;
use super::{APART, Auditor, unknown};
use crate::ids::ShardId;
use crate::shard_map::{ShardMap, leaf_name};
use crate::shard_move::{Finding, FindingKind, Report};
use crate::sql::TableName;

/// How often a shard is looked for that goes elsewhere meanwhile, or can't be looked at.
const TRIES: u32 = 5;

/// The partition's constraint; none if it is no partition.
const CONSTRAINT: &str = "SELECT pg_get_partition_constraintdef($1) WHERE (SELECT relispartition FROM pg_class \
     WHERE oid = $1)";

/// What is found out about a shard.
#[derive(Default)]
struct Seen {
    tables: u64,
    rows: u64,
    findings: Vec<Finding>,
}

/// Works through all rows of a shard, wherever it is.
pub(super) async fn look(
    auditor: &Auditor<'_>,
    shard: ShardId,
    report: &mut Report,
) -> Result<(), MoveError> {
    let mut last = Seen::default();
    for _ in 0..TRIES {
        let map = auditor.map();
        let Some(node) = map.shard(shard).map(|it| it.node) else { return Ok(()) };
        last = match scan(auditor, &map, shard).await {
            Ok(seen) => seen,
            // A catalog that changes under PostgreSQL's own look at it, as in a switch, is an error.
            Err(error) => {
                last = Seen { findings: vec![unknown(&map, node, &error)], ..Seen::default() };
                sleep(APART).await;
                continue;
            }
        };
        let now = auditor.map();
        if last.findings.is_empty() || now.shard(shard) == map.shard(shard) {
            break;
        }
    }
    report.shards += 1;
    report.tables += last.tables;
    report.rows += last.rows;
    report.findings.extend(last.findings);
    Ok(())
}

async fn scan(auditor: &Auditor<'_>, map: &ShardMap, shard: ShardId) -> Result<Seen, MoveError> {
    let mut seen = Seen::default();
    let Some(found) = map.shard(shard) else { return Ok(seen) };
    let session = auditor.session(found.node).await?;
    for table in map.tables_of(found.group) {
        let leaf = leaf_name(&table.name, shard);
        // That it is missing is told by the layout.
        let Some(there) = look::table(&session, &leaf).await? else { continue };
        let constraint = look::names(&session, there.oid, CONSTRAINT).await?;
        let Some(constraint) = constraint.first() else { continue };
        let (rows, finding) = leaf_rows(&session, &leaf, there.oid, constraint).await?;
        seen.tables += 1;
        seen.rows += rows;
        seen.findings.extend(finding);
    }
    Ok(seen)
}

/// How many rows a leaf has, and which of them belong elsewhere.
async fn leaf_rows(
    session: &Session,
    leaf: &TableName,
    oid: u32,
    constraint: &str,
) -> Result<(u64, Option<Finding>), MoveError> {
    // NULL satisfies a constraint.
    let strange = format!("NOT coalesce({constraint}, true)");
    let sql = format!("SELECT count(*), count(*) FILTER (WHERE {strange}) FROM ONLY {leaf}");
    let doing = "working through a partition";
    let row = session.client.query_one(&sql, &[]).await.map_err(session.failed(doing))?;
    let (rows, elsewhere): (i64, i64) = (row.get(0), row.get(1));
    let rows = u64::try_from(rows).unwrap_or_default();
    if elsewhere == 0 {
        return Ok((rows, None));
    }
    let mut key = look::names(session, oid, PRIMARY_KEY).await?;
    if key.is_empty() {
        key.push("ctid".to_owned());
    }
    let columns = names::list(&key);
    let sql =
        format!("SELECT ROW({columns})::text FROM ONLY {leaf} WHERE {strange} LIMIT {NAMED_MAX}");
    let found = session.client.query(&sql, &[]).await.map_err(session.failed(doing))?;
    let named =
        found.iter().map(|row| format!("({}) = {}", key.join(", "), row.get::<_, String>(0)));
    let finding = Finding {
        kind: FindingKind::Wrong,
        node: session.node.clone(),
        what: format!("{elsewhere} rows of {leaf} belong to another shard"),
        rows: named.collect(),
    };
    Ok((rows, Some(finding)))
}
