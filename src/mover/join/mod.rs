//! A node joins: roles, schema and reference tables are brought to it in one transaction there, which
//! is committed in two phases with the map that makes the node a member.
//!
//! Traffic goes on: DDL meanwhile makes it begin anew, and writes to reference tables wait only for
//! the last look. What a crash leaves is a prepared transaction, which the resolver ends either way.

mod references;
mod roles;
mod left_out;
mod schema;

use std::time::Duration;

use tokio::time::sleep;

use super::error::MoveError;
use super::jobs::{Desk, unless};
use super::session::{Session, jitter};
use crate::catalog::{CatalogError, Change, Expect};
use crate::cluster::Closing;
use crate::executor::{OutsideCommit, Shared, Still};
use crate::ids::NodeId;
use crate::planner::{LOOKUP_IS_SET_UP, LOOKUP_SET_UP};
use crate::shard_map::{ShardMap, Standing};
use crate::sql::Literal;
use references::Reference;
use schema::Schema;

/// How often it begins anew because of DDL.
const TRIES: u32 = 10;
/// How long writes to reference tables may be waited for, and how often.
const STILL: (Duration, u32) = (Duration::from_millis(500), 60);
/// How often the map is written that another writer was faster with.
const COMMITS: u32 = 20;

/// Tables, views and sequences of users.
const NOT_EMPTY: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
     AND n.nspname !~ '^pg_' AND n.nspname !~ '^(information_schema|foreshard(_catalog|_system|_information)?)$' \
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') LIMIT 1";
/// What every node needs.
const FACTS: &str = "SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, \
     current_setting('wal_level'), current_setting('max_prepared_transactions') \
     FROM pg_database WHERE datname = current_database()";

/// Makes the node a member, from wherever it is.
pub(super) async fn join(desk: &mut Desk<'_>, node: NodeId) -> Result<(), MoveError> {
    let map = desk.context.live_map.snapshot();
    let named = |node| format!("node {}", map.node(node).name);
    match map.node(node).standing {
        Standing::Joining => {}
        Standing::Member => return desk.tell(format!("{} is a member", named(node))).await,
        Standing::Draining => {
            commit(desk, node, None).await?;
            return desk.tell(format!("{} takes shards again", named(node))).await;
        }
        Standing::Gone => {
            return Err(MoveError::Refused(format!("{} is not configured", named(node))));
        }
    }
    for _ in 0..TRIES {
        if desk.called_off.is_cancelled() {
            return Err(MoveError::CalledOff);
        }
        let home = desk.session(map.home()).await?;
        let target = desk.session(node).await?;
        // One of an earlier try may be about to leave something.
        target.end_others(&desk.session_name()).await?;
        can_join(&home, &target).await?;
        let bringer = Bringer { desk, map: &map, node, home, target };
        if bringer.bring().await? {
            return Ok(());
        }
        desk.tell("definitions were changed meanwhile: once more".to_owned()).await?;
    }
    Err(MoveError::Busy("definitions were changed all the time: try again later".to_owned()))
}

/// Both can hold the same rows, and the new one is empty.
async fn can_join(home: &Session, target: &Session) -> Result<(), MoveError> {
    let refused = |text: String| Err(MoveError::Refused(format!("node {} {text}", target.node)));
    let (ours, theirs) = (schema::version(home).await?, schema::version(target).await?);
    if theirs / 10_000 < ours / 10_000 {
        return refused(format!(
            "runs PostgreSQL {}, node {} runs {}: a node that joins must not be older",
            theirs / 10_000,
            home.node,
            ours / 10_000
        ));
    }
    let doing = "looking at the database";
    let (here, there) =
        (home.rows(doing, FACTS, &[]).await?, target.rows(doing, FACTS, &[]).await?);
    let (Some(here), Some(there)) = (here.first(), there.first()) else { return Ok(()) };
    for (at, what) in ["encoding", "collation", "character type"].iter().enumerate() {
        let (ours, theirs): (String, String) = (here.get(at), there.get(at));
        if ours != theirs {
            return refused(format!(
                "has a database with the {what} {theirs}, node {} with {ours}: make it anew, with \
                 CREATE DATABASE … TEMPLATE template0",
                home.node
            ));
        }
    }
    if there.get::<_, String>(3) != "logical" {
        return refused(format!(
            "has wal_level = {}: set wal_level = logical and restart it",
            there.get::<_, String>(3)
        ));
    }
    if there.get::<_, String>(4) == "0" {
        return refused("has max_prepared_transactions = 0: raise it and restart it".to_owned());
    }
    let found = target.rows(doing, NOT_EMPTY, &[]).await?;
    match found.first() {
        None => Ok(()),
        Some(row) => refused(format!(
            "is not empty: it has {}; a node joins with an empty database",
            row.get::<_, String>(0)
        )),
    }
}

