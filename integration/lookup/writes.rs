//! What writes do to lookups.

use std::time::Duration;

use foreshard::runtime::Tasks;
use futures_util::SinkExt;

use crate::shop::Shop;
use crate::support::{eventually, rows};

const USERS: &str = "INSERT INTO users VALUES (1, 1, 'a@x', 'paris', 'a'), \
    (2, 1, 'b@x', 'rome', 'b'), (3, 1, 'c@x', 'rome', 'c'), (4, 1, NULL, NULL, 'd'), \
    (1, 2, 'e@x', 'paris', 'e'), (5, 1, 'f''\\ü', '', 'f')";

#[tokio::test]
async fn lookups_follow_every_kind_of_write() {
    let shop = Shop::start().await;
    for sql in [
        USERS,
        "INSERT INTO users VALUES (6, 1, 'one@x', 'rome', 'one')",
        "INSERT INTO users (tenant_id, id, email) SELECT g, 9, 'sel' || g FROM generate_series(1, 9) g",
        "UPDATE users SET email = 'new@x' WHERE tenant_id = 6 AND id = 1",
        // Only once a part of them has run it is known what they look up.
        "UPDATE users SET name = 'found' WHERE email IN (SELECT max('new') || '@x' FROM tenants)",
        "UPDATE users SET name = 'none' WHERE email IN (SELECT max(name) FROM tenants WHERE id > 3)",
        "UPDATE users SET email = NULL, city = 'oslo' WHERE tenant_id = 6",
        "UPDATE users SET email = name || '@y' WHERE email IS NULL",
        "UPDATE users SET city = 'rome' WHERE city = 'paris'",
        "UPDATE users SET name = 'same'",
        "UPDATE users SET email = upper(email)",
        "INSERT INTO users VALUES (1, 1, 'up@x', 'kiev', 'u') ON CONFLICT (tenant_id, id) \
         DO UPDATE SET email = excluded.email, city = excluded.city",
        "INSERT INTO users VALUES (1, 1, 'no@x', 'no', 'u') ON CONFLICT (tenant_id, id) DO NOTHING",
        "INSERT INTO users VALUES (1, 1, 'v1@x', 'x', 'u'), (2, 1, 'v2@x', 'x', 'u'), \
         (3, 77, 'v3@x', 'x', 'u') ON CONFLICT (tenant_id, id) DO UPDATE SET email = excluded.email",
        "MERGE INTO users u USING (VALUES (1::bigint, 1::bigint, 'm1@x'), (9, 9, 'm2@x'), \
         (9, 10, 'm3@x')) AS s (t, i, e) ON u.tenant_id = s.t AND u.id = s.i \
         WHEN MATCHED THEN UPDATE SET email = s.e \
         WHEN NOT MATCHED THEN INSERT (tenant_id, id, email) VALUES (s.t, s.i, s.e)",
        "UPDATE users SET tenant_id = 15 WHERE tenant_id = 2",
        "UPDATE users SET tenant_id = tenant_id + 1, id = id + 1000 WHERE tenant_id < 4",
        "DELETE FROM users WHERE tenant_id = 3",
        "DELETE FROM users WHERE city = 'rome'",
        "DELETE FROM tenants WHERE id = 9",
        "INSERT INTO users VALUES (10, 1, 'p@x', 'a', 'n'); INSERT INTO users VALUES (10, 2, 'q@x', 'a', 'n')",
        "INSERT INTO users VALUES (11, 1, 'r@x', 'a', 'n'); INSERT INTO users VALUES (12, 2, 's@x', 'a', 'n')",
        "BEGIN; INSERT INTO users VALUES (13, 1, 't@x', 'a', 'n'); COMMIT",
        "WITH new AS (INSERT INTO users VALUES (14, 1, 'w@x', 'a', 'n') RETURNING *) SELECT * FROM new",
    ] {
        shop.run(&[sql]).await;
        shop.lookups_fit().await;
        if sql.contains("'none'") {
            let named = "SELECT id FROM users WHERE name = 'found' AND tenant_id = 6";
            assert_eq!(rows(&shop.client, named).await, ["1"]);
        }
    }
    assert!(shop.on_all_nodes("SELECT email FROM users_by_email").await.len() > 5);
    shop.run(&["DELETE FROM users"]).await;
    shop.lookups_fit().await;
}

