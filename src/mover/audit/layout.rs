//! Whether each node has attached exactly the partitions that the map gives it.

use std::collections::BTreeMap;

use super::super::error::MoveError;
use super::{Auditor, finding, unknown};
use crate::ids::{NodeId, ShardId};
use crate::shard_map::{ShardMap, Table, TableKind, leaf_name};
use crate::shard_move::{Finding, FindingKind};
use crate::sql::TableName;

/// Partitions of some tables: parent, its kind, partition, bounds. A parent without partitions has
/// one line.
const PARTITIONS: &str = "SELECT pn.nspname::text, p.relname::text, p.relkind::text, \
     cn.nspname::text, c.relname::text, pg_get_expr(c.relpartbound, c.oid) \
     FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
     JOIN pg_namespace pn ON pn.nspname = wanted.schema \
     JOIN pg_class p ON p.relnamespace = pn.oid AND p.relname = wanted.name \
     LEFT JOIN pg_inherits i ON i.inhparent = p.oid AND NOT i.inhdetachpending \
     LEFT JOIN pg_class c ON c.oid = i.inhrelid LEFT JOIN pg_namespace cn ON cn.oid = c.relnamespace";

/// A node's partitioned tables, each with the bounds of its partitions.
type Layout = BTreeMap<TableName, BTreeMap<TableName, String>>;

/// One look at all nodes, with the map of now. With `shards`, only what concerns those.
pub(super) async fn look(
    auditor: &Auditor<'_>,
    shards: &[ShardId],
) -> Result<Vec<Finding>, MoveError> {
    let map = auditor.map();
    let mut findings = Vec::new();
    let mut layouts = BTreeMap::new();
    for (node, _) in map.members() {
        match layout(auditor, &map, node).await {
            Ok((layout, faults)) => {
                findings.extend(faults);
                layouts.insert(node, layout);
            }
            Err(error) => findings.push(unknown(&map, node, &error)),
        }
    }
    for table in map.tables() {
        // A table that nobody has made yet is nowhere.
        let exists = layouts.values().any(|layout| layout.contains_key(&table.name));
        if exists && matches!(table.kind, TableKind::Sharded { .. }) {
            for (node, layout) in &layouts {
                findings.extend(compare(&map, table, *node, layout, shards));
            }
        }
    }
    Ok(findings)
}

async fn layout(
    auditor: &Auditor<'_>,
    map: &ShardMap,
    node: NodeId,
) -> Result<(Layout, Vec<Finding>), MoveError> {
    let session = auditor.session(node).await?;
    let sharded = map.tables().iter().filter(|it| matches!(it.kind, TableKind::Sharded { .. }));
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        sharded.map(|table| (table.name.schema.as_str(), table.name.name.as_str())).unzip();
    let (mut layout, mut faults) = (Layout::new(), Vec::new());
    for row in session.rows("looking at the partitions", PARTITIONS, &[&schemas, &names]).await? {
        let parent = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        if row.get::<_, String>(2) != "p" {
            let what = format!("{parent} is no partitioned table, but the map has it sharded");
            faults.push(finding(FindingKind::Wrong, &session.node, what));
        }
        let of_parent = layout.entry(parent).or_default();
        let leaf: Option<String> = row.get(4);
        if let Some(leaf) = leaf {
            let leaf = TableName::new(row.get::<_, String>(3), leaf);
            of_parent.insert(leaf, row.get::<_, Option<String>>(5).unwrap_or_default());
        }
    }
    Ok((layout, faults))
}

/// What a node has attached of a table, beside what the map says.
fn compare(
    map: &ShardMap,
    table: &Table,
    node: NodeId,
    layout: &Layout,
    shards: &[ShardId],
) -> Vec<Finding> {
    let wrong = |what| finding(FindingKind::Wrong, &map.node(node).name, what);
    let TableKind::Sharded { group, key } = &table.kind else { return Vec::new() };
    let Some(attached) = layout.get(&table.name) else {
        return vec![wrong(format!("the table {} is missing", table.name))];
    };
    let concerns = |shard: ShardId| shards.is_empty() || shards.contains(&shard);
    let mut findings = Vec::new();
    let mut expected = BTreeMap::new();
    for shard in map.shards_on(node, *group) {
        let Some(bounds) = map.shard(shard).map(|it| &it.bounds) else { continue };
        let leaf = leaf_name(&table.name, shard);
        match attached.get(&leaf) {
            _ if !concerns(shard) => {}
            None => findings.push(wrong(format!(
                "shard {shard} is here, but {leaf} is no partition of {}",
                table.name
            ))),
            Some(found) if !bounds.are_shown_as(found, key.len()) => {
                let bounds = bounds.for_values(key.len());
                findings.push(wrong(format!(
                    "the partition {leaf} is {found}, but shard {shard} is {bounds}"
                )));
            }
            Some(_) => {}
        }
        expected.insert(leaf, shard);
    }
    let of_asked = |leaf: &TableName| {
        shards.is_empty() || shards.iter().any(|shard| leaf_name(&table.name, *shard) == *leaf)
    };
    for leaf in attached.keys().filter(|leaf| !expected.contains_key(*leaf) && of_asked(leaf)) {
        findings.push(wrong(format!(
            "{leaf} is a partition of {} here, but the map has no such shard on this node",
            table.name
        )));
    }
    findings
}
