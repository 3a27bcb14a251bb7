//! What must be true once no process runs: every row is there once, on its node, and nothing of a
//! move or a commit is left.

use std::collections::{BTreeMap, BTreeSet};

use foreshard::catalog::Catalog;
use foreshard::executor::CommitDecision;
use foreshard::ids::NodeId;
use foreshard::shard_map::{Bounds, ShardMap};
use foreshard::shard_move::Move;
use tokio_postgres::Client;

use super::writers::{Entry, Written};
use super::{Deployment, TENANTS};
use crate::support::rows;

/// The stopped deployment.
pub struct Aftermath {
    pub map: ShardMap,
    pub moves: Vec<Move>,
    nodes: Vec<Client>,
    database: String,
    pub decisions: usize,
}

impl Aftermath {
    /// Opens the catalog, which no process may have open.
    pub async fn of(deployment: &Deployment) -> Self {
        Self::by(foreshard::app::catalog_in(&deployment.data_folder).unwrap(), deployment).await
    }

    /// The same by a catalog that is elsewhere.
    pub async fn by(catalog: Catalog, deployment: &Deployment) -> Self {
        let mut nodes = Vec::new();
        for node in 0..deployment.database.nodes.len() {
            nodes.push(deployment.database.client(node).await);
        }
        let moves = catalog.list::<Move>().await.unwrap();
        Self {
            map: catalog.get::<ShardMap>("").await.unwrap().unwrap().record,
            moves: moves.into_iter().map(|found| found.record).collect(),
            nodes,
            database: deployment.database.name.clone(),
            decisions: catalog.list::<CommitDecision>().await.unwrap().len(),
        }
    }

    /// The tables are where the map says and as they were made, and nothing else is left.
    pub async fn assert_in_order(&self) {
        for mv in &self.moves {
            assert!(mv.is_finished() && mv.objects.is_empty(), "{mv:#?}");
        }
        assert_eq!(self.decisions, 0, "commit decisions are left");
        for (index, client) in self.nodes.iter().enumerate() {
            let node = NodeId(u16::try_from(index).unwrap());
            self.assert_leaves(node, client).await;
            self.assert_nothing_left(node, client).await;
        }
    }

    /// Exactly the owned leaves, attached, with their foreign keys and rows.
    async fn assert_leaves(&self, node: NodeId, client: &Client) {
        let owned: Vec<_> = self.map.shards().filter(|(_, shard)| shard.node == node).collect();
        let mut expected = Vec::new();
        for table in ["accounts", "entries"] {
            expected.extend(owned.iter().map(|(shard, _)| format!("{table}_s{shard}|{table}")));
        }
        let sql = "SELECT c.relname, coalesce(p.relname, 'nothing') FROM pg_class c \
             LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = inhparent \
             WHERE c.relkind = 'r' AND c.relname ~ '_s[0-9]+$' ORDER BY 1";
        let mut found = rows(client, sql).await;
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "leaves of node {node}");
        let sql = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated \
             AND conrelid::regclass::text ~ '^entries_s' \
             AND confrelid::regclass::text = replace(conrelid::regclass::text, 'entries', 'accounts')";
        assert_eq!(rows(client, sql).await, [owned.len().to_string()], "keys of node {node}");
        for (id, shard) in owned {
            let Bounds::Hash { modulus, remainder } = shard.bounds else { panic!("{id}") };
            for table in ["accounts", "entries"] {
                let sql = format!(
                    "SELECT count(*) FROM {table}_s{id} WHERE NOT satisfies_hash_partition(\
                     '{table}'::regclass, {modulus}, {remainder}, tenant_id)"
                );
                assert_eq!(rows(client, &sql).await, ["0"], "rows in {table}_s{id}");
            }
        }
    }

    async fn assert_nothing_left(&self, node: NodeId, client: &Client) {
        let name = &self.database;
        let queries = [
            format!("SELECT slot_name FROM pg_replication_slots WHERE database = '{name}'"),
            format!("SELECT gid FROM pg_prepared_xacts WHERE database = '{name}'"),
            "SELECT pubname FROM pg_publication".to_owned(),
            "SELECT conname FROM pg_constraint WHERE conname ~ '^foreshard'".to_owned(),
            "SELECT relname FROM pg_class WHERE reloptions::text ~ 'autovacuum'".to_owned(),
            "SELECT relname FROM pg_class WHERE relreplident = 'f'".to_owned(),
        ];
        for query in queries {
            assert_eq!(rows(client, &query).await, [] as [&str; 0], "node {node}: {query}");
        }
        if rows(client, "SELECT to_regclass('foreshard.moves')").await != ["∅"] {
            let noted = "SELECT move FROM foreshard.moves \
                 UNION ALL SELECT move FROM foreshard.segments";
            let left = rows(client, noted).await;
            assert_eq!(left, [] as [&str; 0], "node {node}");
        }
    }

    /// Every entry of every node, as often as it is there.
    pub async fn entries(&self) -> BTreeMap<Entry, usize> {
        let mut all = BTreeMap::new();
        for client in &self.nodes {
            for row in client.query("SELECT tenant_id, writer, n FROM entries", &[]).await.unwrap()
            {
                *all.entry((row.get(0), row.get(1), row.get(2))).or_default() += 1;
            }
        }
        all
    }

    /// The version of every account; each is there once.
    pub async fn versions(&self) -> BTreeMap<i64, i64> {
        let mut all = BTreeMap::new();
        for client in &self.nodes {
            for row in client.query("SELECT tenant_id, version FROM accounts", &[]).await.unwrap() {
                assert!(all.insert(row.get(0), row.get(1)).is_none(), "an account is there twice");
            }
        }
        assert_eq!(all.len(), usize::try_from(TENANTS).unwrap());
        all
    }

    /// Each of so many transactions has left one entry, once, and counted its account up.
    pub async fn assert_counted(&self, transactions: i64) {
        let entries = self.entries().await;
        assert!(entries.values().all(|count| *count == 1), "doubled entries");
        assert_eq!(i64::try_from(entries.len()).unwrap(), transactions);
        assert_eq!(self.versions().await.values().sum::<i64>(), transactions);
    }

    /// All that was acknowledged is there, nothing twice, and nothing that nobody wrote; both tables
    /// tell the same, since a transaction is whole or not at all.
    pub async fn assert_written(&self, written: &Written) {
        let entries = self.entries().await;
        let twice: Vec<_> = entries.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "doubled: {twice:?}");
        let found: BTreeSet<Entry> = entries.into_keys().collect();
        let lost: Vec<_> = written.acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let known: BTreeSet<_> = written.acknowledged.union(&written.unknown).copied().collect();
        let strange: Vec<_> = found.difference(&known).collect();
        assert!(strange.is_empty(), "nobody wrote: {strange:?}");
        let mut counts: BTreeMap<i64, i64> = (1..=TENANTS).map(|tenant| (tenant, 0)).collect();
        for (tenant, _, _) in found {
            *counts.entry(tenant).or_default() += 1;
        }
        assert_eq!(self.versions().await, counts);
    }
}
