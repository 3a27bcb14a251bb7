//! Whether a group can get another shard key, and what is going to be done. Every refusal says what is
//! in the way, and all of them are told at once.

use std::collections::BTreeMap;

use super::super::check::{can_apply, can_make, can_stream, same_database};
use super::super::error::MoveError;
use super::super::import::define::texts;
use super::super::import::{Plain, refuse};
use super::super::lane::{OneLane, Sessions};
use super::super::names::list;
use super::super::session::Session;
use super::super::tables::{self, Pair};
use super::super::{look, room};
use super::{Plan, Resharder, beside, move_id, swap, twins};
use crate::ids::{GroupId, MoveId, NodeId, ShardId};
use crate::shard_map::{Bounds, ShardMap, Standing, TableKind, leaf_name};
use crate::shard_move::{Across, Cause, ImportedTable, Lane, Move, MovedTable, Part};
use crate::sql::TableName;

/// What partitioned tables with another key could not have as they have it now.
pub(super) const REASONS: [&str; 3] = [
    "SELECT format('trigger %I of %s fires for replicated rows, too, and would for each that is copied: \
     ALTER TABLE %2$s ENABLE TRIGGER %1$I', tgname, tgrelid::regclass) FROM pg_trigger \
     WHERE tgrelid = ANY ($1) AND NOT tgisinternal AND tgenabled IN ('A', 'R')",
    "SELECT format('index %s stands on one partition alone and would be lost: make it on %s', \
     x.indexrelid::regclass, i.inhparent::regclass) FROM pg_inherits i \
     JOIN pg_index x ON x.indrelid = i.inhrelid WHERE i.inhparent = ANY ($1) \
     AND NOT EXISTS (SELECT FROM pg_inherits p WHERE p.inhrelid = x.indexrelid)",
    "SELECT format('partition %s has a replica identity of its own, which would be lost: ALTER TABLE %1$s \
     REPLICA IDENTITY DEFAULT', c.oid::regclass) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
     WHERE i.inhparent = ANY ($1) AND c.relreplident IN ('i', 'n')",
];
/// Foreign keys of partitions: name, the table that each side is a part of, and the columns in pairs.
const FOREIGN: &str = "SELECT DISTINCT k.conname::text, fn.nspname::text, f.relname::text, \
     tn.nspname::text, t.relname::text, \
     array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (n, at) \
     JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.n ORDER BY at), \
     array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS c (n, at) \
     JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.n ORDER BY at) \
     FROM pg_constraint k JOIN pg_inherits i ON i.inhrelid = k.conrelid \
     JOIN pg_class f ON f.oid = i.inhparent JOIN pg_namespace fn ON fn.oid = f.relnamespace \
     LEFT JOIN pg_inherits j ON j.inhrelid = k.confrelid \
     JOIN pg_class t ON t.oid = coalesce(j.inhparent, k.confrelid) \
     JOIN pg_namespace tn ON tn.oid = t.relnamespace \
     WHERE k.contype = 'f' AND i.inhparent = ANY ($1) ORDER BY 1";
const SETTINGS: &str = "SELECT current_setting('max_prepared_transactions')";
const SIZE: &str = "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint \
     FROM pg_inherits WHERE inhparent = ANY ($1)";

impl Resharder<'_, '_> {
    /// What is going to be done, once it is known that it can be; tells it.
    ///
    /// # Errors
    /// All reasons that speak against it.
    pub(super) async fn plan(&mut self, map: &ShardMap) -> Result<Plan, MoveError> {
        self.same_tables(map)?;
        let (sources, targets) = self.parts(map).await?;
        let members: Vec<NodeId> = map.members().map(|(node, _)| node).collect();
        let mut sessions = BTreeMap::new();
        for node in &members {
            sessions.insert(*node, self.desk.session(*node).await?);
        }
        let tables = self.existing(map, &sessions).await?;
        let mut reasons = self.reasons(map, &sessions, &tables).await?;
        reasons.sort();
        reasons.dedup();
        if reasons.is_empty() {
            for (node, session) in &sessions {
                let tried = self.try_definitions(session, &tables, (*node, &targets)).await;
                reasons.extend(tried?);
            }
        }
        if !reasons.is_empty() {
            return Err(MoveError::Refused(format!(
                "{}:\n  {}",
                match self.joins {
                    None => format!("group {} can't be sharded by this key", self.wanted.group),
                    Some(into) => format!("the tables can't join group {into}"),
                },
                reasons.join("\n  ")
            )));
        }
        let lanes = self.lanes(map, &sessions, (&sources, &targets), &tables).await?;
        let mut mv = Move::of_lanes(
            move_id(self.job()),
            lanes,
            Cause::Operator,
            self.desk.job.record.requested_unix_ms,
        );
        mv.job = Some(self.job());
        self.can_be_done(&mv).await?;
        let mut shapes = Vec::new();
        for session in sessions.values() {
            shapes.push(swap::shape(session, &tables).await?);
        }
        let bytes = self.bytes(&sessions, &tables).await?;
        let (from, to) = (sources.len(), targets.len());
        let nodes = members.iter().map(|node| map.node(*node).name.as_str()).collect::<Vec<_>>();
        let key = if self.joins.is_none() { " with the new key" } else { "" };
        let text = format!(
            "{} in {from} shards are copied into {to}{key}, over the nodes {}",
            room::shown(bytes),
            nodes.join(", ")
        );
        self.desk.tell(text).await?;
        Ok(Plan { mv, members, sources, targets, tables, shapes })
    }

