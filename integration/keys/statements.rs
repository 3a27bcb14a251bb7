//! Statements over ranges and lists.

use futures_util::SinkExt;
use tokio_postgres::Client;
use tokio_postgres::types::{Date, Timestamp};

use super::shop::Shop;
use super::support::rows;

async fn fill(shop: &Shop) {
    shop.all_same(&[
        "INSERT INTO tenants SELECT g, 'n' || g FROM generate_series(-20, 3010, 10) g",
        "INSERT INTO orders SELECT id, i, name FROM tenants, generate_series(1, 2) i",
        "INSERT INTO places VALUES ('eu', 'a'), ('uk', 'b'), ('us', 'c'), (NULL, 'd'), ('it''s', 'e'), \
         ('xx', 'f'), ('', 'g')",
        "INSERT INTO streets VALUES ('eu', 's'), (NULL, 't'), ('xx', 'u')",
        "INSERT INTO few VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "INSERT INTO visits VALUES ('2023-12-31', 1, 1), ('2024-06-01', 4, 2), ('2024-06-01', 5, 3), \
         ('2024-06-01', 9, 4), ('infinity', 1, 5), ('-infinity', 1, 6), ('2025-01-01', -1, 7)",
        "INSERT INTO names VALUES ('A', 1), ('B', 2), ('Z', 3), ('a', 4), ('it''s', 5), ('m', 6), ('', 7)",
        "INSERT INTO events VALUES ('2023-12-31 23:59:59.999999+00', 1), ('2024-01-01 00:00Z', 2), \
         ('2024-12-31 23:00-02', 3), ('infinity', 4)",
    ])
    .await;
}

#[tokio::test]
async fn ranges_of_numbers_answer_as_one_server_does() {
    let shop = Shop::start().await;
    fill(&shop).await;
    shop.all_same(&[
        "SELECT * FROM tenants WHERE id = 1000",
        "SELECT * FROM tenants WHERE id IN (-10, -20, 999, 1000, 2990, 5000)",
        "SELECT count(*) FROM tenants WHERE id BETWEEN 1000 AND 1999",
        "SELECT count(*) FROM tenants WHERE id >= 1000 AND id < 2000",
        "SELECT count(*) FROM tenants WHERE 2000 > id AND 1000 <= id",
        "SELECT count(*) FROM tenants WHERE id > 99999999999999999999",
        "SELECT count(*) FROM tenants WHERE id < 99999999999999999999",
        "SELECT count(*) FROM tenants WHERE id < NULL",
        "SELECT count(*) FROM tenants WHERE id < '1000' AND id > -11",
        "SELECT count(*) FROM tenants WHERE id < 'x'",
        "SELECT count(*) FROM tenants WHERE id < 1000.5",
        "SELECT count(*) FROM tenants WHERE id > 1999 AND id < 1000",
        "SELECT * FROM tenants t JOIN orders o ON o.tenant_id = t.id WHERE t.id < -10",
        "SELECT * FROM tenants t LEFT JOIN orders o ON o.tenant_id = t.id AND o.tenant_id < -10 \
         WHERE t.id < 1010 AND t.id >= 980",
        "SELECT * FROM tenants t LEFT JOIN orders o ON o.tenant_id = t.id WHERE o.tenant_id > 2990",
        "SELECT * FROM tenants WHERE id < -10 OR name = 'n1500'",
        "SELECT * FROM tenants WHERE NOT id < 3000",
        "SELECT (SELECT count(*) FROM orders o WHERE o.tenant_id < t.id) FROM tenants t WHERE t.id = 20",
        "UPDATE tenants SET name = name || '!' WHERE id >= 990 AND id <= 1010",
        "UPDATE tenants SET name = name || '?' WHERE id > 3000 RETURNING *",
        "DELETE FROM orders WHERE tenant_id >= 2000 AND tenant_id < 3000",
        "DELETE FROM orders WHERE tenant_id < 1000 AND tenant_id >= 980 RETURNING *",
        "INSERT INTO tenants VALUES (999, 'x'), (1000, 'twice')",
        "INSERT INTO tenants VALUES (999, 'x'), (1001, 'y'), (-11, 'z') RETURNING *",
        "INSERT INTO tenants VALUES (500 + 1, 'computed'), (1500 + 1, 'too')",
    ])
    .await;
}

