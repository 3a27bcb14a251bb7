//! The two ways in which a source lets go of a shard. Both end with a marker in its WAL after which
//! nothing of the shard can come.
//!
//! *Plainly*: `DETACH` of all leaves and the marker in one transaction. It needs AccessExclusive on
//! the parents, which one session that is idle in a transaction on any shard of the table keeps from
//! it. *Concurrently*: triggers freeze the leaves, with a lock on the leaves alone; the marker is
//! written with them; when the stream has got there, `DETACH … CONCURRENTLY` hides the leaves at
//! once. It waits then for everybody who holds a lock on the parents, which is not waited for:
//! cancelled, it is *pending*, and is finished at the clean-up. Until then no other partition of the
//! parents can be detached like this, and none be attached that holds some of the same keys.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::join;
use tokio::time::{sleep, timeout};
use tokio_postgres::Statement;

use super::context::MoverContext;
use super::error::MoveError;
use super::lane::Sessions;
use super::look;
use super::names::{self, quoted};
use super::session::Session;
use crate::backend::NodeAddress;
use crate::ids::{Epoch, NodeId};
use crate::shard_move::{Move, MovedTable};
use crate::sql::{Literal, TableName};

/// How long the end of a detachment waits for those who keep an older snapshot, in ms.
const FINISH_MS: u64 = 2_000;

/// What finishes the detachments that are pending beside these leaves, as long as they are attached.
const PENDING: &str = "SELECT format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', \
     p.inhparent::regclass, p.inhrelid::regclass) FROM pg_inherits p WHERE p.inhdetachpending \
     AND EXISTS (SELECT FROM pg_inherits o WHERE o.inhparent = p.inhparent \
     AND o.inhrelid = ANY ($1) AND NOT o.inhdetachpending)";

/// How a source lets go of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Plainly,
    Concurrently,
}

/// What a source node gives away, and what its tables must still look like.
pub(super) struct Given {
    pub(super) node: NodeId,
    tables: Vec<MovedTable>,
    /// The object ids of parent and leaf of each table.
    oids: Vec<[u32; 2]>,
    /// Asks the session of [`given`] what they look like.
    shape: Statement,
    /// A parent has a DEFAULT partition, from beside which nothing is detached concurrently.
    pub(super) only_plainly: bool,
}

/// What the source nodes of a move give away, a node an element.
pub(super) async fn given(mv: &Move, sessions: &Sessions) -> Result<Vec<Given>, MoveError> {
    let mut all: Vec<Given> = Vec::new();
    for source in mv.sources() {
        let session = sessions.on(source.node)?;
        let tables: Vec<MovedTable> = mv.leaves_of(source.shard).into_iter().cloned().collect();
        let mut oids = Vec::with_capacity(tables.len());
        for table in &tables {
            let parent = look::oid(session, &table.parent).await?;
            oids.push([parent, look::oid(session, &table.leaf).await?]);
        }
        if let Some(given) = all.iter_mut().find(|given| given.node == source.node) {
            given.tables.extend(tables);
            given.oids.extend(oids);
        } else {
            let shape = look::prepare_shape(session).await?;
            all.push(Given { node: source.node, tables, oids, shape, only_plainly: false });
        }
    }
    for given in &mut all {
        let parents: Vec<u32> = given.oids.iter().map(|[parent, _]| *parent).collect();
        given.only_plainly = look::has_defaults(sessions.on(given.node)?, &parents).await?;
    }
    Ok(all)
}

impl Given {
    /// Its leaves.
    pub(super) fn leaves(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().map(|table| &table.leaf)
    }

    /// Opens a transaction that detaches all leaves and writes the marker.
    pub(super) async fn detach(
        &self,
        source: &Session,
        last_words: &str,
        lock_timeout_ms: u64,
    ) -> Result<(), MoveError> {
        let mut lock = vec![format!("BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms}")];
        lock.extend(self.lock("ACCESS EXCLUSIVE"));
        let lock = lock.join("; ");
        let mut detach: Vec<_> = self
            .tables
            .iter()
            .map(|MovedTable { parent, leaf, .. }| {
                format!("ALTER TABLE {parent} DETACH PARTITION {leaf}")
            })
            .collect();
        detach.push(last_words.to_owned());
        let detach = detach.join("; ");
        // All in one go: each is polled, and so sent, in this order, and what they found is looked at
        // before the commit. The first that failed is why the others did.
        let (locked, same, detached) = join!(
            biased;
            source.run("locking the shard's tables", &lock),
            self.is_as_it_was(source),
            source.run("detaching the shard", &detach)
        );
        locked.and(same).and(detached)
    }

