//! What ATTACH wants of the new tables, off the critical path: keys, indexes, checks, statistics;
//! and what a DBA has set on the old ones.

use super::back;
use super::context::MoverContext;
use super::error::MoveError;
use super::lane::{OneLane, Sessions, streams};
use super::look;
use super::names::{self, quoted};
use super::position;
use super::session::Session;
use crate::shard_map::{Bounds, OTHERS_CHECK, leaf_name};
use crate::shard_move::{Event, Move, MovedTable, Part};
use crate::sql::{Literal, TableName};

/// Keys of a leaf, and CHECKs that it does not have from its parent: name and definition.
const CONSTRAINTS: &str = "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = $1 AND (contype IN ('p', 'u', 'x') \
     OR contype = 'c' AND coninhcount = 0 AND conname !~ '^foreshard_') ORDER BY conname";
/// Indexes of a leaf that no constraint made: name, whether unique, and the definition after the
/// table's name.
const INDEXES: &str = "SELECT c.relname::text, x.indisunique, substr(pg_get_indexdef(c.oid), \
     1 + length(format('CREATE %sINDEX %I ON %I.%I ', CASE WHEN x.indisunique THEN 'UNIQUE ' END, \
     c.relname, n.nspname, t.relname))) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid \
     JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace \
     WHERE x.indrelid = $1 AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid \
     AND k.contype IN ('p', 'u', 'x')) ORDER BY 1";
/// How the definition of one begins.
const PRIMARY_KEY: &str = "PRIMARY KEY ";
/// Foreign keys of a leaf: name, definition, and the table that it points at.
const FOREIGN_KEYS: &str = "SELECT k.conname::text, pg_get_constraintdef(k.oid), n.nspname::text, \
     c.relname::text FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE k.conrelid = $1 AND k.contype = 'f' AND k.conparentid = 0 ORDER BY 1";
/// What was SET on a leaf, and the index of its replica identity.
const SETTINGS: &str = "SELECT array(SELECT o FROM unnest(c.reloptions) o \
     WHERE o !~ '^autovacuum_enabled=') || array(SELECT 'toast.' || o FROM unnest(t.reloptions) o), \
     (SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
     WHERE x.indrelid = c.oid AND x.indisreplident) \
     FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = $1";

/// Builds all targets, those of a stream in one transaction, so that it happened or not.
pub(super) async fn build(context: &MoverContext, mv: &Move) -> Result<Event, MoveError> {
    let sessions = Sessions::open(context, mv).await?;
    let mut built = Vec::new();
    for stream in streams(mv) {
        let (source, destination) = (sessions.on(stream.from())?, sessions.on(stream.to())?);
        // Of several streams to the same shard the first knows.
        let new = |one: &OneLane<'_>| !built.contains(&one.lane.target.shard);
        let targets: Vec<OneLane<'_>> = stream.lanes().filter(new).collect();
        built.extend(targets.iter().map(|one| one.lane.target.shard));
        let slot = stream.slot();
        if targets.is_empty() || position::read(destination, &slot).await?.built {
            continue;
        }
        let mut sql = vec!["BEGIN".to_owned()];
        for lane in targets {
            sql.push(match mv.reverses {
                None => statements(lane, source, destination).await?,
                Some(_) => back::statements(lane, source, destination).await?,
            });
        }
        sql.extend([position::set_built(&slot), "COMMIT".to_owned()]);
        destination.run_long("building indexes and constraints", &sql.join("; ")).await?;
    }
    context.pass(if mv.reverses.is_none() { "built" } else { "restored" })?;
    for target in mv.targets() {
        for table in mv.tables_for(target.shard) {
            let sql = format!("VACUUM (ANALYZE) {}", table.new_leaf);
            sessions.on(target.node)?.run_long("analyzing a table", &sql).await?;
        }
    }
    for source in mv.sources() {
        for table in mv.leaves_of(source.shard) {
            keep_attachable(mv, sessions.on(source.node)?, table, &source).await?;
        }
    }
    Ok(Event::Built)
}

