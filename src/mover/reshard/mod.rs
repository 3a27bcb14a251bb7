//! A group gets another shard key, or is cut in another way, while clients go on: every row is brought
//! to the node where it belongs by the new key.
//!
//! Each node gets a partitioned twin of each table, in a schema of its own. Rows are copied into the
//! twins from every node's partitions, and what is written meanwhile follows by logical replication, as
//! in a move: a lane goes from each node with shards to each node that is going to have some. When
//! both sides were found equal, the gates of the whole group close for a moment, and the twins take the
//! tables' names in one transaction over all nodes, which is committed in two phases with the map that
//! has the new key. All that was made before is named after the job and goes if that is not reached;
//! then the old tables go. There is no way back but to do the same again. What is cut off goes on from the
//! stage that is stored with the job (`stages.rs`).
//!
//! In the same way tables join another group (`join.rs`): their rows are brought to its shards.

mod check;
mod clean;
mod commit;
mod join;
mod stages;
mod swap;
mod switch;
mod twins;

use std::time::Duration;

use super::apply::Applier;
use super::catch_up::catch_up;
use super::error::MoveError;
use super::jobs::{Desk, unless};
use super::lane::streams;
use super::names::of_job;
use super::session::jitter;
use super::{recall, verify};
use crate::executor::ColumnsError;
use crate::ids::{JobId, MoveId, NodeId};
use crate::shard_map::ShardMap;
use crate::shard_move::{Import, ImportedTable, Move, Part, Proof, Resharding, Stage};
use crate::sql::TableName;
pub(super) use join::{finish as finish_join, join, reasons as reasons_against_join};
use switch::Tried;

/// How often it is looked whether the group's moves have ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is going to be done.
struct Plan {
    /// The rows' ways, each from one node to another.
    mv: Move,
    /// Every node that has the tables' definitions.
    members: Vec<NodeId>,
    /// The group's shards.
    sources: Vec<Part>,
    /// Its new ones.
    targets: Vec<Part>,
    /// Its tables that exist, with their new keys.
    tables: Vec<ImportedTable>,
    /// Their definitions on each node, fingerprinted in the order of `members`.
    shapes: Vec<String>,
}

/// An id that no move has, for progress.
fn move_id(job: JobId) -> MoveId {
    MoveId(u64::MAX - job.0)
}

/// The schema in which the twins wait.
fn beside(job: JobId) -> String {
    format!("foreshard_reshard_{job}")
}

/// The schema in which the old tables wait for their end.
fn behind(job: JobId) -> String {
    format!("foreshard_reshard_{job}_old")
}

/// Gives a group the key and the shards that the policy says, from wherever an earlier process left it.
pub(super) async fn reshard(desk: &mut Desk<'_>, wanted: &Import) -> Result<(), MoveError> {
    let map = desk.context.live_map.snapshot();
    if map.group_named(&wanted.group).is_none() {
        return Err(MoveError::Refused(format!(
            "group {0} is not sharded yet: foreshard import {0} makes sharded tables of plain ones",
            wanted.group
        )));
    }
    let mut work = Resharder { wanted, joins: None, desk };
    if wanted.check_only {
        if wanted.is_in_force(&map) {
            return work.desk.tell(work.in_force()).await;
        }
        return work.plan(&map).await.map(drop);
    }
    work.desk.wait_turn().await?;
    work.run().await
}

fn unread(error: ColumnsError) -> MoveError {
    match error {
        ColumnsError::Catalog(error) => error.into(),
        other => MoveError::Busy(other.to_string()),
    }
}

/// A job on its way to the new key, or to another group with the same one.
struct Resharder<'a, 'b> {
    wanted: &'a Import,
    /// The group that the tables join; `None` where theirs gets another key.
    joins: Option<&'a str>,
    desk: &'a mut Desk<'b>,
}