#[tokio::test]
async fn lists_answer_as_one_server_does() {
    let shop = Shop::start().await;
    fill(&shop).await;
    shop.all_same(&[
        "SELECT * FROM places WHERE region = 'eu'",
        "SELECT * FROM places WHERE region = 'nowhere'",
        "SELECT * FROM places WHERE region IN ('uk', 'it''s', 'xx', '')",
        "SELECT * FROM places WHERE region IS NULL",
        "SELECT * FROM places p JOIN streets s USING (region)",
        "SELECT * FROM places WHERE region > 'f'",
        "INSERT INTO places VALUES (NULL, 'z'), ('zz', 'z')",
        "UPDATE places SET name = 'q' WHERE region = 'zz'",
        "DELETE FROM places WHERE region = 'us' OR region IS NULL",
        "SELECT * FROM few WHERE k = 4",
        "SELECT * FROM few WHERE k IN (1, 3, 4)",
        "DELETE FROM few WHERE k = 4",
        "UPDATE few SET v = 'x' WHERE k IN (4, 2)",
        "INSERT INTO few VALUES (4, 'none')",
        "INSERT INTO few VALUES (1, 'x'), (4, 'none'), (3, 'y')",
        "INSERT INTO few VALUES (NULL, 'none')",
    ])
    .await;
}

#[tokio::test]
async fn ranges_of_dates_times_and_texts_answer_as_one_server_does() {
    let shop = Shop::start().await;
    fill(&shop).await;
    shop.all_same(&[
        "SELECT * FROM visits WHERE day = '2024-06-01'",
        "SELECT * FROM visits WHERE day = '2024-06-01' AND visitor = 5",
        "SELECT * FROM visits WHERE day = date '2024-06-01' AND visitor IN (4, 9)",
        "SELECT * FROM visits WHERE day = 'June 1, 2024' AND visitor = 5",
        "SELECT * FROM visits WHERE day < '2024-06-01'",
        "SELECT * FROM visits WHERE day > '2024-06-01'",
        "SELECT * FROM visits WHERE day <= '2024-06-01' AND day >= '2024-06-01'",
        "SELECT * FROM visits WHERE day > 'Jan 1 2024'",
        "SELECT * FROM visits WHERE day = 'infinity'",
        "SELECT * FROM visits WHERE day > timestamp '2024-06-01 12:00'",
        "INSERT INTO visits VALUES ('2024-06-01', 5, 0)",
        "INSERT INTO visits VALUES ('2024-02-30', 1, 0)",
        "INSERT INTO visits VALUES (date '2024-01-01' + 3, 77, 0)",
        "INSERT INTO visits VALUES ('June 7, 2024', 77, 0), ('2024-06-08', 77, 0) RETURNING *",
        "INSERT INTO events VALUES ('2024-05-05 05:05', 77), ('yesterday, they said', 78)",
        "INSERT INTO events VALUES ('2024-05-05 05:05', 77)",
        "UPDATE visits SET n = n + 1 WHERE day >= '2024-06-01' AND visitor > 4",
        "SELECT * FROM names WHERE name = 'B'",
        "SELECT * FROM names WHERE name < 'a'",
        "SELECT * FROM names WHERE name BETWEEN 'A' AND 'a'",
        "SELECT * FROM names WHERE name >= 'a' AND name < 'm'",
        "SELECT * FROM names WHERE name COLLATE \"und-x-icu\" >= 'a'",
        "SELECT * FROM names WHERE name LIKE 'i%'",
        "SELECT * FROM events WHERE at = '2024-01-01 00:00:00+00'",
        "SELECT * FROM events WHERE at = '2024-01-01'",
        "SELECT * FROM events WHERE at < '2024-01-01 00:00:00+00'",
        "SELECT * FROM events WHERE at >= '2024-01-01 00:00Z' AND at < '2025-01-01T00:00Z'",
        "SELECT * FROM events WHERE at > '2025-01-01'",
        "INSERT INTO events VALUES (timestamptz '2024-05-05 05:05+00' + interval '1 day', 9)",
    ])
    .await;
}

