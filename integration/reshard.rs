//! A group gets another shard key while clients write: nothing is lost, nobody sees an error, and the
//! tables are what they were but for their key.
#![allow(clippy::print_stdout, reason = "what was measured")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "reshard/crashes.rs"]
mod crashes;
#[path = "reshard/losses.rs"]
mod losses;
mod process_support;
#[path = "reshard/refused.rs"]
mod refused;
#[path = "reshard/shop.rs"]
mod shop;
mod support;

use std::time::Duration;

use foreshard::catalog::{Catalog, EmbeddedKv};
use foreshard::runtime::Tasks;
use foreshard::shard_map::ShardMap;
use process_support::{Deployment, said};
use shop::{Clients, by, configure, execute};
use support::{eventually, rows};
use tokio_postgres::Client;

async fn one(client: &Client, sql: &str) -> String {
    rows(client, sql).await.concat()
}

/// What psql says of a table by the proxy.
async fn described(deployment: &Deployment) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["orders", "items", "events"] {
        let mut psql = tokio::process::Command::new("psql");
        let port = deployment.port.to_string();
        psql.args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c"]);
        psql.arg(format!("\\d+ {table}")).arg("-c").arg(format!("\\dp {table}"));
        let output = psql.arg(&deployment.database.name).output().await.unwrap();
        all.push(said(&output));
    }
    all
}

async fn reshard(deployment: &Deployment, more: &[&str]) -> String {
    let args: Vec<&str> = ["reshard", "shop"].iter().chain(more).copied().collect();
    let output = deployment.run(&args).await;
    let said = said(&output);
    assert!(output.status.success(), "{said}\n{}", deployment.log_tail());
    said
}

async fn reload(deployment: &Deployment, group: &str) {
    configure(deployment, group);
    let output = deployment.run(&["reload"]).await;
    assert!(output.status.success(), "{}\n{}", said(&output), deployment.log_tail());
}

/// Nothing of a change is left on any node: only the tables of the map, and each row on its shard.
async fn assert_clean(deployment: &Deployment) {
    let name = &deployment.database.name;
    let left = format!(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = '{name}' \
         UNION ALL SELECT gid FROM pg_prepared_xacts WHERE database = '{name}' \
         UNION ALL SELECT pubname::text FROM pg_publication \
         UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^foreshard_reshard' \
         UNION ALL SELECT conname::text FROM pg_constraint WHERE conname ~ '^foreshard' AND conname <> 'foreshard_others' \
         UNION ALL SELECT relname::text FROM pg_class WHERE relreplident = 'f'"
    );
    for node in 0..deployment.database.nodes.len() {
        let client = deployment.database.client(node).await;
        assert_eq!(rows(&client, &left).await, [] as [&str; 0], "node {node}");
        if one(&client, "SELECT to_regclass('foreshard.moves')").await != "∅" {
            assert_eq!(one(&client, "SELECT count(*) FROM foreshard.moves").await, "0");
            assert_eq!(one(&client, "SELECT count(*) FROM foreshard.segments").await, "0");
        }
    }
}

/// The map of a deployment that is stopped.
async fn stored_map(deployment: &Deployment) -> ShardMap {
    let kv = EmbeddedKv::open(&deployment.data_folder.join("catalog.redb")).unwrap();
    let catalog = Catalog::new(std::sync::Arc::new(kv));
    catalog.get::<ShardMap>("").await.unwrap().unwrap().record
}

/// Every row of every partition belongs there, by this key; each partition is attached where the map
/// says.
async fn assert_placed(deployment: &Deployment, key: &str) {
    let map = stored_map(deployment).await;
    assert!(map.importing().is_empty());
    for (id, shard) in map.shards() {
        let client = deployment.database.client(shard.node.index()).await;
        for table in ["orders", "items", "events"] {
            let oid = one(&client, &format!("SELECT '{table}'::regclass::oid")).await;
            let belongs = shard.bounds.condition(&[key.to_owned()], oid.parse().unwrap());
            let sql = format!("SELECT count(*) FROM {table}_s{id} WHERE ({belongs}) IS NOT TRUE");
            assert_eq!(one(&client, &sql).await, "0", "rows in {table}_s{id}");
        }
    }
    for node in 0..deployment.database.nodes.len() {
        let client = deployment.database.client(node).await;
        let owned = map.shards().filter(|(_, shard)| shard.node.index() == node).count();
        let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'orders'::regclass";
        assert_eq!(one(&client, sql).await, owned.to_string(), "partitions on node {node}");
        let sql = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '_s[0-9]+$'";
        assert_eq!(one(&client, sql).await, (3 * owned).to_string(), "tables on node {node}");
    }
}

/// Waits until a job has ended; what came of it.
async fn job_ended(deployment: &Deployment) -> serde_json::Value {
    let ended = || async {
        let last = last_job(deployment).await?;
        (last["state"] != "running").then_some(last)
    };
    eventually("the change has ended", Duration::from_mins(2), ended).await
}

