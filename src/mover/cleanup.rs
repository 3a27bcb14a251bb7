//! Removes what a move made, after it or instead of it. All of it can be repeated.

use super::back;
use super::context::MoverContext;
use super::detach;
use super::error::MoveError;
use super::lane::Sessions;
use super::look::{self, Hold};
use super::names::quoted;
use super::position;
use super::prepare::LEAF_LOCK;
use super::session::Session;
use super::settle::{self, Owner};
use crate::shard_move::{Event, Move, MovedTable, Object, ObjectKind, State};
use crate::sql::TableName;

/// The tables of a publication: schema and name.
const PUBLISHED: &str = "SELECT n.nspname::text, c.relname::text FROM pg_publication p \
     JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1 ORDER BY 1, 2";

/// After the switch: slots, publications, the old copies unless a way back has them, the records on
/// the nodes.
pub(super) async fn clean_up(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let sessions = Sessions::open(context, mv).await?;
    drop_streams(mv, &sessions).await?;
    context.pass("stream_dropped")?;
    for target in mv.targets() {
        let tables = mv.tables_for(target.shard);
        let leaves: Vec<_> = tables.iter().map(|table| &table.new_leaf).collect();
        let destination = sessions.on(target.node)?;
        if !leaves.is_empty() && look::hold(destination, &leaves).await? != Hold::Attached {
            return Err(MoveError::Refused(format!(
                "shard {} is not attached on node {}, so its old copy stays",
                target.shard, destination.node
            )));
        }
    }
    if mv.way_back.is_some() {
        back::release(mv, &sessions).await?;
    } else {
        drop_old(mv, &sessions).await?;
    }
    remove_positions(mv, &sessions).await?;
    context.pass("cleaned")?;
    Ok(Event::Cleaned)
}

/// The old copies.
async fn drop_old(mv: &Move, sessions: &Sessions) -> Result<(), MoveError> {
    for source in mv.sources() {
        let session = sessions.on(source.node)?;
        let tables = mv.leaves_of(source.shard);
        for table in &tables {
            detach::finish(session, table).await?;
        }
        drop_unattached(session, tables.iter().map(|table| &table.leaf)).await?;
    }
    // What was made for a way back that is not taken.
    for object in mv.objects.iter().filter(|it| matches!(it.kind, ObjectKind::FullIdentity(_))) {
        put_back(mv, sessions.on(object.node)?, object).await?;
    }
    Ok(())
}

/// Instead of the switch: everything that was recorded goes, and the sources are as they were. Of a
/// way back, the old copies.
pub(super) async fn undo(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    if mv.objects.is_empty() {
        return Ok(Event::Undone);
    }
    // While old copies were only kept, nobody kept their tables from being changed or dropped.
    if !mv.is_aside() && settle::settle(context, mv).await? == Owner::Destination {
        return Err(MoveError::Refused(format!(
            "shard {} is attached on its destination already",
            mv.shard
        )));
    }
    let sessions = Sessions::open(context, mv).await?;
    drop_streams(mv, &sessions).await?;
    for target in mv.targets() {
        let tables = mv.tables_for(target.shard);
        let leaves = tables.iter().map(|table| &table.new_leaf);
        drop_unattached(sessions.on(target.node)?, leaves).await?;
    }
    for object in mv.objects.iter().chain(&mv.objects_for_back) {
        put_back(mv, sessions.on(object.node)?, object).await?;
    }
    remove_positions(mv, &sessions).await?;
    context.pass("undone")?;
    Ok(Event::Undone)
}

/// Takes from a leaf what the move gave it.
pub(super) async fn put_back(
    mv: &Move,
    source: &Session,
    object: &Object,
) -> Result<(), MoveError> {
    let sql = match &object.kind {
        ObjectKind::HelperCheck { leaf, name } => {
            let sql = "SELECT FROM pg_constraint WHERE conname = $1";
            if source.rows("looking for the check", sql, &[name]).await?.is_empty() {
                return Ok(());
            }
            format!("ALTER TABLE IF EXISTS {leaf} DROP CONSTRAINT IF EXISTS {}", quoted(name))
        }
        ObjectKind::FullIdentity(leaf) => {
            let tables = mv.lanes.iter().flat_map(|lane| &lane.tables);
            let is = |it: &MovedTable| it.leaf == *leaf || it.new_leaf == *leaf;
            let nothing = tables.clone().any(|it| is(it) && it.identity == "n");
            let identity = if nothing { "NOTHING" } else { "DEFAULT" };
            format!("ALTER TABLE IF EXISTS {leaf} REPLICA IDENTITY {identity}")
        }
        ObjectKind::Freeze(leaf) => {
            let triggers = detach::frozen_by(source, leaf).await?;
            if triggers.is_empty() {
                return Ok(());
            }
            let drop = |name: &String| format!("DROP TRIGGER IF EXISTS {} ON {leaf}", quoted(name));
            triggers.iter().map(drop).collect::<Vec<_>>().join("; ")
        }
        ObjectKind::Slot(_)
        | ObjectKind::Publication(_)
        | ObjectKind::Leaf(_)
        | ObjectKind::Position(_) => return Ok(()),
    };
    source.run_with_locks("putting the old table back in order", &sql, LEAF_LOCK).await
}