#[tokio::test]
async fn a_range_goes_to_the_nodes_that_hold_it() {
    let shop = Shop::start().await;
    fill(&shop).await;
    for one in [
        "SELECT * FROM tenants WHERE id BETWEEN 1000 AND 1999",
        "SELECT count(*) FROM tenants WHERE id >= 1000 AND id < 2000",
        "SELECT count(*) FROM tenants WHERE id < -10",
        "SELECT count(*) FROM tenants t JOIN orders o ON t.id = o.tenant_id WHERE t.id >= 3000",
        "SELECT count(*) FROM tenants WHERE id > 2000 AND id < 1000",
        "SELECT count(*) FROM visits WHERE day > '2025-02-01'",
        "SELECT count(*) FROM names WHERE name < 'B'",
        "SELECT count(*) FROM events WHERE at >= '2024-01-01 00:00Z' AND at < '2025-01-01T00:00Z'",
        "SELECT count(*) FROM few WHERE k IN (1, 2)",
        "SELECT count(*) FROM places WHERE region = 'nowhere'",
    ] {
        assert!(shop.goes_to_one_node(one).await, "{one}");
    }
    for several in [
        "SELECT count(*) FROM tenants WHERE id >= 1000 AND id <= 2000",
        "SELECT count(*) FROM tenants WHERE id > -11",
        "SELECT count(*) FROM tenants WHERE id <> 5",
        "SELECT count(*) FROM visits WHERE day = '2024-06-01'",
        "SELECT count(*) FROM places WHERE region > 'a'",
    ] {
        assert!(!shop.goes_to_one_node(several).await, "{several}");
    }
}

#[tokio::test]
async fn parameters_of_ranges_come_as_text_and_binary() {
    let shop = Shop::start().await;
    fill(&shop).await;
    let mut all = Vec::new();
    for client in [&shop.client, &shop.plain] {
        all.push(with_parameters(client).await);
    }
    assert_eq!(all[0], all[1]);
    shop.same_tables().await;
}

async fn with_parameters(client: &Client) -> Vec<i64> {
    let mut found = Vec::new();
    let sql = "SELECT count(*) FROM tenants WHERE id >= $1 AND id < $2";
    for (from, to) in [(0_i64, 1000_i64), (990, 1010), (-100, 5000), (2500, 2400)] {
        found.push(client.query_one(sql, &[&from, &to]).await.unwrap().get(0));
    }
    let day = Date::Value(std::time::UNIX_EPOCH + std::time::Duration::from_hours(19_875 * 24));
    let sql = "SELECT count(*) FROM visits WHERE day >= $1";
    found.push(client.query_one(sql, &[&Day(day)]).await.unwrap().get(0));
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_hours(475_000);
    let never = Timestamp::<std::time::SystemTime>::NegInfinity;
    let sql = "INSERT INTO events VALUES ($1, 20), ($2, 21)";
    let count = client.execute(sql, &[&at, &never]).await;
    found.push(i64::try_from(count.unwrap()).unwrap());
    let sql = "SELECT count(*) FROM events WHERE at = $1";
    found.push(client.query_one(sql, &[&at]).await.unwrap().get(0));
    found
}

/// A date in binary.
#[derive(Debug)]
struct Day(Date<std::time::SystemTime>);

impl tokio_postgres::types::ToSql for Day {
    fn to_sql(
        &self,
        _: &tokio_postgres::types::Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Date::Value(at) = self.0 else { return Err("no day".into()) };
        let days = at.duration_since(std::time::UNIX_EPOCH)?.as_secs() / 86_400;
        out.extend_from_slice(&(i32::try_from(days)? - 10_957).to_be_bytes());
        Ok(tokio_postgres::types::IsNull::No)
    }

    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

async fn copy(client: &Client, sql: &str, data: &'static str) -> Result<u64, String> {
    let code =
        |error: tokio_postgres::Error| error.code().map_or("?", |code| code.code()).to_owned();
    let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>(sql).await.map_err(code)?);
    sink.send(data.into()).await.map_err(code)?;
    sink.as_mut().finish().await.map_err(code)
}