/// The newest job, unless nobody answers.
async fn last_job(deployment: &Deployment) -> Option<serde_json::Value> {
    let page = deployment.page_if_there("/api/v1/jobs").await.ok()?;
    let jobs: serde_json::Value = serde_json::from_str(&page).ok()?;
    jobs["jobs"].as_array()?.first().cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_gets_another_key_under_writers_and_its_tables_stay_what_they_are() {
    let deployment = shop::shop(3).await;
    let serving = deployment.serve().await;
    shop::load(&deployment).await;
    let client = deployment.client().await;
    let before = described(&deployment).await;
    let told = ["stamp", "items_tenant_id_customer_id", "of the order", "Late items", "nextval"];
    assert!(told.iter().all(|it| before[1].contains(it)), "{}", before[1]);
    let told = ["public.keys", "pg_monitor=r*", "w*/postgres", "counted", "orders_kind_fkey"];
    assert!(told.iter().all(|it| before[0].contains(it)), "{}", before[0]);
    reload(&deployment, &by("customer_id", 8)).await;
    let checked = reshard(&deployment, &["--check"]).await;
    assert!(checked.contains("in 6 shards are copied into 8 with the new key"), "{checked}");
    assert_eq!(described(&deployment).await, before);

    let clients = Clients::start(&deployment, 4);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let said = reshard(&deployment, &[]).await;
    println!("{said}");
    assert!(said.contains("rows are equal on both sides"), "{said}");
    let again = reshard(&deployment, &["--check"]).await;
    assert!(again.contains("sharded by this key already"), "{again}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let known = clients.stop().await;
    assert!(known.unknown.is_empty(), "a client was cut off");
    assert!(known.acknowledged.len() > 100, "{}", known.acknowledged.len());
    println!("{} acknowledged, the longest took {:?}", known.acknowledged.len(), known.longest);

    assert_eq!(described(&deployment).await, before, "psql sees the same tables");
    everything_stands(&client).await;
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", process_support::said(&verified));
    drop(client);
    serving.stop(&deployment).await;
    shop::assert_written(&deployment, &known).await;
    assert_clean(&deployment).await;
    assert_placed(&deployment, "customer_id").await;
}

/// Keys, sequences, triggers, views and checks do what they did, and the key is the new one.
async fn everything_stands(client: &Client) {
    let orders = one(client, "SELECT count(*) FROM orders").await;
    assert_eq!(one(client, "SELECT sum(orders) FROM sums").await, orders);
    assert_ne!(one(client, "SELECT count(*) FROM large").await, "0");
    client.batch_execute("REFRESH MATERIALIZED VIEW kept").await.unwrap();
    assert_eq!(one(client, "SELECT count(*) FROM kept").await, orders);
    let plan = one(client, "EXPLAIN SELECT * FROM orders WHERE customer_id = 7").await;
    assert!(!plan.contains("Append"), "{plan}");
    let code = async |sql: &str| {
        let error = client.batch_execute(sql).await.unwrap_err();
        error.code().unwrap().code().to_owned()
    };
    let insert = "INSERT INTO orders (tenant_id, customer_id, id) VALUES (7, 7, 9999)";
    client.batch_execute(insert).await.unwrap();
    assert_eq!(code(insert).await, "23505");
    assert_eq!(code("INSERT INTO items VALUES (7, 7, -1)").await, "23503");
    assert_eq!(code("UPDATE orders SET kind = 9 WHERE customer_id = 7").await, "23503");
    assert_eq!(code("UPDATE orders SET version = -1 WHERE customer_id = 7").await, "23514");
    let numbers = "SELECT count(*), count(DISTINCT no), count(DISTINCT id) FROM items";
    client
        .batch_execute("INSERT INTO items (tenant_id, customer_id, order_id) VALUES (7, 7, 9999)")
        .await
        .unwrap();
    let found = one(client, numbers).await;
    let found: Vec<&str> = found.split('|').collect();
    assert!(found[0] == found[1] && found[1] == found[2], "numbers go on: {found:?}");
    client.batch_execute("DELETE FROM orders WHERE customer_id = 7 AND id = 9999").await.unwrap();
    let left = "SELECT count(*) FROM items WHERE customer_id = 7 AND order_id = 9999";
    assert_eq!(one(client, left).await, "0", "ON DELETE CASCADE");
    // What is defined from now on is defined everywhere.
    client.batch_execute("ALTER TABLE events ADD COLUMN extra int DEFAULT 5").await.unwrap();
    assert_eq!(one(client, "SELECT min(extra) FROM events").await, "5");
    client.batch_execute("ALTER TABLE events DROP COLUMN extra").await.unwrap();
}

/// A change that is called off while clients write: while it copies, or waits for its last step.
async fn is_called_off(copying: bool) {
    let deployment = shop::shop(2).await;
    let serving = deployment.serve().await;
    shop::load(&deployment).await;
    let before = described(&deployment).await;
    serving.stop(&deployment).await;
    configure(&deployment, &by("customer_id", 3));
    if copying {
        let text = std::fs::read_to_string(&deployment.config).unwrap();
        let slow =
            text.replace("reversible_ms: 0", "reversible_ms: 0, copy_bytes_per_second: 20000");
        assert_ne!(slow, text);
        std::fs::write(&deployment.config, slow).unwrap();
    }
    let serving = deployment.serve().await;
    let clients = Clients::start(&deployment, 3);
    let client = deployment.client().await;
    let hold = if copying { "" } else { "SELECT FROM orders WHERE tenant_id = 1" };
    client.batch_execute(&format!("BEGIN; {hold}")).await.unwrap();
    let (asking, path) = (deployment.clone(), ["reshard", "shop"]);
    let asked = Tasks::new().spawn("reshard", async move { asking.run(&path).await });
    let home = deployment.database.client(0).await;
    let there = async || {
        if !copying {
            let jobs = deployment.admin("/api/v1/jobs").await;
            return jobs["jobs"][0]["steps"].to_string().contains("waiting").then_some(());
        }
        let copied = "SELECT count(*) FROM foreshard.segments WHERE copied IS NOT NULL";
        let there = one(&home, "SELECT to_regclass('foreshard.segments')").await != "∅";
        (there && one(&home, copied).await != "0").then_some(())
    };
    eventually("it is under way", Duration::from_secs(30), there).await;
    let called = deployment.run(&["cancel", "job", "1"]).await;
    assert!(called.status.success(), "{}", said(&called));
    let asked = asked.await.unwrap();
    assert!(said(&asked).contains("it was called off"), "{}", said(&asked));
    client.batch_execute("COMMIT").await.unwrap();
    let known = clients.stop().await;
    assert!(known.unknown.is_empty(), "a client was cut off");
    assert_eq!(described(&deployment).await, before);
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", said(&verified));
    serving.stop(&deployment).await;
    shop::assert_written(&deployment, &known).await;
    assert_clean(&deployment).await;
    assert_placed(&deployment, "tenant_id").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_key_is_called_off_while_it_copies_and_before_its_last_step() {
    is_called_off(true).await;
    is_called_off(false).await;
}

/// Back to the tenant, by other ways of cutting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_cut_in_another_way_and_gets_its_first_key_back() {
    let deployment = shop::shop(2).await;
    let serving = deployment.serve().await;
    shop::load(&deployment).await;
    let client = deployment.client().await;
    execute(&client, "DELETE FROM events WHERE customer_id IS NULL").await;
    for table in ["orders", "items", "events"] {
        let sql = format!(
            "ALTER TABLE {table} ALTER tenant_id SET NOT NULL, ALTER customer_id SET NOT NULL"
        );
        execute(&client, &sql).await;
    }
    let sums = "SELECT count(*), sum(hashtextextended(e::text, 0)) FROM events e";
    let before = one(&client, sums).await;
    let clients = Clients::start(&deployment, 2);
    let tables = "{ orders: customer_id, items: customer_id, events: customer_id }";
    let ranges = format!(
        "      key: bigint\n      method: range\n      split_at: [10, 20, 40]\n      tables: {tables}\n"
    );
    reload(&deployment, &ranges).await;
    reshard(&deployment, &[]).await;
    let plan = one(&client, "EXPLAIN SELECT * FROM orders WHERE customer_id < 5").await;
    assert!(!plan.contains("Append"), "{plan}");
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", said(&verified));
    let of_both = "      key: [bigint, bigint]\n      shards: 3\n      tables: \
         { orders: [customer_id, tenant_id], items: [customer_id, tenant_id], \
         events: [customer_id, tenant_id] }\n";
    reload(&deployment, of_both).await;
    reshard(&deployment, &[]).await;
    reload(&deployment, &by("tenant_id", 6)).await;
    reshard(&deployment, &[]).await;
    let mut known = clients.stop().await;
    assert!(known.unknown.is_empty(), "a client was cut off");
    execute(&client, "INSERT INTO events SELECT 3, 3, 'twice', '{}' FROM generate_series(1, 4) g")
        .await;
    let verified = deployment.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", said(&verified));
    drop(client);
    serving.stop(&deployment).await;
    shop::assert_written(&deployment, &known).await;
    assert_clean(&deployment).await;
    assert_placed(&deployment, "tenant_id").await;
    // What was there before nobody has touched.
    known.acknowledged.clear();
    let serving = deployment.serve().await;
    let client = deployment.client().await;
    execute(&client, "DELETE FROM events WHERE what ~ '^order' OR what = 'twice'").await;
    assert_eq!(one(&client, sums).await, before);
    serving.stop(&deployment).await;
}
