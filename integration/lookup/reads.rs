//! Where a lookup leads: one node, and no answer that one server would not give.

use std::time::Duration;

use foreshard::shard_map::KeyValue;
use tokio_postgres::Client;

use crate::shop::Shop;
use crate::support::{TestDatabase, eventually, rows};

/// Users of 20 tenants, two each; every third has the same city.
const USERS: &str = "INSERT INTO users SELECT t, i, 'u' || t || '.' || i, \
    CASE t % 3 WHEN 0 THEN 'rome' ELSE 'c' || t END, 'n' || i \
    FROM generate_series(1, 20) t, generate_series(1, 2) i";

async fn filled() -> Shop {
    let shop = Shop::start().await;
    shop.run(&[USERS]).await;
    shop
}

/// What EXPLAIN says of a statement.
async fn explained(client: &Client, sql: &str) -> Vec<String> {
    rows(client, &format!("EXPLAIN {sql}")).await
}

async fn is_looked_up(client: &Client, sql: &str) -> bool {
    explained(client, sql).await.first().is_some_and(|line| line.starts_with("Way: lookup"))
}

/// Answers, sorted.
async fn sorted(client: &Client, sql: &str) -> Vec<String> {
    let mut found = rows(client, sql).await;
    found.sort();
    found
}

#[tokio::test]
async fn queries_by_a_looked_up_value_go_where_it_leads_and_answer_as_one_server_does() {
    let shop = filled().await;
    let one = TestDatabase::create(1).await.client(0).await;
    for sql in crate::shop::TABLES {
        one.batch_execute(sql).await.unwrap();
    }
    one.batch_execute("INSERT INTO tenants SELECT g, 't' || g FROM generate_series(1, 20) g")
        .await
        .unwrap();
    one.batch_execute(USERS).await.unwrap();
    for sql in [
        "SELECT * FROM users WHERE email = 'u3.1'",
        "SELECT id, name FROM public.users AS u WHERE u.email = 'u4.2' AND u.id = 2",
        "SELECT id FROM users WHERE email = 'u4.2' AND id = 1",
        "SELECT count(*), max(name) FROM users WHERE email = 'u4.2'",
        "SELECT count(*) FROM users WHERE email = 'nobody'",
        "SELECT * FROM users WHERE email = 'nobody'",
        "SELECT * FROM users WHERE email IN ('u1.1', 'u2.1', 'u9.2', 'nobody', NULL)",
        "SELECT * FROM users WHERE email = NULL",
        "SELECT * FROM users WHERE city = 'rome'",
        "SELECT count(*) FROM users WHERE city = 'rome'",
        "SELECT city, count(*) FROM users WHERE city = 'c5' GROUP BY city",
        "SELECT u.name, t.name FROM users u JOIN tenants t ON t.id = u.tenant_id \
         WHERE u.email = 'u7.1'",
        "SELECT t.name, o.name FROM tenants t JOIN users u ON t.id = u.tenant_id \
         JOIN users o ON o.tenant_id = t.id WHERE u.email = 'u7.1'",
        "SELECT t.name, (SELECT count(*) FROM users o WHERE o.tenant_id = t.id) \
         FROM tenants t JOIN users u ON t.id = u.tenant_id WHERE u.email = 'u8.1'",
        "SELECT name FROM (SELECT name, email FROM users) x WHERE email = 'u8.1'",
        "SELECT name FROM users WHERE email = 'u8.1' ORDER BY id LIMIT 1",
        "SELECT name FROM users WHERE email = 'u8.1' FOR UPDATE",
    ] {
        assert!(is_looked_up(&shop.client, sql).await, "{sql}");
        assert_eq!(sorted(&shop.client, sql).await, sorted(&one, sql).await, "{sql}");
    }
    for sql in [
        "SELECT * FROM users WHERE email = 'u3.1' AND tenant_id = 3",
        "SELECT * FROM users WHERE email = 'u3.1' OR tenant_id = 5",
        "SELECT * FROM users WHERE email <> 'u3.1' AND id = 2",
        "SELECT * FROM users WHERE NOT email = 'u3.1'",
        "SELECT * FROM users WHERE email LIKE 'u3%'",
        "SELECT * FROM users WHERE upper(email) = 'U3.1'",
        "SELECT t.name, u.name FROM tenants t LEFT JOIN users u ON t.id = u.tenant_id \
         AND u.email = 'u7.1'",
        "SELECT t.name FROM tenants t, users u WHERE u.email = 'u7.1'",
        "WITH x AS (SELECT * FROM users) SELECT * FROM x WHERE email = 'u7.1'",
    ] {
        assert!(!is_looked_up(&shop.client, sql).await, "{sql}");
        assert_eq!(sorted(&shop.client, sql).await, sorted(&one, sql).await, "{sql}");
    }
}

