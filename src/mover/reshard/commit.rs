//! The decision, with the new map, and the commit on every node.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::super::error::MoveError;
use super::switch::{Closed, Ends};
use super::{Plan, Resharder};
use crate::catalog::{CatalogError, Change, Expect};
use crate::executor::CommitDecision;
use crate::shard_map::{NewKey, Shard, ShardMap};
use crate::sql::Literal;

/// How often the map is written that another writer was faster with.
const COMMITS: u32 = 20;

impl Resharder<'_, '_> {
    /// Decides, and commits what is prepared everywhere; how long the gates were closed. `None` if the
    /// map has changed so that it can't be done: nothing is, then.
    pub(super) async fn commit(
        &self,
        plan: &Plan,
        ends: Ends<'_>,
        mut closed: Closed<'_>,
    ) -> Result<Option<Duration>, MoveError> {
        let context = self.desk.context;
        let kept = match context.keep_map_elsewhere().await {
            Ok(kept) => kept,
            Err(error) => {
                ends.roll_back().await;
                return Err(error);
            }
        };
        closed.undecided = true;
        let next = match self.decide(plan, &ends).await {
            Ok(Some(next)) => next,
            undone => {
                closed.undecided = false;
                ends.roll_back().await;
                return undone.map(|_| None);
            }
        };
        context.pass("reshard_decided")?;
        let commit = format!("COMMIT PREPARED {}", Literal(ends.outside.gid()));
        let mut all_done = true;
        let all = ends.swaps.iter().map(async |swap| {
            let committed = swap.session.run("committing the new tables", &commit).await;
            context.pass("reshard_committed")?;
            Ok::<_, MoveError>((swap.node, committed))
        });
        for ended in join_all(all).await {
            let (node, committed) = ended?;
            if let Err(error) = committed {
                let error = error.story();
                tracing::warn!(error, "a prepared exchange is left to the resolver");
                ends.outside.doubt(node).await;
                all_done = false;
            }
        }
        context.live_map.publish(next);
        closed.undecided = false;
        let pause = closed.pause();
        drop((closed, kept));
        if all_done {
            let change = Change::new().delete(&ends.outside.decision(), Expect::Anything);
            if let Err(error) = context.catalog.commit(change).await {
                tracing::warn!(%error, "a finished commit decision stays in the catalog");
            }
        }
        Ok(Some(pause))
    }

    /// Stores the new map and the decision; `None` if it can't be the map's next state. An error means
    /// that nothing was stored.
    async fn decide(&self, plan: &Plan, ends: &Ends<'_>) -> Result<Option<ShardMap>, MoveError> {
        let catalog = &self.desk.context.catalog;
        for _ in 0..COMMITS {
            let none = || MoveError::Refused("the catalog holds no shard map".to_owned());
            let stored = catalog.get::<ShardMap>("").await?.ok_or_else(none)?;
            let Some(next) = self.next(plan, &stored.record) else { return Ok(None) };
            let change = Change::new()
                .put(&next, Expect::At(stored.revision))?
                .put(&ends.outside.decision(), Expect::Absent)?;
            match catalog.commit(change).await {
                Ok(_) => return Ok(Some(next)),
                Err(CatalogError::Conflict(_)) => {}
                // Whether it was stored nobody knows before the catalog answers.
                Err(error) => loop {
                    match catalog.get::<CommitDecision>(ends.outside.gid()).await {
                        Ok(Some(_)) => return Ok(Some(next)),
                        Ok(None) => return Err(error.into()),
                        Err(error) => {
                            tracing::error!(%error, "whether a new shard key is decided is open");
                        }
                    }
                    sleep(Duration::from_secs(1)).await;
                },
            }
        }
        Ok(None)
    }

    /// Whether the shards that get the rows are new ones, or those of the group that the tables join.
    fn has_room(&self, plan: &Plan, map: &ShardMap, same: impl Fn(&super::Part) -> bool) -> bool {
        let Some(into) = self.joins else {
            return plan.targets.iter().all(|part| map.shard(part.shard).is_none());
        };
        let of_group = map.shards().filter(|(_, it)| map.group_named(into) == Some(it.group));
        of_group.count() == plan.targets.len() && plan.targets.iter().all(same)
    }

    /// The map with the new key, or with the tables in the other group, if it is what the plan says.
    pub(super) fn next(&self, plan: &Plan, map: &ShardMap) -> Option<ShardMap> {
        let group = map.group_named(&self.wanted.group)?;
        let members: Vec<_> = map.members().map(|(node, _)| node).collect();
        let of_group = map.shards().filter(|(_, shard)| shard.group == group);
        let same = |part: &super::Part| {
            let there = map.shard(part.shard);
            there.is_some_and(|it| it.node == part.node && it.bounds == part.bounds)
        };
        let as_planned = members == plan.members
            && of_group.count() == plan.sources.len()
            && plan.sources.iter().all(same)
            && self.has_room(plan, map, same);
        if !as_planned {
            return None;
        }
        if let Some(into) = self.joins {
            return map.with_joined(group, map.group_named(into)?).ok();
        }
        let shard = |part: &super::Part| {
            (part.shard, Shard { group, bounds: part.bounds.clone(), node: part.node })
        };
        let tables = self.wanted.tables.iter().map(|it| (it.name.clone(), it.key.clone()));
        let new = NewKey {
            group,
            key: self.wanted.key.clone(),
            shards: plan.targets.iter().map(shard).collect(),
            tables: tables.collect(),
            functions: self.wanted.functions.clone(),
        };
        map.with_key(&new).ok()
    }
}
