//! The way back from a switch: what it needs is made before, so that nothing after the switch is
//! missed; the old copies are released to it, and made fit to be attached again.
//!
//! A slot on the new owner begins before the switch. The transaction that attaches the shard there
//! writes a mark: what the stream brings before it are the changes of the move itself, and what it
//! brings after it is missing in the old copies. A way back is a [`Move`] of its own from then on.

use std::time::Duration;

use super::cleanup::{self, drop_slot};
use super::context::MoverContext;
use super::detach;
use super::error::MoveError;
use super::lane::{OneLane, Sessions, streams, streams_of};
use super::look;
use super::names::{self, quoted};
use super::position;
use super::prepare::{self, LEAF_LOCK};
use super::session::Session;
use super::tables::Pair;
use super::walsender::WalSender;
use super::{build, check};
use crate::ids::{Lsn, NodeId, ShardId};
use crate::shard_map::{ShardMap, Standing};
use crate::shard_move::{Lane, Move, MovedColumn, MovedTable, Object, ObjectKind};
use crate::sql::Literal;

/// Keys, checks and indexes of a leaf, without names and without what moves have made.
const LEAF_KEYS: &str = "SELECT contype::text || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = $1 AND contype IN ('p', 'u', 'x', 'c') AND conname !~ '^foreshard_move' \
     UNION ALL SELECT CASE WHEN indisunique THEN 'unique' ELSE 'index' END \
     || substring(pg_get_indexdef(indexrelid) FROM ' USING .*') \
     FROM pg_index WHERE indrelid = $1 ORDER BY 1";
/// Foreign keys of a leaf: name, and the object id of the table that it points at.
const FOREIGN_KEYS: &str = "SELECT conname::text, confrelid FROM pg_constraint \
     WHERE conrelid = $1 AND contype = 'f' AND conparentid = 0";

/// Checks of a leaf: name and definition.
const CHECKS: &str = "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = $1 AND contype = 'c' AND conname !~ '^foreshard_'";

/// How long the old copies of `mv` are kept after its switch, in ms: not at all on a node that is to
/// leave.
pub(super) fn kept_ms(context: &MoverContext, map: &ShardMap, mv: &Move) -> u64 {
    let stays = |node| map.node(node).standing == Standing::Member;
    let all_stay = mv.sources().iter().all(|source| stays(source.node));
    if all_stay { context.config().kept_ms(&mv.cause) } else { 0 }
}

/// What the way back of a checked move is going to need, if the old copies are kept at all.
pub(super) fn objects(mv: &Move, kept_ms: u64) -> Vec<Object> {
    let mut objects = Vec::new();
    if kept_ms == 0 {
        return objects;
    }
    for stream in streams(mv) {
        let (old, new) = (stream.from(), stream.to());
        let slot = || names::back_slot(mv, stream.index());
        objects.push(Object { node: new, kind: ObjectKind::Publication(slot()) });
        objects.push(Object { node: new, kind: ObjectKind::Slot(slot()) });
        objects.push(Object { node: old, kind: ObjectKind::Position(slot()) });
        let whole = stream.tables().filter(|(_, table)| table.whole_row_identity);
        for (_, table) in whole {
            let object =
                Object { node: new, kind: ObjectKind::FullIdentity(table.new_leaf.clone()) };
            if !objects.contains(&object) {
                objects.push(object);
            }
        }
    }
    objects
}

/// Makes what the way back needs, if there is to be one; its lanes. Whatever keeps it from that costs
/// the way back, not the move, and is told.
pub(super) async fn arm(
    context: &MoverContext,
    mv: &Move,
) -> Result<Result<Vec<Lane>, String>, MoveError> {
    if mv.objects_for_back.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    match make(context, mv).await {
        Ok(lanes) => {
            context.pass("armed")?;
            Ok(Ok(lanes))
        }
        Err(error) if error.ends_the_driver() => Err(error),
        Err(error) => {
            tracing::warn!(error = error.story(), "the move can't be reversed once it is done");
            Ok(Err(error.confidential_story()))
        }
    }
}

