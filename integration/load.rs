//! What the proxy knows of the load beside its counts, and what clients announce.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::time::Duration;

use foreshard::forecast::Event;
use support::{TestDatabase, TestProxy, eventually, rows};

/// The controller looks each 5 s.
const LIMIT: Duration = Duration::from_secs(40);

const SHOP: &str = "groups:
  shop:
    key: bigint
    shards: 4
    tables: { tenants: id, orders: tenant_id }
load: { probe_interval_ms: 500 }
";

#[tokio::test]
async fn a_client_announces_what_it_expects_of_itself() {
    let database = TestDatabase::create(1).await;
    let proxy = TestProxy::start(&database, SHOP).await;
    let client = proxy.client().await;
    let set = |json: &str| format!("SET foreshard.announce = '{json}'");
    let said = r#"{"lasts_minutes": 10, "factor": 2, "tables": ["orders"], "location": "eu"}"#;
    client.batch_execute(&set(said)).await.unwrap();
    client
        .execute(&set(r#"{"client": "web", "lasts_minutes": 5, "writes": 3}"#), &[])
        .await
        .unwrap();
    let events = proxy.proxy.engine.catalog.list::<Event>().await.unwrap();
    let names: Vec<_> = events.iter().map(|event| event.record.name.as_str()).collect();
    assert_eq!(names, ["announced/postgres/", "announced/postgres/web/"]);
    assert_eq!(events[0].record.client.as_deref(), Some("postgres"));
    assert_eq!(events[0].record.tables, ["orders"]);

    let error = client.batch_execute(&set(r#"{"factor": 2}"#)).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "22023");
    assert!(error.message().contains("lasts_minutes"), "{error}");
    assert!(error.hint().unwrap().contains("factor"), "{error:?}");
    assert_eq!(rows(&client, "SELECT 1").await, ["1"], "the session goes on");
}

#[tokio::test]
async fn samples_show_kinds_of_statements_hot_keys_and_shards_that_are_used_together() {
    let database = TestDatabase::create(2).await;
    let proxy = TestProxy::start(&database, SHOP).await;
    let mut client = proxy.client().await;
    let tables = "CREATE TABLE tenants (id bigint PRIMARY KEY, name text);
                  CREATE TABLE orders (tenant_id bigint, id bigint, PRIMARY KEY (tenant_id, id))";
    for table in tables.split(';') {
        client.batch_execute(table).await.unwrap();
    }
    let find = client.prepare("SELECT name FROM tenants WHERE id = $1").await.unwrap();
    for turn in 0..4_000i64 {
        let key = if turn % 2 == 0 { 7 } else { turn };
        client.query(&find, &[&key]).await.unwrap();
        if turn % 4 == 0 {
            let secret = format!("SELECT id FROM orders WHERE tenant_id = {turn} AND id = 987654");
            client.simple_query(&secret).await.unwrap();
        }
    }
    for turn in 0..20i64 {
        let transaction = client.transaction().await.unwrap();
        for key in [1i64, 2, 3, 4] {
            let insert = "INSERT INTO orders VALUES ($1, $2)";
            transaction.execute(insert, &[&key, &turn]).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
    let insight = &proxy.proxy.insight;
    let map = proxy.proxy.engine.live_map.snapshot();
    let seen = async || {
        let details = insight.details(&map, None);
        let hot = details.iter().find(|shard| shard.hot_keys.iter().any(|(key, _)| key == "7"));
        let hot = hot.filter(|_| !insight.pairs().is_empty()).cloned()?;
        Some((hot, details))
    };
    let (hot, details) = eventually("samples were taken in", LIMIT, seen).await;
    let (key, share) = &hot.hot_keys[0];
    assert!(key == "7" && *share > 0.4, "{hot:?}");
    assert!(hot.classes["point"] > 0.9, "{hot:?}");
    let text = &hot.statements[0].text;
    assert!(text.starts_with("SELECT") && text.contains("= ?"), "{hot:?}");
    let all = serde_json::to_string(&details).unwrap();
    assert!(all.contains("FROM orders") && !all.contains("987654"), "no data in texts: {all}");
    let nodes = async || {
        let nodes = insight.nodes();
        let known = nodes.len() == 2 && nodes.iter().all(|node| node.busy.is_some());
        known.then_some(nodes)
    };
    for node in eventually("the nodes answered twice", LIMIT, nodes).await {
        assert!(node.answers && node.connections > 0 && node.connections_max > 1, "{node:?}");
        assert!(node.database_bytes.unwrap() > 1_000_000, "{node:?}");
    }
}
