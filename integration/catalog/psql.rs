//! What `psql` and `pg_dump` show through the proxy is what they show of one server with the same
//! tables.

use std::process::Stdio;

use tokio::process::Command;

use super::support::{TestDatabase, TestProxy, rows};
use super::write_support::Pair;

const PATIENCE: std::time::Duration = std::time::Duration::from_mins(4);

/// More than tables: what their descriptions can show.
const MORE: [&str; 8] = [
    "CREATE INDEX by_total ON orders (total DESC) WHERE note IS NOT NULL",
    "CREATE UNIQUE INDEX by_note ON orders (tenant_id, lower(note))",
    "ALTER TABLE tenants ADD CONSTRAINT plan_of FOREIGN KEY (plan) REFERENCES plans (id) \
     ON DELETE SET NULL DEFERRABLE",
    "ALTER TABLE items ADD COLUMN gone int",
    "ALTER TABLE items DROP COLUMN gone",
    "ALTER TABLE items ADD COLUMN tag text DEFAULT 'none'",
    "COMMENT ON TABLE orders IS 'what was ordered'",
    "CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at)",
];

/// Runs a client program of PostgreSQL; what it printed.
pub async fn run(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).env("PGCONNECT_TIMEOUT", "10");
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// How clients reach it.
pub fn of_proxy(proxy: &TestProxy) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/{}", proxy.proxy.address.port(), proxy.database)
}

/// How clients reach the first node itself.
pub fn of_server(database: &TestDatabase) -> String {
    let node = &database.nodes[0];
    let (host, port) = (node.host.replace('/', "%2F"), node.port);
    format!("postgresql://postgres@/{}?host={host}&port={port}", database.name)
}

async fn pair() -> (Pair, String, String) {
    let pair = Pair::start().await;
    for sql in MORE.into_iter().chain(["CREATE TABLE parts_1 PARTITION OF parts DEFAULT"]) {
        pair.shop.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        pair.plain.batch_execute(sql).await.unwrap();
    }
    let (shop, plain) = (of_proxy(&pair.proxy), of_server(&pair.one));
    (pair, shop, plain)
}

#[tokio::test]
async fn psql_describes_tables_as_it_does_on_one_server() {
    let (_pair, shop, plain) = pair().await;
    for command in [
        "\\d",
        "\\dt",
        "\\di",
        "\\dn",
        "\\dp",
        "\\ds",
        "\\dv",
        "\\d orders",
        "\\d+ orders",
        "\\d items",
        "\\d tenants",
        "\\d plans",
        "\\d notes",
        "\\d journal",
        "\\d orders_pkey",
        "\\d orders_s0",
        "\\d parts",
        "\\dt *.*orders*",
        "\\dd",
        "\\dP",
        "\\dT",
        "\\df",
        "\\dy",
        "\\sf nothing",
    ] {
        let one = async |url: &str| {
            let mut command_line = Command::new("psql");
            command_line.args(["-X", "-c", command, url]).stdin(Stdio::null());
            let output = command_line.kill_on_drop(true).output().await.unwrap();
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        assert_eq!(one(&shop).await, one(&plain).await, "{command}");
    }
}

#[tokio::test]
async fn a_dump_of_the_schema_makes_the_same_tables_on_one_server() {
    let (pair, shop, plain) = pair().await;
    let dumped = run("pg_dump", &["--schema-only", "--no-owner", &shop]).await;
    let expected = run("pg_dump", &["--schema-only", "--no-owner", &plain]).await;
    let readable = |dump: &str| {
        let lines = dump.lines().filter(|line| !line.starts_with('\\'));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(readable(&dumped), readable(&expected));
    let other = TestDatabase::create(1).await;
    other.client(0).await.batch_execute(&readable(&dumped)).await.unwrap();
    drop(pair);
}

#[tokio::test]
async fn drivers_and_catalog_views_see_no_partitions() {
    let (pair, ..) = pair().await;
    for sql in [
        "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' \
         ORDER BY 1",
        "SELECT table_name, constraint_name, constraint_type FROM information_schema.table_constraints \
         WHERE table_schema = 'public' AND constraint_name !~ 'not_null' ORDER BY 1, 2",
        "SELECT k.table_name, k.column_name, r.unique_constraint_name, r.delete_rule \
         FROM information_schema.key_column_usage k \
         JOIN information_schema.referential_constraints r USING (constraint_name) ORDER BY 1, 2, 3",
        "SELECT information_schema.columns.column_name FROM information_schema.columns \
         WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
        "SELECT tablename, indexname, indexdef FROM pg_catalog.pg_indexes WHERE schemaname = 'public' \
         ORDER BY 1, 2",
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp' ORDER BY 1",
        "SELECT relname, relkind, relispartition, relhassubclass FROM pg_class \
         WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
        "SELECT conname, contype, conrelid::regclass, confrelid::regclass, conkey, confkey, \
         pg_get_constraintdef(oid), conindid::regclass FROM pg_constraint \
         WHERE connamespace = 'public'::regnamespace ORDER BY conname",
        "SELECT count(*) FROM pg_inherits",
        "SELECT schema_name FROM information_schema.schemata \
         WHERE schema_name !~ '^pg_' ORDER BY 1",
    ] {
        pair.same(sql).await;
        let prepared = pair.shop.query(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert_eq!(prepared.len(), rows(&pair.plain, sql).await.len(), "{sql}");
    }
    // In a transaction that has another node already, too.
    pair.shop.batch_execute("BEGIN; ").await.unwrap();
    for tenant in 1..8 {
        let sql = format!("SELECT count(*) FROM tenants WHERE id = {tenant}");
        rows(&pair.shop, &sql).await;
    }
    let sql = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'plan_of'";
    pair.same(sql).await;
    pair.shop.batch_execute("COMMIT").await.unwrap();
    let columns = "SELECT * FROM pg_class WHERE relname = 'orders'";
    let [shop, plain] =
        [&pair.shop, &pair.plain].map(async |client| client.prepare(columns).await.unwrap());
    let names = |statement: tokio_postgres::Statement| {
        statement
            .columns()
            .iter()
            .map(|c| (c.name().to_owned(), c.type_().clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(shop.await), names(plain.await));
}