    /// What locks the parents.
    pub(super) fn lock(&self, mode: &str) -> Option<String> {
        let mut parents: Vec<String> = Vec::new();
        for table in &self.tables {
            let parent = format!("ONLY {}", table.parent);
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        (!parents.is_empty()).then(|| format!("LOCK TABLE {} IN {mode} MODE", parents.join(", ")))
    }

    /// Opens a transaction that freezes all leaves and writes the marker.
    pub(super) async fn freeze(
        &self,
        source: &Session,
        last_words: &str,
        lock_timeout_ms: u64,
    ) -> Result<(), MoveError> {
        let [rows, truncate] = names::FREEZE;
        let freeze = self.leaves().map(|leaf| {
            format!(
                "CREATE OR REPLACE TRIGGER {rows} BEFORE INSERT OR UPDATE OR DELETE ON {leaf} \
                 FOR EACH ROW EXECUTE FUNCTION foreshard.frozen(); \
                 CREATE OR REPLACE TRIGGER {truncate} BEFORE TRUNCATE ON {leaf} \
                 FOR EACH STATEMENT EXECUTE FUNCTION foreshard.frozen(); \
                 ALTER TABLE {leaf} ENABLE ALWAYS TRIGGER {rows}, ENABLE ALWAYS TRIGGER {truncate}"
            )
        });
        let mut sql = vec![format!("BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms}")];
        sql.extend(freeze);
        source.run("freezing the shard's tables", &sql.join("; ")).await?;
        self.is_as_it_was(source).await?;
        source.run("writing the marker", last_words).await
    }

    /// Nobody has changed the definitions since the move was checked. To be asked under a lock.
    pub(super) async fn is_as_it_was(&self, source: &Session) -> Result<(), MoveError> {
        let shapes = self.oids.iter().map(|oids| look::prepared_shape(source, &self.shape, oids));
        let shapes = try_join_all(shapes).await?;
        match self.tables.iter().zip(shapes).find(|(table, shape)| table.shape != *shape) {
            None => Ok(()),
            Some((table, _)) => Err(MoveError::Refused(format!(
                "the definition of {} or {} on node {} was changed while it was moved: ask for the \
                 move again",
                table.parent, table.leaf, source.node
            ))),
        }
    }

    /// Finishes detachments that are pending at parents of leaves that are to be detached: PostgreSQL
    /// allows one at a time. Fails with a lock timeout while somebody keeps an older snapshot.
    pub(super) async fn finish_others(
        &self,
        source: &Session,
        lock_timeout_ms: u64,
    ) -> Result<(), MoveError> {
        let doing = "finishing a detachment of another shard";
        let leaves: Vec<u32> = self.oids.iter().map(|[_, leaf]| *leaf).collect();
        let rows = source.rows(doing, PENDING, &[&leaves]).await?;
        for row in rows {
            let finish: String = row.get(0);
            source.run(doing, &format!("SET lock_timeout = {lock_timeout_ms}")).await?;
            let finished = source.run(doing, &finish).await;
            source.run(doing, "RESET lock_timeout").await?;
            finished?;
        }
        Ok(())
    }

    /// Hides the frozen leaves from every new statement.
    pub(super) async fn hide(&self, source: &Session, by: &[Session]) -> Result<(), MoveError> {
        self.finish_others(source, FINISH_MS).await?;
        let detach =
            self.tables.iter().zip(by).map(|(MovedTable { parent, leaf, .. }, session)| {
                let sql = format!("ALTER TABLE {parent} DETACH PARTITION {leaf} CONCURRENTLY");
                async move { session.run("detaching a table concurrently", &sql).await }
            });
        let hidden = async {
            loop {
                if look::attachments(source, self.leaves()).await?.whole == 0 {
                    return Ok(());
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::pin!(hidden);
        let ends = tokio::select! {
            hidden = &mut hidden => return hidden,
            ends = join_all(detach) => ends,
        };
        // Those that wait for others give up by their lock_timeout: then they are pending.
        if let Ok(hidden) = timeout(Duration::from_millis(100), hidden).await {
            return hidden;
        }
        let error = ends.into_iter().find_map(Result::err);
        Err(error.unwrap_or(MoveError::Timeout("detaching the shard concurrently")))
    }

    /// A session for each table that is to be hidden.
    pub(super) async fn hiders(
        &self,
        context: &MoverContext,
        mv: &Move,
    ) -> Result<Vec<Session>, MoveError> {
        let mut sessions = Vec::new();
        for _ in &self.tables {
            let session = Session::open(context, mv, self.node).await?;
            let sql = format!("SET lock_timeout = {}", context.config().lock_timeout_ms.max(50));
            session.run("opening a session", &sql).await?;
            sessions.push(session);
        }
        Ok(sessions)
    }

    /// Lets the leaves be written again.
    pub(super) async fn thaw(&self, source: &Session) -> Result<(), MoveError> {
        for leaf in self.leaves() {
            for trigger in frozen_by(source, leaf).await? {
                let sql = format!("ALTER TABLE {leaf} DISABLE TRIGGER {}", quoted(&trigger));
                source.run_with_locks("thawing a table", &sql, (100, 50)).await?;
            }
        }
        Ok(())
    }
}

/// Ends a detachment that was cut off. Waits, a little, for snapshots that are older.
pub(super) async fn finish(source: &Session, table: &MovedTable) -> Result<(), MoveError> {
    let MovedTable { parent, leaf, .. } = table;
    if look::attachments(source, [leaf]).await?.pending == 0 {
        return Ok(());
    }
    source.run("opening a session", &format!("SET lock_timeout = {FINISH_MS}")).await?;
    let sql = format!("ALTER TABLE {parent} DETACH PARTITION {leaf} FINALIZE");
    let finished = source.run("finishing a detachment", &sql).await;
    source.run("opening a session", "RESET lock_timeout").await?;
    finished
}

/// The freeze triggers that a leaf has.
pub(super) async fn frozen_by(
    source: &Session,
    leaf: &TableName,
) -> Result<Vec<String>, MoveError> {
    let Some(seen) = look::table(source, leaf).await? else { return Ok(Vec::new()) };
    let sql = "SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal \
         AND tgname ~ '^foreshard_freeze'";
    look::names(source, seen.oid, sql).await
}

/// What a source's transaction ends with: the marker, and the proof that this proxy was not replaced.
pub(super) fn last_words(address: &NodeAddress, marker: &str, epoch: Epoch) -> String {
    let (prefix, marker) = (Literal(names::MARKER_PREFIX), Literal(marker));
    let pass = address.fence.as_ref().map(|fence| fence.pass(epoch.0) + "; ").unwrap_or_default();
    format!("{pass}SELECT pg_logical_emit_message(true, {prefix}, {marker})")
}