/// Keeps what was brought as the home node has it.
struct Held {
    _no_ddl: Shared,
    _still: Still,
    _elsewhere: Closing,
    /// Rows that were copied at the end.
    repaired: u64,
}

/// One try.
struct Bringer<'a, 'b> {
    desk: &'a mut Desk<'b>,
    map: &'a ShardMap,
    node: NodeId,
    home: Session,
    /// In a transaction that holds all that is brought.
    target: Session,
}

impl Bringer<'_, '_> {
    /// Brings everything and makes the node a member; no if definitions changed meanwhile. Called off
    /// before everything is there, it leaves nothing on the node.
    async fn bring(mut self) -> Result<bool, MoveError> {
        let called_off = self.desk.called_off.clone();
        let ready = Box::pin(unless(&called_off, self.ready())).await;
        let held = match ready {
            Ok(Some(held)) => held,
            Ok(None) => {
                self.target.run("rolling back", "ROLLBACK").await?;
                return Ok(false);
            }
            Err(error) => {
                if let MoveError::CalledOff = error {
                    self.leave().await?;
                }
                return Err(error);
            }
        };
        self.finish().await?;
        let (name, repaired) = (&self.target.node, held.repaired);
        let text = format!("node {name} is a member now ({repaired} rows were copied at the end)");
        self.desk.tell(text).await?;
        Ok(true)
    }

    /// Ends the transaction that was dropped in the middle of a statement, and waits until it is gone.
    async fn leave(&mut self) -> Result<(), MoveError> {
        let name = self.desk.session_name();
        self.target = self.desk.session(self.node).await?;
        self.target.end_others(&name).await?;
        let text = format!(
            "nothing was left on node {0}, which takes no shards: foreshard node add {0} begins anew",
            self.target.node
        );
        self.desk.tell(text).await
    }

    /// Everything is there, in a transaction that is not prepared yet, and stays as it is as long as the
    /// result lives; `None` if definitions changed meanwhile.
    async fn ready(&mut self) -> Result<Option<Held>, MoveError> {
        let schema = self.dump().await?;
        self.target.run("beginning", "BEGIN; SET LOCAL session_replication_role = replica").await?;
        let references = self.fill(&schema).await?;
        for reference in &references {
            reference.repair(&self.home, &self.target).await?;
        }
        // No definition changes from here on; moves go on.
        let no_ddl = self.desk.engine.ddl_lock.shared().await;
        if self.dump().await? != schema {
            return Ok(None);
        }
        let still = self.still().await?;
        let elsewhere = self.desk.context.still_elsewhere(STILL.0 * STILL.1).await?;
        let mut repaired = 0;
        for reference in &references {
            repaired += reference.repair(&self.home, &self.target).await?;
        }
        Ok(Some(Held { _no_ddl: no_ddl, _still: still, _elsewhere: elsewhere, repaired }))
    }

    async fn dump(&self) -> Result<Schema, MoveError> {
        schema::dump(self.desk.context, self.map, &self.desk.session_name()).await
    }