    /// The policy has the tables of the map.
    fn same_tables(&self, map: &ShardMap) -> Result<(), MoveError> {
        let Some(group) = map.group_named(&self.wanted.group) else { return Ok(()) };
        let mut here: Vec<TableName> = map.tables_of(group).map(|it| it.name.clone()).collect();
        let mut wanted = self.wanted.names();
        here.sort();
        wanted.sort();
        let lookups = &map.declared().lookups;
        let named = |name: &TableName| here.contains(name);
        if let Some(lookup) = lookups.iter().find(|it| named(&it.table) || named(&it.name)) {
            return Err(MoveError::Refused(format!(
                "the lookup {} says where rows of {} are by its key: a group with lookups can't get \
                 another one",
                lookup.name, lookup.table
            )));
        }
        let odd = here
            .iter()
            .find(|name| !wanted.contains(name))
            .or(wanted.iter().find(|name| !here.contains(name)));
        let Some(odd) = odd else { return Ok(()) };
        Err(MoveError::Refused(format!(
            "group {} has other tables than the policy says, by {odd}: tables are added and taken \
             away before its key is changed, or after",
            self.wanted.group
        )))
    }

    /// The group's shards, and its new ones round robin over the nodes that take some.
    async fn parts(&self, map: &ShardMap) -> Result<(Vec<Part>, Vec<Part>), MoveError> {
        if let Some((_, node)) = map.nodes().find(|(_, node)| node.standing == Standing::Joining) {
            return Err(MoveError::Busy(format!("node {} is joining: wait for it", node.name)));
        }
        let parts = |group: Option<GroupId>| -> Vec<Part> {
            let of_group = map.shards().filter(|(_, shard)| Some(shard.group) == group);
            of_group
                .map(|(id, it)| Part { shard: id, node: it.node, bounds: it.bounds.clone() })
                .collect()
        };
        let sources = parts(map.group_named(&self.wanted.group));
        if let Some(into) = self.joins {
            return Ok((sources, parts(map.group_named(into))));
        }
        let moves = self.desk.context.catalog.list::<Move>().await?;
        let taken = |shard: ShardId| {
            moves.iter().any(|mv| !mv.record.is_finished() && mv.record.touches(shard))
        };
        let takers = map.members().filter(|(_, node)| node.standing == Standing::Member);
        let takers: Vec<NodeId> = takers.map(|(node, _)| node).collect();
        let ids = map.free_shards(self.wanted.bounds.len(), taken);
        let parts = ids.into_iter().zip(&self.wanted.bounds).zip(takers.iter().cycle());
        let targets = parts
            .map(|((shard, bounds), node)| Part { shard, node: *node, bounds: bounds.clone() })
            .collect();
        Ok((sources, targets))
    }

    /// The tables that are there: on all nodes or on none.
    pub(super) async fn existing(
        &self,
        map: &ShardMap,
        sessions: &BTreeMap<NodeId, Session>,
    ) -> Result<Vec<ImportedTable>, MoveError> {
        let mut tables = Vec::new();
        // In the order of the map: referenced tables first.
        let group = map.group_named(&self.wanted.group);
        for known in group.into_iter().flat_map(|group| map.tables_of(group)) {
            let Some(table) = self.wanted.tables.iter().find(|it| it.name == known.name) else {
                continue;
            };
            let mut found = 0;
            for session in sessions.values() {
                found += usize::from(look::table(session, &table.name).await?.is_some());
            }
            match found {
                0 => {}
                all if all == sessions.len() => tables.push(table.clone()),
                _ => {
                    return Err(MoveError::Refused(format!(
                        "table {} is on some nodes only: make it on the others",
                        table.name
                    )));
                }
            }
        }
        Ok(tables)
    }

