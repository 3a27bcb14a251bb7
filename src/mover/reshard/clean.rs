//! Takes away what a change of the shard key has made: instead of the switch all of it, after it the
//! old tables. All of it can be repeated, and is found by its name.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::cleanup;
use super::super::error::MoveError;
use super::super::import::define::texts;
use super::super::names::{is_of_job, quoted};
use super::super::position;
use super::super::prepare::LEAF_LOCK;
use super::super::session::{Session, jitter};
use super::{Resharder, behind, beside};
use crate::catalog::Expect;
use crate::ids::NodeId;
use crate::shard_move::{Job, Object, ObjectKind};
use crate::sql::TableName;

/// How often what is to be taken away is tried; the waits between grow.
const TRIES: u32 = 12;

/// How long the resolver may take to finish what was decided.
const RESOLVED: Duration = Duration::from_mins(1);
/// Slots and publications of changes of a shard key.
const SLOTS: &str = "SELECT slot_name::text FROM pg_replication_slots \
     WHERE slot_name ~ '^foreshard_j[0-9]+_' AND database = current_database()";
const PUBLICATIONS: &str =
    "SELECT pubname::text FROM pg_publication WHERE pubname ~ '^foreshard_j[0-9]+_'";
/// Sessions of such jobs that an earlier process left.
const END: &str = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity \
     WHERE application_name ~ '^foreshard job [0-9]+ [0-9]+$' AND datname = current_database() \
     AND pid <> pg_backend_pid()";
/// The schemas of twins.
const BESIDE: &str =
    "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^foreshard_reshard_[0-9]+$'";
const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE gid ~ '^foreshard_' \
     AND database = current_database()";
/// The tables that are no partitions in the schemas of old tables, and those schemas.
const BEHIND: &str = "SELECT n.nspname::text, c.relname::text FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname ~ '^foreshard_reshard_[0-9]+_old$' AND c.relkind IN ('r', 'p') \
     AND NOT c.relispartition ORDER BY 1, 2";
const BEHINDS: &str =
    "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^foreshard_reshard_[0-9]+_old$'";

impl Resharder<'_, '_> {
    /// Takes everything away that this job, or an earlier one, has made and not finished.
    pub(super) async fn undo(&mut self) -> Result<(), MoveError> {
        for node in self.members() {
            let session = self.session(node).await?;
            drop_streams(&session).await?;
            for schema in texts(&session, BESIDE, &[]).await? {
                let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(&schema));
                patiently(&session, "dropping the new tables", &sql).await?;
            }
        }
        self.put_identities_back().await?;
        self.desk.context.pass("reshard_undone")
    }

    /// Says what may be left.
    pub(super) async fn not_undone(&mut self, error: &MoveError) {
        let text = format!(
            "not undone: the schema {} and slots and publications that begin with {} may be \
             left; asking for the same again clears them ({})",
            beside(self.job()),
            self.prefix(),
            error.story()
        );
        drop(self.desk.tell(text).await);
    }

    /// After the switch: drops streams and old tables; whether there were some.
    pub(super) async fn clean_up(&mut self) -> Result<bool, MoveError> {
        let mut dropped = false;
        for node in self.members() {
            let session = self.session(node).await?;
            drop_streams(&session).await?;
            committed(&session).await?;
            dropped |= drop_old(&session).await.map_err(|error| {
                MoveError::Busy(format!(
                    "group {} is sharded by its new key, but the old tables, in the schema {} on \
                     node {}, are not dropped: asking for the same again drops them ({})",
                    self.wanted.group,
                    behind(self.job()),
                    session.node,
                    error.story()
                ))
            })?;
        }
        // The partitions that logged whole rows are gone.
        self.forget_objects().await?;
        if self.desk.job.record.resharding.is_some() {
            self.forget().await?;
        }
        self.desk.context.pass("reshard_cleaned")?;
        Ok(dropped)
    }

    fn members(&self) -> Vec<NodeId> {
        let map = self.desk.context.live_map.snapshot();
        map.members().map(|(node, _)| node).collect()
    }

    async fn session(&self, node: NodeId) -> Result<Session, MoveError> {
        self.desk.session(node).await
    }

    /// The replica identities of the partitions of this job and of earlier ones.
    async fn put_identities_back(&mut self) -> Result<(), MoveError> {
        let jobs = self.desk.context.catalog.list::<Job>().await?;
        let changed: Vec<Object> = jobs.iter().flat_map(|job| job.record.objects.clone()).collect();
        for Object { node, kind } in changed {
            let ObjectKind::FullIdentity(leaf) = kind else { continue };
            let sql = format!("ALTER TABLE IF EXISTS {leaf} REPLICA IDENTITY DEFAULT");
            patiently(&self.session(node).await?, "putting the old table back in order", &sql)
                .await?;
        }
        self.forget_objects().await
    }

    async fn forget_objects(&mut self) -> Result<(), MoveError> {
        for job in self.desk.context.catalog.list::<Job>().await? {
            if job.record.objects.is_empty() {
                continue;
            }
            let mut record = job.record.clone();
            record.objects.clear();
            if record.id == self.job() {
                self.desk.store(record).await?;
            } else {
                self.desk.context.catalog.put(&record, Expect::At(job.revision)).await?;
            }
        }
        Ok(())
    }
}

