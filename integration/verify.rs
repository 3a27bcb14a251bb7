//! `foreshard verify`: all well while clients write and shards move; and whatever is wrong is named.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod process_support;
mod support;

use process_support::{Deployment, Serving, Writers, said};
use support::rows;

/// A deployment with a reference table.
async fn with_plans() -> (Deployment, Serving) {
    let deployment = Deployment::new(3).await;
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let text = text.replace("  placement:", "  reference_tables: [plans]\n  placement:");
    std::fs::write(&deployment.config, text).unwrap();
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    for sql in [
        "CREATE TABLE plans (id int PRIMARY KEY, name text, price numeric(9,2))",
        "INSERT INTO plans VALUES (1, 'small', 1.50), (2, 'ü', 3), (3, NULL, NULL)",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    (deployment, serving)
}

/// The exit status and what it said.
async fn verify(deployment: &Deployment, args: &[&str]) -> (i32, String) {
    let output = deployment.run(&[&["verify"], args].concat()).await;
    (output.status.code().unwrap(), said(&output))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_well_while_clients_write_and_shards_move() {
    let (deployment, serving) = with_plans().await;
    let writers = Writers::start(&deployment, 0..2);
    let client = deployment.client().await;
    for round in 0..4 {
        let node = deployment.other_node(round).await;
        deployment.ask_for_move(round, &node).await;
        let write = format!("UPDATE plans SET price = {round} WHERE id = 2");
        let (found, written) = tokio::join!(verify(&deployment, &[]), client.batch_execute(&write));
        written.unwrap();
        assert_eq!(found.0, 0, "{}", found.1);
        assert!(found.1.contains("all as it should be"), "{}", found.1);
    }
    deployment.until_moves_are_finished().await;
    let (code, text) = verify(&deployment, &["0", "3"]).await;
    assert!(code == 0 && text.contains("2 shards, 4 tables"), "{text}");
    let (code, text) = verify(&deployment, &["--group", "shop"]).await;
    assert!(code == 0 && text.contains("8 shards, 16 tables"), "{text}");
    let (code, text) = verify(&deployment, &["99"]).await;
    assert!(code == 1 && text.contains("there is no shard 99"), "{text}");
    let (code, text) = verify(&deployment, &["--group", "stores"]).await;
    assert!(code == 1 && text.contains("the groups are shop"), "{text}");
    drop(writers.stop().await);
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_are_compared_with_the_rows_that_they_find() {
    let deployment = Deployment::new(3).await;
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let lookups = "  lookups:\n    entries_by_note: \
        { table: entries, column: note, type: text, shards: 3 }\n";
    let text = text.replace("  placement:", &format!("{lookups}  placement:"));
    std::fs::write(&deployment.config, text).unwrap();
    let serving = deployment.serve().await;
    deployment.load().await;
    let client = deployment.client().await;
    for sql in [
        "CREATE TABLE entries_by_note (note text, tenant_id bigint, row_count bigint NOT NULL, \
         PRIMARY KEY (note, tenant_id))",
        "INSERT INTO entries SELECT tenant_id, 7, n, 'note ' || n % 5 FROM accounts, \
         generate_series(1, 10) n",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    // Clients write all the time: half of what they do must not look wrong.
    let writers = Writers::start(&deployment, 0..2);
    for _ in 0..3 {
        let (code, text) = verify(&deployment, &[]).await;
        assert!(code == 0, "{text}");
    }
    let node = deployment.database.client(0).await;
    let gone = "DELETE FROM entries_by_note WHERE (note, tenant_id) = (SELECT note, tenant_id \
        FROM entries_by_note WHERE note <> 'a note' ORDER BY 1, 2 LIMIT 1) RETURNING tenant_id";
    let tenant = rows(&node, gone).await.remove(0);
    let (code, text) = verify(&deployment, &[]).await;
    assert!(code != 0 && text.contains("\"entries_by_note\" does not say"), "{text}");
    assert!(text.contains(&format!("\"{tenant}\"] 2 is missing")), "{text}");
    drop(writers.stop().await);
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_with_its_rows() {
    let (deployment, serving) = with_plans().await;
    assert_eq!(verify(&deployment, &[]).await.0, 0);
    let (home, other) = (deployment.database.client(0).await, deployment.database.client(1).await);
    // A row that the partition's bounds do not allow, behind PostgreSQL's back.
    let sql = "SELECT min(tenant_id) FROM accounts_s1";
    let stray = rows(&other, sql).await.remove(0);
    let bounds = "SELECT pg_get_expr(relpartbound, oid), pg_get_partition_constraintdef(oid) \
         FROM pg_class WHERE relname = 'accounts_s0'";
    let bounds = rows(&home, bounds).await.remove(0);
    let (bounds, constraint) = bounds.split_once('|').unwrap();
    let plant = format!(
        "ALTER TABLE accounts DETACH PARTITION accounts_s0; \
         INSERT INTO accounts_s0 VALUES ({stray}, 0); \
         ALTER TABLE accounts_s0 ADD CONSTRAINT fits CHECK ({constraint}) NOT VALID; \
         UPDATE pg_constraint SET convalidated = true WHERE conname = 'fits'; \
         ALTER TABLE accounts ATTACH PARTITION accounts_s0 {bounds}; \
         ALTER TABLE accounts_s0 DROP CONSTRAINT fits"
    );
    home.batch_execute(&plant).await.unwrap();
    let name = &deployment.database.name;
    let slot = format!("foreshard_m99_{name}_0");
    let harm = format!(
        "UPDATE plans SET price = 4 WHERE id = 2; DELETE FROM plans WHERE id = 3; \
         INSERT INTO plans VALUES (9, 'more', 1); ALTER TABLE entries DETACH PARTITION entries_s1; \
         SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput'); \
         CREATE PUBLICATION foreshard_m98_1_0; CREATE TABLE accounts_s77 (a int)"
    );
    for sql in harm.split("; ") {
        other.batch_execute(sql).await.unwrap();
    }
    let (code, text) = verify(&deployment, &[]).await;
    assert_eq!(code, 1, "{text}");
    for expected in [
        "wrong: node n1: 1 rows of \"public\".\"accounts_s0\" belong to another shard",
        &format!("(tenant_id) = ({stray})"),
        "wrong: node n2: shard 1 is here, but \"public\".\"entries_s1\" is no partition",
        "wrong: node n2: the reference table \"public\".\"plans\" is not as on n1: 3 rows here, 3",
        "    (2) differs",
        "    (3) is on n1 only",
        "    (9) is on n2 only",
        &format!("leftover: node n2: the replication slot {slot} belongs to nothing"),
        "leftover: node n2: the publication foreshard_m98_1_0 belongs to nothing",
        "leftover: node n2: the table \"public\".\"accounts_s77\" looks like a partition",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    other.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await.unwrap();
    // Of one shard, what concerns it.
    let (code, text) = verify(&deployment, &["1"]).await;
    assert!(code == 1 && text.contains("entries_s1") && !text.contains("plans"), "{text}");
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_a_new_name_moves_and_splits_and_the_old_one_leaves_the_policy() {
    let deployment = Deployment::new(3).await;
    let serving = deployment.serve().await;
    deployment.load().await;
    let started_with = std::fs::read_to_string(&deployment.config).unwrap();
    let reload = async |tables: &str| {
        let text = started_with.replace("entries: tenant_id", tables);
        std::fs::write(&deployment.config, text).unwrap();
        said(&deployment.run(&["reload"]).await)
    };
    let client = deployment.client().await;
    client
        .batch_execute("ALTER TABLE entries ADD CONSTRAINT once UNIQUE (tenant_id, writer, n); INSERT INTO entries SELECT tenant_id, 7, 1, 'x' FROM accounts")
        .await
        .unwrap();
    let held = rows(&client, "SELECT count(*), sum(tenant_id) FROM entries").await;
    let prepared =
        client.prepare("SELECT count(*) FROM entries WHERE tenant_id = $1").await.unwrap();
    assert_eq!(client.query_one(&prepared, &[&7_i64]).await.unwrap().get::<_, i64>(0), 1);
    let rename = "ALTER TABLE entries RENAME TO postings";
    let refused = client.batch_execute(rename).await.unwrap_err();
    let hint = refused.as_db_error().unwrap().hint().unwrap();
    assert!(hint.contains("in group shop with the key (tenant_id)"), "{hint}");

    let told = reload("entries: tenant_id, postings: tenant_id").await;
    assert!(told.contains("what is sharded"), "{told}");
    client.batch_execute(rename).await.unwrap();
    let gone = client.query_one(&prepared, &[&7_i64]).await.unwrap_err();
    assert_eq!(gone.code().unwrap().code(), "42P01", "{gone:?}");
    let node = deployment.other_node(0).await;
    deployment.move_shard(0, &node).await;
    let split = deployment.run(&["split", "1", "--wait"]).await;
    assert!(split.status.success(), "{}", said(&split));
    let sum = "SELECT count(*), sum(tenant_id) FROM postings";
    assert_eq!(rows(&client, sum).await, held);
    let twice = "INSERT INTO postings SELECT tenant_id, 7, 1, 'x' FROM accounts";
    let twice = client.batch_execute(twice).await.unwrap_err();
    let constraint = twice.as_db_error().unwrap().constraint();
    assert_eq!((constraint, twice.code().unwrap().code()), (Some("once"), "23505"));
    assert_eq!(verify(&deployment, &[]).await.0, 0);

    // A table that exists stays in the policy; one that does not may go, and may be another one then.
    let told = reload("entries: tenant_id").await;
    assert!(told.contains("public.postings is in the map, not in the policy"), "{told}");
    let told = reload("postings: tenant_id").await;
    assert!(told.contains("what is sharded"), "{told}");
    client
        .batch_execute("CREATE TABLE entries (id int); INSERT INTO entries VALUES (1)")
        .await
        .unwrap();
    let there = "SELECT count(*) FROM pg_class WHERE relname = 'entries'";
    assert_eq!(rows(&deployment.database.client(0).await, there).await, ["1"]);
    assert_eq!(rows(&deployment.database.client(1).await, there).await, ["0"]);
    assert_eq!(verify(&deployment, &[]).await.0, 0);
    let told = reload("postings: tenant_id, entries: tenant_id").await;
    assert!(told.contains("waits for foreshard import: shop"), "{told}");
    reload("postings: tenant_id").await;
    serving.stop(&deployment).await;
    let serving = deployment.serve().await;
    assert_eq!(rows(&deployment.client().await, sum).await, held);
    serving.stop(&deployment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_there_as_something_else_are_refused_at_the_start() {
    let deployment = Deployment::new(2).await;
    let home = deployment.database.client(0).await;
    // A group of plain tables alone would wait for its import.
    let sql = "CREATE TABLE entries (tenant_id bigint, n int); \
         CREATE TABLE accounts (tenant_id bigint) PARTITION BY HASH (tenant_id)";
    home.batch_execute(sql).await.unwrap();
    let mut refused = Serving::spawn(&deployment, None);
    assert!(!refused.ended(&deployment).await.success());
    let said = deployment.log_tail();
    assert!(said.contains("\"public\".\"entries\" is on node n1 already"), "{said}");
    assert!(!said.contains("accounts"), "{said}");
    let sql = "ALTER TABLE entries RENAME TO old_entries; DROP TABLE accounts";
    home.batch_execute(sql).await.unwrap();
    let serving = deployment.serve().await;
    deployment.load().await;
    serving.stop(&deployment).await;
    // Once they are what the policy says, nothing is in the way.
    let serving = deployment.serve().await;
    assert_eq!(verify(&deployment, &[]).await.0, 0);
    serving.stop(&deployment).await;
}