    async fn reasons(
        &self,
        map: &ShardMap,
        sessions: &BTreeMap<NodeId, Session>,
        tables: &[ImportedTable],
    ) -> Result<Vec<String>, MoveError> {
        let mut reasons = Vec::new();
        for (at, table) in tables.iter().enumerate() {
            if tables[..at].iter().any(|it| it.name.name == table.name.name) {
                let name = &table.name.name;
                reasons
                    .push(format!("there are two tables {name:?}: rename one of them meanwhile"));
            }
        }
        for (node, session) in sessions {
            let mut plains = Vec::new();
            for table in tables {
                let oid = look::oid(session, &table.name).await?;
                plains.push(Plain { name: table.name.clone(), oid, key: table.key.clone() });
            }
            let oids: Vec<u32> = plains.iter().map(|table| table.oid).collect();
            reasons.extend(refuse::of_partitioned(session, &oids).await?);
            for sql in REASONS {
                reasons.extend(texts(session, sql, &[&oids]).await?);
            }
            reasons.extend(of_foreign_keys(session, map, tables, &oids).await?);
            if *node == map.home() {
                reasons.extend(refuse::of_columns(session, self.wanted, &plains).await?);
            }
            if texts(session, SETTINGS, &[]).await? == ["0"] {
                reasons.push(format!(
                    "node {} has max_prepared_transactions = 0: raise it and restart it",
                    session.node
                ));
            }
        }
        Ok(reasons)
    }

    /// What a node says of the new definitions: they are made there, and taken back.
    async fn try_definitions(
        &self,
        session: &Session,
        tables: &[ImportedTable],
        (node, targets): (NodeId, &[Part]),
    ) -> Result<Option<String>, MoveError> {
        for table in tables {
            for part in targets.iter().filter(|part| part.node == node) {
                let leaf = leaf_name(&table.name, part.shard);
                if look::table(session, &leaf).await?.is_some() {
                    let node = &session.node;
                    return Ok(Some(format!("node {node} has a table {leaf} already: rename it")));
                }
            }
        }
        let made = twins::definitions(session, self.job(), tables, (node, targets)).await?;
        let all: Vec<String> = made.first.into_iter().chain(made.rest).collect();
        let sql = format!("BEGIN; {}; ROLLBACK", all.join("; "));
        let Err(error) = session.run("trying the definitions", &sql).await else { return Ok(None) };
        session.run("rolling back", "ROLLBACK").await?;
        let node = &session.node;
        Ok(Some(format!("node {node} can't have the tables: {}", error.story())))
    }

