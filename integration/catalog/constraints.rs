//! Constraints by the name of their table, though they may stand on its partitions.

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
    ])
    .await;
    pair.refused(
        "INSERT INTO tenants (id) VALUES (60); INSERT INTO tenants (id) VALUES (61), (62); COMMIT",
    )
    .await;
    pair.same("SELECT count(*) FROM tenants").await;
}