/// Everything that the source's leaves have and the new tables lack.
async fn statements(
    lane: OneLane<'_>,
    source: &Session,
    destination: &Session,
) -> Result<String, MoveError> {
    let (mut keys, mut foreign_keys, mut checks) = (vec!["SELECT 1".to_owned()], vec![], vec![]);
    for table in &lane.lane.tables {
        let leaf = look::oid(source, &table.leaf).await?;
        let gone = || MoveError::Refused(format!("{} has lost {}", destination.node, table.parent));
        let parent = look::table(destination, &table.parent).await?.ok_or_else(gone)?;
        let has_key = look::table(destination, &table.new_leaf).await?;
        let has_key = has_key.is_some_and(|seen| seen.has_primary_key);
        keys.extend(own_keys(source, table, leaf, has_key).await?);
        foreign_keys.extend(own_foreign_keys(lane, source, table, leaf).await?);
        checks.extend(own_settings(source, table, leaf).await?);
        let bounds = &lane.lane.target.bounds;
        let check = helper(lane.mv, table, parent.oid, bounds);
        let new_leaf = &table.new_leaf;
        checks.push(format!("ALTER TABLE {new_leaf} {check}"));
        if let Bounds::Others(_) = bounds {
            let check = bounds.condition(&table.key, parent.oid);
            checks.push(format!(
                "ALTER TABLE {new_leaf} ADD CONSTRAINT {OTHERS_CHECK} CHECK ({check})"
            ));
        }
        checks.push(format!("ALTER TABLE {new_leaf} OWNER TO {}", quoted(&parent.owner)));
    }
    Ok(keys.into_iter().chain(foreign_keys).chain(checks).collect::<Vec<_>>().join("; "))
}

/// Gives a new table its primary key, if it has none yet.
pub(super) async fn primary_key(
    table: &MovedTable,
    source: &Session,
    destination: &Session,
) -> Result<(), MoveError> {
    let seen = look::table(destination, &table.new_leaf).await?;
    if seen.is_some_and(|seen| seen.has_primary_key) {
        return Ok(());
    }
    let keys = if table.across.is_some() {
        // What it is a copy of is on this node, too.
        parents_key(destination, &table.parent, &table.new_leaf).await?
    } else {
        let leaf = look::oid(source, &table.leaf).await?;
        own_keys(source, table, leaf, false).await?
    };
    let Some(key) = keys.iter().find(|sql| sql.contains(PRIMARY_KEY)) else { return Ok(()) };
    destination.run_long("making a primary key", key).await
}

