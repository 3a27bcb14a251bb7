//! Constraints by the name of their table, though they may stand on its partitions.

use foreshard::ids::{NodeId, ShardId};
use foreshard::mover::{HowToSplit, Wanted};
use tokio_postgres::Client;

use super::support::rows;
use super::write_support::Pair;

#[tokio::test]
async fn foreign_keys_on_partitions_are_changed_by_the_name_of_their_table() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "INSERT INTO tenants (id) SELECT n FROM generate_series(1, 20) n",
        "INSERT INTO orders (tenant_id, id) SELECT n, 1 FROM generate_series(1, 20) n",
        "INSERT INTO orders (tenant_id, id) VALUES (99, 1)",
        "ALTER TABLE notes ADD CONSTRAINT of_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id) \
         NOT VALID",
        "INSERT INTO notes (tenant_id) VALUES (77)",
        "ALTER TABLE notes VALIDATE CONSTRAINT of_tenant",
        "ALTER TABLE notes RENAME CONSTRAINT of_tenant TO its_tenant",
        "ALTER TABLE notes ALTER CONSTRAINT its_tenant DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE notes DROP CONSTRAINT of_tenant",
        "ALTER TABLE notes DROP CONSTRAINT IF EXISTS of_tenant",
        "INSERT INTO notes (tenant_id) VALUES (77)",
        "ALTER TABLE notes DROP CONSTRAINT its_tenant",
        "INSERT INTO notes (tenant_id) VALUES (77)",
        "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
        "ALTER TABLE items DROP CONSTRAINT items_tenant_id_order_id_fkey CASCADE",
        "ALTER TABLE ONLY orders DROP CONSTRAINT orders_pkey",
        "INSERT INTO items (tenant_id, order_id, what) VALUES (55, 1, 'no order')",
        "ALTER TABLE orders DROP CONSTRAINT orders_tenant_id_fkey",
        "INSERT INTO orders (tenant_id, id) VALUES (99, 1)",
        "ALTER TABLE ONLY public.orders ADD CONSTRAINT above CHECK (id > 0)",
        "INSERT INTO orders (tenant_id, id) VALUES (99, 0)",
        "ALTER TABLE orders RENAME CONSTRAINT above TO positive",
        "ALTER TABLE orders DROP CONSTRAINT positive",
        "INSERT INTO orders (tenant_id, id) VALUES (99, 0)",
        "BEGIN",
        "ALTER TABLE items ADD CONSTRAINT a FOREIGN KEY (tenant_id) REFERENCES tenants (id) NOT VALID",
        "ALTER TABLE items DROP CONSTRAINT a",
        "ALTER TABLE items DROP CONSTRAINT a",
        "ROLLBACK",
    ])
    .await;
    pair.shop
        .batch_execute(
            "ALTER TABLE items ADD CONSTRAINT a FOREIGN KEY (tenant_id) REFERENCES tenants (id) NOT VALID",
        )
        .await
        .unwrap();
    pair.refused("ALTER TABLE items DROP CONSTRAINT a, ADD COLUMN more int").await;
    pair.shop.batch_execute("ALTER TABLE items DROP CONSTRAINT a").await.unwrap();
    for node in 0..3 {
        let left = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' \
            AND conrelid::regclass::text ~ '^(orders|items|notes)'";
        assert_eq!(rows(&pair.database.client(node).await, left).await, ["0"], "node {node}");
    }
}

