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
