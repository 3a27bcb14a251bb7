//! The map that the catalog holds, and how it follows the policy: at the start, and while it is
//! served.

use std::time::Duration;

use tokio::time::sleep;

use super::StartError;
use super::existing::{absent, in_the_way, to_be_imported};
use crate::backend::NodeAddress;
use crate::catalog::{Catalog, CatalogError, Expect};
use crate::cluster::Presence;
use crate::config::Policy;
use crate::executor::Engine;
use crate::shard_map::{ShardMap, Standing};
use crate::sql::TableName;

/// How soon it is looked again whether a map is in force.
const SHORTLY: Duration = Duration::from_millis(20);

/// The map that the catalog holds, extended by what is new in the policy; at the first start the
/// policy's own.
pub(super) async fn stored_map(
    catalog: &Catalog,
    policy: &Policy,
    nodes: &[NodeAddress],
) -> Result<ShardMap, StartError> {
    let there = catalog.list::<Presence>().await?;
    let is_known = |name: &String| there.iter().all(|it| it.record.nodes.contains(name));
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    loop {
        let Some(stored) = catalog.get::<ShardMap>("").await? else {
            let waiting = to_be_imported(policy, None, nodes).await?;
            let policy = policy.without(&waiting.groups, &waiting.tables);
            let map = ShardMap::try_from(policy.shard_map(&names))?;
            nothing_in_the_way(&map, None, nodes).await?;
            catalog.put(&map, Expect::Absent).await?;
            return Ok(map);
        };
        // A node is added by the last proxy that learns of it.
        let in_map = |name: &String| stored.record.nodes().any(|(_, node)| node.name == *name);
        let names: Vec<String> =
            names.iter().filter(|name| in_map(name) || is_known(name)).cloned().collect();
        let policy = prepared(&stored.record, policy, nodes).await?;
        warn_of(policy.idle_tables(&stored.record).iter());
        let Some(map) = extended(&stored.record, &policy, (&names, nodes), &[]).await? else {
            return Ok(stored.record);
        };
        match catalog.put(&map, Expect::At(stored.revision)).await {
            Ok(_) => return Ok(map),
            // Another proxy that serves has changed it.
            Err(CatalogError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Adds what is new in the policy to the map in force: groups, tables, functions; and takes away tables
/// that do not exist and that the policy does not name any more. The nodes, of these
/// configured ones, stay those that they are. Whatever needs rows to be rewritten is an error, and
/// nothing is changed.
pub(super) async fn follow(
    engine: &Engine,
    policy: &Policy,
    configured: &[NodeAddress],
) -> Result<(), StartError> {
    let mut alone = None;
    let (before, map) = loop {
        let Some(stored) = engine.catalog.get::<ShardMap>("").await? else { return Ok(()) };
        if engine.cluster.keeps_map() {
            sleep(SHORTLY).await;
            continue;
        }
        let names = present(&stored.record, configured);
        let policy = prepared(&stored.record, policy, &engine.nodes).await?;
        let idle = policy.idle_tables(&stored.record);
        if alone.is_none() && !idle.is_empty() {
            // Nobody makes them meanwhile.
            alone = Some(engine.define_alone(engine.config().ddl_timeout()).await?);
            continue;
        }
        let absent = match &alone {
            Some(Some(_)) => absent(&idle, &stored.record, &engine.nodes).await,
            _ => Vec::new(),
        };
        let map = extended(&stored.record, &policy, (&names, &engine.nodes), &absent).await?;
        warn_of(idle.iter().filter(|table| !absent.contains(table)));
        let Some(map) = map else { return Ok(()) };
        match engine.catalog.put(&map, Expect::At(stored.revision)).await {
            Ok(_) => break (stored.record, map),
            Err(CatalogError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    };
    engine.live_map.publish(map.clone());
    let is_new = |name: &TableName| before.table(name).is_none();
    let names = map.tables().iter().map(|table| table.name.clone());
    let new: Vec<TableName> = names.filter(is_new).collect();
    if let Err(error) = engine.refresh_columns(&new).await {
        tracing::error!(%error, "the columns of tables that the policy has now could not be read");
    }
    if let Err(error) = engine.refresh_derived().await {
        tracing::error!(%error, "views over sharded tables could not be read");
    }
    if let Err(error) = engine.refresh_lookups().await {
        tracing::error!(%error, "which lookups there are could not be read");
    }
    // What was made while the map was changed was still made by the old one.
    nothing_in_the_way(&map, Some(&before), &engine.nodes).await
}

fn warn_of<'a>(idle: impl Iterator<Item = &'a TableName>) {
    for table in idle {
        tracing::warn!(
            %table,
            "it stays what it was, not what the policy says: foreshard reload changes that while it is on no node"
        );
    }
}

/// The policy without what waits for an import, or for its rows to arrive.
async fn prepared(
    stored: &ShardMap,
    policy: &Policy,
    nodes: &[NodeAddress],
) -> Result<Policy, StartError> {
    let policy = policy.with_arriving(stored);
    let waiting = to_be_imported(&policy, Some(stored), nodes).await?;
    let policy = policy.without(&waiting.groups, &waiting.tables);
    for group in policy.waiting_keys(stored) {
        tracing::warn!(
            group,
            "the policy has another shard key for it: it stays as it is until foreshard reshard {group}"
        );
    }
    Ok(policy)
}

/// What the stored map becomes under a policy and with nodes of these names, without tables that are
/// surely absent; `None` if that is nothing new.
async fn extended(
    stored: &ShardMap,
    policy: &Policy,
    (names, nodes): (&[String], &[NodeAddress]),
    absent: &[TableName],
) -> Result<Option<ShardMap>, StartError> {
    let Some(parts) = policy.extend(stored, names, absent)? else { return Ok(None) };
    let map = ShardMap::try_from(parts)?;
    nothing_in_the_way(&map, Some(stored), nodes).await?;
    Ok(Some(map))
}

/// That a policy and nodes of these names can follow a stored map, as far as that can be told without
/// the nodes.
pub(super) fn fits(
    stored: &ShardMap,
    policy: &Policy,
    nodes: &[NodeAddress],
) -> Result<(), StartError> {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let extended = policy.with_arriving(stored).extend(stored, &names, &[])?;
    Ok(extended.map(ShardMap::try_from).transpose().map(drop)?)
}

/// The names of the configured nodes that the map does not say have left.
fn present(map: &ShardMap, configured: &[NodeAddress]) -> Vec<String> {
    let has_left = |name: &str| {
        map.nodes().any(|(_, node)| node.name == name && node.standing == Standing::Gone)
    };
    configured.iter().map(|node| node.name.clone()).filter(|name| !has_left(name)).collect()
}

async fn nothing_in_the_way(
    map: &ShardMap,
    before: Option<&ShardMap>,
    nodes: &[NodeAddress],
) -> Result<(), StartError> {
    let reasons = in_the_way(map, before, nodes).await;
    if reasons.is_empty() { Ok(()) } else { Err(StartError::Existing(reasons.join("\n  "))) }
}
