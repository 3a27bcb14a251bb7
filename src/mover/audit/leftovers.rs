//! What moves and transactions of ours have left on the nodes that no record owns.

use std::collections::BTreeSet;

use super::super::error::MoveError;
use super::super::lane::streams;
use super::super::names;
use super::super::position;
use super::{Auditor, finding, unknown};
use crate::ids::NodeId;
use crate::shard_map::{ShardMap, TableKind, leaf_name};
use crate::shard_move::{Finding, FindingKind, Move, ObjectKind};
use crate::sql::TableName;

/// Slots, publications, checks, triggers, pending detachments and old prepared transactions, each
/// with the name that a record would know it by.
const OURS: &str = "\
     SELECT 'replication slot', slot_name::text FROM pg_replication_slots \
     WHERE database = current_database() AND slot_name ~ '^foreshard_' AND NOT temporary \
     UNION ALL SELECT 'publication', pubname::text FROM pg_publication \
     WHERE pubname ~ '^foreshard_' \
     UNION ALL SELECT 'check constraint', conname::text || ' of ' || conrelid::regclass::text \
     FROM pg_constraint WHERE conname ~ '^foreshard_' AND conname <> 'foreshard_others' \
     UNION ALL SELECT 'schema', nspname::text FROM pg_namespace WHERE nspname ~ '^foreshard_(import|reshard)_' \
     UNION ALL SELECT 'trigger', tgname::text || ' of ' || tgrelid::regclass::text FROM pg_trigger \
     WHERE tgname ~ '^foreshard_freeze' \
     UNION ALL SELECT 'unfinished detachment', inhrelid::regclass::text FROM pg_inherits \
     WHERE inhdetachpending \
     UNION ALL SELECT 'prepared transaction', gid FROM pg_prepared_xacts \
     WHERE database = current_database() AND gid ~ '^foreshard_' \
     AND prepared < now() - interval '2 minutes'";

/// Tables that look like partitions of some tables, but are none.
const LOOSE: &str = "SELECT n.nspname::text, c.relname::text FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND NOT c.relispartition AND EXISTS (SELECT \
     FROM unnest($1::text[], $2::text[]) AS stem (schema, name) WHERE n.nspname = stem.schema \
     AND starts_with(c.relname, stem.name) AND substr(c.relname, length(stem.name) + 1) ~ '^[0-9]+$') \
     ORDER BY 1, 2";

/// One look at all nodes.
pub(super) async fn look(auditor: &Auditor<'_>) -> Result<Vec<Finding>, MoveError> {
    let map = auditor.map();
    let mut found = Vec::new();
    for (node, _) in map.members() {
        match look_at(auditor, &map, node).await {
            Ok(on_node) => found.push((node, on_node)),
            Err(error) => return Ok(vec![unknown(&map, node, &error)]),
        }
    }
    // After the nodes: a record is written before what it owns is made.
    let mut owned = Owned::by(&auditor.unfinished().await?);
    owned.imports = !auditor.map().importing().is_empty();
    let mut findings = Vec::new();
    for (node, found) in found {
        let name = &map.node(node).name;
        for what in found.into_iter().filter(|found| !owned.has(node, found)) {
            findings.push(finding(FindingKind::Leftover, name, what.to_string()));
        }
    }
    Ok(findings)
}

/// Something of ours on a node.
struct Found {
    kind: String,
    name: String,
    table: Option<TableName>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.table {
            Some(table) => write!(f, "the table {table} looks like a partition, but is none"),
            None => write!(f, "the {} {} belongs to nothing", self.kind, self.name),
        }
    }
}

async fn look_at(
    auditor: &Auditor<'_>,
    map: &ShardMap,
    node: NodeId,
) -> Result<Vec<Found>, MoveError> {
    let session = auditor.session(node).await?;
    let doing = "looking for what was left over";
    let rows = session.rows(doing, OURS, &[]).await?;
    let found =
        |row: &tokio_postgres::Row| Found { kind: row.get(0), name: row.get(1), table: None };
    let mut all: Vec<Found> = rows.iter().map(found).collect();
    for name in position::known(&session).await? {
        all.push(Found { kind: "position of a stream".to_owned(), name, table: None });
    }
    let sharded = map.tables().iter().filter(|it| matches!(it.kind, TableKind::Sharded { .. }));
    let (schemas, stems): (Vec<String>, Vec<String>) = sharded
        .map(|table| {
            let leaf = leaf_name(&table.name, crate::ids::ShardId(0));
            (leaf.schema, leaf.name.trim_end_matches('0').to_owned())
        })
        .unzip();
    for row in session.rows(doing, LOOSE, &[&schemas, &stems]).await? {
        let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        all.push(Found { kind: "table".to_owned(), name: table.to_string(), table: Some(table) });
    }
    Ok(all)
}

/// What the unfinished moves own.
#[derive(Default)]
struct Owned {
    names: BTreeSet<String>,
    checks: BTreeSet<String>,
    nodes: BTreeSet<NodeId>,
    tables: BTreeSet<(NodeId, TableName)>,
    /// An import or a change of a shard key is under way.
    imports: bool,
}

/// Whether it is named after an import or a change of a shard key.
fn of_jobs(name: &str) -> bool {
    ["foreshard_import_", "foreshard_reshard_", "foreshard_j"].iter().any(|it| name.starts_with(it))
}

impl Owned {
    fn by(moves: &[Move]) -> Self {
        let mut owned = Self::default();
        for mv in moves {
            owned.names.extend(streams(mv).iter().flat_map(|it| [it.slot(), it.verify_slot()]));
            owned.checks.insert(names::helper_check(mv));
            owned.nodes.extend(mv.nodes());
            for object in mv.objects.iter().chain(&mv.objects_for_back) {
                match &object.kind {
                    ObjectKind::Leaf(leaf) => {
                        owned.tables.insert((object.node, leaf.clone()));
                    }
                    ObjectKind::Slot(name)
                    | ObjectKind::Publication(name)
                    | ObjectKind::Position(name) => {
                        owned.names.insert(name.clone());
                    }
                    _ => {}
                }
            }
        }
        owned
    }

    fn has(&self, node: NodeId, found: &Found) -> bool {
        match (&found.table, found.kind.as_str()) {
            (None, _) if self.imports && of_jobs(&found.name) => true,
            (Some(table), _) => self.tables.contains(&(node, table.clone())),
            (None, "check constraint") => self.checks.iter().any(|check| {
                found.name.strip_prefix(check.as_str()).is_some_and(|r| r.starts_with(' '))
            }),
            // Triggers and detachments go with the leaves of a move.
            (None, "trigger" | "unfinished detachment") => self.nodes.contains(&node),
            (None, _) => self.names.contains(&found.name),
        }
    }
}
