//! Plain tables of the home node join a group that is sharded already: they are imported as a group of
//! their own, with one shard on the home node, whose rows are brought to the shards of the other one
//! then (`reshard/join.rs`). Between the two they are sharded tables as any other. What is cut off goes
//! on where it was.

use super::super::error::MoveError;
use super::super::jobs::Desk;
use super::super::look;
use super::super::reshard;
use super::{become_sharded, settle};
use crate::ids::GroupId;
use crate::shard_map::{ShardMap, arriving};
use crate::shard_move::{Errand, Import, ImportedTable};

/// Brings all tables of the policy's group that are plain ones to the group that the map has; whether
/// there are some.
pub(super) async fn arrive(desk: &mut Desk<'_>, import: &Import) -> Result<bool, MoveError> {
    if !import.check_only {
        desk.wait_turn().await?;
        let arriving = arriving(&import.group);
        let on_their_way = desk.context.live_map.snapshot().group_named(&arriving).is_some();
        if !on_their_way || desk.job.record.resharding.is_none() {
            reshard::finish_join(desk, import).await?;
        }
    }
    let mut some = false;
    loop {
        let map = desk.context.live_map.snapshot();
        let Some(into) = map.group_named(&import.group) else { return Ok(some) };
        let Some(own) = coming(desk, import, (&map, into)).await? else { return Ok(some) };
        some = true;
        let is_there = map.group_named(&own.group).is_some();
        if !is_there {
            check(desk, import, &own, (&map, into)).await?;
        }
        if import.check_only {
            if !is_there {
                become_sharded(desk, &own).await?;
            }
            let shards = map.shards().filter(|(_, shard)| shard.group == into).count();
            let text =
                format!("then their rows go to the {shards} shards of group {}", import.group);
            desk.tell(text).await?;
            return Ok(true);
        }
        mark(desk, import).await?;
        if !is_there {
            become_sharded(desk, &own).await?;
        }
        if desk.job.record.resharding.is_none() {
            settle(desk, &own).await?;
        }
        if let Err(error) = Box::pin(reshard::join(desk, &own, &import.group)).await {
            if !error.ends_the_driver() {
                let text = format!(
                    "the tables are sharded, and not in group {0} yet: foreshard import {0} goes on \
                     with it",
                    import.group
                );
                drop(desk.tell(text).await);
            }
            return Err(error);
        }
    }
}

/// Stores that the job is about these tables: whatever comes between, it does not cut the group's shards.
async fn mark(desk: &mut Desk<'_>, import: &Import) -> Result<(), MoveError> {
    let mut job = desk.job.record.clone();
    job.errand = Errand::Import(Box::new(Import { split: false, ..import.clone() }));
    desk.store(job).await
}

/// Those that are on their way already, or all that are plain ones, as a group of their own.
async fn coming(
    desk: &Desk<'_>,
    import: &Import,
    (map, into): (&ShardMap, GroupId),
) -> Result<Option<Import>, MoveError> {
    let group = arriving(&import.group);
    let tables: Vec<ImportedTable> = if let Some(own) = map.group_named(&group) {
        let is_there = |it: &&ImportedTable| map.tables_of(own).any(|at| at.name == it.name);
        let tables: Vec<_> = import.tables.iter().filter(is_there).cloned().collect();
        if tables.len() < map.tables_of(own).count() {
            return Err(MoveError::Refused(format!(
                "a table that is on its way to group {} is none of its tables in the policy any \
                     more: write it there again",
                import.group
            )));
        }
        tables
    } else {
        let home = desk.session(map.home()).await?;
        let mut tables = Vec::new();
        for table in import.tables.iter().filter(|it| map.table(&it.name).is_none()) {
            if look::table(&home, &table.name).await?.is_some() {
                tables.push(table.clone());
            }
        }
        tables
    };
    let shards = map.shards().filter(|(_, shard)| shard.group == into);
    let own = Import {
        group,
        key: import.key.clone(),
        bounds: shards.map(|(_, shard)| shard.bounds.clone()).collect(),
        tables,
        functions: Vec::new(),
        split: false,
        check_only: import.check_only,
    };
    Ok((!own.tables.is_empty()).then_some(own))
}

/// Whether they can get to the group's shards once they are sharded.
async fn check(
    desk: &Desk<'_>,
    import: &Import,
    own: &Import,
    (map, into): (&ShardMap, GroupId),
) -> Result<(), MoveError> {
    let here = |it: &&ImportedTable| map.table(&it.name).is_some();
    let tables = import.tables.iter().filter(here).cloned().collect();
    if !(Import { tables, ..import.clone() }).is_in_force(map) {
        return Err(MoveError::Refused(format!(
            "group {0} has another shard key than the policy says: tables can't join it before \
             foreshard reshard {0}, for which the policy has to name those of now only",
            import.group
        )));
    }
    let reasons = reshard::reasons_against_join(desk, own, into).await?;
    if reasons.is_empty() {
        return Ok(());
    }
    Err(MoveError::Refused(format!(
        "the tables can't join group {}:\n  {}",
        import.group,
        reasons.join("\n  ")
    )))
}