    /// A lane from each node with shards to each that is going to have some.
    pub(super) async fn lanes(
        &self,
        map: &ShardMap,
        sessions: &BTreeMap<NodeId, Session>,
        (sources, targets): (&[Part], &[Part]),
        tables: &[ImportedTable],
    ) -> Result<Vec<Lane>, MoveError> {
        let of = |parts: &[Part]| {
            let mut nodes: Vec<NodeId> = parts.iter().map(|part| part.node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        let (from, to) = (of(sources), of(targets));
        let part = |parts: &[Part], node: NodeId| {
            let first = parts.iter().find(|part| part.node == node);
            let shard = first.map_or(ShardId(0), |part| part.shard);
            Part { shard, node, bounds: Bounds::Nothing }
        };
        let mut lanes = Vec::new();
        for source in &from {
            let given = self.given(map, sessions, (*source, &to, sources), tables).await?;
            for target in &to {
                let here = targets.iter().filter(|part| part.node == *target);
                let bounds: Vec<Bounds> = here.map(|part| part.bounds.clone()).collect();
                // Whoever gets all rows needs no filter.
                let bounds = if to.len() == 1 { Vec::new() } else { bounds };
                let across = |table: &MovedTable| dealt(table, &bounds);
                lanes.push(Lane {
                    source: part(sources, *source),
                    target: part(targets, *target),
                    tables: given.iter().map(across).collect(),
                });
            }
        }
        Ok(lanes)
    }

    /// The partitions of a node, looked at together with all nodes that get some of their rows.
    async fn given(
        &self,
        map: &ShardMap,
        sessions: &BTreeMap<NodeId, Session>,
        (from, to, sources): (NodeId, &[NodeId], &[Part]),
        tables: &[ImportedTable],
    ) -> Result<Vec<MovedTable>, MoveError> {
        let gone = || MoveError::Busy("a node has left".to_owned());
        let source = sessions.get(&from).ok_or_else(gone)?;
        let mut all = Vec::new();
        for (at, part) in sources.iter().filter(|part| part.node == from).enumerate() {
            // Whether the nodes' tables are alike is the same for all partitions.
            let others = if at == 0 { to } else { &[from] };
            let mut of_shard = Vec::new();
            for node in others {
                let destination = sessions.get(node).ok_or_else(gone)?;
                same_database(source, destination).await?;
                let free = map.free_shards(sources.len() + 1, |_| false);
                let shard = free.last().copied().unwrap_or(ShardId(u32::MAX));
                let target = Part { shard, node: *node, bounds: part.bounds.clone() };
                let lane = Lane { source: part.clone(), target, tables: Vec::new() };
                let one = Move::of_lanes(MoveId(0), vec![lane.clone()], Cause::Operator, 0);
                let pair = Pair { source, destination, lane: OneLane { mv: &one, lane: &lane } };
                of_shard.clear();
                for table in tables {
                    of_shard.extend(self.moved(map, &pair, table, sources.len() == 1).await?);
                }
            }
            all.extend(of_shard.into_iter().map(|table| self.as_before(from, table)));
        }
        tables::nothing_else_depends(source, &all).await?;
        Ok(all)
    }

    /// One table's partition on its way to the twin.
    async fn moved(
        &self,
        map: &ShardMap,
        pair: &Pair<'_>,
        table: &ImportedTable,
        from_all: bool,
    ) -> Result<Option<MovedTable>, MoveError> {
        let Some(known) = map.table(&table.name) else { return Ok(None) };
        let Some(mut moved) = pair.table(known).await? else { return Ok(None) };
        let OneLane { lane, .. } = pair.lane;
        moved.new_leaf = TableName::new(beside(self.job()), table.name.name.as_str());
        let from = if from_all { Vec::new() } else { vec![lane.source.bounds.clone()] };
        moved.across = Some(Across { key: table.key.clone(), given: Vec::new(), from });
        pair.is_identified_by(&moved, &table.key).await?;
        Ok(Some(moved))
    }

    /// Slots, rights and room.
    async fn can_be_done(&self, mv: &Move) -> Result<(), MoveError> {
        let context = self.desk.context;
        let sessions = Sessions::open(context, mv).await?;
        for node in mv.nodes() {
            let session = sessions.on(node)?;
            let lanes = mv.lanes.iter().filter(|lane| lane.source.node == node).count();
            if lanes > 0 {
                can_stream(session, lanes).await?;
            }
            can_apply(session).await?;
            can_make(context, node, session).await?;
        }
        room::check(context, mv, &sessions).await
    }

    /// All that is copied.
    async fn bytes(
        &self,
        sessions: &BTreeMap<NodeId, Session>,
        tables: &[ImportedTable],
    ) -> Result<u64, MoveError> {
        let mut all = 0;
        for session in sessions.values() {
            let mut oids = Vec::new();
            for table in tables {
                oids.push(look::oid(session, &table.name).await?);
            }
            let rows = session.rows("asking for the size of tables", SIZE, &[&oids]).await?;
            let bytes: i64 = rows.first().map_or(0, |row| row.get(0));
            all += u64::try_from(bytes).unwrap_or_default();
        }
        Ok(all)
    }
}

/// A partition of which rows in these bounds go along.
fn dealt(table: &MovedTable, bounds: &[Bounds]) -> MovedTable {
    let mut table = table.clone();
    if let Some(across) = &mut table.across {
        across.given = bounds.to_vec();
    }
    table
}

/// Foreign keys have to pair the new shard keys, too, or rows could be on two nodes.
async fn of_foreign_keys(
    session: &Session,
    map: &ShardMap,
    tables: &[ImportedTable],
    oids: &[u32],
) -> Result<Vec<String>, MoveError> {
    let mut reasons = Vec::new();
    for row in session.rows("looking at foreign keys", FOREIGN, &[&oids]).await? {
        let key: String = row.get(0);
        let from = TableName::new(row.get::<_, String>(1), row.get::<_, String>(2));
        let to = TableName::new(row.get::<_, String>(3), row.get::<_, String>(4));
        let (columns, others): (Vec<String>, Vec<String>) = (row.get(5), row.get(6));
        let what = format!("foreign key {key} of {from} references {to}");
        let of_group = |name: &TableName| tables.iter().find(|table| table.name == *name);
        let Some(from) = of_group(&from) else { continue };
        let Some(to) = of_group(&to) else {
            if map.table(&to).is_none_or(|to| to.kind != TableKind::Reference) {
                reasons
                    .push(format!("{what}, which is neither of the group nor a reference table"));
            }
            continue;
        };
        let pairs = |a: &String, b: &String| {
            columns.iter().zip(&others).any(|(own, other)| own == a && other == b)
        };
        if !from.key.iter().zip(&to.key).all(|(a, b)| pairs(a, b)) {
            reasons.push(format!(
                "{what} without the new shard key, so that rows could be on two nodes: make it anew \
                 so that it pairs ({}) with ({}), beside what it pairs now, or drop it",
                list(&from.key),
                list(&to.key)
            ));
        }
    }
    Ok(reasons)
}
