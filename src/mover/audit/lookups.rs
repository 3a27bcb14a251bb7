//! Whether lookup tables say what the rows say: no entry is missing, none is false.
//!
//! Both are read in snapshots that were taken while nobody wrote either, which keeps writers waiting
//! for milliseconds. A shard that changes nodes meanwhile may be seen twice or not at all: what looks
//! wrong is looked at again.

use std::collections::BTreeMap;

use super::super::error::MoveError;
use super::super::session::Session;
use super::references::still;
use super::{Auditor, finding};
use crate::planner::LookupSql;
use crate::shard_map::{Lookup, LookupStanding, ShardMap};
use crate::shard_move::{Finding, FindingKind};

/// The most entries that are compared one by one, to name those that are wrong.
const NAMED_MAX: usize = 200_000;
/// How many of them are named.
const EXAMPLES: usize = 5;

/// Compares all lookups with their rows.
pub(super) async fn look(auditor: &Auditor<'_>) -> Result<Vec<Finding>, MoveError> {
    let map = auditor.map();
    let mut findings = Vec::new();
    let whole = |lookup: &&Lookup| lookup.standing == LookupStanding::Whole;
    for lookup in map.declared().lookups.iter().filter(whole) {
        match compare(auditor, &map, lookup).await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                let what = format!("the lookup table {}: {}", lookup.name, error.story());
                let home = &map.node(map.home()).name;
                findings.push(finding(FindingKind::Unknown, home, what));
            }
        }
    }
    Ok(findings)
}

async fn compare(
    auditor: &Auditor<'_>,
    map: &ShardMap,
    lookup: &Lookup,
) -> Result<Option<Finding>, MoveError> {
    let sql = LookupSql { map, lookup };
    let tables = format!("ONLY {}, ONLY {}", lookup.table, lookup.name);
    let nodes: Vec<&str> = map.members().map(|(_, node)| node.name.as_str()).collect();
    let sessions = still(auditor, map, &tables, &nodes).await?;
    let (rows, entries) = (sql.of_rows(), sql.of_entries());
    if sums(&sessions, &rows).await? == sums(&sessions, &entries).await? {
        return Ok(None);
    }
    let mut differ: BTreeMap<String, i64> = BTreeMap::new();
    let mut whole = true;
    for (query, sign) in [(&rows, 1), (&entries, -1)] {
        for session in &sessions {
            let sql = format!("SELECT f.entry FROM ({query}) f ORDER BY 1 LIMIT {NAMED_MAX}");
            let found = session.rows("reading a lookup", &sql, &[]).await?;
            whole &= found.len() < NAMED_MAX;
            for row in found {
                *differ.entry(row.get(0)).or_default() += sign;
            }
        }
    }
    differ.retain(|_, count| *count != 0);
    let word = |count: i64| if count > 0 { "is missing" } else { "is false" };
    let examples = differ.iter().take(EXAMPLES).filter(|_| whole);
    let rows = examples.map(|(entry, count)| format!("{entry} {}", word(*count))).collect();
    let what = format!(
        "the lookup table {} does not say what the rows of {} say: drop it, and make it anew",
        lookup.name, lookup.table
    );
    let node = map.node(map.home()).name.clone();
    Ok(Some(Finding { kind: FindingKind::Wrong, node, what, rows }))
}

/// How many entries there are over all nodes, and a sum of them in any order.
async fn sums(sessions: &[Session], query: &str) -> Result<(i64, i128), MoveError> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(hashtextextended(f.entry, 0)::numeric), 0)::text \
         FROM ({query}) f"
    );
    let (mut count, mut sum) = (0, 0_i128);
    for session in sessions {
        for row in session.rows("summing a lookup up", &sql, &[]).await? {
            count += row.get::<_, i64>(0);
            sum += row.get::<_, String>(1).parse::<i128>().unwrap_or_default();
        }
    }
    Ok((count, sum))
}
