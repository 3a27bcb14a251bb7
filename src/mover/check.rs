//! Whether a move can work at all; changes nothing. Every refusal says what is in the way.

use super::context::MoverContext;
use super::error::MoveError;
use super::lane::{Sessions, lanes, streams};
use super::session::Session;
use super::tables::Pair;
use super::{back, names, room, tables};
use crate::ids::{GroupId, NodeId};
use crate::shard_map::ShardMap;
use crate::shard_move::{Event, Lane, Move, Object, ObjectKind};

pub(super) fn refused<T>(text: String) -> Result<T, MoveError> {
    Err(MoveError::Refused(text))
}

/// Looks at all nodes; the tables that move and all that the move is going to make.
pub(super) async fn check(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let map = context.live_map.snapshot();
    let of_moved =
        |group| mv.sources().iter().any(|it| map.shard(it.shard).is_some_and(|s| s.group == group));
    let moved = |group| map.tables_of(group).any(|table| map.importing().contains(&table.name));
    if (0u16..).map(GroupId).take(map.groups().len()).any(|group| of_moved(group) && moved(group)) {
        return Err(MoveError::Busy("the tables are being imported".to_owned()));
    }
    let mut checked = mv.clone();
    checked.lanes = mv.lanes.iter().map(|lane| bounded(&map, lane)).collect::<Result<_, _>>()?;
    if mv.reverses.is_some() {
        for lane in &mut checked.lanes {
            // The tables are looked at anew; what the move found is needed to put it in order.
            lane.tables.clear();
        }
    }
    let sessions = Sessions::open(context, &checked).await?;
    for node in checked.nodes() {
        let from_node = streams(&checked).iter().filter(|stream| stream.from() == node).count();
        if from_node > 0 {
            can_stream(sessions.on(node)?, from_node).await?;
        }
    }
    for target in checked.targets() {
        can_apply(sessions.on(target.node)?).await?;
    }
    for node in checked.nodes() {
        can_make(context, node, sessions.on(node)?).await?;
    }
    let mut all_tables = Vec::new();
    for lane in lanes(&checked) {
        let source = sessions.on(lane.lane.source.node)?;
        let destination = sessions.on(lane.lane.target.node)?;
        same_database(source, destination).await?;
        let pair = Pair { source, destination, lane };
        let Some(shard) = map.shard(lane.lane.source.shard) else { continue };
        let mut of_lane = Vec::new();
        for table in map.tables_of(shard.group) {
            of_lane.extend(pair.table(table).await?);
        }
        if mv.reverses.is_some() {
            back::is_as_it_was(&pair, mv, &mut of_lane).await?;
        }
        tables::nothing_else_depends(source, &of_lane).await?;
        all_tables.push(of_lane);
    }
    for (lane, tables) in checked.lanes.iter_mut().zip(all_tables) {
        lane.tables = tables;
    }
    if mv.reverses.is_none() {
        room::check(context, &checked, &sessions).await?;
    } else {
        context.pass("recalled")?;
    }
    let objects = objects(&checked);
    let objects_for_back = back::objects(&checked, back::kept_ms(context, &map, mv));
    Ok(Event::Checked { lanes: checked.lanes, objects, objects_for_back })
}

/// A lane with the bounds that the map gives its shards.
fn bounded(map: &ShardMap, lane: &Lane) -> Result<Lane, MoveError> {
    let (mut lane, id) = (lane.clone(), lane.source.shard);
    let Some(shard) = map.shard(id) else {
        return refused(format!("there is no shard {id}"));
    };
    if shard.node != lane.source.node {
        return refused(format!("shard {id} is not on node {} any more", lane.source.node));
    }
    if lane.target.shard == id {
        lane.source.bounds = shard.bounds.clone();
        lane.target.bounds = shard.bounds.clone();
    } else if lane.source.bounds != shard.bounds || map.shard(lane.target.shard).is_some() {
        return refused(format!("the bounds of shard {id} were changed meanwhile"));
    }
    Ok(lane)
}

