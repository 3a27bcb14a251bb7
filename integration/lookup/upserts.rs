//! ON CONFLICT where a lookup knows what conflicts, beside one PostgreSQL that has the constraint.

use std::time::Duration;

use foreshard::runtime::Tasks;
use foreshard::shard_map::KeyValue;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::shop::{Shop, TABLES};
use crate::support::{TestDatabase, rows};

const USERS: &str = "INSERT INTO users VALUES (1, 1, 'a@x', 'paris', 'a'), \
    (2, 1, 'b@x', 'rome', 'b'), (3, 1, 'c@x', 'rome', 'c'), (4, 1, NULL, NULL, 'd')";

/// Rows in any order and the count, or the SQLSTATE.
async fn answer(client: &Client, sql: &str) -> Result<(Vec<String>, u64), String> {
    let mut found = (Vec::new(), 0);
    let answered = client.simple_query(sql).await;
    let messages = answered.map_err(|error| error.code().unwrap().code().to_owned())?;
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let columns = (0..row.len()).map(|column| row.get(column).unwrap_or("∅"));
                found.0.push(columns.collect::<Vec<_>>().join("|"));
            }
            SimpleQueryMessage::RowDescription(columns) => {
                let names: Vec<_> =
                    columns.iter().map(tokio_postgres::SimpleColumn::name).collect();
                found.0.push(names.join("|"));
            }
            SimpleQueryMessage::CommandComplete(count) => found.1 += count,
            _ => {}
        }
    }
    found.0.sort();
    Ok(found)
}

/// A client of one server with the same tables and rows.
async fn one() -> (TestDatabase, Client) {
    let one = TestDatabase::create(1).await;
    let client = one.client(0).await;
    for sql in TABLES {
        client.batch_execute(sql).await.unwrap();
    }
    let fill = "INSERT INTO tenants SELECT g, 't' || g FROM generate_series(1, 20) g";
    client.batch_execute(fill).await.unwrap();
    client.batch_execute("ALTER TABLE users ADD UNIQUE (email)").await.unwrap();
    client.batch_execute(USERS).await.unwrap();
    (one, client)
}

#[tokio::test]
async fn a_lookup_says_what_conflicts_as_a_unique_constraint_does() {
    let shop = Shop::start().await;
    shop.run(&[USERS]).await;
    let (_one, plain) = one().await;
    let long: Vec<_> = (0..300).map(|n| format!("({}, {n}, 'l{n}')", 1 + n % 20)).collect();
    let long = format!("INSERT INTO users (tenant_id, id, email) VALUES {}", long.join(", "));
    for sql in [
        "INSERT INTO users VALUES (9, 1, 'a@x', 'oslo', 'n') ON CONFLICT (email) DO NOTHING",
        "INSERT INTO users VALUES (9, 1, 'b@x', 'oslo', 'n') ON CONFLICT DO NOTHING RETURNING id",
        "INSERT INTO users VALUES (1, 1, 'free@x', 'oslo', 'n') ON CONFLICT DO NOTHING",
        "INSERT INTO users VALUES (1, 1, 'free@x', 'oslo', 'n') ON CONFLICT (email) DO NOTHING",
        "INSERT INTO users VALUES (9, 2, 'd@x', 'oslo', 'n'), (10, 2, 'c@x', 'x', 'y'), (11, 2, NULL, 'x', 'z'), \
         (12, 2, NULL, 'x', 'z') ON CONFLICT (email) DO NOTHING RETURNING tenant_id, email",
        "INSERT INTO users VALUES (13, 1, 'e@x', 'p', 'e'), (14, 1, 'e@x', 'q', 'f') ON CONFLICT DO NOTHING",
        "INSERT INTO users VALUES (15, 1, 'a@x', 'kiev', 'new') ON CONFLICT (email) \
         DO UPDATE SET name = public.users.name || excluded.name, city = excluded.city RETURNING *",
        "INSERT INTO users AS u (email, tenant_id, id, name) VALUES ('b@x', 16, 1, 'w'), ('g@x', 16, 2, 'v') \
         ON CONFLICT (email) DO UPDATE SET (name, city) = (excluded.name, DEFAULT), email = excluded.email \
         RETURNING u.tenant_id, id, upper(name) AS name, city",
        "INSERT INTO users (tenant_id, id, email, name) VALUES (17, 1, 'c@x', DEFAULT) ON CONFLICT (email) \
         DO UPDATE SET name = coalesce(excluded.name, 'none') WHERE users.city <> 'rome' RETURNING name",
        "INSERT INTO users VALUES (17, 1, 'c@x', 'x', 'y') ON CONFLICT (email) DO UPDATE SET name = name",
        "INSERT INTO users VALUES (17, 1, 'c@x', 'x', 'y'), (18, 1, 'c@x', 'x', 'y') \
         ON CONFLICT (email) DO UPDATE SET name = 'twice'",
        "INSERT INTO users VALUES (17, 1, 'h@x', 'x', 'y'), (18, 1, 'h@x', 'x', 'y') \
         ON CONFLICT (email) DO UPDATE SET name = 'twice'",
        "INSERT INTO users VALUES (99, 1, 'i@x', 'x', 'y') ON CONFLICT (email) DO NOTHING",
        "INSERT INTO users (tenant_id, id, email, name) SELECT t.id, 5, u.email, 'sel' FROM tenants t \
         JOIN users u ON u.tenant_id = t.id ORDER BY t.id ON CONFLICT (email) DO UPDATE SET name = excluded.name \
         RETURNING tenant_id, name",
        "INSERT INTO users (tenant_id, id, email) SELECT id, 6, 'sel' || id % 15 FROM tenants ORDER BY id \
         ON CONFLICT DO NOTHING",
        &format!("{long} ON CONFLICT (email) DO UPDATE SET city = 'again'"),
        &format!("{long} ON CONFLICT (email) DO UPDATE SET city = 'again'"),
        &format!("{long} ON CONFLICT DO NOTHING"),
        "INSERT INTO users VALUES (1, 1, lower('A@X'), 'q', 'r') ON CONFLICT (email) DO UPDATE SET name = 'low'",
        "BEGIN; INSERT INTO users VALUES (19, 1, 'a@x', 'q', 'r'), (19, 2, 'j@x', 'q', 'r') ON CONFLICT (email) \
         DO UPDATE SET name = 'gone'; ROLLBACK",
        "BEGIN; DELETE FROM users WHERE tenant_id = 1 AND id = 1; INSERT INTO users VALUES (19, 1, 'a@x', 'q', 'r') \
         ON CONFLICT (email) DO UPDATE SET name = 'other'; COMMIT",
    ] {
        assert_eq!(answer(&shop.client, sql).await, answer(&plain, sql).await, "{sql}");
        let all = "SELECT * FROM users";
        assert_eq!(answer(&shop.client, all).await, answer(&plain, all).await, "after {sql}");
        shop.lookups_fit().await;
    }
    for refused in [
        "INSERT INTO users VALUES (17, 1, 'a@x', 'x', 'y') ON CONFLICT (email) DO UPDATE SET tenant_id = excluded.tenant_id",
        "INSERT INTO users VALUES (17, 1, 'a@x', 'x', 'y') ON CONFLICT (email) DO UPDATE SET email = 'other'",
        "INSERT INTO users VALUES (17, 1, 'a@x', 'x', 'y') ON CONFLICT (email) \
         DO UPDATE SET name = (SELECT max(name) FROM tenants)",
        "INSERT INTO users VALUES (17, 1, 'm' || random(), 'x', 'y') ON CONFLICT (email) DO NOTHING",
    ] {
        assert_eq!(shop.fails(refused).await, "0A000", "{refused}");
    }
}

