//! Counts what is there, on every node directly, past the proxy.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use foreshard::app::AdminClient;
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio_postgres::Client;

use crate::proxy::{self, Node};
use crate::rows::LIVE_ITEMS_FROM;

/// The sharded tables, each with what is never changed in the rows that were loaded. A checksum is
/// the sum of the rows' hashes: it does not depend on where a row is.
const TABLES: [(&str, &str); 3] = [
    ("tenants", "id, name, plan_id"),
    ("orders", "tenant_id, id, customer, status, amount_cents, extract(epoch FROM placed_at)"),
    ("order_items", "tenant_id, id, order_id, product, quantity, price_cents"),
];

/// The rows of one table that were loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Loaded {
    pub(crate) rows: i64,
    pub(crate) checksum: i128,
}

/// All nodes together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Census {
    /// By table, in the order of the schema.
    pub(crate) loaded: Vec<(&'static str, Loaded)>,
    /// The sum of `orders.version`: the updates that the load has committed.
    pub(crate) updates: i64,
    /// The items that the load has added.
    pub(crate) inserts: i64,
    /// Rows in a partition that they don't belong to.
    pub(crate) misplaced: i64,
    /// What is wrong with the partitions themselves, in words.
    pub(crate) faults: Vec<String>,
    /// Slots, publications, prepared transactions that are left on nodes.
    pub(crate) left_over: i64,
}

/// What one node has.
#[derive(Debug, Default)]
struct Share {
    census: Census,
    /// Table and remainder of each partition.
    partitions: Vec<(String, i64)>,
}

/// Counts all nodes at the same time.
pub(crate) async fn take(nodes: &[Node], admin: &AdminClient) -> anyhow::Result<Census> {
    let shares = try_join_all(nodes.iter().map(|node| async move {
        let share = count(node).await;
        share.with_context(|| format!("counting on node {}", node.name))
    }));
    let shares = shares.await?;
    let mut census = Census::default();
    for share in &shares {
        census.add(&share.census);
    }
    let shards = admin.get("/api/v1/shards").await?;
    census.faults.extend(wrong_partitions(nodes, &shares, &shards));
    Ok(census)
}

impl Census {
    fn add(&mut self, share: &Self) {
        if self.loaded.is_empty() {
            self.loaded = TABLES.map(|(table, _)| (table, Loaded::default())).to_vec();
        }
        for ((_, sum), (_, loaded)) in self.loaded.iter_mut().zip(&share.loaded) {
            sum.rows += loaded.rows;
            sum.checksum += loaded.checksum;
        }
        self.updates += share.updates;
        self.inserts += share.inserts;
        self.misplaced += share.misplaced;
        self.left_over += share.left_over;
    }

    /// All rows that were loaded.
    pub(crate) fn rows(&self) -> i64 {
        self.loaded.iter().map(|(_, loaded)| loaded.rows).sum()
    }
}

async fn count(node: &Node) -> anyhow::Result<Share> {
    let client = proxy::connect(node.port).await?;
    let mut share = Share::default();
    for (table, columns) in TABLES {
        share.census.loaded.push((table, loaded(&client, table, columns).await?));
    }
    let live = format!(
        "SELECT (SELECT coalesce(sum(version), 0)::bigint FROM orders), \
         (SELECT count(*) FROM order_items WHERE id >= {LIVE_ITEMS_FROM}), \
         (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication) \
         + (SELECT count(*) FROM pg_prepared_xacts)"
    );
    let row = client.query_one(&live, &[]).await?;
    share.census.updates = row.get(0);
    share.census.inserts = row.get(1);
    share.census.left_over = row.get(2);
    misplaced(&client, &mut share).await?;
    Ok(share)
}

async fn loaded(client: &Client, table: &str, columns: &str) -> anyhow::Result<Loaded> {
    let only = match table {
        "order_items" => format!("WHERE id < {LIVE_ITEMS_FROM}"),
        _ => String::new(),
    };
    let query = format!(
        "SELECT count(*), coalesce(sum(hashtextextended(concat_ws('|', {columns}), 0)), 0)::text \
         FROM {table} {only}"
    );
    let row = client.query_one(&query, &[]).await?;
    let checksum: &str = row.get(1);
    Ok(Loaded { rows: row.get(0), checksum: checksum.parse()? })
}

/// Looks at each partition with the server's own hash function: which it is, and whether every row
/// belongs into it.
async fn misplaced(client: &Client, share: &mut Share) -> anyhow::Result<()> {
    let partitions = "\
        SELECT parent.relname, leaf.oid::regclass::text, pg_get_partition_constraintdef(leaf.oid), \
        substring(pg_get_expr(leaf.relpartbound, leaf.oid) FROM 'remainder (\\d+)')::bigint \
        FROM pg_inherits JOIN pg_class leaf ON leaf.oid = inhrelid \
        JOIN pg_class parent ON parent.oid = inhparent \
        WHERE parent.relkind = 'p' AND leaf.relkind = 'r'";
    for row in client.query(partitions, &[]).await? {
        let (table, leaf, constraint): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        if !constraint.contains("satisfies_hash_partition") {
            bail!("{leaf} has another partition constraint than expected: {constraint}");
        }
        let query = format!("SELECT count(*) FROM {leaf} WHERE ({constraint}) IS NOT TRUE");
        share.census.misplaced += client.query_one(&query, &[]).await?.get::<_, i64>(0);
        share.partitions.push((table, row.get(3)));
    }
    Ok(())
}

/// Compares the partitions of all nodes with the proxy's map: each slice of each table must be
/// attached on its owner, and nowhere else.
fn wrong_partitions(nodes: &[Node], shares: &[Share], shards: &Value) -> Vec<String> {
    let mut owners: BTreeMap<(String, i64), Vec<&str>> = BTreeMap::new();
    for (node, share) in nodes.iter().zip(shares) {
        for partition in &share.partitions {
            owners.entry(partition.clone()).or_default().push(&node.name);
        }
    }
    let mut faults = Vec::new();
    let mut known = 0;
    for shard in shards["shards"].as_array().into_iter().flatten() {
        let remainder = shard["shard"].as_i64().unwrap_or(-1);
        for (table, _) in TABLES {
            known += 1;
            let found = owners.get(&(table.to_owned(), remainder));
            let expected = shard["node"].as_str().unwrap_or_default();
            if found.map(Vec::as_slice) != Some(&[expected]) {
                faults.push(format!("slice {remainder} of {table}: on {found:?}, not {expected}"));
            }
        }
    }
    if known != owners.len() {
        faults.push(format!("{} slices are attached, but there are {known}", owners.len()));
    }
    faults
}
