//! What must be true when everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use foreshard::executor::CommitDecision;
use foreshard::shard_map::{Bounds, ShardMap};
use foreshard::shard_move::Move;
use tokio_postgres::Client;

use super::ledger::{Outcome, PURSE, TENANTS, Written};
use super::support::rows;
use super::world::{DATABASE, World};

const TABLES: [&str; 3] = ["accounts", "entries", "purse"];

/// An entry: tenant, writer, number.
type Entry = (i64, i32, i64);

/// Looks at catalog and nodes, which no process may have open; every fault that it finds.
pub async fn audit(world: &World, written: &BTreeMap<(i32, i64), Written>) -> Vec<String> {
    let mut faults = Vec::new();
    let (catalog, lead) = world.catalog().await;
    let map = catalog.get::<ShardMap>("").await.unwrap().unwrap().record;
    for mv in catalog.list::<Move>().await.unwrap() {
        if !mv.record.is_finished() || !mv.record.objects.is_empty() {
            faults.push(format!("not finished: {:#?}", mv.record));
        }
    }
    let decisions = catalog.list::<CommitDecision>().await.unwrap();
    if !decisions.is_empty() {
        faults.push(format!("commit decisions are left: {decisions:?}"));
    }
    let mut data = Data::default();
    for (node, _) in map.nodes() {
        let client = world.node_client(node.index()).await.unwrap();
        let owned = map.shards().filter(|(_, shard)| shard.node == node);
        let owned = owned.map(|(id, shard)| (id.0, shard.bounds.clone())).collect();
        let place = |fault| format!("node {node}: {fault}");
        faults.extend(leaves(&client, owned).await.into_iter().map(place));
        faults.extend(left_over(&client).await.into_iter().map(place));
        data.read(&client).await;
    }
    faults.extend(data.compare(written));
    if let Some(lead) = lead {
        lead.give_up().await;
    }
    faults
}

/// The tables of a node that are not those that it owns, and rows that are in a wrong one.
async fn leaves(client: &Client, owned: Vec<(u32, Bounds)>) -> Vec<String> {
    let mut faults = Vec::new();
    let sql = "SELECT c.relname, coalesce(p.relname, 'nothing') FROM pg_class c \
         LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND NOT i.inhdetachpending \
         LEFT JOIN pg_class p ON p.oid = inhparent \
         WHERE c.relkind = 'r' AND c.relname ~ '_s[0-9]+$'";
    let found: BTreeSet<String> = rows(client, sql).await.into_iter().collect();
    let expected = owned
        .iter()
        .flat_map(|(id, _)| TABLES.iter().map(move |table| format!("{table}_s{id}|{table}")));
    let expected: BTreeSet<String> = expected.collect();
    if found != expected {
        let wrong: Vec<_> = found.symmetric_difference(&expected).collect();
        faults.push(format!("tables that should not be there, or are not there: {wrong:?}"));
        return faults;
    }
    for (id, bounds) in owned {
        let Bounds::Hash { modulus, remainder } = bounds else { continue };
        for table in TABLES {
            let sql = format!(
                "SELECT count(*) FROM {table}_s{id} WHERE NOT satisfies_hash_partition(\
                 '{table}'::regclass, {modulus}, {remainder}, tenant_id)"
            );
            let count = rows(client, &sql).await.remove(0);
            if count != "0" {
                faults.push(format!("{count} rows of {table}_s{id} belong elsewhere"));
            }
        }
        let sql = format!(
            "SELECT FROM pg_constraint WHERE conrelid = 'entries_s{id}'::regclass \
             AND contype = 'f' AND confrelid = 'accounts_s{id}'::regclass AND convalidated"
        );
        if client.query(&sql, &[]).await.unwrap().len() != 1 {
            faults.push(format!("entries_s{id} has lost its foreign key"));
        }
    }
    faults
}