async fn make(context: &MoverContext, mv: &Move) -> Result<Vec<Lane>, MoveError> {
    let sessions = Sessions::open(context, mv).await?;
    let mut back = Vec::new();
    for lane in &mv.lanes {
        back.push(turned(lane, sessions.on(lane.target.node)?).await?);
    }
    let going = Move { back, ..mv.clone() }.going_back(mv.id, 0, 0);
    for stream in streams(&going) {
        let (new, old) = (sessions.on(stream.from())?, sessions.on(stream.to())?);
        for (lane, table) in stream.tables() {
            if table.whole_row_identity {
                let sql = format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.leaf);
                new.run_with_locks("setting the replica identity", &sql, LEAF_LOCK).await?;
            }
            Pair { source: new, destination: old, lane }.filter_suits(table).await?;
        }
        let slot = stream.slot();
        drop_slot(new, &slot).await?;
        prepare::publish(new, &stream).await?;
        old.run("making the position table", position::CREATE_TABLE).await?;
        let nowhere = position::reset(&slot, Lsn(0));
        old.run("noting that the mark is not reached", &nowhere).await?;
        let mut sender = WalSender::open(context, mv, stream.from()).await?;
        let deadline = Duration::from_millis(context.config().slot_deadline_ms);
        sender.create_slot(&slot, false, deadline).await?;
    }
    Ok(going.lanes)
}

/// A lane the other way, as its new owner has the tables.
async fn turned(lane: &Lane, new_owner: &Session) -> Result<Lane, MoveError> {
    let mut tables = Vec::with_capacity(lane.tables.len());
    for table in &lane.tables {
        let leaf = look::oid(new_owner, &table.new_leaf).await?;
        let (columns, _) = look::columns(new_owner, leaf).await?;
        let columns = columns.into_iter().filter(|column| !column.generated);
        let columns = columns.map(|c| MovedColumn { name: c.name, type_name: c.type_name });
        tables.push(MovedTable {
            leaf: table.new_leaf.clone(),
            new_leaf: table.leaf.clone(),
            columns: columns.collect(),
            // Looked at when somebody goes back.
            shape: String::new(),
            ..table.clone()
        });
    }
    Ok(Lane { source: lane.target.clone(), target: lane.source.clone(), tables })
}

/// SQL that marks, in the transaction that attaches a node's targets of `mv` but for those that are
/// attached, where their way back begins.
pub(super) fn marks(mv: &Move, node: NodeId, attached: &[ShardId]) -> Vec<String> {
    let mut marks = Vec::new();
    for stream in streams_of(mv, &mv.back).iter().filter(|stream| stream.from() == node) {
        if stream.lanes().any(|one| !attached.contains(&one.lane.source.shard)) {
            let prefix = Literal(names::MARKER_PREFIX);
            let slot = names::back_slot(mv, stream.index());
            let slot = Literal(&slot);
            marks.push(format!("SELECT pg_logical_emit_message(true, {prefix}, {slot})"));
        }
    }
    marks
}

/// After the switch: takes from the old copies what the move gave them, and the foreign keys that
/// would keep others from changing the tables that they point at.
pub(super) async fn release(mv: &Move, sessions: &Sessions) -> Result<(), MoveError> {
    for source in mv.sources() {
        let session = sessions.on(source.node)?;
        let tables = mv.leaves_of(source.shard);
        for table in &tables {
            detach::finish(session, table).await?;
        }
        let mut own = Vec::new();
        for table in &tables {
            // The way back may have lapsed already.
            own.extend(look::table(session, &table.leaf).await?.map(|seen| (*table, seen.oid)));
        }
        let oids: Vec<u32> = own.iter().map(|(_, oid)| *oid).collect();
        for (table, oid) in own {
            drop_foreign_keys(session, table, oid, &oids).await?;
            drop_own_checks(mv, sessions, session, (table, oid)).await?;
        }
    }
    for object in &mv.objects {
        cleanup::put_back(mv, sessions.on(object.node)?, object).await?;
    }
    Ok(())
}

/// Drops the foreign keys of a leaf that point at other tables than `but`.
async fn drop_foreign_keys(
    session: &Session,
    MovedTable { leaf, .. }: &MovedTable,
    oid: u32,
    but: &[u32],
) -> Result<(), MoveError> {
    let doing = "dropping a foreign key of the old copy";
    for row in session.rows(doing, FOREIGN_KEYS, &[&oid]).await? {
        if but.contains(&row.get::<_, u32>(1)) {
            continue;
        }
        let name = quoted(&row.get::<_, String>(0));
        let sql = format!("ALTER TABLE {leaf} DROP CONSTRAINT {name}");
        session.run_with_locks(doing, &sql, LEAF_LOCK).await?;
    }
    Ok(())
}