impl Resharder<'_, '_> {
    /// From wherever an earlier process left it.
    async fn run(&mut self) -> Result<(), MoveError> {
        let map = self.desk.context.live_map.snapshot();
        let names = self.held(&map);
        if self.is_done(&map) {
            self.desk.tell(self.in_force()).await?;
            return self.finish(&names).await;
        }
        match self.desk.job.record.resharding.as_deref() {
            Some(Resharding { stage: Stage::Undoing, error, .. }) => {
                let error = MoveError::Refused(error.clone().unwrap_or_default());
                return Err(self.give_up(error).await);
            }
            Some(begun) => {
                let text = format!("it goes on where it was: {}", begun.stage.word());
                self.desk.tell(text).await?;
            }
            None => {
                // What a job has left that failed.
                self.undo().await?;
                if self.desk.called_off.is_cancelled() {
                    self.set_on_the_way(Vec::new()).await?;
                    return Err(MoveError::CalledOff);
                }
                // Everything is checked before anybody is held up.
                self.plan(&map).await?;
            }
        }
        let begun = match self.set_on_the_way(names.clone()).await {
            Ok(()) => Box::pin(self.bring()).await,
            error => error,
        };
        if let Err(error) = begun {
            if error.ends_the_driver() {
                return Err(error);
            }
            if !self.is_done(&self.desk.context.live_map.snapshot()) {
                self.desk.context.progress.forget(move_id(self.job()));
                return Err(self.give_up(error).await);
            }
        }
        self.finish(&names).await
    }

    /// Whether the map has what is wanted.
    fn is_done(&self, map: &ShardMap) -> bool {
        match self.joins {
            None => self.wanted.is_in_force(map),
            Some(_) => map.group_named(&self.wanted.group).is_none(),
        }
    }

    fn job(&self) -> JobId {
        self.desk.job.record.id
    }

    fn in_force(&self) -> String {
        match self.joins {
            None => format!("group {} is sharded by this key already", self.wanted.group),
            Some(into) => format!("the tables are in group {into} already"),
        }
    }

    /// What the names of its slots, publications and positions begin with.
    fn prefix(&self) -> String {
        of_job(self.job(), self.desk.job.record.requested_unix_ms)
    }

    /// Publishes which tables are on their way: no move of them begins.
    async fn set_on_the_way(&self, names: Vec<TableName>) -> Result<(), MoveError> {
        let change = |map: &ShardMap| {
            (map.importing() != names.as_slice()).then(|| map.with_importing(names.clone()))
        };
        self.desk.engine.change_map(change).await.map_err(unread)
    }

    /// Waits until no move has one of the group's shards; old copies that are only kept go.
    async fn wait_for_moves(&mut self) -> Result<(), MoveError> {
        let mut told = None;
        loop {
            let map = self.desk.context.live_map.snapshot();
            let groups = self.groups(&map);
            let ours = |part: &Part| {
                map.shard(part.shard).is_some_and(|shard| groups.contains(&shard.group))
            };
            let of_group = |mv: &Move| {
                mv.sources().iter().any(ours) || (mv.is_aside() && mv.targets().iter().any(ours))
            };
            let moves = self.desk.context.catalog.list::<Move>().await?;
            let mut left = moves.iter().filter(|mv| !mv.record.is_finished());
            let Some(mv) = left.find(|mv| of_group(&mv.record)) else { return Ok(()) };
            let reason = match self.joins {
                None => format!("group {} gets another shard key", self.wanted.group),
                Some(into) => format!("tables join group {into}"),
            };
            recall::let_lapse(&self.desk.context.catalog, mv, reason).await?;
            if told != Some(mv.record.id) {
                told = Some(mv.record.id);
                self.desk.tell(format!("waiting: move {} is under way", mv.record.id)).await?;
            }
            self.desk.rest(LOOK_EVERY).await?;
        }
    }

