//! Whether a move can work at all; changes nothing. Every refusal says what is in the way.

use super::context::MoverContext;
use super::error::MoveError;
use super::look::{self, Seen};
use super::names;
use super::session::Session;
use crate::ids::NodeId;
use crate::shard_map::{Bounds, ShardMap, Table, TableKind, leaf_name};
use crate::shard_move::{Event, Move, MovedColumn, MovedTable, Object, ObjectKind};

/// Foreign keys that are declared on a partitioned table, or that point at one.
const PARENT_FOREIGN_KEYS: &str = "SELECT conname::text FROM pg_constraint \
     WHERE contype = 'f' AND conparentid = 0 AND (conrelid = $1 OR confrelid = $1)";
/// What a leaf has that its parent does not give it, and that would be lost.
const OWN_EXTRAS: &str = "SELECT 'trigger ' || tgname FROM pg_trigger \
     WHERE tgrelid = $1 AND NOT tgisinternal AND tgparentid = 0 \
     UNION ALL SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = $1 \
     UNION ALL SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = $1";

fn refused<T>(text: String) -> Result<T, MoveError> {
    Err(MoveError::Refused(text))
}

/// Looks at both nodes; the tables that move and all that the move is going to make.
pub(super) async fn check(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let map = context.live_map.snapshot();
    let Some(shard) = map.shard(mv.shard) else {
        return refused(format!("there is no shard {}", mv.shard));
    };
    if shard.node != mv.from {
        return refused(format!("shard {} is not on node {} any more", mv.shard, mv.from));
    }
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    can_stream(&source).await?;
    can_apply(&destination).await?;
    let mut tables = Vec::new();
    let mut objects = vec![
        Object { node: mv.from, kind: ObjectKind::Publication(names::publication(mv)) },
        Object { node: mv.from, kind: ObjectKind::Slot(names::slot(mv)) },
        Object { node: mv.to, kind: ObjectKind::Position },
    ];
    for table in map.tables_of(shard.group) {
        let pair = Pair { source: &source, destination: &destination, mv };
        let Some(moved) = pair.table(&map, table).await? else { continue };
        objects.extend(made_for(mv, &moved));
        tables.push(moved);
    }
    Ok(Event::Checked { tables, objects })
}

/// What the move makes because of one table.
fn made_for(mv: &Move, moved: &MovedTable) -> Vec<Object> {
    let on = |node: NodeId, kind| Object { node, kind };
    let leaf = moved.leaf.clone();
    let name = names::helper_check(mv);
    let mut made = vec![
        on(mv.to, ObjectKind::Leaf(leaf.clone())),
        on(mv.from, ObjectKind::HelperCheck { leaf: leaf.clone(), name }),
    ];
    if moved.whole_row_identity {
        made.push(on(mv.from, ObjectKind::FullIdentity(leaf)));
    }
    made
}

/// The source can decode its WAL and has a slot to spare.
async fn can_stream(source: &Session) -> Result<(), MoveError> {
    let sql = "SELECT current_setting('wal_level'), \
         current_setting('max_replication_slots')::bigint \
           - (SELECT count(*) FROM pg_replication_slots), \
         current_setting('max_wal_senders')::bigint - (SELECT count(*) FROM pg_stat_replication), \
         (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), \
         (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())";
    let rows = source.rows("looking at the source's settings", sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let node = &source.node;
    let level: String = row.get(0);
    if level != "logical" {
        return refused(format!(
            "shards can't be moved off node {node}: its wal_level is {level}; set wal_level = \
             logical and restart the node"
        ));
    }
    if !row.get::<_, bool>(3) {
        return refused(format!(
            "shards can't be moved off node {node}: the proxy's role may not replicate; \
             ALTER ROLE … REPLICATION"
        ));
    }
    let needed = 2;
    for (at, setting) in [(1, "max_replication_slots"), (2, "max_wal_senders")] {
        let free: i64 = row.get(at);
        if free < needed {
            return Err(MoveError::Busy(format!(
                "node {node} has {free} left of {setting}, and a move needs {needed}"
            )));
        }
    }
    let prepared: i64 = row.get(4);
    if prepared > 0 {
        tracing::warn!(node, prepared, "the slot has to wait for prepared transactions");
    }
    Ok(())
}

/// The destination lets the mover write without triggers, as replication does.
async fn can_apply(destination: &Session) -> Result<(), MoveError> {
    let sql = "BEGIN; SET LOCAL session_replication_role = replica; ROLLBACK";
    match destination.run("switching triggers off", sql).await {
        Err(error) if !error.is_passing() => refused(format!(
            "shards can't be moved to node {}: the proxy's role may not set \
             session_replication_role; GRANT SET ON PARAMETER session_replication_role TO it \
             ({})",
            destination.node,
            error.story()
        )),
        other => other,
    }
}

/// The two ends of a move.
struct Pair<'a> {
    source: &'a Session,
    destination: &'a Session,
    mv: &'a Move,
}

