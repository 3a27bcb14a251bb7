//! Finds out what a switch that was cut off has really done, and leaves one owner.
//!
//! The order inside a switch is: the sources detach, the rest of the streams is applied, the targets
//! attach, the catalog gets the new map. So once a target is attached nothing is missing in any, and
//! the move is finished. Else the sources take their shards back; but where they have detached
//! concurrently, everything had arrived before, and the move is finished too: a detachment of that
//! kind can't be taken back while an old snapshot lives.

use futures_util::future::try_join_all;

use super::back;
use super::context::MoverContext;
use super::detach::{self, Given};
use super::error::MoveError;
use super::lane::{Sessions, attach, streams};
use super::look::{self, Hold};
use super::names::{self, quoted};
use super::position;
use crate::ids::{NodeId, ShardId};
use crate::shard_move::Move;
use crate::sql::TableName;

/// How long and how often parents are asked for, in ms.
const PARENT_LOCK: (u64, u32) = (500, 10);

/// Who has the rows attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The shards that were to give them away.
    Source,
    /// Those that were to get them; the catalog may not know yet.
    Destination,
}

/// Ends whatever sessions an earlier try left, and sees to it that exactly one side has the rows
/// attached. The gates must be closed if the catalog's map has not been switched.
pub(super) async fn settle(context: &MoverContext, mv: &Move) -> Result<Owner, MoveError> {
    let sessions = Sessions::open(context, mv).await?;
    for session in sessions.all() {
        session.end_earlier_sessions(mv).await?;
    }
    if mv.lanes.iter().all(|lane| lane.tables.is_empty()) {
        return Ok(Owner::Source);
    }
    let givers = detach::given(mv, &sessions).await?;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for given in &givers {
        let leaves: Vec<&TableName> = given.leaves().collect();
        here.push(look::hold(sessions.on(given.node)?, &leaves).await?);
    }
    for target in mv.targets() {
        let tables = mv.tables_for(target.shard);
        let leaves: Vec<_> = tables.iter().map(|table| &table.new_leaf).collect();
        there.push(look::hold(sessions.on(target.node)?, &leaves).await?);
    }
    let began = here.contains(&Hold::Partly);
    if there.contains(&Hold::Attached) || (began && has_arrived(mv, &sessions).await?) {
        if here.contains(&Hold::Attached) && there.contains(&Hold::Attached) {
            return Err(MoveError::Refused(format!(
                "shard {} is attached on its source and on its destination: detach it by hand \
                 where it is stale",
                mv.shard
            )));
        }
        go_forward(context, mv, &sessions, &givers).await?;
        return Ok(Owner::Destination);
    }
    if began || there.contains(&Hold::Partly) {
        return Err(MoveError::Refused(format!(
            "some tables of shard {} are attached and others are not: somebody else changed them; \
             attach or detach them by hand",
            mv.shard
        )));
    }
    give_back(mv, &sessions, &givers).await?;
    Ok(Owner::Source)
}

/// Whether of every stream is stored that nothing more can come.
async fn has_arrived(mv: &Move, sessions: &Sessions) -> Result<bool, MoveError> {
    for stream in streams(mv) {
        let session = sessions.on(stream.to())?;
        if !position::find(session, &stream.slot()).await?.is_some_and(|position| position.arrived)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Detaches what is still attached, and attaches what is not yet.
async fn go_forward(
    context: &MoverContext,
    mv: &Move,
    sessions: &Sessions,
    givers: &[Given],
) -> Result<(), MoveError> {
    for given in givers {
        let session = sessions.on(given.node)?;
        if look::attachments(session, given.leaves()).await?.whole > 0 {
            given.hide(session, &given.hiders(context, mv).await?).await?;
        }
    }
    for lane in mv.lanes.iter().filter(|lane| lane.source.node == lane.target.node) {
        for table in &lane.tables {
            detach::finish(sessions.on(lane.source.node)?, table).await?;
        }
    }
    attach_targets(mv, sessions, PARENT_LOCK).await?;
    tracing::info!("a switch that was cut off was finished");
    Ok(())
}

/// Attaches every target that is not attached yet, a node a transaction, all nodes at once. All rows
/// must have arrived.
pub(super) async fn attach_targets(
    mv: &Move,
    sessions: &Sessions,
    lock: (u64, u32),
) -> Result<(), MoveError> {
    let mut attached = Vec::new();
    for target in mv.targets() {
        let leaves: Vec<_> =
            mv.tables_for(target.shard).into_iter().map(|table| &table.new_leaf).collect();
        if look::hold(sessions.on(target.node)?, &leaves).await? == Hold::Attached {
            attached.push(target.shard);
        }
    }
    attach_all_but(mv, sessions, &attached, lock).await
}

/// The same for targets of which none is attached but these.
pub(super) async fn attach_all_but(
    mv: &Move,
    sessions: &Sessions,
    attached: &[ShardId],
    lock: (u64, u32),
) -> Result<(), MoveError> {
    let on_node = async |node| match attachment(mv, node, attached) {
        None => Ok(()),
        Some(sql) => sessions.on(node)?.run_with_locks("attaching the shard", &sql, lock).await,
    };
    try_join_all(mv.nodes().into_iter().map(on_node)).await.map(drop)
}

/// What attaches all that a node gets, but for targets that are attached; `None` if that is nothing.
pub(super) fn attachment(mv: &Move, node: NodeId, attached: &[ShardId]) -> Option<String> {
    let helper = quoted(&names::helper_check(mv));
    let mut sql = Vec::new();
    let targets = mv.targets().into_iter().filter(|target| target.node == node);
    for target in targets.filter(|target| !attached.contains(&target.shard)) {
        let tables = mv.tables_for(target.shard);
        sql.extend(attach(tables.iter().map(|table| (*table, &table.new_leaf)), &target.bounds));
        sql.extend(tables.iter().map(|table| {
            let leaf = &table.new_leaf;
            format!("ALTER TABLE {leaf} DROP CONSTRAINT {helper}, RESET (autovacuum_enabled)")
        }));
    }
    if sql.is_empty() {
        return None;
    }
    sql.extend(back::marks(mv, node, attached));
    Some(sql.join("; "))
}

/// The sources take back what they had detached, and can be written again.
async fn give_back(mv: &Move, sessions: &Sessions, givers: &[Given]) -> Result<(), MoveError> {
    for stream in streams(mv) {
        let (session, slot) = (sessions.on(stream.to())?, stream.slot());
        if position::find(session, &slot).await?.is_some() {
            let sql = position::set_arrived(&slot, false);
            session.run("noting that the shard stays", &sql).await?;
        }
    }
    for given in givers {
        given.thaw(sessions.on(given.node)?).await?;
    }
    for source in mv.sources() {
        let session = sessions.on(source.node)?;
        let tables = mv.leaves_of(source.shard);
        let leaves: Vec<_> = tables.iter().map(|table| &table.leaf).collect();
        if look::hold(session, &leaves).await? == Hold::Attached {
            continue;
        }
        let parts = tables.iter().map(|table| (*table, &table.leaf));
        let sql = attach(parts, &source.bounds).join("; ");
        session.run_with_locks("giving the shard back to its source", &sql, PARENT_LOCK).await?;
        tracing::info!(node = session.node, shard = %source.shard, "the source has taken the shard back");
    }
    Ok(())
}