/// While a node is away that has to be tidied up: the others must not keep their WAL until it comes
/// back, if nobody needs the streams any more.
pub(super) async fn free_wal(context: &MoverContext, mv: &Move) {
    let unneeded = mv.state == State::Switched || (mv.state == State::Undoing && mv.is_aside());
    for object in mv.objects.iter().filter(|_| unneeded) {
        let ObjectKind::Slot(name) = &object.kind else { continue };
        let freed = async {
            let session = Session::open(context, mv, object.node).await?;
            drop_slot(&session, name).await
        };
        if let Err(error) = freed.await {
            tracing::info!(error = error.story(), slot = name, "a slot could not be dropped yet");
        }
    }
}

/// Drops all slots and publications of the move.
async fn drop_streams(mv: &Move, sessions: &Sessions) -> Result<(), MoveError> {
    for object in mv.objects.iter().chain(&mv.objects_for_back) {
        let session = sessions.on(object.node)?;
        match &object.kind {
            ObjectKind::Slot(name) => drop_slot(session, name).await?,
            ObjectKind::Publication(name) => drop_publication(session, name).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Removes what the move has noted on its nodes.
async fn remove_positions(mv: &Move, sessions: &Sessions) -> Result<(), MoveError> {
    for object in mv.objects.iter().chain(&mv.objects_for_back) {
        if let ObjectKind::Position(name) = &object.kind {
            let session = sessions.on(object.node)?;
            session.run("removing the position", &position::remove(name)).await?;
        }
    }
    Ok(())
}

/// Drops a publication while nobody writes its tables, if that can be had: an UPDATE that looks up the
/// publications of its table in the moment in which one is dropped fails in PostgreSQL (XX000, cache
/// lookup failed for publication).
pub(super) async fn drop_publication(session: &Session, name: &str) -> Result<(), MoveError> {
    let doing = "dropping the publication";
    let rows = session.rows(doing, PUBLISHED, &[&name]).await?;
    let table = |row: &tokio_postgres::Row| {
        let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        format!("ONLY {table}")
    };
    let tables: Vec<String> = rows.iter().map(table).collect();
    let drop = format!("DROP PUBLICATION IF EXISTS {}", quoted(name));
    if !tables.is_empty() {
        let sql = format!("LOCK TABLE {} IN SHARE MODE; {drop}", tables.join(", "));
        match session.run_with_locks(doing, &sql, LEAF_LOCK).await {
            // A transaction that lasts must not keep it for ever.
            Err(error) if error.is_lock_timeout() => {}
            other => return other,
        }
    }
    session.run(doing, &drop).await
}

/// Drops a slot, after ending the walsender that an earlier process left on it.
pub(super) async fn drop_slot(source: &Session, slot: &str) -> Result<(), MoveError> {
    let doing = "dropping the slot";
    let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
         WHERE slot_name = $1 AND database = current_database() AND active_pid IS NOT NULL";
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
         WHERE slot_name = $1 AND database = current_database() AND active_pid IS NULL";
    let is_left = "SELECT FROM pg_replication_slots \
         WHERE slot_name = $1 AND database = current_database()";
    for _ in 0..100 {
        source.rows(doing, end, &[&slot]).await?;
        source.rows(doing, drop, &[&slot]).await?;
        if source.rows(doing, is_left, &[&slot]).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err(MoveError::Timeout(doing))
}

/// Drops the leaves that are there; refuses if one of them is a partition in use.
pub(super) async fn drop_unattached(
    session: &Session,
    leaves: impl Iterator<Item = &TableName>,
) -> Result<(), MoveError> {
    let leaves: Vec<&TableName> = leaves.collect();
    if leaves.is_empty() {
        return Ok(());
    }
    if look::hold(session, &leaves).await? != Hold::Loose {
        return Err(MoveError::Refused(format!(
            "the shard's tables on node {} are attached and must not be dropped",
            session.node
        )));
    }
    let leaves: Vec<String> = leaves.iter().map(ToString::to_string).collect();
    let sql = format!("DROP TABLE IF EXISTS {}", leaves.join(", "));
    session.run_with_locks("dropping the shard's tables", &sql, LEAF_LOCK).await
}