#[tokio::test]
async fn copy_puts_each_row_into_its_range_or_list() {
    let shop = Shop::start().await;
    for (sql, data) in [
        ("COPY tenants FROM STDIN", "-11\ta\n-10\tb\n999\tc\n1000\td\n5000\te\n"),
        ("COPY tenants FROM STDIN (FORMAT csv)", "7,x\n\"1007\",y\n"),
        ("COPY orders FROM STDIN", "7\t1\tx\n1007\t1\ty\n"),
        ("COPY places FROM STDIN", "eu\ta\n\\N\tb\nzz\tc\nit's\td\n"),
        ("COPY few FROM STDIN", "1\ta\n3\tb\n"),
        ("COPY few FROM STDIN", "1\ta\n4\tb\n"),
        ("COPY visits FROM STDIN", "2024-06-01\t4\t1\n2024-06-01\t5\t1\n-infinity\t0\t0\n"),
        ("COPY names FROM STDIN", "B\t1\nA\t1\nmm\t1\n\\\\\t5\n"),
        ("COPY events FROM STDIN", "2024-01-01 00:00:00+00\t1\n2023-12-31 23:59:59.9+00\t1\n"),
    ] {
        let (one, other) =
            (copy(&shop.client, sql, data).await, copy(&shop.plain, sql, data).await);
        assert_eq!(one, other, "{sql}");
    }
    shop.same_tables().await;
    let odd = copy(&shop.client, "COPY visits FROM STDIN", "1 June 2024\t4\t1\n").await;
    assert_eq!(odd, Err("0A000".to_owned()));
}

#[tokio::test]
async fn a_row_without_a_partition_is_refused_as_postgresql_refuses_it() {
    let shop = Shop::start().await;
    for sql in [
        "INSERT INTO tenants VALUES (NULL, 'x')",
        "INSERT INTO tenants VALUES (1, 'x'), (2500, 'y'), (NULL, 'x')",
        "INSERT INTO visits VALUES ('2024-06-01', NULL, 0)",
        "INSERT INTO few VALUES (1, 'x'), (3, 'y'), (NULL, 'z')",
        "INSERT INTO names VALUES (NULL, 1)",
        "INSERT INTO events SELECT NULL, n FROM generate_series(1, 3) n",
    ] {
        shop.client.batch_execute(sql).await.expect_err(sql);
        shop.same(sql).await;
    }
    for (sql, data, code) in [
        ("COPY tenants FROM STDIN", "1\tx\n\\N\ty\n", "23502"),
        ("COPY names FROM STDIN", "A\t1\n\\N\t1\n", "23502"),
        ("COPY visits FROM STDIN", "\\N\t4\t1\n2024-06-01\t4\t1\n", "23502"),
        ("COPY few FROM STDIN", "1\ta\n\\N\tb\n", "23514"),
    ] {
        for client in [&shop.client, &shop.plain] {
            assert_eq!(copy(client, sql, data).await, Err(code.to_owned()), "{sql}");
        }
    }
    shop.same_tables().await;
}

#[tokio::test]
async fn a_text_range_without_the_order_of_bytes_is_refused() {
    let shop = Shop::start().await;
    for (sql, hint) in [
        ("CREATE TABLE names (name text PRIMARY KEY)", "COLLATE \"C\""),
        ("CREATE TABLE names (name text COLLATE \"und-x-icu\" PRIMARY KEY)", "collation"),
        ("CREATE TABLE names (name text COLLATE public.\"C\" PRIMARY KEY)", "collation"),
    ] {
        shop.client.batch_execute("DROP TABLE IF EXISTS names").await.unwrap();
        let error = shop.client.batch_execute(sql).await.expect_err(sql);
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "0A000", "{sql}");
        assert!(error.detail().unwrap_or_default().contains(hint), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn a_range_over_some_nodes_leaves_the_others_alone() {
    let shop = Shop::start().await;
    fill(&shop).await;
    for (sql, nodes) in [
        ("SELECT * FROM tenants WHERE id >= 1000 AND id < 2500", 2),
        ("SELECT * FROM tenants WHERE id >= -10 AND id < 3500", 3),
        ("SELECT * FROM tenants t JOIN orders o ON o.tenant_id = t.id WHERE t.id IN (-11, 5)", 2),
        ("SELECT * FROM tenants", 3),
    ] {
        shop.same(sql).await;
        let explained = rows(&shop.client, &format!("EXPLAIN {sql}")).await;
        assert_eq!(explained.len(), nodes + 1, "{sql}: {explained:#?}");
    }
}