impl Pair<'_> {
    /// One table of the group; `None` if it does not exist on either node.
    async fn table(&self, map: &ShardMap, table: &Table) -> Result<Option<MovedTable>, MoveError> {
        let (name, leaf) = (&table.name, leaf_name(&table.name, self.mv.shard));
        let here = look::table(self.source, name).await?;
        let there = look::table(self.destination, name).await?;
        let (here, there) = match (here, there) {
            (None, None) => return Ok(None),
            (Some(here), Some(there)) => (here, there),
            _ => return refused(format!("table {name} exists on one of the two nodes only")),
        };
        if look::table(self.destination, &leaf).await?.is_some() {
            return refused(format!(
                "node {} has a table {leaf} already: drop or rename it",
                self.destination.node
            ));
        }
        self.equal_parents(table, &here, &there).await?;
        self.leaf(map, table, &here).await.map(Some)
    }

    /// Both partitioned tables have the same columns, key, constraints and indexes.
    async fn equal_parents(&self, table: &Table, a: &Seen, b: &Seen) -> Result<(), MoveError> {
        let name = &table.name;
        let differ = |what: &str| {
            refused(format!(
                "table {name} has other {what} on node {} than on node {}: make them equal",
                self.source.node, self.destination.node
            ))
        };
        if a.kind != "p" || b.kind != "p" || a.partition_key != b.partition_key {
            return differ("partitioning");
        }
        let (mut columns, _) = look::columns(self.source, a.oid).await?;
        let (mut others, _) = look::columns(self.destination, b.oid).await?;
        columns.sort();
        others.sort();
        if columns != others {
            return differ("columns");
        }
        let keys = look::keys(self.source, a.oid).await?;
        if keys != look::keys(self.destination, b.oid).await? {
            return differ("constraints or indexes");
        }
        for (session, oid) in [(self.source, a.oid), (self.destination, b.oid)] {
            let keys = look::names(session, oid, PARENT_FOREIGN_KEYS).await?;
            if let Some(key) = keys.first() {
                return refused(format!(
                    "foreign key {key} stands on the partitioned table {name} on node {}, so that \
                     its shards can't be detached: declare it from partition to partition",
                    session.node
                ));
            }
        }
        Ok(())
    }

    /// The source's partition, as it will be copied.
    async fn leaf(
        &self,
        map: &ShardMap,
        table: &Table,
        parent: &Seen,
    ) -> Result<MovedTable, MoveError> {
        let leaf_name = leaf_name(&table.name, self.mv.shard);
        let node = &self.source.node;
        let Some(leaf) = look::table(self.source, &leaf_name).await? else {
            return refused(format!("node {node} has no table {leaf_name}"));
        };
        let bounds = map.shard(self.mv.shard).map(|shard| shard.bounds);
        let bounds = bounds.map(for_values).unwrap_or_default();
        if leaf.parent != Some(parent.oid) || !leaf.bounds.eq_ignore_ascii_case(&bounds) {
            return refused(format!(
                "table {leaf_name} on node {node} is not the partition {bounds} of {}",
                table.name
            ));
        }
        if leaf.persistence != "p" {
            return refused(format!("table {leaf_name} on node {node} is unlogged: SET LOGGED"));
        }
        if let Some(extra) = look::names(self.source, leaf.oid, OWN_EXTRAS).await?.first() {
            return refused(format!(
                "{extra} stands on the partition {leaf_name} alone and would be lost: declare it \
                 on {}",
                table.name
            ));
        }
        let (columns, builtin_types) = look::columns(self.source, leaf.oid).await?;
        let columns = columns.into_iter().filter(|column| !column.generated);
        let columns = columns.map(|c| MovedColumn { name: c.name, type_name: c.type_name });
        let key = match &table.kind {
            TableKind::Sharded { key, .. } => key.clone(),
            TableKind::Reference => Vec::new(),
        };
        Ok(MovedTable {
            parent: table.name.clone(),
            leaf: leaf_name,
            key,
            columns: columns.collect(),
            whole_row_identity: match leaf.identity.as_str() {
                "d" => !leaf.has_primary_key,
                "n" => true,
                _ => false,
            },
            builtin_types,
        })
    }
}

/// The bounds as ATTACH takes them and `pg_get_expr` gives them.
pub(super) fn for_values(bounds: Bounds) -> String {
    let Bounds::Hash { modulus, remainder } = bounds;
    format!("FOR VALUES WITH (modulus {modulus}, remainder {remainder})")
}