    /// Roles, definitions, rows.
    async fn fill(&mut self, schema: &Schema) -> Result<Vec<Reference>, MoveError> {
        let roles = roles::statements(&self.home, &self.target).await?;
        if !roles.is_empty() {
            self.target.run("bringing roles and settings", &roles.join("; ")).await?;
            self.desk.tell("roles and settings are brought".to_owned()).await?;
        }
        let doing = "making ready for lookup tables";
        let lookups = !self.map.declared().lookups.is_empty();
        let set_up = self.target.rows(doing, LOOKUP_IS_SET_UP, &[]).await?;
        if lookups && !set_up.first().is_some_and(|row| row.get(0)) {
            self.target.run(doing, LOOKUP_SET_UP).await?;
        }
        self.target.run_long("bringing definitions", &schema.before_rows).await?;
        let references = references::existing(&self.home, self.map).await?;
        let mut rows = 0;
        for reference in &references {
            rows += reference.copy(&self.home, &self.target).await?;
        }
        self.target.run_long("bringing definitions", &schema.after_rows).await?;
        schema::set_sequences_apart(&self.target, self.node).await?;
        let count = references.len();
        let text = format!("definitions and {count} reference tables with {rows} rows are brought");
        self.desk.tell(text).await?;
        Ok(references)
    }

    /// Nobody writes reference tables while the result lives.
    async fn still(&self) -> Result<Still, MoveError> {
        let (deadline, tries) = STILL;
        for _ in 0..tries {
            if let Some(still) = self.desk.engine.reference_lock.still(deadline).await {
                return Ok(still);
            }
            sleep(jitter(deadline)).await;
        }
        Err(MoveError::Busy(
            "a transaction that writes a reference table did not end: try again later".to_owned(),
        ))
    }

    /// Prepares what was brought, decides, commits.
    async fn finish(&mut self) -> Result<(), MoveError> {
        let outside = OutsideCommit::new(&self.desk.engine);
        let gid = Literal(outside.gid()).to_string();
        self.target.run("preparing", &format!("PREPARE TRANSACTION {gid}")).await?;
        self.desk.context.pass("node_prepared")?;
        let _kept = self.desk.context.keep_map_elsewhere().await?;
        let next = match commit(self.desk, self.node, Some(&outside)).await {
            Ok(next) => next,
            Err(error) => {
                let sql = format!("ROLLBACK PREPARED {gid}");
                self.target.run("rolling back", &sql).await?;
                return Err(error);
            }
        };
        self.desk.context.pass("node_decided")?;
        self.commit_prepared(outside.gid()).await?;
        self.desk.context.live_map.publish(next);
        Ok(())
    }

    /// Commits what was decided. Statements must not go there before, so it is tried for a while; a
    /// node that stays away gets it by the resolver.
    async fn commit_prepared(&mut self, gid: &str) -> Result<(), MoveError> {
        let sql = format!("COMMIT PREPARED {}", Literal(gid));
        let mut result = self.target.run("committing", &sql).await;
        for _ in 0..COMMITS {
            if result.is_ok() {
                break;
            }
            sleep(STILL.0).await;
            result = async {
                self.target = self.desk.session(self.node).await?;
                let sql_left = "SELECT FROM pg_prepared_xacts WHERE gid = $1";
                let left = self.target.rows("committing", sql_left, &[&gid]).await?;
                if left.is_empty() { Ok(()) } else { self.target.run("committing", &sql).await }
            }
            .await;
        }
        result
    }
}

/// Stores that the node is a member, together with the decision on what was prepared; the new map,
/// in force only where nothing was prepared.
async fn commit(
    desk: &Desk<'_>,
    node: NodeId,
    outside: Option<&OutsideCommit>,
) -> Result<ShardMap, MoveError> {
    set_standing(desk, node, Standing::Member, outside).await
}

/// Stores another standing of a node.
pub(super) async fn set_standing(
    desk: &Desk<'_>,
    node: NodeId,
    standing: Standing,
    outside: Option<&OutsideCommit>,
) -> Result<ShardMap, MoveError> {
    let context = desk.context;
    for _ in 0..COMMITS {
        let map = context.catalog.get::<ShardMap>("").await?;
        let map =
            map.ok_or_else(|| MoveError::Refused("the catalog holds no shard map".to_owned()))?;
        let next = map.record.with_standing(node, standing);
        let mut change = Change::new().put(&next, Expect::At(map.revision))?;
        if let Some(outside) = outside {
            change = change.put(&outside.decision(), Expect::Absent)?;
        }
        match context.catalog.commit(change).await {
            Ok(_) => {
                if outside.is_none() {
                    context.live_map.publish(next.clone());
                }
                return Ok(next);
            }
            Err(CatalogError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(MoveError::Busy("the map changed under every try to commit it".to_owned()))
}
