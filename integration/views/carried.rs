//! Materialized views over sharded tables, carried along: by moves of shards, and in a dump.

use super::*;

#[tokio::test]
async fn a_materialized_view_is_refreshed_after_a_move_of_what_it_reads() {
    let (_database, proxy, client) = shop().await;
    let kept = "CREATE MATERIALIZED VIEW kept AS SELECT t.id, count(o.id) AS n FROM tenants t \
        LEFT JOIN orders o ON o.tenant_id = t.id GROUP BY t.id";
    let orders =
        "INSERT INTO orders SELECT i, j, 1 FROM generate_series(1, 40) i, generate_series(1, 3) j";
    for sql in [orders, kept, "CREATE UNIQUE INDEX ON kept (id)"] {
        client.batch_execute(sql).await.unwrap();
    }
    let sums = "SELECT count(*), sum(n) FROM kept";
    for (shard, expected) in [(0, "41|120"), (4, "42|120")] {
        proxy.move_shard(foreshard::ids::ShardId(shard)).await;
        let sql = format!("INSERT INTO tenants VALUES ({}, 'new')", 100 + shard);
        client.batch_execute(&sql).await.unwrap();
        client.batch_execute("REFRESH MATERIALIZED VIEW CONCURRENTLY kept").await.unwrap();
        assert_eq!(rows(&client, sums).await, [expected]);
    }
    let away = "DELETE FROM orders WHERE tenant_id < 11; REFRESH MATERIALIZED VIEW kept";
    client.batch_execute(away).await.unwrap();
    assert_eq!(rows(&client, sums).await, ["42|90"]);
}

/// Runs a program of PostgreSQL's.
async fn run(program: &str, args: &[&str]) {
    let mut command = tokio::process::Command::new(program);
    let output = command.args(args).kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
}

#[tokio::test]
async fn a_dump_made_through_the_proxy_restores_materialized_views_there_and_on_one_server() {
    let (database, proxy, client) = shop().await;
    // By their names they would stand before what they read.
    for sql in [
        "CREATE MATERIALIZED VIEW a_sum AS SELECT count(*) AS n, max(name) AS name FROM tenants",
        "CREATE MATERIALIZED VIEW a_copy AS SELECT id FROM tenants WHERE id < 9 WITH NO DATA",
        "CREATE MATERIALIZED VIEW a_second AS SELECT s.n, t.id FROM a_sum s JOIN tenants t ON t.id = s.n",
        "CREATE UNIQUE INDEX ON a_sum (n)",
        "INSERT INTO plans VALUES (1, 'free')",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let url = |port: u16, name: &str| format!("postgresql://postgres@127.0.0.1:{port}/{name}");
    let file = support::temp_folder("dump").join("shop.dump");
    let file = file.to_str().unwrap();
    let from = url(proxy.proxy.address.port(), &database.name);
    run("pg_dump", &["-Fc", "-f", file, &from]).await;
    let one = TestDatabase::create(1).await;
    let single = one.client(0).await;
    let port = single.query_one("SHOW port", &[]).await.unwrap().get::<_, String>(0);
    let several = TestDatabase::create(3).await;
    let second = TestProxy::start(&several, POLICY).await;
    let again = second.client().await;
    for (target, client) in [
        (url(port.parse().unwrap(), &one.name), &single),
        (url(second.proxy.address.port(), &several.name), &again),
    ] {
        run("pg_restore", &["--exit-on-error", "-d", &target, file]).await;
        assert_eq!(rows(client, "SELECT n, name FROM a_sum").await, ["40|tenant 9"]);
        assert_eq!(rows(client, "SELECT * FROM a_second").await, ["40|40"]);
        assert!(client.batch_execute("SELECT * FROM a_copy").await.is_err());
        client.batch_execute("REFRESH MATERIALIZED VIEW a_copy").await.unwrap();
        assert_eq!(rows(client, "SELECT count(*) FROM a_copy").await, ["8"]);
    }
    assert_eq!(rows(&several.client(0).await, BEHIND).await, ["6"]);
}