/// All that a move is going to make; of a way back, what was made and is going to be.
pub(super) fn objects(mv: &Move) -> Vec<Object> {
    let mut objects = Vec::new();
    let mut add = |node: NodeId, kind| {
        let object = Object { node, kind };
        if !objects.contains(&object) {
            objects.push(object);
        }
    };
    let name = names::helper_check(mv);
    for stream in streams(mv) {
        let (from, to) = (stream.from(), stream.to());
        add(from, ObjectKind::Publication(stream.slot()));
        add(from, ObjectKind::Slot(stream.slot()));
        add(to, ObjectKind::Position(stream.slot()));
        for (_, table) in stream.tables() {
            let leaf = || table.leaf.clone();
            add(to, ObjectKind::Leaf(table.new_leaf.clone()));
            add(from, ObjectKind::HelperCheck { leaf: leaf(), name: name.clone() });
            add(from, ObjectKind::Freeze(leaf()));
            if table.whole_row_identity {
                add(from, ObjectKind::FullIdentity(leaf()));
            }
        }
    }
    objects
}

/// Text means the same on both nodes.
pub(super) async fn same_database(
    source: &Session,
    destination: &Session,
) -> Result<(), MoveError> {
    let sql = "SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, \
         coalesce(pg_database_collation_actual_version(oid), 'none') \
         FROM pg_database WHERE datname = current_database()";
    let mut seen = Vec::new();
    for session in [source, destination] {
        let rows = session.rows("looking at the database", sql, &[]).await?;
        let row = rows.first().map(|row| [0, 1, 2, 3].map(|at| row.get::<_, String>(at)));
        seen.push(row.unwrap_or_default());
    }
    if seen[0][..3] == seen[1][..3] && seen[0][3] != seen[1][3] {
        return refused(format!(
            "text is put in order by version {} of its collation on node {} and by {} on node {}: \
             queries would give another order there; bring both systems' libraries to one version",
            seen[0][3], source.node, seen[1][3], destination.node
        ));
    }
    let what = ["encoding", "collation", "character type"];
    for (what, (here, there)) in what.iter().zip(seen[0].iter().zip(&seen[1])) {
        if here != there {
            return refused(format!(
                "the database has the {what} {here} on node {} and {there} on node {}: make it \
                 anew there, with CREATE DATABASE … TEMPLATE template0",
                source.node, destination.node
            ));
        }
    }
    Ok(())
}

/// The source can decode its WAL and has a slot to spare.
pub(super) async fn can_stream(source: &Session, streams: usize) -> Result<(), MoveError> {
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
    // A slot for each stream, and one for each comparison.
    let needed = i64::try_from(2 * streams).unwrap_or(i64::MAX);
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

/// The proxy's own schema is there or can be made; without it a proxy that was replaced could go on
/// writing to a shard that has moved.
pub(super) async fn can_make(
    context: &MoverContext,
    node: NodeId,
    session: &Session,
) -> Result<(), MoveError> {
    let sql = "SELECT has_database_privilege(current_database(), 'CREATE') \
         OR coalesce(has_schema_privilege(to_regnamespace('foreshard')::oid, 'CREATE'), false), \
         to_regprocedure('foreshard.pass(text, bigint, bigint, bigint)') IS NOT NULL";
    let rows = session.rows("looking at the proxy's rights", sql, &[]).await?;
    let (may, fenced) = rows.first().map_or((true, true), |row| (row.get(0), row.get(1)));
    let fenced = fenced || context.address(node)?.fence.is_none();
    if may && fenced {
        return Ok(());
    }
    refused(format!(
        "shards can't be moved off or to node {0}: the proxy's role can't make the schema foreshard \
         there, without which a proxy that was replaced could go on writing; GRANT CREATE ON \
         DATABASE to it on node {0}, and restart the proxy",
        session.node
    ))
}

/// The destination lets the mover write without triggers, as replication does.
pub(super) async fn can_apply(destination: &Session) -> Result<(), MoveError> {
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
