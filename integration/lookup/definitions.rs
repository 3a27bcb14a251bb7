//! How lookups come and go.

use crate::shop::{LOOKUPS, Shop, TABLES};
use crate::support::rows;

#[tokio::test]
async fn a_lookup_is_filled_from_the_rows_that_are_there() {
    let shop = Shop::bare().await;
    shop.run(&[
        "INSERT INTO users SELECT t, i, 'u' || t || '.' || i, 'c' || i % 3, 'n' \
         FROM generate_series(1, 20) t, generate_series(1, 5) i",
        "INSERT INTO users (tenant_id, id) VALUES (1, 100), (2, 100)",
    ])
    .await;
    shop.run(&LOOKUPS).await;
    shop.lookups_fit().await;
    let count = shop.on_all_nodes("SELECT email FROM users_by_email").await.len();
    assert_eq!(count, 100);
    shop.run(&["INSERT INTO users VALUES (3, 100, 'new', 'c1', 'n')"]).await;
    shop.lookups_fit().await;
}

#[tokio::test]
async fn a_lookup_of_values_that_are_not_unique_is_not_made() {
    let shop = Shop::bare().await;
    shop.run(&["INSERT INTO users VALUES (1, 1, 'same', 'a', 'n'), (2, 1, 'same', 'a', 'n'), \
                (3, 1, 'x', 'a', 'n'), (4, 1, 'y', 'a', 'n')"])
        .await;
    assert_eq!(shop.fails(LOOKUPS[0]).await, "23505");
    // It is as if it had not been tried.
    shop.run(&[
        "UPDATE users SET email = 'other' WHERE tenant_id = 2",
        "INSERT INTO users VALUES (5, 1, 'z', 'a', 'n')",
    ])
    .await;
    shop.run(&LOOKUPS).await;
    shop.lookups_fit().await;
}

#[tokio::test]
async fn a_lookup_needs_its_columns_and_its_table() {
    let shop = Shop::bare().await;
    for wrong in [
        "CREATE TABLE users_by_email (email text PRIMARY KEY)",
        "CREATE TABLE users_by_email (email text PRIMARY KEY, tenant_id int NOT NULL)",
        "CREATE TABLE users_by_email (email text, tenant_id bigint, PRIMARY KEY (email, tenant_id))",
        "CREATE TABLE users_by_city (city text PRIMARY KEY, tenant_id bigint NOT NULL)",
    ] {
        assert_eq!(shop.fails(wrong).await, "42P16");
    }
    shop.run(&["DROP TABLE users"]).await;
    assert_eq!(shop.fails(LOOKUPS[0]).await, "55000");
    shop.run(&[TABLES[1], LOOKUPS[0], LOOKUPS[1]]).await;
    for refused in [
        "INSERT INTO users_by_email VALUES ('x', 1)",
        "DELETE FROM users_by_email",
        "UPDATE users_by_email SET tenant_id = 3 WHERE email = 'x'",
        "TRUNCATE users_by_email",
        "COPY users_by_email FROM STDIN",
        "ALTER TABLE users_by_email ADD COLUMN x int",
        "ALTER TABLE users DROP COLUMN email",
        "ALTER TABLE users RENAME COLUMN email TO mail",
        "ALTER TABLE users ALTER COLUMN email TYPE varchar(10)",
    ] {
        assert_eq!(shop.fails(refused).await, "0A000", "{refused}");
    }
}

#[tokio::test]
async fn lookups_are_emptied_dropped_and_made_again() {
    let shop = Shop::start().await;
    let fill = "INSERT INTO users SELECT t, 1, 'u' || t, 'c', 'n' FROM generate_series(1, 20) t";
    shop.run(&[fill, "TRUNCATE users"]).await;
    shop.lookups_fit().await;
    assert_eq!(shop.on_all_nodes("SELECT * FROM users_by_email").await, Vec::<String>::new());
    shop.run(&[fill, "BEGIN", "TRUNCATE tenants, users", fill_one(), "ROLLBACK"]).await;
    shop.lookups_fit().await;
    assert_eq!(shop.on_all_nodes("SELECT * FROM users_by_email").await.len(), 20);
    shop.run(&["DROP TABLE users_by_city", "UPDATE users SET city = 'd'", LOOKUPS[1]]).await;
    shop.lookups_fit().await;
    shop.run(&["DROP TABLE users"]).await;
    let left = "SELECT relname FROM pg_class WHERE relname ~ '^users'";
    assert_eq!(shop.on_all_nodes(left).await, Vec::<String>::new());
    shop.run(&[TABLES[1], LOOKUPS[0], LOOKUPS[1], fill]).await;
    shop.lookups_fit().await;
    // The application sees none of its machinery.
    let seen = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(rows(&shop.client, seen).await, Vec::<String>::new());
}

fn fill_one() -> &'static str {
    "INSERT INTO tenants VALUES (1, 'again')"
}