async fn drop_streams(session: &Session) -> Result<(), MoveError> {
    texts(session, END, &[]).await?;
    for slot in texts(session, SLOTS, &[]).await? {
        cleanup::drop_slot(session, &slot).await?;
    }
    for publication in texts(session, PUBLICATIONS, &[]).await? {
        cleanup::drop_publication(session, &publication).await?;
    }
    for slot in position::known(session).await?.iter().filter(|slot| is_of_job(slot)) {
        session.run("removing the position", &position::remove(slot)).await?;
    }
    Ok(())
}

/// Waits until the exchange that was decided is committed on the node, too. Twins that are there although
/// nothing is prepared were given up.
async fn committed(session: &Session) -> Result<(), MoveError> {
    let until = Instant::now() + RESOLVED;
    let twins = loop {
        let twins = texts(session, BESIDE, &[]).await?;
        if twins.is_empty() || texts(session, PREPARED, &[]).await?.is_empty() {
            break texts(session, BESIDE, &[]).await?;
        }
        if Instant::now() > until {
            return Err(MoveError::Busy(format!(
                "node {} has not committed the new tables yet: asking for the same again goes on",
                session.node
            )));
        }
        sleep(Duration::from_millis(100)).await;
    };
    for schema in twins {
        let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(&schema));
        patiently(session, "dropping the new tables", &sql).await?;
    }
    Ok(())
}

/// Whether a node has tables that were exchanged, or twins that wait for that.
pub(super) async fn has_old(session: &Session) -> Result<bool, MoveError> {
    let all = [texts(session, BEHINDS, &[]).await?, texts(session, BESIDE, &[]).await?];
    Ok(all.iter().any(|found| !found.is_empty()))
}

/// Nothing may hang on them that would go with them.
async fn drop_old(session: &Session) -> Result<bool, MoveError> {
    let rows = session.rows("looking for old tables", BEHIND, &[]).await?;
    let names =
        rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)));
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if !names.is_empty() {
        let sql = format!("DROP TABLE IF EXISTS {}", names.join(", "));
        patiently(session, "dropping the old tables", &sql).await?;
    }
    for schema in texts(session, BEHINDS, &[]).await? {
        let sql = format!("DROP SCHEMA IF EXISTS {}", quoted(&schema));
        session.run("dropping the old tables", &sql).await?;
    }
    Ok(!names.is_empty())
}

/// Runs a statement that needs tables for itself for a moment, now or a little later.
async fn patiently(session: &Session, doing: &'static str, sql: &str) -> Result<(), MoveError> {
    let mut tries = 0;
    loop {
        match session.run_with_locks(doing, sql, LEAF_LOCK).await {
            Err(error) if error.is_lock_timeout() && tries < TRIES => tries += 1,
            other => return other,
        }
        sleep(jitter(Duration::from_millis(100 << tries.min(7)))).await;
    }
}