#[tokio::test]
async fn only_the_shard_of_the_row_is_asked() {
    let shop = filled().await;
    let lines = explained(&shop.client, "SELECT * FROM users WHERE email = 'u3.1'").await;
    assert_eq!(lines[0], "Way: lookup, then where it leads");
    let shard = shop.shard_of(1, KeyValue::Text(b"u3.1".to_vec()));
    assert!(lines[1].starts_with("  \"users_by_email\" on "), "{lines:?}");
    assert!(lines[1].ends_with(": 1 entry"), "{lines:?}");
    assert!(lines[1].contains(&format!("(s{shard})")), "{lines:?}");
    let shard = shop.shard_of(0, KeyValue::Int(3));
    assert!(lines[2].ends_with(&format!("(s{shard}):")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("Scan on users_s")), "{lines:?}");
    let really = "EXPLAIN (ANALYZE, COSTS OFF) SELECT * FROM users WHERE email = 'u3.1'";
    assert!(rows(&shop.client, really).await[0].contains("actual time"));
    // By the counters too: only two shards have anything to do.
    let before = shop.statements();
    for _ in 0..10 {
        assert_eq!(rows(&shop.client, "SELECT id FROM users WHERE email = 'u3.1'").await, ["1"]);
    }
    let after = shop.statements();
    let busy: Vec<u64> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .filter(|n| *n > 0)
        .collect();
    assert_eq!(busy, [10, 10]);
}

#[tokio::test]
async fn parameters_are_looked_up_in_text_and_binary() {
    let shop = filled().await;
    let client = &shop.client;
    let by_email = "SELECT tenant_id, id FROM users WHERE email = $1 AND id >= $2";
    let by_email = client.prepare(by_email).await.unwrap();
    for (tenant, id) in [(1_i64, 1_i64), (7, 2), (20, 1)] {
        let email = format!("u{tenant}.{id}");
        let found = client.query(&by_email, &[&email, &0_i64]).await.unwrap();
        let found: Vec<(i64, i64)> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(found, [(tenant, id)]);
        assert!(client.query(&by_email, &[&email, &5_i64]).await.unwrap().is_empty());
    }
    assert!(client.query(&by_email, &[&"nobody", &0_i64]).await.unwrap().is_empty());
    assert!(client.query(&by_email, &[&None::<&str>, &0_i64]).await.unwrap().is_empty());
    let any = client.prepare("SELECT count(*) FROM users WHERE email = ANY ($1)").await.unwrap();
    let emails = vec!["u1.1", "u2.2", "nobody"];
    assert_eq!(client.query_one(&any, &[&emails]).await.unwrap().get::<_, i64>(0), 2);
    let named = "UPDATE users SET name = $1 WHERE email = $2 RETURNING tenant_id";
    let named = client.prepare(named).await.unwrap();
    let changed = client.query(&named, &[&"new", &"u5.1"]).await.unwrap();
    assert_eq!(changed.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [5]);
    shop.run(&["PREPARE p (text) AS SELECT name FROM users WHERE email = $1"]).await;
    assert_eq!(rows(client, "EXECUTE p ('u5.1')").await, ["new"]);
    // A portal that is read in portions.
    let mut own = shop.proxy.client().await;
    let transaction = own.transaction().await.unwrap();
    let city = "SELECT id FROM users WHERE city = $1 ORDER BY tenant_id, id";
    let portal = transaction.bind(city, &[&"rome"]).await.unwrap();
    let first = transaction.query_portal(&portal, 3).await.unwrap();
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    assert_eq!((first.len(), rest.len()), (3, 9));
}

