//! UPDATE of the shard key through the proxy and on one PostgreSQL server.

mod support;
mod write_support;

use support::rows;
use write_support::Pair;

/// Rows on all nodes; `notes` has no rows that depend on it.
const ROWS: [&str; 3] = [
    "INSERT INTO tenants (id, name) SELECT i, 'tenant ' || i FROM generate_series(1, 24) i",
    "INSERT INTO notes (tenant_id, at, body) SELECT i, '2024-01-01', 'note ' || i \
     FROM generate_series(1, 24) i",
    "INSERT INTO orders (tenant_id, id, note, total) SELECT i, i * 10, 'n', i \
     FROM generate_series(1, 12) i",
];

#[tokio::test]
async fn rows_follow_their_key_to_other_nodes() {
    let pair = Pair::start().await;
    pair.all_same(&ROWS).await;
    pair.all_same(&[
        "UPDATE notes SET tenant_id = 30 WHERE tenant_id = 3 RETURNING tenant_id, body, twice",
        "UPDATE notes SET tenant_id = tenant_id + 100 WHERE tenant_id < 10",
        "UPDATE notes SET tenant_id = tenant_id + 1, body = body || '!' RETURNING *",
        "UPDATE notes AS n SET tenant_id = n.tenant_id * 2, body = 'half' \
         WHERE n.body LIKE 'note 2%' RETURNING n.tenant_id, n.body",
        // Some keys change, some do not.
        "UPDATE notes SET tenant_id = CASE WHEN tenant_id % 2 = 0 THEN tenant_id ELSE 1 END, \
         body = 'even or one' WHERE tenant_id < 30",
        "UPDATE notes SET tenant_id = 7.4 WHERE tenant_id = 30",
        "UPDATE notes SET tenant_id = NULL WHERE tenant_id = 7",
        "UPDATE notes SET tenant_id = 'x' WHERE tenant_id = 1",
        "UPDATE notes SET tenant_id = 5 WHERE false",
        "UPDATE notes SET tenant_id = 5, body = NULL WHERE tenant_id = 12345",
    ])
    .await;
    for sql in
        ["BEGIN", "UPDATE notes SET tenant_id = 77", "SELECT count(*) FROM notes", "ROLLBACK"]
    {
        pair.same(sql).await;
    }
    pair.same_tables().await;
    // Each row is where its key belongs.
    for node in 0..3 {
        let client = pair.database.client(node).await;
        let away = "SELECT count(*) FROM notes n JOIN pg_class c ON c.oid = n.tableoid \
            JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent <> 'notes'::regclass";
        assert_eq!(rows(&client, away).await, ["0"]);
    }
}

#[tokio::test]
async fn dependent_rows_are_never_lost_by_a_new_key() {
    let pair = Pair::start().await;
    pair.all_same(&ROWS).await;
    pair.all_same(&[
        "INSERT INTO items (tenant_id, order_id, what) VALUES (1, 10, 'a'), (2, 20, 'b')",
    ])
    .await;
    // Orders that items depend on would be deleted with them: ON DELETE CASCADE.
    pair.refused("UPDATE orders SET tenant_id = 3 WHERE tenant_id = 1").await;
    pair.refused("UPDATE orders SET tenant_id = tenant_id + 50").await;
    pair.same_tables().await;
    pair.all_same(&[
        // The key is written, and stays.
        "UPDATE orders SET tenant_id = 1, note = 'same' WHERE tenant_id = 1",
        "UPDATE orders SET tenant_id = tenant_id, note = 'all' RETURNING tenant_id, id, note",
        // Orders depend on tenants: no new key while they are there, and none that is taken.
        "UPDATE tenants SET id = 100 WHERE id = 1",
        "UPDATE tenants SET id = 100 WHERE id = 20",
        "UPDATE tenants SET id = 2 WHERE id = 21",
        "UPDATE items SET tenant_id = 99 WHERE tenant_id = 1",
    ])
    .await;
    pair.all_same(&[
        "ALTER TABLE orders DROP CONSTRAINT orders_tenant_id_fkey",
        "ALTER TABLE orders ADD FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON UPDATE CASCADE",
    ])
    .await;
    // Those that would follow are not on the new key's node: it says so, and not that they are there.
    pair.refused("UPDATE tenants SET id = 100 WHERE id = 1").await;
    pair.all_same(&[
        "UPDATE tenants SET id = 1, name = 'same' WHERE id = 1 RETURNING id, name",
        "UPDATE tenants SET id = 100 WHERE id = 1000",
    ])
    .await;
    pair.same_tables().await;
}

#[tokio::test]
async fn upserts_that_write_the_key_that_they_met_are_ordinary() {
    let pair = Pair::start().await;
    pair.all_same(&ROWS).await;
    pair.all_same(&[
        "INSERT INTO tenants (id, name) VALUES (1, 'one'), (2, 'two'), (99, 'new') \
         ON CONFLICT (id) DO UPDATE SET id = excluded.id, name = excluded.name RETURNING id, name",
        "INSERT INTO orders (tenant_id, id, note) VALUES (4, 40, 'up') ON CONFLICT (tenant_id, id) \
         DO UPDATE SET tenant_id = EXCLUDED.tenant_id, note = EXCLUDED.note",
    ])
    .await;
    pair.refused(
        "INSERT INTO tenants (id, name) VALUES (1, 'one') ON CONFLICT (id) DO UPDATE SET id = 5",
    )
    .await;
    pair.all_same(&["UPDATE notes SET tenant_id = t.id FROM tenants t WHERE t.name = notes.body"])
        .await;
}

#[tokio::test]
async fn parameters_of_a_new_key_come_in_any_form() {
    let pair = Pair::start().await;
    pair.all_same(&ROWS).await;
    for client in [&pair.shop, &pair.plain] {
        let sql = "UPDATE notes SET tenant_id = $1, body = $2 WHERE tenant_id = ANY ($3) \
            RETURNING tenant_id, body";
        let keys: Vec<i64> = vec![1, 2, 3, 40];
        let got = client.query(sql, &[&40_i64, &"moved", &keys]).await.unwrap();
        let got: Vec<(i64, &str)> = got.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(got, [(40, "moved"); 3]);
        let count =
            client.execute("UPDATE notes SET tenant_id = $1 WHERE body = $2", &[&41_i64, &"x"]);
        assert_eq!(count.await.unwrap(), 0);
    }
    pair.same_tables().await;
}