/// What a move or a commit has left on a node.
async fn left_over(client: &Client) -> Vec<String> {
    let queries = [
        format!("SELECT slot_name FROM pg_replication_slots WHERE database = '{DATABASE}'"),
        format!("SELECT gid FROM pg_prepared_xacts WHERE database = '{DATABASE}'"),
        "SELECT pubname FROM pg_publication".to_owned(),
        "SELECT conname FROM pg_constraint WHERE conname ~ '^foreshard'".to_owned(),
        "SELECT tgname FROM pg_trigger WHERE tgname ~ '^foreshard'".to_owned(),
        "SELECT relname FROM pg_class WHERE reloptions::text ~ 'autovacuum'".to_owned(),
        "SELECT relname FROM pg_class WHERE relreplident = 'f'".to_owned(),
        "SELECT application_name FROM pg_stat_activity WHERE application_name ~ '^foreshard move'"
            .to_owned(),
    ];
    let mut left = Vec::new();
    for query in queries {
        let found = rows(client, &query).await;
        if !found.is_empty() {
            left.push(format!("left over: {found:?} ({query})"));
        }
    }
    if rows(client, "SELECT to_regclass('foreshard.moves')").await != ["∅"] {
        let noted = "SELECT move FROM foreshard.moves \
             UNION ALL SELECT move FROM foreshard.segments";
        let found = rows(client, noted).await;
        left.extend((!found.is_empty()).then(|| format!("left over: positions {found:?}")));
    }
    left
}

/// All rows of all nodes.
#[derive(Default)]
struct Data {
    entries: BTreeMap<Entry, usize>,
    accounts: BTreeMap<i64, Vec<(i64, i64)>>,
    purses: BTreeMap<i64, Vec<i64>>,
}

impl Data {
    async fn read(&mut self, client: &Client) {
        for row in client.query("SELECT tenant_id, writer, n FROM entries", &[]).await.unwrap() {
            *self.entries.entry((row.get(0), row.get(1), row.get(2))).or_default() += 1;
        }
        let sql = "SELECT tenant_id, version, weight FROM accounts";
        for row in client.query(sql, &[]).await.unwrap() {
            self.accounts.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
        }
        for row in client.query("SELECT tenant_id, amount FROM purse", &[]).await.unwrap() {
            self.purses.entry(row.get(0)).or_default().push(row.get(1));
        }
    }

    fn compare(&self, written: &BTreeMap<(i32, i64), Written>) -> Vec<String> {
        let mut faults = Vec::new();
        for (entry, count) in self.entries.iter().filter(|(_, count)| **count > 1) {
            faults.push(format!("entry {entry:?} is there {count} times"));
        }
        let mut known = BTreeSet::new();
        for (id, Written { tenants, outcome }) in written {
            let entries: Vec<Entry> = tenants.iter().map(|tenant| (*tenant, id.0, id.1)).collect();
            let there = entries.iter().filter(|entry| self.entries.contains_key(entry)).count();
            known.extend(entries);
            let right = match outcome {
                Outcome::Acknowledged => there == tenants.len(),
                Outcome::Unknown => there == 0 || there == tenants.len(),
                Outcome::Failed => there == 0,
            };
            if !right {
                let of = tenants.len();
                faults.push(format!("{id:?} {outcome:?}: {there} of {of} entries ({tenants:?})"));
            }
        }
        let strange = self.entries.keys().filter(|entry| !known.contains(entry));
        faults.extend(strange.map(|entry| format!("nobody wrote {entry:?}")));
        let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
        for (tenant, _, _) in self.entries.keys() {
            *counts.entry(*tenant).or_default() += 1;
        }
        for tenant in 1..=TENANTS {
            let count = counts.get(&tenant).copied().unwrap_or_default();
            let account = self.accounts.get(&tenant).cloned().unwrap_or_default();
            if account != [(count, tenant)] {
                faults.push(format!("account {tenant} is {account:?} with {count} entries"));
            }
            let purse = self.purses.get(&tenant).cloned().unwrap_or_default();
            if purse.len() != 2 || purse.iter().sum::<i64>() != PURSE {
                faults.push(format!("purse {tenant} is {purse:?}"));
            }
        }
        faults
    }
}
