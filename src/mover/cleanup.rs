//! Removes what a move made, after it or instead of it. All of it can be repeated.

use super::context::MoverContext;
use super::error::MoveError;
use super::look;
use super::names::{self, quoted};
use super::position;
use super::prepare::LEAF_LOCK;
use super::session::Session;
use super::settle::{self, Owner};
use crate::shard_move::{Event, Move, MovedTable, ObjectKind};

/// After the switch: slot, publication, the old copy, the records on the nodes.
pub(super) async fn clean_up(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    drop_slot(&source, &names::slot(mv)).await?;
    drop_publication(&source, mv).await?;
    context.pass("stream_dropped")?;
    if !look::attached(&destination, &mv.tables).await? && !mv.tables.is_empty() {
        return Err(MoveError::Refused(format!(
            "shard {} is not attached on node {}, so its old copy stays",
            mv.shard, destination.node
        )));
    }
    drop_unattached(&source, &mv.tables).await?;
    let sql = position::remove(mv);
    destination.run("removing the position", &sql).await?;
    context.pass("cleaned")?;
    Ok(Event::Cleaned)
}

/// Instead of the switch: everything that was recorded goes, and the source is as it was.
pub(super) async fn undo(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    if mv.objects.is_empty() {
        return Ok(Event::Undone);
    }
    if settle::settle(context, mv).await? == Owner::Destination {
        return Err(MoveError::Refused(format!(
            "shard {} is attached on its destination already",
            mv.shard
        )));
    }
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    drop_slot(&source, &names::slot(mv)).await?;
    drop_publication(&source, mv).await?;
    drop_unattached(&destination, &mv.tables).await?;
    for object in &mv.objects {
        let sql = match &object.kind {
            ObjectKind::HelperCheck { leaf, name } => {
                format!("ALTER TABLE {leaf} DROP CONSTRAINT IF EXISTS {}", quoted(name))
            }
            ObjectKind::FullIdentity(leaf) => {
                format!("ALTER TABLE {leaf} REPLICA IDENTITY DEFAULT")
            }
            ObjectKind::Slot(_)
            | ObjectKind::Publication(_)
            | ObjectKind::Leaf(_)
            | ObjectKind::Position => continue,
        };
        source.run_with_locks("putting the old table back in order", &sql, LEAF_LOCK).await?;
    }
    destination.run("removing the position", &position::remove(mv)).await?;
    context.pass("undone")?;
    Ok(Event::Undone)
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

async fn drop_publication(source: &Session, mv: &Move) -> Result<(), MoveError> {
    let sql = format!("DROP PUBLICATION IF EXISTS {}", quoted(&names::publication(mv)));
    source.run("dropping the publication", &sql).await
}

/// Drops the leaves that are there; refuses if one of them is a partition in use.
pub(super) async fn drop_unattached(
    session: &Session,
    tables: &[MovedTable],
) -> Result<(), MoveError> {
    if tables.is_empty() {
        return Ok(());
    }
    if look::attached(session, tables).await? {
        return Err(MoveError::Refused(format!(
            "the shard's tables on node {} are attached and must not be dropped",
            session.node
        )));
    }
    let leaves: Vec<String> = tables.iter().map(|table| table.leaf.to_string()).collect();
    let sql = format!("DROP TABLE IF EXISTS {}", leaves.join(", "));
    session.run_with_locks("dropping the shard's tables", &sql, LEAF_LOCK).await
}
