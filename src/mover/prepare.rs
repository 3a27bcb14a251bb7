//! The publication, the replica identities, the position table: what the slot needs before it.

use super::context::MoverContext;
use super::error::MoveError;
use super::names::{self, quoted};
use super::position;
use super::session::Session;
use crate::shard_move::{Event, Move};

/// How long and how often a lock on one leaf is asked for, in ms; the application goes on between.
pub(super) const LEAF_LOCK: (u64, u32) = (50, 20);

/// Makes them; all of it can be repeated.
pub(super) async fn prepare(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    destination.run("making the position table", position::CREATE_TABLE).await?;
    for table in mv.tables.iter().filter(|table| table.whole_row_identity) {
        // Before the publication: without an identity it would make the application's updates fail.
        let sql = format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.leaf);
        source.run_with_locks("setting the replica identity", &sql, LEAF_LOCK).await?;
    }
    let name = quoted(&names::publication(mv));
    let leaves: Vec<String> = mv.tables.iter().map(|table| table.leaf.to_string()).collect();
    let tables =
        if leaves.is_empty() { String::new() } else { format!(" FOR TABLE {}", leaves.join(", ")) };
    let sql = format!("DROP PUBLICATION IF EXISTS {name}; CREATE PUBLICATION {name}{tables}");
    source.run("making the publication", &sql).await?;
    context.pass("prepared")?;
    Ok(Event::Prepared)
}
