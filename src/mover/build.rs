//! What ATTACH wants of the new tables, off the critical path: keys, indexes, checks, statistics.

use super::check::for_values;
use super::context::MoverContext;
use super::error::MoveError;
use super::look;
use super::names::{self, quoted};
use super::position;
use super::prepare::LEAF_LOCK;
use super::session::Session;
use crate::shard_map::Bounds;
use crate::shard_move::{Event, Move, MovedTable};

/// Primary keys and unique constraints of a leaf, as `ALTER TABLE` takes them.
const KEY_CONSTRAINTS: &str = "SELECT 'ADD CONSTRAINT ' || quote_ident(conname) || ' ' \
     || pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = $1 AND contype IN ('p', 'u', 'x') ORDER BY conname";
/// Indexes of a leaf that no constraint made. The names in it are those of the leaf's node, and the
/// leaf is called the same on the other.
const INDEXES: &str = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1 \
     AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = indexrelid \
     AND k.contype IN ('p', 'u', 'x')) ORDER BY 1";
const FOREIGN_KEYS: &str = "SELECT 'ADD CONSTRAINT ' || quote_ident(conname) || ' ' \
     || pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = $1 AND contype = 'f' AND conparentid = 0 ORDER BY conname";

/// Builds them in one transaction, so that it happened or not.
pub(super) async fn build(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let source = Session::open(context, mv, mv.from).await?;
    let destination = Session::open(context, mv, mv.to).await?;
    if !position::is_built(&destination, mv).await? {
        let sql = statements(context, mv, &source, &destination).await?;
        let sql = format!("BEGIN; {sql}; {}; COMMIT", position::set_built(mv));
        destination.run_long("building indexes and constraints", &sql).await?;
    }
    context.pass("built")?;
    let bounds = bounds(context, mv)?;
    for table in &mv.tables {
        let sql = format!("VACUUM (ANALYZE) {}", table.leaf);
        destination.run_long("analyzing a table", &sql).await?;
        keep_attachable(mv, &source, table, bounds).await?;
    }
    Ok(Event::Built)
}

/// Everything that the source's leaves have and the new tables lack.
async fn statements(
    context: &MoverContext,
    mv: &Move,
    source: &Session,
    destination: &Session,
) -> Result<String, MoveError> {
    let (mut keys, mut foreign_keys, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    let bounds = bounds(context, mv)?;
    for table in &mv.tables {
        let (_, leaf) = both(source, table).await?;
        let (parent, _) = both(destination, table).await?;
        let alter = |clause: &String| format!("ALTER TABLE {} {clause}", table.leaf);
        keys.extend(look::names(source, leaf, KEY_CONSTRAINTS).await?.iter().map(alter));
        keys.extend(look::names(source, leaf, INDEXES).await?);
        foreign_keys.extend(look::names(source, leaf, FOREIGN_KEYS).await?.iter().map(alter));
        checks.push(alter(&helper(mv, table, parent, bounds)));
        if let Some(parent) = look::table(destination, &table.parent).await? {
            checks.push(alter(&format!("OWNER TO {}", quoted(&parent.owner))));
        }
    }
    let all = keys.into_iter().chain(foreign_keys).chain(checks).collect::<Vec<_>>();
    Ok(if all.is_empty() { "SELECT 1".to_owned() } else { all.join("; ") })
}

/// The object ids of a moved table's parent and leaf.
async fn both(session: &Session, table: &MovedTable) -> Result<(u32, u32), MoveError> {
    let gone = || MoveError::Refused(format!("node {} has lost {}", session.node, table.leaf));
    let parent = look::table(session, &table.parent).await?.ok_or_else(gone)?;
    let leaf = look::table(session, &table.leaf).await?.ok_or_else(gone)?;
    Ok((parent.oid, leaf.oid))
}

/// A CHECK that says what the partition's bounds say, in the words that ATTACH recognizes.
fn helper(mv: &Move, table: &MovedTable, parent: u32, bounds: Bounds) -> String {
    let Bounds::Hash { modulus, remainder } = bounds;
    format!(
        "ADD CONSTRAINT {} CHECK (satisfies_hash_partition('{parent}'::oid, {modulus}, \
         {remainder}, {}))",
        quoted(&names::helper_check(mv)),
        names::list(&table.key)
    )
}

/// Gives the source's leaf the same CHECK, so that it could be attached again in an instant should
/// the destination fail in the middle of the switch.
async fn keep_attachable(
    mv: &Move,
    source: &Session,
    table: &MovedTable,
    bounds: Bounds,
) -> Result<(), MoveError> {
    let doing = "adding the check to the old table";
    let (parent, _) = both(source, table).await?;
    let name = quoted(&names::helper_check(mv));
    let sql = format!(
        "ALTER TABLE {0} DROP CONSTRAINT IF EXISTS {name}; ALTER TABLE {0} {1} NOT VALID",
        table.leaf,
        helper(mv, table, parent, bounds)
    );
    source.run_with_locks(doing, &sql, LEAF_LOCK).await?;
    let sql = format!("ALTER TABLE {} VALIDATE CONSTRAINT {name}", table.leaf);
    source.run_long(doing, &sql).await
}

/// The bounds of the moved shard.
pub(super) fn bounds(context: &MoverContext, mv: &Move) -> Result<Bounds, MoveError> {
    let gone = || MoveError::Refused(format!("there is no shard {}", mv.shard));
    context.live_map.load().shard(mv.shard).map(|shard| shard.bounds).ok_or_else(gone)
}

/// `ATTACH` of all leaves at their parents.
pub(super) fn attach(mv: &Move, bounds: Bounds) -> Vec<String> {
    let attach = |table: &MovedTable| {
        let bounds = for_values(bounds);
        format!("ALTER TABLE {} ATTACH PARTITION {} {bounds}", table.parent, table.leaf)
    };
    mv.tables.iter().map(attach).collect()
}
