//! Plain tables of the home node become sharded ones, while clients go on: each becomes the only
//! partition of a partitioned table that takes its name.
//!
//! A twin of each table, partitioned and without rows, is made beside it, and the rows are proved to
//! fit, which takes the longest and disturbs nobody. Then the twins take the tables' names and places
//! in one transaction over all nodes, which is committed in two phases with the map that has the group.
//! All that was made before is named after the job and goes if that is not reached; what a crash
//! leaves in the middle of the commit the resolver ends either way. Afterwards the group has one shard,
//! which ordinary splits spread over the nodes. Tables of a group that is sharded already go to its shards
//! instead (`arrive.rs`).

mod arrive;
mod commit;
pub(super) mod define;
mod look;
pub(super) mod refuse;
mod spread;
pub(super) mod swap;

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::error::MoveError;
use super::jobs::{Desk, unless};
use super::names::quoted;
use super::session::{Session, jitter};
use crate::executor::ColumnsError;
use crate::ids::JobId;
use crate::shard_map::Bounds;
use crate::shard_move::Import;
use crate::sql::TableName;
use commit::Tried;
use define::Place;

/// How often it begins anew because of changed definitions.
const TRIES: u32 = 10;
/// How long what began before the tables were known to be imported is waited for at first; it is seen
/// by its locks, too.
const EARLIER: Duration = Duration::from_secs(5);
/// How long what was routed before the tables were sharded is waited for.
const ROUTED_BEFORE: Duration = Duration::from_mins(10);
/// How long and how often tables are asked for in a row, to get or lose a check, in ms.
const CHECK_LOCK: (u64, u32) = (30, 3);
/// How often what is to be undone is tried; the waits between grow.
const UNDO_TRIES: u32 = 12;

/// A table on the home node that is imported.
#[derive(Debug, Clone)]
pub(super) struct Plain {
    pub(super) name: TableName,
    pub(super) oid: u32,
    pub(super) key: Vec<String>,
}

/// The schema in which the twins wait.
fn beside(job: JobId) -> String {
    format!("foreshard_import_{job}")
}

/// The CHECK that proves that all rows fit.
fn helper_check(job: JobId) -> String {
    beside(job)
}

/// Imports a group, from wherever an earlier process left it.
pub(super) async fn import(desk: &mut Desk<'_>, import: &Import) -> Result<(), MoveError> {
    let map = desk.context.live_map.snapshot();
    if map.group_named(&import.group).is_none() {
        become_sharded(desk, import).await?;
        if import.check_only {
            return Ok(());
        }
    } else if Box::pin(arrive::arrive(desk, import)).await? {
        return Ok(());
    } else if import.check_only {
        return desk.tell(format!("group {} is sharded already", import.group)).await;
    }
    settle(desk, import).await?;
    if import.split {
        return spread::spread(desk, import).await;
    }
    let map = desk.context.live_map.snapshot();
    let group = map.group_named(&import.group);
    let one = map.shards().filter(|(_, shard)| Some(shard.group) == group).count() == 1;
    let text = if one { "has one shard: foreshard split cuts it" } else { "is sharded" };
    desk.tell(format!("group {} {text}", import.group)).await
}

/// Plain tables become the group that the map does not have yet, or are only looked at.
async fn become_sharded(desk: &mut Desk<'_>, import: &Import) -> Result<(), MoveError> {
    let home = desk.context.live_map.snapshot().home();
    let mut importer = Importer { import, home: desk.session(home).await?, desk };
    if !import.check_only {
        importer.desk.wait_turn().await?;
        importer.undo().await?;
        if importer.desk.called_off.is_cancelled() {
            importer.set_importing(Vec::new()).await?;
            return Err(MoveError::CalledOff);
        }
    }
    let tables = importer.check().await?;
    if import.check_only {
        return Ok(());
    }
    importer.set_importing(import.names()).await?;
    let made = importer.make(tables).await;
    let map = importer.desk.context.live_map.snapshot();
    if made.as_ref().is_err_and(|error| !error.ends_the_driver())
        && map.group_named(&import.group).is_none()
    {
        importer.give_up().await;
    }
    made
}

