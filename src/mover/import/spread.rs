//! The only shard of an imported group is split, step by step, until the group's shards are those of
//! the policy: ordinary splits, each part made on a node that is to have some of it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::super::context::now_unix_ms;
use super::super::error::MoveError;
use super::super::jobs::Desk;
use super::super::request::{RequestError, Wanted, request_any};
use crate::ids::{MoveId, NodeId, ShardId};
use crate::shard_map::{Bounds, ShardMap, Standing};
use crate::shard_move::{Cause, Import, Move, State, finer};

/// The longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The parts of a split: each needs two slots and connections on the source.
const FREE: &str = "SELECT least(current_setting('max_replication_slots')::bigint \
     - (SELECT count(*) FROM pg_replication_slots), current_setting('max_wal_senders')::bigint \
     - (SELECT count(*) FROM pg_stat_replication))";

/// Splits until nothing is left to split.
pub(super) async fn spread(desk: &mut Desk<'_>, import: &Import) -> Result<(), MoveError> {
    let map = desk.context.live_map.snapshot();
    let home = desk.session(map.home()).await?;
    let rows = home.rows("looking for free slots", FREE, &[]).await?;
    let free: i64 = rows.first().map_or(0, |row| row.get(0));
    let at_once = i64::try_from(desk.context.config().concurrent_moves.max(1)).unwrap_or(1);
    let most = usize::try_from(free / 2 / at_once).unwrap_or_default().max(2);
    let mut spreader = Spreader { import, most, asked: BTreeMap::new() };
    let mut commits = desk.context.catalog.watch::<Move>();
    loop {
        commits.mark_unchanged();
        if desk.called_off.is_cancelled() {
            let text = "the tables are sharded; foreshard import goes on with spreading them";
            desk.tell(text.to_owned()).await?;
            return Err(MoveError::CalledOff);
        }
        if spreader.step(desk).await? {
            break;
        }
        drop(timeout(LOOK_EVERY, commits.changed()).await);
    }
    desk.tell(format!("group {} is spread over its nodes", import.group)).await
}

struct Spreader<'a> {
    import: &'a Import,
    /// Parts of one split.
    most: usize,
    /// The splits that were asked for here and not seen ended.
    asked: BTreeMap<MoveId, ShardId>,
}

impl Spreader<'_> {
    /// Asks for what can be asked for now; whether nothing is left.
    async fn step(&mut self, desk: &mut Desk<'_>) -> Result<bool, MoveError> {
        let moves = desk.context.catalog.list::<Move>().await?;
        for mv in moves.iter().map(|found| &found.record).filter(|mv| mv.is_finished()) {
            let Some(shard) = self.asked.remove(&mv.id) else { continue };
            if mv.state == State::Aborted {
                let why = mv.error.as_deref().unwrap_or("it was undone");
                return Err(MoveError::Refused(format!(
                    "the tables are sharded, but shard {shard} could not be split: {why}; \
                     foreshard import {} goes on with it",
                    self.import.group
                )));
            }
            desk.context.pass("import_split")?;
        }
        let map = desk.context.live_map.snapshot();
        let Some(group) = map.group_named(&self.import.group) else { return Ok(true) };
        let takers = map.members().filter(|(_, node)| node.standing == Standing::Member);
        let takers: Vec<NodeId> = takers.map(|(id, _)| id).collect();
        let node = |at: usize| takers.get(at % takers.len().max(1)).copied().unwrap_or(map.home());
        let mut left = false;
        let shards: Vec<(ShardId, Bounds)> = map
            .shards()
            .filter(|(_, shard)| shard.group == group)
            .map(|(id, shard)| (id, shard.bounds.clone()))
            .collect();
        for (shard, bounds) in shards {
            let Some(parts) = finer(&bounds, &self.import.bounds, self.most) else { continue };
            left = true;
            if self.asked.values().any(|asked| *asked == shard) {
                continue;
            }
            let parts = parts.into_iter().map(|(bounds, at)| (bounds, node(at))).collect();
            self.ask(desk, &map, shard, parts).await?;
        }
        Ok(!left && self.asked.is_empty())
    }

    async fn ask(
        &mut self,
        desk: &mut Desk<'_>,
        map: &ShardMap,
        shard: ShardId,
        parts: Vec<(Bounds, NodeId)>,
    ) -> Result<(), MoveError> {
        let count = parts.len();
        let wanted = Wanted::Parts { shard, parts };
        let reason = format!("the import of group {} spreads it over the nodes", self.import.group);
        let cause = Cause::Controller { reason, predicted_crossing_unix_ms: None };
        match request_any(&desk.context.catalog, map, &wanted, cause, now_unix_ms()).await {
            Ok(id) => {
                self.asked.insert(id, shard);
                desk.tell(format!("move {id}: shard {shard} into {count}")).await
            }
            // Somebody else moves it, or the map is newer: the next look tells.
            Err(RequestError::UnderWay { .. } | RequestError::NoShard(_)) => Ok(()),
            Err(RequestError::Catalog(error)) => Err(error.into()),
            Err(error) => Err(MoveError::Refused(error.to_string())),
        }
    }
}