#[tokio::test]
async fn a_text_of_several_statements_is_one_transaction_wherever_they_go() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "INSERT INTO tenants (id) VALUES (1), (2), (3), (4), (5); INSERT INTO journal (what) VALUES ('a')",
        "INSERT INTO orders (tenant_id, id) VALUES (1, 1); INSERT INTO orders (tenant_id, id) \
         VALUES (2, 1); SELECT count(*) FROM orders; UPDATE orders SET note = 'b'",
        // All or nothing.
        "INSERT INTO tenants (id) VALUES (10); INSERT INTO tenants (id) VALUES (11); \
         INSERT INTO tenants (id) VALUES (1)",
        "INSERT INTO journal (what) VALUES ('c'); DELETE FROM tenants WHERE id = 1; SELECT 1",
        "SELECT what FROM journal",
        "BEGIN; INSERT INTO tenants (id) VALUES (20); INSERT INTO tenants (id) VALUES (21); \
         INSERT INTO journal (what) VALUES ('d'); COMMIT",
        "BEGIN; INSERT INTO tenants (id) VALUES (30), (31); INSERT INTO journal (what) VALUES ('e'); ROLLBACK",
        "BEGIN",
        "INSERT INTO tenants (id) VALUES (40); INSERT INTO journal (what) VALUES ('f'); SELECT 1 / 0",
        "SELECT 1",
        "ROLLBACK; BEGIN",
        "INSERT INTO tenants (id) VALUES (50); INSERT INTO tenants (id) VALUES (51); \
         SAVEPOINT s; DELETE FROM orders; DELETE FROM tenants; ROLLBACK TO s; SELECT count(*) FROM orders",
        "COMMIT",
        "SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE orders ADD COLUMN plan int \
         CONSTRAINT its_plan REFERENCES plans (id) DEFERRABLE INITIALLY DEFERRED; \
         SET CONSTRAINTS its_plan IMMEDIATE; CREATE INDEX by_plan ON orders (plan)",
        "UPDATE orders SET plan = 77",
        "SET CONSTRAINTS its_plan IMMEDIATE; ALTER TABLE orders DROP CONSTRAINT its_plan",
        "UPDATE orders SET plan = 77; SELECT tenant_id, plan FROM orders",
        "SELECT what FROM journal",
        "INSERT INTO tenants (id) VALUES (60); INSERT INTO tenants (id) VALUES (61), (62); COMMIT",
        "DELETE FROM tenants WHERE id > 59; ROLLBACK; SELECT count(*) FROM tenants",
    ])
    .await;
}

/// What an error says of where it happened: SQLSTATE, schema, table, constraint, message.
async fn blamed(client: &Client, sql: &str) -> [String; 5] {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().unwrap();
    let text = |field: Option<&str>| field.unwrap_or_default().to_owned();
    let (schema, table) = (text(error.schema()), text(error.table()));
    let code = error.code().code().to_owned();
    [code, schema, table, text(error.constraint()), error.message().to_owned()]
}

#[tokio::test]
async fn errors_name_constraints_and_indexes_as_the_user_did_after_a_split_and_a_move() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "CREATE UNIQUE INDEX \"One note\" ON orders (tenant_id, lower(note))",
        "ALTER TABLE orders ADD CONSTRAINT small CHECK (total < 1000)",
        "ALTER TABLE orders ADD CONSTRAINT one_total UNIQUE (tenant_id, total)",
        "ALTER TABLE orders RENAME CONSTRAINT orders_pkey TO its_key",
        "ALTER TABLE orders RENAME CONSTRAINT orders_tenant_id_fkey TO its_tenant",
        "INSERT INTO tenants (id) SELECT n FROM generate_series(1, 40) n",
        "INSERT INTO orders (tenant_id, id, note, total) \
         SELECT n, 1, 'n' || n, n FROM generate_series(1, 40) n",
    ])
    .await;
    let same = async |when: &str| {
        for tenant in 1..=40 {
            for values in [
                format!("({tenant}, 1, 'x', 0.5)"),
                format!("({tenant}, 2, 'N{tenant}', 0.5)"),
                format!("({tenant}, 2, 'x', {tenant})"),
                format!("({tenant}, 2, 'x', 1000)"),
                format!("({tenant}, 2, 'x', -1)"),
                format!("({}, 2, 'x', 1)", tenant + 1000),
            ] {
                let sql =
                    format!("INSERT INTO orders (tenant_id, id, note, total) VALUES {values}");
                let (ours, theirs) =
                    (blamed(&pair.shop, &sql).await, blamed(&pair.plain, &sql).await);
                assert_eq!(ours, theirs, "{when}: {sql}");
            }
        }
    };
    same("at first").await;
    let split = |shard, to: &[u16]| Wanted::Split {
        shard: ShardId(shard),
        how: HowToSplit::Into(2),
        to: to.iter().map(|node| NodeId(*node)).collect(),
    };
    for shard in 0..4 {
        pair.proxy.change_shards(&split(shard, &[1, 2])).await;
    }
    same("after splits").await;
    for shard in 4..8 {
        pair.proxy.move_shard(ShardId(shard)).await;
    }
    same("after moves").await;
    let last = pair.proxy.proxy.engine.live_map.load().shards().map(|(id, _)| id.0).max();
    pair.proxy.change_shards(&split(last.unwrap(), &[])).await;
    pair.shop.batch_execute("ALTER INDEX \"One note\" RENAME TO by_note").await.unwrap();
    pair.plain.batch_execute("ALTER INDEX \"One note\" RENAME TO by_note").await.unwrap();
    same("after a name has changed").await;
}
