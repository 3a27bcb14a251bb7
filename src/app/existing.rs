//! Whether tables that are new in the policy are on the nodes already, as something else than the
//! policy says: their rows would be found by some statements and not by others.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Row};

use super::StartError;
use super::terminal::story;
use crate::backend::NodeAddress;
use crate::config::{GroupPolicy, Policy};
use crate::shard_map::{ShardMap, Table, TableKind};
use crate::sql::TableName;

/// How long a node may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

const KINDS: &str = "SELECT n.nspname::text, c.relname::text, c.relkind::text FROM pg_class c \
    JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN unnest($1::text[], $2::text[]) AS wanted (schema, name) \
    ON n.nspname = wanted.schema AND c.relname = wanted.name";

/// A transaction that is prepared, and may have made tables.
const IN_DOUBT: &str = "SELECT FROM pg_prepared_xacts x JOIN pg_locks l \
    ON l.virtualtransaction = '-1/' || x.transaction AND l.mode = 'AccessExclusiveLock' \
    WHERE x.database = current_database() LIMIT 1";

/// What stays on the home node until it is imported.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Groups that are not sharded yet.
    pub(super) groups: Vec<String>,
    /// Tables of groups that are.
    pub(super) tables: Vec<TableName>,
}

/// What the policy shards, not in the map `before`, and is there as plain tables on the home node: these
/// stay home tables until they are imported.
///
/// # Errors
/// The home node can't be asked: without its answer rows could be hidden.
pub(super) async fn to_be_imported(
    policy: &Policy,
    before: Option<&ShardMap>,
    nodes: &[NodeAddress],
) -> Result<Waiting, StartError> {
    let is_new =
        |group: &&GroupPolicy| before.is_none_or(|map| map.group_named(&group.name).is_none());
    let comes = |name: &TableName| before.is_none_or(|map| map.table(name).is_none());
    let tables: Vec<&TableName> = policy
        .groups
        .iter()
        .flat_map(|group| group.tables.iter().map(|table| &table.name))
        .filter(|name| comes(name))
        .collect();
    if tables.is_empty() {
        return Ok(Waiting::default());
    }
    let home = match before {
        Some(map) => Some(&map.node(map.home()).name),
        None => policy.home.as_ref().or(nodes.first().map(|node| &node.name)),
    };
    let home = nodes.iter().find(|node| Some(&node.name) == home);
    let there = match home {
        Some(home) => kinds(home, &policy.database, &tables).await,
        None => None,
    };
    let unknown = || {
        let name = home.map_or("?", |home| home.name.as_str());
        StartError::Existing(format!("node {name} does not tell which tables it has: try again"))
    };
    let there = there.ok_or_else(unknown)?;
    let kind = |name: &TableName| {
        there.iter().find(|(found, _)| found == name).map(|(_, kind)| kind.as_str())
    };
    let waits = |group: &&&GroupPolicy| {
        let kinds: Vec<_> = group.tables.iter().filter_map(|it| kind(&it.name)).collect();
        // Where some are partitioned already, it is not clear what it is.
        kinds.contains(&"r") && kinds.iter().all(|kind| *kind == "r")
    };
    let (new, known): (Vec<_>, Vec<_>) = policy.groups.iter().partition(is_new);
    let waits_alone = |name: &TableName| comes(name) && kind(name) == Some("r");
    let mut waiting = Waiting::default();
    for group in new.iter().filter(waits) {
        tracing::warn!(
            group = group.name,
            "its tables are plain ones on the home node and stay that until foreshard import {}",
            group.name
        );
        waiting.groups.push(group.name.clone());
    }
    for group in known {
        for table in group.tables.iter().filter(|table| waits_alone(&table.name)) {
            tracing::warn!(
                table = %table.name,
                "it is a plain table on the home node and stays that until foreshard import {}",
                group.name
            );
            waiting.tables.push(table.name.clone());
        }
    }
    Ok(waiting)
}

