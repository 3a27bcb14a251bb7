//! The last step of an import over all nodes: prepared everywhere, decided with the new map, and
//! committed.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::super::error::MoveError;
use super::super::session::{Session, jitter};
use super::swap::{Obstacle, Swap};
use super::{Importer, Plain, unread};
use crate::catalog::{CatalogError, Change, Expect};
use crate::executor::{CommitDecision, OutsideCommit};
use crate::ids::{NodeId, ShardId};
use crate::shard_map::{Column, NewGroup, ShardMap, Standing};
use crate::shard_move::Move;
use crate::sql::{Literal, TableName};

/// How long DDL under way may take.
const DDL: Duration = Duration::from_secs(5);
/// How often the map is written that another writer was faster with.
const COMMITS: u32 = 20;
/// The longest that statements wait for a try, in ms; the first ones are shorter.
const FIRST_LOCK_MS: u64 = 20;

/// How a try of the last step ended.
pub(super) enum Tried {
    /// The tables are sharded; statements waited so long at the most.
    Switched(Duration),
    /// The twins are not as the tables are now.
    Changed,
    /// Somebody was in the way; nothing has changed.
    Later(String),
}

/// Nodes that have prepared their part.
struct Prepared {
    outside: OutsideCommit,
    parts: Vec<(NodeId, Session)>,
}

impl Importer<'_, '_> {
    /// A few tries at once; no definition changes meanwhile.
    pub(super) async fn try_switch(
        &mut self,
        tables: &[Plain],
        twins: &[String],
    ) -> Result<Tried, MoveError> {
        let Ok(_no_ddl) = timeout(DDL, self.desk.engine.ddl_lock.shared()).await else {
            return Ok(Tried::Later("a definition is being changed".to_owned()));
        };
        if self.twins(tables).await? != twins {
            return Ok(Tried::Changed);
        }
        let map = self.desk.context.live_map.snapshot();
        if let Some((_, node)) = map.nodes().find(|(_, node)| node.standing == Standing::Joining) {
            return Ok(Tried::Later(format!("node {} is joining", node.name)));
        }
        let group = self.new_group(&map).await?;
        let prepared = self.prepare_others(&map, tables).await?;
        let swap = async {
            let names = (self.job(), super::beside(self.job()));
            let made = (names.0, names.1.as_str());
            Swap::read(&self.home, tables, made, (group.shard, &group.bounds)).await
        };
        let swap = match swap.await {
            Ok(swap) => swap,
            Err(error) => {
                roll_back(&prepared).await?;
                return Err(error);
            }
        };
        let (config, mut reason) = (self.desk.context.config(), String::new());
        for attempt in 0..config.switch_tries.max(1) {
            let lock_ms = (FIRST_LOCK_MS << attempt.min(8)).min(config.drain_deadline_ms.max(1));
            let began = Instant::now();
            match swap.prepare(&self.home, prepared.outside.gid(), lock_ms).await {
                Ok(()) => {
                    self.desk.context.pass("import_prepared")?;
                    return self.commit(prepared, (&map, &group), began).await;
                }
                Err(Obstacle::Passing(why)) => reason = why,
                Err(Obstacle::Changed) => {
                    roll_back(&prepared).await?;
                    return Ok(Tried::Changed);
                }
                Err(Obstacle::Failed(error)) => {
                    roll_back(&prepared).await?;
                    return Err(error);
                }
            }
            sleep(jitter(config.backoff(25, attempt))).await;
        }
        roll_back(&prepared).await?;
        Ok(Tried::Later(swap.holder(&self.home).await?.unwrap_or(reason)))
    }

    /// What the map is going to have.
    async fn new_group(&self, map: &ShardMap) -> Result<NewGroup, MoveError> {
        let moves = self.desk.context.catalog.list::<Move>().await?;
        let taken = |shard: ShardId| {
            moves.iter().any(|mv| !mv.record.is_finished() && mv.record.touches(shard))
        };
        let none = || MoveError::Refused("the group has no bounds".to_owned());
        let shard = map.free_shards(1, taken).first().copied().ok_or_else(none)?;
        let names = self.import.names();
        let found = self.desk.engine.read_columns(&names).await.map_err(unread)?;
        let columns = |name: &TableName| -> Vec<Column> {
            let of = found.iter().find(|(found, _)| *found == name);
            of.map(|(_, columns)| columns.clone()).unwrap_or_default()
        };
        let tables = self.import.tables.iter();
        Ok(NewGroup {
            name: self.import.group.clone(),
            key: self.import.key.clone(),
            shard,
            bounds: self.import.whole().ok_or_else(none)?,
            node: map.home(),
            tables: tables.map(|it| (it.name.clone(), it.key.clone(), columns(&it.name))).collect(),
            functions: self.import.functions.clone(),
        })
    }