/// Waits until nobody acts by the map in which the tables were plain ones, and makes all that hangs on
/// them known; moves of the shard wait until then.
async fn settle(desk: &mut Desk<'_>, import: &Import) -> Result<(), MoveError> {
    let ended = timeout(ROUTED_BEFORE, desk.context.elsewhere_ended()).await;
    let Ok(ended) = ended else {
        return Err(MoveError::Busy(
            "the tables are sharded, but transactions that began before do not end: foreshard \
             import again goes on with it"
                .to_owned(),
        ));
    };
    ended?;
    desk.engine.refresh_columns(&import.names()).await.map_err(unread)?;
    desk.engine.refresh_derived().await.map_err(unread)?;
    let ours = import.names();
    let done = |map: &crate::shard_map::ShardMap| {
        let left = map.importing().iter().filter(|name| !ours.contains(name));
        let left: Vec<TableName> = left.cloned().collect();
        (left.len() < map.importing().len()).then(|| map.with_importing(left))
    };
    desk.engine.change_map(done).await.map_err(unread)?;
    desk.context.pass("import_settled")
}

fn unread(error: ColumnsError) -> MoveError {
    match error {
        ColumnsError::Catalog(error) => error.into(),
        other => MoveError::Busy(other.to_string()),
    }
}

/// A job on its way to the sharded tables.
struct Importer<'a, 'b> {
    import: &'a Import,
    desk: &'a mut Desk<'b>,
    home: Session,
}

impl Importer<'_, '_> {
    fn job(&self) -> JobId {
        self.desk.job.record.id
    }

    /// Makes the twins, and lets them take the tables' places; anew if definitions change meanwhile.
    async fn make(&mut self, mut tables: Vec<Plain>) -> Result<(), MoveError> {
        for tries in 0..TRIES {
            if tries > 0 {
                self.undo().await?;
                tables = self.check().await?;
            }
            let twins = self.twins(&tables).await?;
            self.build(&tables, &twins).await?;
            if self.switch(&tables, &twins).await? {
                return Ok(());
            }
            self.desk.tell("definitions were changed meanwhile: once more".to_owned()).await?;
        }
        Err(MoveError::Busy("definitions were changed all the time: try again later".to_owned()))
    }

    /// The statements that make the twins.
    async fn twins(&self, tables: &[Plain]) -> Result<Vec<String>, MoveError> {
        let schema = beside(self.job());
        let mut all = vec![format!("CREATE SCHEMA {}", quoted(&schema))];
        for table in tables {
            let place = Place::Beside(&schema);
            all.extend(define::statements(&self.home, table, self.method(), place).await?);
        }
        Ok(all)
    }

    fn method(&self) -> crate::shard_map::Method {
        let first = self.import.bounds.first().and_then(Bounds::method);
        first.unwrap_or(crate::shard_map::Method::Hash)
    }

    /// Makes the twins, and has PostgreSQL prove that all rows fit.
    async fn build(&mut self, tables: &[Plain], twins: &[String]) -> Result<(), MoveError> {
        let sql = format!("BEGIN; {}; COMMIT", twins.join("; "));
        if let Err(error) = self.home.run("making the partitioned tables", &sql).await {
            self.home.run("rolling back", "ROLLBACK").await?;
            return Err(error);
        }
        self.desk.context.pass("import_made")?;
        let Some(bounds @ Bounds::Hash { .. }) = self.import.whole() else { return Ok(()) };
        let check = quoted(&helper_check(self.job()));
        for table in tables {
            let twin = TableName::new(beside(self.job()), table.name.name.as_str());
            let parent = super::look::oid(&self.home, &twin).await?;
            let condition = bounds.condition(&table.key, parent);
            let sql = format!(
                "ALTER TABLE {} ADD CONSTRAINT {check} CHECK ({condition}) NOT VALID",
                table.name
            );
            let tries = self.desk.context.config().postponements_max;
            let called_off = self.desk.called_off.clone();
            let oids = [table.oid];
            unless(&called_off, self.patiently("adding a check", &sql, &oids, tries)).await?;
            self.desk.context.pass("import_checked")?;
            let sql = format!("ALTER TABLE {} VALIDATE CONSTRAINT {check}", table.name);
            let proof = self.home.run_long("proving that all rows fit", &sql);
            unless(&self.desk.called_off, proof).await?;
        }
        self.desk.context.pass("import_validated")?;
        self.desk.tell("all rows fit".to_owned()).await
    }