/// Why tables of `map` that `before` does not have can't be used as they are: all reasons.
pub(super) async fn in_the_way(
    map: &ShardMap,
    before: Option<&ShardMap>,
    nodes: &[NodeAddress],
) -> Vec<String> {
    let is_new = |table: &&Table| before.is_none_or(|before| before.table(&table.name).is_none());
    let new: Vec<&Table> = map.tables().iter().filter(is_new).collect();
    let home = &map.node(map.home()).name;
    let there = found(map, home, nodes, &new).await;
    let mut reasons = Vec::new();
    let mut references = Vec::new();
    for table in new {
        let kind = there.iter().flatten().find(|(name, _)| *name == table.name).map(|it| &it.1);
        match (&table.kind, kind.map(String::as_str)) {
            (_, None) | (TableKind::Sharded { .. }, Some("p")) => {}
            (TableKind::Reference, Some("r" | "p")) => references.push(table),
            (_, Some(_)) => reasons.push(format!(
                "{} is on node {home} already and is no partitioned table. foreshard import takes \
                 plain tables of a group that is sharded, or of one that has only such tables: else \
                 rename it, make it anew through the proxy, and COPY its rows into it",
                table.name
            )),
        }
    }
    for (_, node) in map.members().filter(|(_, node)| node.name != *home) {
        let Some(there) = found(map, &node.name, nodes, &references).await else { continue };
        for table in references.iter().filter(|it| !there.iter().any(|(name, _)| *name == it.name))
        {
            reasons.push(format!(
                "the reference table {} is on node {home} already, but not on node {}: rename it, \
                 make it anew through the proxy, and COPY its rows into it",
                table.name, node.name
            ));
        }
    }
    reasons
}

/// Those of the tables that no member of the map has, and that no transaction in doubt can have made.
pub(super) async fn absent(
    tables: &[TableName],
    map: &ShardMap,
    nodes: &[NodeAddress],
) -> Vec<TableName> {
    let mut absent = tables.to_vec();
    let wanted: Vec<&TableName> = tables.iter().collect();
    for (_, member) in map.members() {
        let Some(node) = nodes.iter().find(|node| node.name == member.name) else {
            return Vec::new();
        };
        let doubt = async |client: &Client| client.query(IN_DOUBT, &[]).await;
        let in_doubt = timeout(DEADLINE, node.ask(map.database(), doubt)).await;
        let there = kinds(node, map.database(), &wanted).await;
        match (in_doubt, there) {
            (Ok(Ok(rows)), Some(there)) if rows.is_empty() => {
                absent.retain(|table| !there.iter().any(|(name, _)| name == table));
            }
            _ => return Vec::new(),
        }
    }
    absent
}

/// Which of the tables a node has, and their kinds; `None` if it can't be asked.
async fn found(
    map: &ShardMap,
    name: &str,
    nodes: &[NodeAddress],
    tables: &[&Table],
) -> Option<Vec<(TableName, String)>> {
    let node = nodes.iter().find(|node| node.name == name)?;
    if tables.is_empty() {
        return None;
    }
    let tables: Vec<&TableName> = tables.iter().map(|table| &table.name).collect();
    kinds(node, map.database(), &tables).await
}

/// The kinds of those of the tables that a node has; `None` if it can't be asked.
async fn kinds(
    node: &NodeAddress,
    database: &str,
    tables: &[&TableName],
) -> Option<Vec<(TableName, String)>> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|it| (it.schema.as_str(), it.name.as_str())).unzip();
    let look = async |client: &Client| client.query(KINDS, &[&schemas, &names]).await;
    let row =
        |row: &Row| (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2));
    let asked = timeout(DEADLINE, node.ask(database, look)).await;
    match asked.map(|rows| rows.map(|rows| rows.iter().map(row).collect())) {
        Ok(Ok(found)) => Some(found),
        Ok(Err(error)) => {
            tracing::warn!(
                node = node.name,
                error = story(&error),
                "tables could not be looked for"
            );
            None
        }
        Err(_) => None,
    }
}