/// How a partitioned table's twin gets its primary key.
pub(super) async fn parents_key(
    session: &Session,
    table: &TableName,
    twin: &TableName,
) -> Result<Vec<String>, MoveError> {
    let oid = look::oid(session, table).await?;
    let sql = "SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2::text, conname, \
         pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = $1 AND contype = 'p'";
    let rows =
        session.rows("looking at a table's indexes", sql, &[&oid, &twin.to_string()]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Keys and indexes. They are named after the new leaf where they were named after the old one.
async fn own_keys(
    source: &Session,
    table: &MovedTable,
    leaf: u32,
    has_key: bool,
) -> Result<Vec<String>, MoveError> {
    let doing = "looking at a table's indexes";
    let mut keys = Vec::new();
    let new_leaf = &table.new_leaf;
    for row in source.rows(doing, CONSTRAINTS, &[&leaf]).await? {
        let name = renamed(table, row.get(0)).map(|name| format!("CONSTRAINT {name} "));
        let definition: String = row.get(1);
        if has_key && definition.starts_with(PRIMARY_KEY) {
            continue;
        }
        let name = name.unwrap_or_default();
        keys.push(format!("ALTER TABLE {new_leaf} ADD {name}{definition}"));
    }
    for row in source.rows(doing, INDEXES, &[&leaf]).await? {
        let name = renamed(table, row.get(0)).map(|name| name + " ").unwrap_or_default();
        let unique = if row.get(1) { "UNIQUE " } else { "" };
        let definition: String = row.get(2);
        keys.push(format!("CREATE {unique}INDEX {name}ON {new_leaf} {definition}"));
    }
    Ok(keys)
}

/// The name that something of the old leaf has on the new one; `None` if PostgreSQL has to find one,
/// since both leaves may be on the same node.
fn renamed(table: &MovedTable, name: &str) -> Option<String> {
    if table.leaf == table.new_leaf {
        return Some(quoted(name));
    }
    let rest = name.strip_prefix(table.leaf.name.as_str())?;
    let new = format!("{}{rest}", table.new_leaf.name);
    (new.len() < 64).then(|| quoted(&new))
}

/// Foreign keys; those that point at a leaf that moves too, point at the new one.
pub(super) async fn own_foreign_keys(
    lane: OneLane<'_>,
    source: &Session,
    table: &MovedTable,
    leaf: u32,
) -> Result<Vec<String>, MoveError> {
    let mut keys = Vec::new();
    for row in source.rows("looking at foreign keys", FOREIGN_KEYS, &[&leaf]).await? {
        let (name, mut definition): (String, String) = (row.get(0), row.get(1));
        let target = TableName::new(row.get::<_, String>(2), row.get::<_, String>(3));
        let moved = lane.lane.tables.iter().find(|other| other.leaf == target);
        if let Some(other) = moved.filter(|other| other.leaf != other.new_leaf) {
            // PostgreSQL quotes only where it must.
            let at = definition.find(" REFERENCES ").map(|at| at + " REFERENCES ".len());
            let end = at.and_then(|at| Some((at, at + definition[at..].find('(')?)));
            let unread = || MoveError::Refused(format!("foreign key {name} can't be read"));
            let (at, end) = end.ok_or_else(unread)?;
            definition.replace_range(at..end, &other.new_leaf.to_string());
        }
        let name = quoted(&name);
        keys.push(format!("ALTER TABLE {} ADD CONSTRAINT {name} {definition}", table.new_leaf));
    }
    Ok(keys)
}

/// Storage parameters and replica identity.
pub(super) async fn own_settings(
    source: &Session,
    table: &MovedTable,
    leaf: u32,
) -> Result<Vec<String>, MoveError> {
    let rows = source.rows("looking at a table's settings", SETTINGS, &[&leaf]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let options: Vec<String> = row.get(0);
    let set = options.iter().filter_map(|option| option.split_once('='));
    let set: Vec<String> =
        set.map(|(name, value)| format!("{name} = {}", Literal(value))).collect();
    let mut all = Vec::new();
    if !set.is_empty() {
        all.push(format!("SET ({})", set.join(", ")));
    }
    let index: Option<String> = row.get(1);
    match (table.identity.as_str(), index) {
        ("f", _) => all.push("REPLICA IDENTITY FULL".to_owned()),
        ("n", _) => all.push("REPLICA IDENTITY NOTHING".to_owned()),
        ("i", Some(index)) => {
            let name = renamed(table, &index).ok_or_else(|| {
                let text = "name the index of the replica identity after its table";
                MoveError::Refused(format!("{}: {text}", table.leaf))
            })?;
            all.push(format!("REPLICA IDENTITY USING INDEX {name}"));
        }
        _ => {}
    }
    Ok(all.iter().map(|clause| format!("ALTER TABLE {} {clause}", table.new_leaf)).collect())
}

/// A CHECK that says what the partition's bounds say, in the words that ATTACH recognizes.
pub(super) fn helper(mv: &Move, table: &MovedTable, parent: u32, bounds: &Bounds) -> String {
    let name = quoted(&names::helper_check(mv));
    format!("ADD CONSTRAINT {name} CHECK ({})", bounds.condition(&table.key, parent))
}

/// How long and how often the old leaf is asked for to get its check, in ms.
const CHECK_LOCK: (u64, u32) = (50, 5);

/// Gives the source's leaf the same CHECK, so that it could be attached again in an instant should
/// the destination fail in the middle of the switch, and could be detached concurrently without one
/// being made then. If somebody is in a transaction on the leaf, it goes without: PostgreSQL would
/// have to look at its rows then.
async fn keep_attachable(
    mv: &Move,
    source: &Session,
    table: &MovedTable,
    part: &Part,
) -> Result<(), MoveError> {
    debug_assert_eq!(leaf_name(&table.parent, part.shard), table.leaf);
    let doing = "adding the check to the old table";
    let parent = look::oid(source, &table.parent).await?;
    let name = quoted(&names::helper_check(mv));
    let sql = format!(
        "ALTER TABLE {0} DROP CONSTRAINT IF EXISTS {name}; ALTER TABLE {0} {1} NOT VALID",
        table.leaf,
        helper(mv, table, parent, &part.bounds)
    );
    match source.run_with_locks(doing, &sql, CHECK_LOCK).await {
        Err(error) if error.is_lock_timeout() => {
            tracing::info!(leaf = %table.leaf, "the old table is in use and gets no check");
            return Ok(());
        }
        result => result?,
    }
    let sql = format!("ALTER TABLE {} VALIDATE CONSTRAINT {name}", table.leaf);
    source.run_long(doing, &sql).await
}
