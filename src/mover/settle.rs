//! Finds out what a switch that was cut off has really done, and leaves one owner.
//!
//! The order inside a switch is: the source detaches, the rest of the stream is applied, the
//! destination attaches, the catalog gets the new map. So if the destination has attached, nothing
//! is missing there and the move is finished; else the source takes the shard back.

use super::build::{attach, bounds};
use super::context::MoverContext;
use super::error::MoveError;
use super::look;
use super::session::Session;
use crate::shard_move::Move;

/// How long and how often the source's parents are asked for, in ms.
const PARENT_LOCK: (u64, u32) = (500, 10);

/// Who has the shard attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The node that it was to leave.
    Source,
    /// The node that it was to go to; the catalog may not know yet.
    Destination,
}

/// Ends whatever sessions an earlier try left, and sees to it that exactly one node has the shard
/// attached. The gate must be closed if the catalog's map has not been switched.
pub(super) async fn settle(context: &MoverContext, mv: &Move) -> Result<Owner, MoveError> {
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    source.end_earlier_sessions(mv).await?;
    destination.end_earlier_sessions(mv).await?;
    if mv.tables.is_empty() {
        return Ok(Owner::Source);
    }
    let here = look::attached(&source, &mv.tables).await?;
    let there = look::attached(&destination, &mv.tables).await?;
    match (here, there) {
        (true, false) => Ok(Owner::Source),
        (false, true) => Ok(Owner::Destination),
        (true, true) => Err(MoveError::Refused(format!(
            "shard {} is attached on node {} and on node {}: detach it by hand where it is stale",
            mv.shard, source.node, destination.node
        ))),
        (false, false) => {
            let sql = attach(mv, bounds(context, mv)?).join("; ");
            source.run_with_locks("giving the shard back to the source", &sql, PARENT_LOCK).await?;
            tracing::info!(node = source.node, "the source has taken the shard back");
            Ok(Owner::Source)
        }
    }
}
