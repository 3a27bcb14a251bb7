//! Tables of a group of their own join another group with the same key: their rows are brought to its
//! shards as to new ones. Nothing of the tables that are there already is touched.

use super::super::check::{can_apply, can_make, can_stream};
use super::super::error::MoveError;
use super::super::import::define::texts;
use super::super::jobs::Desk;
use super::super::room::{has_room, size};
use super::super::{look, session::Session};
use super::check::REASONS;
use super::{Resharder, clean};
use crate::ids::{GroupId, NodeId};
use crate::shard_map::{ShardMap, leaf_name};
use crate::shard_move::Import;
use crate::sql::TableName;

/// Brings the tables of the group `wanted` to the shards of `into`, from wherever an earlier process
/// left it.
pub(in super::super) async fn join(
    desk: &mut Desk<'_>,
    wanted: &Import,
    into: &str,
) -> Result<(), MoveError> {
    Resharder { wanted, joins: Some(into), desk }.run().await
}

/// Takes away what is left of a join that an earlier process brought to its end.
pub(in super::super) async fn finish(
    desk: &mut Desk<'_>,
    wanted: &Import,
) -> Result<(), MoveError> {
    let mut left = false;
    let map = desk.context.live_map.snapshot();
    for (node, _) in map.members() {
        left |= clean::has_old(&desk.session(node).await?).await?;
    }
    if !left {
        return Ok(());
    }
    let names = wanted.names();
    Resharder { wanted, joins: None, desk }.finish(&names).await
}

/// What keeps plain tables of the home node from joining a group, beside what keeps them from being
/// sharded at all: all reasons.
pub(in super::super) async fn reasons(
    desk: &Desk<'_>,
    wanted: &Import,
    into: GroupId,
) -> Result<Vec<String>, MoveError> {
    let map = desk.context.live_map.snapshot();
    let home = desk.session(map.home()).await?;
    let (mut reasons, mut oids, mut bytes) = (Vec::new(), Vec::new(), 0);
    for table in &wanted.tables {
        let oid = look::oid(&home, &table.name).await?;
        bytes += size(&home, oid).await?;
        oids.push(oid);
    }
    reasons.extend(texts(&home, REASONS[0], &[&oids]).await?);
    let shards: Vec<_> = map.shards().filter(|(_, shard)| shard.group == into).collect();
    let mut nodes: Vec<NodeId> = shards.iter().map(|(_, shard)| shard.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut told = |result: Result<(), MoveError>| match result {
        Err(MoveError::Refused(why)) => {
            reasons.push(why);
            Ok(())
        }
        other => other,
    };
    told(can_stream(&home, nodes.len()).await)?;
    told(can_make(desk.context, map.home(), &home).await)?;
    let all = u64::try_from(shards.len().max(1)).unwrap_or(1);
    for node in nodes {
        let session = desk.session(node).await?;
        told(can_apply(&session).await)?;
        told(can_make(desk.context, node, &session).await)?;
        let here = shards.iter().filter(|(_, shard)| shard.node == node);
        let count = u64::try_from(here.clone().count()).unwrap_or(1);
        told(has_room(desk.context, &session, bytes / all * count).await)?;
        for (shard, _) in here {
            for table in &wanted.tables {
                told(is_free(&session, &leaf_name(&table.name, *shard)).await)?;
            }
        }
    }
    Ok(reasons)
}

async fn is_free(session: &Session, leaf: &TableName) -> Result<(), MoveError> {
    match look::table(session, leaf).await? {
        None => Ok(()),
        Some(_) => Err(MoveError::Refused(format!(
            "node {} has a table {leaf} already: rename it",
            session.node
        ))),
    }
}

impl Resharder<'_, '_> {
    /// The group of the tables, and that which they join.
    pub(super) fn groups(&self, map: &ShardMap) -> Vec<GroupId> {
        let names = [Some(self.wanted.group.as_str()), self.joins];
        names.into_iter().flatten().filter_map(|name| map.group_named(name)).collect()
    }

    /// The tables of all these: none of their shards moves meanwhile.
    pub(super) fn held(&self, map: &ShardMap) -> Vec<TableName> {
        let mut names = self.wanted.names();
        if let Some(into) = self.joins.and_then(|into| map.group_named(into)) {
            names.extend(map.tables_of(into).map(|table| table.name.clone()));
        }
        names
    }
}