    /// Applies the streams, compares, and switches as soon as nobody is in the way.
    async fn follow(&mut self, plan: &Plan) -> Result<(), MoveError> {
        let config = self.desk.context.config();
        let (mut postponed, mut reason) = (0, String::new());
        loop {
            match Box::pin(self.follow_once(plan)).await? {
                Tried::Switched(pause) => {
                    let what = match self.joins {
                        None => format!("group {} is sharded by its new key", self.wanted.group),
                        Some(into) => format!("the tables are in group {into}"),
                    };
                    let pause = pause.as_secs_f64() * 1e3;
                    let text = format!("{what}; statements waited {pause:.1} ms");
                    return self.desk.tell(text).await;
                }
                Tried::Later(why) if postponed < config.postponements_max => {
                    postponed += 1;
                    if why != reason {
                        self.desk.tell(format!("waiting: {why}")).await?;
                        reason = why;
                    }
                }
                Tried::Later(why) => {
                    let text = format!("the last step was put off too often: {why}");
                    return Err(MoveError::Refused(text));
                }
            }
            let wait = config.backoff(config.switch_backoff_ms, postponed);
            self.desk.rest(jitter(wait)).await?;
        }
    }

    /// The streams anew from where they are applied, up to a few tries of the switch.
    async fn follow_once(&mut self, plan: &Plan) -> Result<Tried, MoveError> {
        let context = self.desk.context;
        let mut appliers = Vec::new();
        for stream in streams(&plan.mv) {
            appliers.push(Applier::start(context, &stream).await?);
        }
        let called_off = self.desk.called_off.clone();
        unless(&called_off, catch_up(context, &plan.mv, &mut appliers)).await?;
        if !self.is_verified() {
            let compared = verify::compare(context, &plan.mv, &mut appliers);
            let proofs = unless(&called_off, compared).await?;
            let rows: u64 = proofs.iter().map(|proof: &Proof| proof.rows).sum();
            context.pass("reshard_verified")?;
            let text = format!("{rows} rows are equal on both sides");
            self.store(text, |resharding| resharding.verified = true).await?;
            unless(&called_off, catch_up(context, &plan.mv, &mut appliers)).await?;
        }
        self.switch(plan, &mut appliers).await
    }

    /// After the switch: the old tables go, and all that hangs on the new ones is made known. What is in
    /// the way of that is waited for, unless the job is called off.
    async fn finish(&mut self, names: &[TableName]) -> Result<(), MoveError> {
        let config = self.desk.context.config();
        let (mut tries, mut reason) = (0, String::new());
        loop {
            let error = match self.try_to_finish(names).await {
                Err(error) if error.is_passing() && !error.ends_the_driver() => error,
                ended => return ended,
            };
            tries += 1;
            let why = error.story();
            if why != reason {
                drop(self.desk.tell(format!("waiting: {why}")).await);
                reason = why;
            }
            let wait = jitter(config.backoff(config.switch_backoff_ms, tries));
            if self.desk.rest(wait).await.is_err() {
                return Err(error);
            }
        }
    }

    async fn try_to_finish(&mut self, names: &[TableName]) -> Result<(), MoveError> {
        self.desk.context.progress.forget(move_id(self.job()));
        self.desk.context.pass("reshard_switched")?;
        self.desk.engine.refresh_columns(names).await.map_err(unread)?;
        self.desk.engine.refresh_derived().await.map_err(unread)?;
        let dropped = self.clean_up().await?;
        let left = |map: &ShardMap| {
            let left = map.importing().iter().filter(|name| !names.contains(name));
            let left: Vec<TableName> = left.cloned().collect();
            (left.len() < map.importing().len()).then(|| map.with_importing(left))
        };
        self.desk.engine.change_map(left).await.map_err(unread)?;
        self.desk.context.pass("reshard_finished")?;
        if dropped {
            self.desk.tell("the old tables are gone".to_owned()).await?;
        }
        Ok(())
    }
}

/// A partition's twin, beside those of other nodes' names.
fn twin_leaf(job: JobId, leaf: &TableName) -> TableName {
    TableName::new(beside(job), leaf.name.as_str())
}