/// Drops the checks that the new leaf has not: a concurrent detachment leaves the partition's bounds
/// as one.
async fn drop_own_checks(
    mv: &Move,
    sessions: &Sessions,
    session: &Session,
    (table, oid): (&MovedTable, u32),
) -> Result<(), MoveError> {
    let has = |lane: &&Lane| lane.tables.iter().any(|it| it.leaf == table.leaf);
    let Some(lane) = mv.lanes.iter().find(has) else { return Ok(()) };
    let new_leaf = lane.tables.iter().find(|it| it.leaf == table.leaf).map(|it| &it.new_leaf);
    let Some(new_leaf) = new_leaf else { return Ok(()) };
    let new_owner = sessions.on(lane.target.node)?;
    let doing = "looking at the checks of the old copy";
    let new = look::oid(new_owner, new_leaf).await?;
    let of_new = new_owner.rows(doing, CHECKS, &[&new]).await?;
    let of_new: Vec<String> = of_new.iter().map(|row| row.get(1)).collect();
    for row in session.rows(doing, CHECKS, &[&oid]).await? {
        if !of_new.contains(&row.get::<_, String>(1)) {
            let name = quoted(&row.get::<_, String>(0));
            let sql = format!("ALTER TABLE {} DROP CONSTRAINT {name}", table.leaf);
            session.run_with_locks("dropping a check of the old copy", &sql, LEAF_LOCK).await?;
        }
    }
    Ok(())
}

/// Whether the old copies of a lane still have the definition of what they would replace.
pub(super) async fn is_as_it_was(
    pair: &Pair<'_>,
    mv: &Move,
    tables: &mut [MovedTable],
) -> Result<(), MoveError> {
    for table in tables {
        let changed = |what: &str| {
            check::refused(format!(
                "the old copy of {} on node {} {what}: move the shard by an ordinary move",
                table.leaf, pair.destination.node
            ))
        };
        let Some(old) = look::table(pair.destination, &table.new_leaf).await? else {
            return changed("is gone");
        };
        if old.parent.is_some() || old.kind != "r" {
            return changed("is in use");
        }
        let new = look::oid(pair.source, &table.leaf).await?;
        let (mut columns, _) = look::columns(pair.source, new).await?;
        let (mut others, _) = look::columns(pair.destination, old.oid).await?;
        columns.sort();
        others.sort();
        let keys = look::names(pair.source, new, LEAF_KEYS).await?;
        if columns != others || keys != look::names(pair.destination, old.oid, LEAF_KEYS).await? {
            return changed("has another definition by now");
        }
        let before = mv.lanes.iter().flat_map(|lane| &lane.tables);
        if let Some(before) = before.clone().find(|before| before.leaf == table.leaf) {
            // The way back may have changed it itself.
            table.whole_row_identity = before.whole_row_identity;
            table.identity.clone_from(&before.identity);
        }
    }
    Ok(())
}

/// What an old copy lacks to be attached again: its foreign keys, and the check.
pub(super) async fn statements(
    lane: OneLane<'_>,
    source: &Session,
    destination: &Session,
) -> Result<String, MoveError> {
    let (mut before, mut after) = (vec!["SELECT 1".to_owned()], Vec::new());
    for table in &lane.lane.tables {
        let leaf = &table.new_leaf;
        let (new, old) =
            (look::oid(source, &table.leaf).await?, look::oid(destination, leaf).await?);
        let doing = "looking at foreign keys";
        for row in destination.rows(doing, FOREIGN_KEYS, &[&old]).await? {
            let name = quoted(&row.get::<_, String>(0));
            before.push(format!("ALTER TABLE {leaf} DROP CONSTRAINT {name}"));
        }
        after.extend(build::own_foreign_keys(lane, source, table, new).await?);
        let parent = look::oid(destination, &table.parent).await?;
        let check = build::helper(lane.mv, table, parent, &lane.lane.target.bounds);
        let name = quoted(&names::helper_check(lane.mv));
        after.push(format!(
            "ALTER TABLE {leaf} DROP CONSTRAINT IF EXISTS {name}, SET (autovacuum_enabled = off); \
             ALTER TABLE {leaf} {check}"
        ));
    }
    Ok(before.into_iter().chain(after).collect::<Vec<_>>().join("; "))
}
