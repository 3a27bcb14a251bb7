//! A proxy in front of three nodes, and one server that should be like it.
#![allow(dead_code, unreachable_pub, reason = "not every test binary uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by a panic"
)]

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{TestDatabase, TestProxy, rows};

/// Eight shards over three nodes.
const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 8
    tables:
      tenants: id
      orders: tenant_id
      items: tenant_id
      notes: tenant_id
reference_tables: [plans]
";

const TABLES: [&str; 6] = [
    "CREATE TABLE plans (id serial PRIMARY KEY, name text NOT NULL UNIQUE, \
     made timestamptz NOT NULL DEFAULT now(), tag uuid DEFAULT gen_random_uuid())",
    "CREATE TABLE tenants (id bigserial PRIMARY KEY, name text, plan int DEFAULT 1)",
    "CREATE TABLE orders (tenant_id bigint NOT NULL REFERENCES tenants (id), \
     id bigint, note text DEFAULT 'none', total numeric(8, 2) CHECK (total >= 0), \
     PRIMARY KEY (tenant_id, id))",
    "CREATE TABLE items (tenant_id bigint NOT NULL, order_id bigint, \
     id bigint GENERATED ALWAYS AS IDENTITY, what text, PRIMARY KEY (tenant_id, order_id, id), \
     FOREIGN KEY (tenant_id, order_id) REFERENCES orders (tenant_id, id) ON DELETE CASCADE)",
    "CREATE TABLE notes (tenant_id bigint NOT NULL, at timestamptz DEFAULT now(), body text, \
     twice int GENERATED ALWAYS AS (length(body) * 2) STORED)",
    "CREATE TABLE journal (id serial PRIMARY KEY, what text)",
];

/// A proxy in front of three nodes, and one server that should be like it.
pub struct Pair {
    pub database: TestDatabase,
    pub one: TestDatabase,
    pub proxy: TestProxy,
    pub shop: Client,
    pub plain: Client,
}

impl Pair {
    pub async fn start() -> Self {
        let (database, one) = (TestDatabase::create(3).await, TestDatabase::create(1).await);
        let proxy = TestProxy::start(&database, POLICY).await;
        let (shop, plain) = (proxy.client().await, one.client(0).await);
        for table in TABLES {
            shop.batch_execute(table).await.unwrap_or_else(|error| panic!("{table}: {error:?}"));
            plain.batch_execute(table).await.unwrap();
        }
        Self { database, one, proxy, shop, plain }
    }

    /// Runs a statement on both; rows in any order, counts and SQLSTATEs have to agree.
    pub async fn same(&self, sql: &str) {
        let (shop, plain) = (answer(&self.shop, sql).await, answer(&self.plain, sql).await);
        assert_eq!(shop, plain, "left the proxy, right one server: {sql}");
    }

    /// The same, or the proxy refuses it: then it runs on neither. Whether it ran.
    pub async fn same_or_refused(&self, sql: &str) -> bool {
        let shop = answer(&self.shop, sql).await;
        if shop == Err(SqlState::FEATURE_NOT_SUPPORTED.code().to_owned()) {
            return false;
        }
        let plain = answer(&self.plain, sql).await;
        assert_eq!(shop, plain, "left the proxy, right one server: {sql}");
        true
    }

    /// The same for several.
    pub async fn all_same(&self, statements: &[&str]) {
        for sql in statements {
            self.same(sql).await;
        }
        self.same_tables().await;
    }

    /// Whether the tables hold the same rows, and copies are copies.
    pub async fn same_tables(&self) {
        for table in [
            "SELECT * FROM tenants",
            "SELECT * FROM orders",
            "SELECT * FROM items",
            "SELECT tenant_id, body, twice FROM notes",
            "SELECT id, name FROM plans",
        ] {
            self.same(table).await;
        }
        let copy = "SELECT * FROM plans ORDER BY id";
        let first = rows(&self.database.client(0).await, copy).await;
        for node in 1..3 {
            assert_eq!(rows(&self.database.client(node).await, copy).await, first, "node {node}");
        }
    }

    /// The proxy refuses the statement with a hint, and nothing is changed.
    pub async fn refused(&self, sql: &str) {
        let error = self.shop.batch_execute(sql).await.expect_err(sql);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
        assert_eq!(error.code(), &SqlState::FEATURE_NOT_SUPPORTED, "{sql}: {error:?}");
        assert!(error.hint().is_some(), "{sql}");
    }
}

/// Rows sorted, then counts; or the SQLSTATE.
async fn answer(client: &Client, sql: &str) -> Result<(Vec<String>, Vec<u64>), String> {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => match error.as_db_error() {
            Some(error) => {
                if error.code() == &SqlState::FEATURE_NOT_SUPPORTED {
                    eprintln!("{sql}: {error:?}");
                }
                return Err(error.code().code().to_owned());
            }
            None => panic!("{sql}: {error:?}"),
        },
    };
    let (mut found, mut counts) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let columns = (0..row.len()).map(|column| row.get(column).unwrap_or("∅"));
                found.push(columns.collect::<Vec<_>>().join("|"));
            }
            SimpleQueryMessage::CommandComplete(count) => counts.push(count),
            _ => {}
        }
    }
    if !sql.contains("ORDER BY") && !sql.contains("VALUES") {
        found.sort();
    }
    Ok((found, counts))
}

/// What a COPY TO gives, its lines sorted, the first kept where it is.
pub async fn copied(client: &Client, sql: &str) -> Vec<Vec<u8>> {
    use futures_util::TryStreamExt;
    let stream = client.copy_out(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let bytes: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
    let all = bytes.concat();
    if sql.contains("binary") {
        // The header and the trailer stand once.
        assert_eq!(&all[..11], b"PGCOPY\n\xff\r\n\0", "{sql}");
        assert!(all.ends_with(&[0xff, 0xff]), "{sql}");
        let mut sorted: Vec<u8> = all[19..].to_vec();
        sorted.sort_unstable();
        return vec![sorted];
    }
    let mut lines: Vec<Vec<u8>> = all.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines[1..].sort();
    if !sql.contains("HEADER") {
        lines.sort();
    }
    lines
}