#[tokio::test]
async fn parameters_conflict_by_a_lookup_too() {
    let shop = Shop::start().await;
    shop.run(&[USERS]).await;
    let (_one, plain) = one().await;
    let sql = "INSERT INTO users (tenant_id, id, email, name) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (email) DO UPDATE SET name = excluded.name || users.id RETURNING tenant_id, id, name";
    for (tenant, email) in [(5_i64, "a@x"), (6, "n@x"), (7, "n@x"), (8, "b@x")] {
        let mut answers = Vec::new();
        for client in [&shop.client, &plain] {
            let prepared = client.prepare(sql).await.unwrap();
            let row =
                client.query_one(&prepared, &[&tenant, &7_i64, &email, &"set"]).await.unwrap();
            answers.push((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, String>(2)));
        }
        assert_eq!(answers[0], answers[1]);
    }
    shop.lookups_fit().await;
}

#[tokio::test]
async fn a_row_that_shows_later_than_its_entry_is_changed_once_it_shows() {
    let shop = Shop::start().await;
    let map = shop.proxy.proxy.engine.live_map.snapshot();
    let node = |group, key| map.node_of(shop.shard_of(group, key)).index();
    // As a transaction of another client's that is committed on the lookup's node first.
    let direct = async |node| {
        let client = shop.database.client(node).await;
        client.batch_execute("SET session_replication_role = replica").await.unwrap();
        client
    };
    let row = direct(node(0, KeyValue::Int(3))).await;
    let insert = "BEGIN; INSERT INTO users VALUES (3, 1, 'late', NULL, '1')";
    row.batch_execute(insert).await.unwrap();
    let entry = direct(node(1, KeyValue::Text(b"late".to_vec()))).await;
    entry.batch_execute("INSERT INTO users_by_email VALUES ('late', 3)").await.unwrap();
    let upsert = "INSERT INTO users VALUES (7, 1, 'late', NULL, '1') ON CONFLICT (email) \
                  DO UPDATE SET name = users.name::int + 1 RETURNING tenant_id, name";
    let committed = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        row.batch_execute("COMMIT").await.unwrap();
    };
    let (found, ()) = tokio::join!(rows(&shop.client, upsert), committed);
    assert_eq!(found, ["3|2"]);
    // One that never shows is not passed over.
    row.batch_execute("DELETE FROM users WHERE id = 1").await.unwrap();
    assert_eq!(shop.fails(upsert).await, "40001");
    // Nor waited for longer than the client wants.
    let token = shop.client.cancel_token();
    let cancelled = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (code, ()) = tokio::join!(shop.fails(upsert), cancelled);
    assert_eq!(code, "57014");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_insert_the_same_value_make_one_row_and_lose_none() {
    const WRITERS: i64 = 6;
    const ROUNDS: i64 = 25;
    let shop = Shop::start().await;
    let tasks = Tasks::new();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let client = shop.proxy.client().await;
        let work = async move {
            for round in 0..ROUNDS {
                let sql = format!(
                    "INSERT INTO users VALUES ({}, {}, 'same{}', 'x', '1') ON CONFLICT (email) \
                     DO UPDATE SET name = users.name::int + 1",
                    writer + 1,
                    round + 1,
                    round / 5
                );
                client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            }
        };
        writers.push(tasks.spawn("writer", work));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let sums = rows(&shop.client, "SELECT count(*), sum(name::int) FROM users").await;
    assert_eq!(sums, [format!("{}|{}", ROUNDS / 5, WRITERS * ROUNDS)]);
    shop.lookups_fit().await;
}
