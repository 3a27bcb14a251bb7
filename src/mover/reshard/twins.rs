//! The partitioned twins of a group's tables, on every node: empty ones with the new key first, and
//! what has to be built once the rows are there.

use super::super::build;
use super::super::context::MoverContext;
use super::super::error::MoveError;
use super::super::import::Plain;
use super::super::import::define::{self, Place, texts};
use super::super::lane::lanes;
use super::super::look;
use super::super::names::quoted;
use super::super::session::Session;
use super::{Plan, beside, twin_leaf};
use crate::ids::{JobId, NodeId};
use crate::shard_map::{Bounds, Method, OTHERS_CHECK, leaf_name};
use crate::shard_move::{ImportedTable, Lane, Move, MovedTable, Part};
use crate::sql::{Literal, TableName};

/// Identity columns that take no other values: replication has to write them.
const ALWAYS: &str = "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 \
     AND attidentity = 'a' AND NOT attisdropped ORDER BY attnum";

/// Statements that make what one node has of the twins.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// The schema and the tables, without keys.
    pub(super) first: Vec<String>,
    /// Keys, indexes, triggers, grants, and so on.
    pub(super) rest: Vec<String>,
}

/// What a node is to have, as its own catalog says of the tables now.
pub(super) async fn definitions(
    session: &Session,
    job: JobId,
    tables: &[ImportedTable],
    (node, targets): (NodeId, &[Part]),
) -> Result<Definitions, MoveError> {
    let beside = beside(job);
    let mut all = Definitions::default();
    all.first.push(format!("CREATE SCHEMA {}", quoted(&beside)));
    let method = targets.first().and_then(|part| part.bounds.method()).unwrap_or(Method::Hash);
    for table in tables {
        let oid = look::oid(session, &table.name).await?;
        let plain = Plain { name: table.name.clone(), oid, key: table.key.clone() };
        let place = Place::Beside(&beside);
        let mut made = define::statements(session, &plain, method, place).await?.into_iter();
        all.first.extend(made.next());
        all.rest.extend(made);
        let twin = TableName::new(beside.as_str(), table.name.name.as_str());
        for column in texts(session, ALWAYS, &[&oid]).await? {
            all.first.push(always(&twin, &column, "BY DEFAULT"));
        }
        let owner = look::table(session, &table.name).await?.map(|seen| seen.owner);
        for part in targets.iter().filter(|part| part.node == node) {
            let leaf = twin_leaf(job, &leaf_name(&table.name, part.shard));
            let values = part.bounds.for_values(table.key.len());
            all.first.push(format!("CREATE TABLE {leaf} PARTITION OF {twin} {values}"));
            if let Bounds::Others(_) = part.bounds {
                let check = part.bounds.condition(&table.key, 0);
                all.first.push(format!(
                    "ALTER TABLE {leaf} ADD CONSTRAINT {OTHERS_CHECK} CHECK ({check})"
                ));
            }
            all.rest.extend(
                owner.iter().map(|owner| format!("ALTER TABLE {leaf} OWNER TO {}", quoted(owner))),
            );
        }
    }
    Ok(all)
}

/// Whether an identity column takes other values.
pub(super) fn always(table: &TableName, column: &str, generated: &str) -> String {
    format!("ALTER TABLE {table} ALTER COLUMN {} SET GENERATED {generated}", quoted(column))
}

/// The identity columns of a table that take no other values.
pub(super) async fn always_columns(session: &Session, oid: u32) -> Result<Vec<String>, MoveError> {
    texts(session, ALWAYS, &[&oid]).await
}

/// Whether a node has twins, and whether all was built that they lack at first: NULL, or as it was noted.
const STANDING: &str = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') \
     FROM pg_namespace WHERE nspname = $1";
/// What is noted of the schema of twins once everything is built.
const BUILT: &str = "built";

/// Makes the empty twins on every node that has none.
pub(super) async fn make(context: &MoverContext, plan: &Plan, job: JobId) -> Result<(), MoveError> {
    for node in &plan.members {
        let session = Session::open(context, &plan.mv, *node).await?;
        if !texts(&session, STANDING, &[&beside(job)]).await?.is_empty() {
            continue;
        }
        let made = definitions(&session, job, &plan.tables, (*node, &plan.targets)).await?;
        let sql = format!("BEGIN; {}; COMMIT", made.first.join("; "));
        session.run("making the new tables", &sql).await?;
    }
    Ok(())
}

/// Makes all that the tables have and the twins lack, now that the rows are there; on each node at
/// once, or not at all.
pub(super) async fn build(
    context: &MoverContext,
    plan: &Plan,
    job: JobId,
) -> Result<(), MoveError> {
    for node in &plan.members {
        let session = Session::open(context, &plan.mv, *node).await?;
        if texts(&session, STANDING, &[&beside(job)]).await? != [BUILT] {
            let sql = rest(context, plan, job, (*node, &session)).await?;
            let sql = format!("BEGIN; {}; COMMIT", sql.join("; "));
            session.run_long("building indexes and constraints", &sql).await?;
            context.pass("reshard_built_one")?;
        }
        for table in &plan.tables {
            let twin = TableName::new(beside(job), table.name.name.as_str());
            session.run_long("analyzing a table", &format!("ANALYZE {twin}")).await?;
        }
    }
    Ok(())
}

/// All of that for one node, with the note that it is done.
async fn rest(
    context: &MoverContext,
    plan: &Plan,
    job: JobId,
    (node, session): (NodeId, &Session),
) -> Result<Vec<String>, MoveError> {
    let mut all = definitions(session, job, &plan.tables, (node, &plan.targets)).await?.rest;
    for table in &plan.tables {
        let twin = TableName::new(beside(job), table.name.name.as_str());
        if look::table(session, &twin).await?.is_some_and(|seen| seen.has_primary_key) {
            // A copy that was cut off needed it.
            let keys = build::parents_key(session, &table.name, &twin).await?;
            all.retain(|sql| !keys.contains(sql));
        }
    }
    for part in plan.targets.iter().filter(|part| part.node == node) {
        all.extend(of_leaves(context, plan, job, part).await?);
    }
    all.push(format!("COMMENT ON SCHEMA {} IS {}", quoted(&beside(job)), Literal(BUILT)));
    Ok(all)
}

/// The foreign keys and settings of a new shard's partitions, like those of an old shard.
async fn of_leaves(
    context: &MoverContext,
    plan: &Plan,
    job: JobId,
    part: &Part,
) -> Result<Vec<String>, MoveError> {
    let Some(like) = plan.mv.lanes.first() else { return Ok(Vec::new()) };
    let mut tables: Vec<MovedTable> = Vec::new();
    for table in &like.tables {
        if !tables.iter().any(|it| it.parent == table.parent) {
            let new_leaf = twin_leaf(job, &leaf_name(&table.parent, part.shard));
            tables.push(MovedTable { new_leaf, ..table.clone() });
        }
    }
    let source = Session::open(context, &plan.mv, like.source.node).await?;
    let lane = Lane { source: like.source.clone(), target: part.clone(), tables };
    let cause = plan.mv.cause.clone();
    let one = Move::of_lanes(plan.mv.id, vec![lane], cause, plan.mv.requested_unix_ms);
    let mut all = Vec::new();
    for lane in lanes(&one) {
        for table in &lane.lane.tables {
            let leaf = look::oid(&source, &table.leaf).await?;
            all.extend(build::own_foreign_keys(lane, &source, table, leaf).await?);
            all.extend(build::own_settings(&source, table, leaf).await?);
        }
    }
    Ok(all)
}