#[tokio::test]
async fn rows_are_changed_and_deleted_by_what_is_looked_up() {
    let shop = filled().await;
    let client = &shop.client;
    for (sql, count) in [
        ("UPDATE users SET name = 'x' WHERE email = 'u1.1'", 1),
        ("UPDATE users SET email = 'z' WHERE email = 'u1.1'", 1),
        ("UPDATE users SET email = 'z' WHERE email = 'u1.1'", 0),
        ("UPDATE users SET email = email WHERE email = 'z' AND id = 2", 0),
        ("UPDATE users SET name = 'y' WHERE email IN ('u2.1', 'u3.1', 'nobody')", 2),
        ("UPDATE users SET name = 'r' WHERE city = 'rome'", 12),
        ("UPDATE users SET tenant_id = 2 WHERE email = 'u20.2' AND id = 1", 0),
        ("UPDATE users SET tenant_id = 2, id = 99 WHERE email = 'u20.2'", 1),
        ("DELETE FROM users WHERE email = 'u20.2'", 1),
        ("DELETE FROM users WHERE email = 'u20.2'", 0),
        ("DELETE FROM users WHERE city = 'c4'", 2),
    ] {
        assert_eq!(client.execute(sql, &[]).await.unwrap(), count, "{sql}");
        shop.lookups_fit().await;
    }
    assert_eq!(rows(client, "SELECT name, id FROM users WHERE email = 'z'").await, ["x|1"]);
    // What a transaction has done it sees.
    shop.run(&[
        "BEGIN",
        "UPDATE users SET email = 'a' WHERE email = 'z'",
        "INSERT INTO users VALUES (9, 50, 'b', 'c', 'of nine')",
    ])
    .await;
    assert_eq!(rows(client, "SELECT name FROM users WHERE email = 'a'").await, ["x"]);
    assert_eq!(rows(client, "SELECT name FROM users WHERE email = 'b'").await, ["of nine"]);
    assert_eq!(
        rows(client, "SELECT name FROM users WHERE email = 'z'").await,
        Vec::<String>::new()
    );
    let other = shop.proxy.client().await;
    assert_eq!(rows(&other, "SELECT name FROM users WHERE email = 'z'").await, ["x"]);
    shop.run(&["ROLLBACK"]).await;
    assert_eq!(rows(client, "SELECT name FROM users WHERE email = 'z'").await, ["x"]);
    shop.lookups_fit().await;
}

/// A statement that was led by an entry waits for the table; meanwhile the row gets another key and
/// goes to another node.
async fn led_astray(sql: &'static str) -> Vec<String> {
    let shop = filled().await;
    let map = shop.proxy.proxy.engine.live_map.snapshot();
    let node = |tenant| map.node_of(shop.shard_of(0, KeyValue::Int(tenant)));
    let away = (2..=20).find(|tenant| node(*tenant) != node(1)).unwrap();
    let mover = shop.proxy.client().await;
    mover.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reader = shop.proxy.client().await;
    let waiting = async {
        let there = shop.database.client(node(1).index()).await;
        let waits = "SELECT 1 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
            WHERE NOT l.granted AND c.relname = 'users' \
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually("the statement waits for the table", Duration::from_secs(20), async || {
            (!rows(&there, waits).await.is_empty()).then_some(())
        })
        .await;
        let moved = format!(
            "DELETE FROM users WHERE tenant_id = 1 AND id = 1; \
             INSERT INTO users VALUES ({away}, 77, 'u1.1', 'x', 'moved'); COMMIT"
        );
        mover.batch_execute(&moved).await.unwrap();
    };
    let (found, ()) = tokio::join!(rows(&reader, sql), waiting);
    shop.lookups_fit().await;
    found
}

#[tokio::test]
async fn a_row_that_moves_between_lookup_and_query_is_found() {
    let found = led_astray("SELECT id, name FROM users WHERE email = 'u1.1'").await;
    assert_eq!(found, ["77|moved"]);
}

#[tokio::test]
async fn a_count_is_not_taken_where_the_row_was() {
    let found = led_astray("SELECT count(*), max(id) FROM users WHERE email = 'u1.1'").await;
    assert_eq!(found, ["1|77"]);
}

#[tokio::test]
async fn a_row_that_moves_is_changed_where_it_is() {
    let sql = "UPDATE users SET name = name || '!' WHERE email = 'u1.1' RETURNING id, name";
    assert_eq!(led_astray(sql).await, ["77|moved!"]);
}

#[tokio::test]
async fn who_may_not_read_a_lookup_gets_the_answer_without_it() {
    let shop = filled().await;
    let role = format!("reader_{}", shop.database.name);
    let grant = format!("GRANT SELECT ON users TO {role}");
    shop.run(&[&format!("CREATE ROLE {role}"), &grant, &format!("SET ROLE {role}")]).await;
    let sql = "SELECT id FROM users WHERE email = 'u3.1'";
    assert_eq!(rows(&shop.client, sql).await, ["1"]);
    shop.run(&["RESET ROLE", &format!("DROP OWNED BY {role}"), &format!("DROP ROLE {role}")]).await;
}