    /// Lets the twins take the tables' places as soon as nobody is in the way; no if definitions
    /// changed meanwhile.
    async fn switch(&mut self, tables: &[Plain], twins: &[String]) -> Result<bool, MoveError> {
        drop(timeout(EARLIER, self.desk.context.elsewhere_ended()).await);
        let config = self.desk.context.config();
        let mut reason = String::new();
        for postponed in 0..config.postponements_max.max(1) {
            match self.try_switch(tables, twins).await? {
                Tried::Switched(pause) => {
                    let text = format!(
                        "the tables are sharded, with one shard; statements waited {:.1} ms",
                        pause.as_secs_f64() * 1e3
                    );
                    self.desk.tell(text).await?;
                    return Ok(true);
                }
                Tried::Changed => return Ok(false),
                Tried::Later(why) => {
                    if why != reason {
                        self.desk.tell(format!("waiting: {why}")).await?;
                    }
                    reason = why;
                }
            }
            self.desk.rest(jitter(config.backoff(config.switch_backoff_ms, postponed))).await?;
        }
        Err(MoveError::Busy(format!("the last step was put off too often: {reason}")))
    }

    /// Publishes which tables are on their way, so that their definitions stay as they are in the last
    /// step.
    async fn set_importing(&self, names: Vec<TableName>) -> Result<(), MoveError> {
        let change = |map: &crate::shard_map::ShardMap| {
            (map.importing() != names.as_slice()).then(|| map.with_importing(names.clone()))
        };
        self.desk.engine.change_map(change).await.map_err(unread)
    }

    /// Undoes, as far as that can be done now, what was made.
    async fn give_up(&mut self) {
        let undone = match self.desk.session(self.desk.context.live_map.snapshot().home()).await {
            Ok(home) => {
                self.home = home;
                match self.home.end_others(&self.desk.session_name()).await {
                    Ok(()) => self.undo().await,
                    error => error,
                }
            }
            Err(error) => Err(error),
        };
        let undone = match undone {
            Ok(()) => self.set_importing(Vec::new()).await,
            error => error,
        };
        if let Err(error) = undone {
            let left = beside(self.job());
            let text = format!(
                "not undone: the schema {left} and checks of that name on the tables are left; \
                 another import, or DROP of both, clears them ({})",
                error.story()
            );
            drop(self.desk.tell(text).await);
        }
    }

    /// Drops whatever this job, or an earlier one, has made on the home node and not finished.
    async fn undo(&mut self) -> Result<(), MoveError> {
        let doing = "looking for what was left over";
        for (kind, oids, drop) in look::left_over(&self.home, doing).await? {
            self.patiently(kind, &drop, &oids, UNDO_TRIES).await?;
        }
        self.desk.context.pass("import_undone")
    }

    /// Runs a statement that needs tables for itself for a moment: a few short tries in a row, since
    /// others wait meanwhile, then again after a while. Tells who is in the way.
    async fn patiently(
        &mut self,
        doing: &'static str,
        sql: &str,
        oids: &[u32],
        tries: u32,
    ) -> Result<(), MoveError> {
        let config = self.desk.context.config();
        let mut reason = String::new();
        for postponed in 0..tries.max(1) {
            swap::stop_vacuum(&self.home, oids).await;
            match self.home.run_with_locks(doing, sql, CHECK_LOCK).await {
                Err(error) if error.is_lock_timeout() => {}
                other => return other,
            }
            let why = swap::holder(&self.home, oids).await?;
            if let Some(why) = why.filter(|why| *why != reason) {
                self.desk.tell(format!("waiting: {why}")).await?;
                reason = why;
            }
            sleep(jitter(config.backoff(config.switch_backoff_ms, postponed))).await;
        }
        Err(MoveError::Busy(format!("{doing} was put off too often: {reason}")))
    }
}