#[tokio::test]
async fn parameters_and_copy_are_followed_too() {
    let shop = Shop::start().await;
    let insert = "INSERT INTO users (tenant_id, id, email, city) VALUES ($1, $2, $3, $4)";
    let insert = shop.client.prepare(insert).await.unwrap();
    for tenant in 1..20_i64 {
        let (email, city) = (format!("p{tenant}"), format!("c{}", tenant % 4));
        let done = shop.client.execute(&insert, &[&tenant, &1_i64, &email, &city]).await;
        assert_eq!(done.unwrap(), 1);
    }
    shop.lookups_fit().await;
    let update =
        shop.client.prepare("UPDATE users SET email = $1 WHERE tenant_id = $2").await.unwrap();
    assert_eq!(shop.client.execute(&update, &[&"changed", &3_i64]).await.unwrap(), 1);
    let sink =
        shop.client.copy_in("COPY users (tenant_id, id, email, city) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    for tenant in 1..20 {
        let line = format!("{tenant}\t50\tcopied{tenant}\tc\n");
        sink.send(bytes::Bytes::from(line)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 19);
    shop.lookups_fit().await;
    assert_eq!(shop.on_all_nodes("SELECT email FROM users_by_email").await.len(), 38);
}

#[tokio::test]
async fn a_value_is_unique_over_all_nodes() {
    let shop = Shop::start().await;
    shop.run(&[USERS]).await;
    let before = shop.on_all_nodes("SELECT * FROM users").await;
    for sql in [
        "INSERT INTO users VALUES (8, 1, 'a@x', 'x', 'x')",
        "INSERT INTO users VALUES (8, 1, 'new', 'x', 'x'), (9, 1, 'new', 'x', 'x'), (10, 1, 'z', 'x', 'x')",
        "INSERT INTO users VALUES (8, 1, 'new', 'x', 'x'), (8, 2, 'new', 'x', 'x')",
        "UPDATE users SET email = 'a@x' WHERE tenant_id = 2",
        "UPDATE users SET email = 'same'",
        "INSERT INTO users VALUES (1, 3, 'a@x', 'x', 'x')",
    ] {
        assert_eq!(shop.fails(sql).await, "23505", "{sql}");
        assert_eq!(shop.on_all_nodes("SELECT * FROM users").await, before);
    }
    shop.lookups_fit().await;
    // In one statement values may change places.
    shop.run(&["UPDATE users SET email = CASE email WHEN 'a@x' THEN 'b@x' ELSE 'a@x' END \
                WHERE email IN ('a@x', 'b@x')"])
        .await;
    shop.lookups_fit().await;
}

#[tokio::test]
async fn blocks_and_savepoints_take_lookups_with_them() {
    let shop = Shop::start().await;
    shop.run(&[
        USERS,
        "BEGIN",
        "UPDATE users SET email = 'a2' WHERE tenant_id = 1 AND id = 1",
        "SAVEPOINT s",
        "INSERT INTO users VALUES (7, 1, 'a@x', 'x', 'x')",
        "DELETE FROM users WHERE tenant_id = 2",
        "ROLLBACK TO s",
        "INSERT INTO users VALUES (8, 1, 'g@x', 'x', 'x')",
    ])
    .await;
    assert_eq!(shop.fails("INSERT INTO users VALUES (9, 1, 'b@x', 'x', 'x')").await, "23505");
    assert_eq!(shop.fails("SELECT 1").await, "25P02");
    shop.run(&["ROLLBACK TO s", "INSERT INTO users VALUES (10, 1, 'h@x', 'x', 'x')", "COMMIT"])
        .await;
    shop.lookups_fit().await;
    let found = shop.on_all_nodes("SELECT email FROM users_by_email").await;
    assert_eq!(found, ["a2", "b@x", "c@x", "e@x", "f'\\ü", "h@x"]);
    shop.run(&["BEGIN", "DELETE FROM users", "ROLLBACK"]).await;
    shop.lookups_fit().await;
    assert_eq!(rows(&shop.client, "SELECT count(*) FROM users_by_email").await, ["6"]);
}

#[tokio::test]
async fn what_bypasses_the_proxy_fails_instead_of_making_a_lookup_wrong() {
    let shop = Shop::start().await;
    shop.run(&[USERS]).await;
    let placed = "SELECT tenant_id FROM users WHERE email = 'b@x'";
    for node in 0..3 {
        let client = shop.database.client(node).await;
        if rows(&client, placed).await.is_empty() {
            continue;
        }
        let error =
            client.batch_execute("UPDATE users SET email = 'direct' WHERE email = 'b@x'").await;
        let error = error.expect_err("a lookup that is not told");
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000");
        assert!(error.message().contains("users_by_email"), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("proxy")), "{error:?}");
        // What changes no value that is looked up is nobody's business.
        client.batch_execute("UPDATE users SET name = 'direct' WHERE email = 'b@x'").await.unwrap();
    }
    shop.lookups_fit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_comes_once_a_delete_has_looked_for_it_goes_with_its_entry_or_stays() {
    let shop = Shop::start().await;
    let (waits, tasks) = ("SELECT count(*) FROM pg_locks WHERE NOT granted", Tasks::new());
    let mut deleted = 0;
    for tenant in 1..=12 {
        // The DELETE finds no entry, and waits for the table where it is sent to.
        let writer = shop.proxy.client().await;
        let insert = format!(
            "BEGIN; LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE; \
             INSERT INTO users VALUES ({tenant}, 9, 'late', 'x', 'n')"
        );
        writer.batch_execute(&insert).await.unwrap();
        let client = shop.proxy.client().await;
        let delete =
            async move { client.execute("DELETE FROM users WHERE email = 'late'", &[]).await };
        let delete = tasks.spawn("delete", delete);
        eventually("the DELETE waits", Duration::from_secs(30), async || {
            let waiting = shop.on_all_nodes(waits).await;
            waiting.iter().any(|count| count != "0").then_some(())
        })
        .await;
        writer.batch_execute("COMMIT").await.unwrap();
        deleted += delete.await.unwrap().unwrap();
        shop.lookups_fit().await;
        shop.run(&["DELETE FROM users WHERE email = 'late'"]).await;
    }
    assert!(deleted > 0, "it never met the row");
}