    /// The definitions on all other nodes, prepared.
    async fn prepare_others(
        &self,
        map: &ShardMap,
        tables: &[Plain],
    ) -> Result<Prepared, MoveError> {
        let outside = OutsideCommit::new(&self.desk.engine);
        let mut prepared = Prepared { outside, parts: Vec::new() };
        for (node, _) in map.members().filter(|(node, _)| *node != map.home()) {
            let session = self.desk.session(node).await?;
            let sql = self.definitions(map, node, tables).await?;
            let sql = format!(
                "BEGIN; SET LOCAL check_function_bodies = off; {sql}; PREPARE TRANSACTION {}",
                Literal(prepared.outside.gid())
            );
            if let Err(error) = session.run("making the definitions", &sql).await {
                session.run("rolling back", "ROLLBACK").await?;
                roll_back(&prepared).await?;
                return Err(error);
            }
            prepared.parts.push((node, session));
        }
        self.desk.context.pass("import_defined")?;
        Ok(prepared)
    }

    /// Decides, and commits what is prepared everywhere.
    async fn commit(
        &mut self,
        prepared: Prepared,
        (map, group): (&ShardMap, &NewGroup),
        began: Instant,
    ) -> Result<Tried, MoveError> {
        let kept = self.desk.context.keep_map_elsewhere().await;
        let decided = match &kept {
            Ok(_) => self.decide(&prepared.outside, map, group).await,
            Err(error) => Err(MoveError::Busy(error.to_string())),
        };
        let gid = Literal(prepared.outside.gid()).to_string();
        let next = match decided {
            Ok(Some(next)) => next,
            undecided => {
                self.home.run("rolling back", &format!("ROLLBACK PREPARED {gid}")).await?;
                roll_back(&prepared).await?;
                let why = "the map was changed meanwhile".to_owned();
                return undecided.map(|_| Tried::Later(why));
            }
        };
        self.desk.context.pass("import_decided")?;
        let commit = format!("COMMIT PREPARED {gid}");
        let mut left = Vec::new();
        if let Err(error) = self.home.run("committing the import", &commit).await {
            tracing::warn!(error = error.story(), "a prepared import is left to the resolver");
            left.push(map.home());
        }
        let pause = began.elapsed();
        self.desk.context.pass("import_committed")?;
        for (node, session) in &prepared.parts {
            if let Err(error) = session.run("committing the definitions", &commit).await {
                tracing::warn!(error = error.story(), "a prepared import is left to the resolver");
                left.push(*node);
            }
        }
        for node in &left {
            prepared.outside.doubt(*node).await;
        }
        self.desk.context.live_map.publish(next);
        drop(kept);
        if left.is_empty() {
            let change = Change::new().delete(&prepared.outside.decision(), Expect::Anything);
            if let Err(error) = self.desk.context.catalog.commit(change).await {
                tracing::warn!(%error, "a finished commit decision stays in the catalog");
            }
        }
        Ok(Tried::Switched(pause))
    }

    /// Stores the map with the group, and the decision; `None` if it can't be the map's next state. An
    /// error means that nothing was stored.
    async fn decide(
        &self,
        outside: &OutsideCommit,
        seen: &ShardMap,
        group: &NewGroup,
    ) -> Result<Option<ShardMap>, MoveError> {
        let catalog = &self.desk.context.catalog;
        let members = |map: &ShardMap| {
            map.members().map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>()
        };
        for _ in 0..COMMITS {
            let none = || MoveError::Refused("the catalog holds no shard map".to_owned());
            let stored = catalog.get::<ShardMap>("").await?.ok_or_else(none)?;
            if members(&stored.record) != members(seen) {
                return Ok(None);
            }
            let Ok(next) = stored.record.with_group(group) else { return Ok(None) };
            let change = Change::new()
                .put(&next, Expect::At(stored.revision))?
                .put(&outside.decision(), Expect::Absent)?;
            match catalog.commit(change).await {
                Ok(_) => return Ok(Some(next)),
                Err(CatalogError::Conflict(_)) => {}
                // Whether it was stored nobody knows before the catalog answers.
                Err(error) => loop {
                    match catalog.get::<CommitDecision>(outside.gid()).await {
                        Ok(Some(_)) => return Ok(Some(next)),
                        Ok(None) => return Err(error.into()),
                        Err(error) => {
                            tracing::error!(%error, "whether an import is decided is open");
                        }
                    }
                    sleep(Duration::from_secs(1)).await;
                },
            }
        }
        Ok(None)
    }
}

/// Rolls back what the other nodes have prepared. What can't be is left to the resolver.
async fn roll_back(prepared: &Prepared) -> Result<(), MoveError> {
    let sql = format!("ROLLBACK PREPARED {}", Literal(prepared.outside.gid()));
    for (_, session) in &prepared.parts {
        if let Err(error) = session.run("rolling back", &sql).await {
            tracing::warn!(error = error.story(), "a prepared import is left to the resolver");
        }
    }
    Ok(())
}
