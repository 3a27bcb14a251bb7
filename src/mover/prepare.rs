//! The publications, the replica identities, the position tables: what the slots need before them.

use super::context::MoverContext;
use super::error::MoveError;
use super::lane::{Sessions, Stream, dealt_by, streams};
use super::look;
use super::names::quoted;
use super::position;
use super::session::Session;
use crate::shard_move::{Event, Move};

/// How long and how often a lock on one leaf is asked for, in ms; the application goes on between.
pub(super) const LEAF_LOCK: (u64, u32) = (50, 20);

/// What the triggers run that keep a leaf from being written. See [`super::detach`].
const FREEZE_FUNCTION: &str = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('foreshard')); \
     CREATE SCHEMA IF NOT EXISTS foreshard; \
     CREATE OR REPLACE FUNCTION foreshard.frozen() RETURNS trigger LANGUAGE plpgsql AS $foreshard$ \
     BEGIN RAISE EXCEPTION 'table %.% is being moved to another node', \
     TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = '40001', \
     HINT = 'Run the transaction again, through the proxy.'; END $foreshard$; \
     GRANT USAGE ON SCHEMA foreshard TO PUBLIC; COMMIT";

/// Makes them; all of it can be repeated.
pub(super) async fn prepare(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let sessions = Sessions::open(context, mv).await?;
    for target in mv.targets() {
        let session = sessions.on(target.node)?;
        session.run("making the position table", position::CREATE_TABLE).await?;
    }
    for source in mv.sources() {
        let session = sessions.on(source.node)?;
        session.run("making the freeze function", FREEZE_FUNCTION).await?;
        for table in mv.leaves_of(source.shard) {
            if !table.whole_row_identity {
                continue;
            }
            // Before the publication: without an identity it would make the application's updates
            // fail.
            let sql = format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.leaf);
            session.run_with_locks("setting the replica identity", &sql, LEAF_LOCK).await?;
        }
    }
    for stream in streams(mv) {
        publish(sessions.on(stream.from())?, &stream).await?;
    }
    context.pass("prepared")?;
    Ok(Event::Prepared)
}

/// A publication of a stream's rows.
pub(super) async fn publish(source: &Session, stream: &Stream<'_>) -> Result<(), MoveError> {
    let name = quoted(&stream.slot());
    let mut leaves = Vec::new();
    for (lane, table) in stream.tables() {
        let parent = look::oid(source, dealt_by(table)).await?;
        let given = lane.given(table, parent).map(|given| format!(" WHERE ({given})"));
        leaves.push(format!("{}{}", table.leaf, given.unwrap_or_default()));
    }
    let tables =
        if leaves.is_empty() { String::new() } else { format!(" FOR TABLE {}", leaves.join(", ")) };
    let sql = format!("DROP PUBLICATION IF EXISTS {name}; CREATE PUBLICATION {name}{tables}");
    source.run("making the publication", &sql).await
}
