//! Has the sessions of a switch do beforehand what they are going to do, and take it back, while the
//! gates are open still: a session that has not read its node's catalog yet needs milliseconds for
//! what takes it a fraction of one later. Nothing depends on its success.

use super::context::MoverContext;
use super::detach::{self, Given};
use super::error::MoveError;
use super::lane::Sessions;
use super::look;
use super::session::Session;
use super::settle;
use crate::ids::{Epoch, NodeId};
use crate::shard_move::Move;

/// The longest that anybody else may wait for a rehearsal, in ms.
const LOCK_MS: u64 = 20;

/// A partition of nobody else's is detached.
const DETACHMENT: &str = "CREATE TEMP TABLE foreshard_parent (a int PRIMARY KEY) \
     PARTITION BY HASH (a); CREATE TEMP TABLE foreshard_leaf PARTITION OF foreshard_parent \
     FOR VALUES WITH (modulus 1, remainder 0); \
     ALTER TABLE foreshard_parent DETACH PARTITION foreshard_leaf";

/// Rehearses at all nodes of a move; where that would be in somebody's way, less.
pub(super) async fn rehearse(
    context: &MoverContext,
    mv: &Move,
    sessions: &Sessions,
    givers: &[Given],
) -> Result<(), MoveError> {
    for given in givers {
        let source = sessions.on(given.node)?;
        taken_back(source, leave(context, source, given).await).await?;
    }
    for node in mv.nodes() {
        let destination = sessions.on(node)?;
        taken_back(destination, arrive(mv, destination, node).await).await?;
    }
    Ok(())
}

async fn leave(context: &MoverContext, source: &Session, given: &Given) -> Result<(), MoveError> {
    let address = context.address(given.node)?;
    let epoch = Epoch(context.live_map.load().epoch().0 + 1);
    let words = detach::last_words(address, "rehearsal", epoch);
    let mut sql = vec![format!("BEGIN; SET LOCAL lock_timeout = {LOCK_MS}")];
    sql.extend(given.lock("ACCESS SHARE"));
    source.run("rehearsing a detachment", &sql.join("; ")).await?;
    given.is_as_it_was(source).await?;
    source.run("rehearsing a detachment", &format!("{DETACHMENT}; {words}")).await
}

async fn arrive(mv: &Move, destination: &Session, node: NodeId) -> Result<(), MoveError> {
    let Some(attach) = settle::attachment(mv, node, &[]) else { return Ok(()) };
    let mut parents = Vec::new();
    for target in mv.targets().iter().filter(|target| target.node == node) {
        for table in mv.tables_for(target.shard) {
            parents.push(look::oid(destination, &table.parent).await?);
        }
    }
    // What gives the rows is attached still; a DEFAULT partition would be locked.
    let gives = mv.lanes.iter().any(|lane| lane.source.node == node);
    if gives || look::has_defaults(destination, &parents).await? {
        return Ok(());
    }
    let sql = format!("BEGIN; SET LOCAL lock_timeout = {LOCK_MS}; {attach}");
    destination.run("rehearsing an attachment", &sql).await
}

/// Takes back what was rehearsed. That a node refused something is told when it counts.
async fn taken_back(session: &Session, rehearsed: Result<(), MoveError>) -> Result<(), MoveError> {
    if let Err(error) = rehearsed {
        tracing::debug!(node = session.node, error = error.story(), "a switch was not rehearsed");
    }
    session.run("taking a rehearsal back", "ROLLBACK").await
}
