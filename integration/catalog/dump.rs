//! A whole database goes by `pg_dump` from a proxy to one PostgreSQL, to another proxy, and back: the same
//! tables, rows, views and next numbers, whoever owns them.

use super::psql::{of_proxy, of_server, run};
use super::support::{TestDatabase, TestProxy, rows, temp_folder};

const POLICY: &str = "
groups:
  shop: {key: bigint, shards: 6, tables: {tenants: id, orders: tenant_id, items: tenant_id}}
  days: {key: date, method: range, split_at: [2026-01-10], tables: {stats.days: day}}
reference_tables: [plans]
";
const OWNED: &str = "
ALTER SCHEMA stats OWNER TO dumped;
ALTER TYPE status OWNER TO dumped;
ALTER DOMAIN amount OWNER TO dumped;
ALTER FUNCTION tidy() OWNER TO dumped;
ALTER TABLE invoice_numbers OWNER TO dumped;
ALTER TABLE plans OWNER TO dumped;
ALTER TABLE tenants OWNER TO dumped;
ALTER TABLE orders OWNER TO dumped;
ALTER TABLE items OWNER TO dumped;
ALTER TABLE notes OWNER TO dumped;
ALTER TABLE events OWNER TO dumped;
ALTER TABLE stats.days OWNER TO dumped;
ALTER TABLE balances OWNER TO dumped;
ALTER TABLE IF EXISTS open_orders OWNER TO dumped;
";

/// What has to be the same.
const SAME: [&str; 14] = [
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM plans t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM tenants t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM orders t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM items t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM notes t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM events t",
    "SELECT count(*) FROM events_old",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM stats.days t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM totals t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM balances t",
    "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM open_orders t",
    "SELECT relname, relkind, pg_get_userbyid(relowner), relispopulated FROM pg_class \
     WHERE relnamespace IN ('public'::regnamespace, 'stats'::regnamespace) ORDER BY 1",
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname IN ('public', 'stats') ORDER BY 1",
];
/// Rows that take the next numbers; they are taken back, the numbers not.
const NEXT: [&str; 5] = [
    "INSERT INTO plans (name) VALUES ('next') RETURNING id",
    "INSERT INTO tenants (name) VALUES ('next') RETURNING id",
    "INSERT INTO orders (tenant_id, note) VALUES (7, 'next') RETURNING id, invoice, note",
    "INSERT INTO notes (body) VALUES ('next') RETURNING id",
    "SELECT nextval('invoice_numbers')",
];

async fn state(url: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sql in SAME {
        found.push(run("psql", &["-X", "-At", "-c", sql, url]).await);
    }
    for command in ["\\d+ orders", "\\d+ items", "\\d+ totals", "\\d+ stats.later", "\\d events"] {
        found.push(run("psql", &["-X", "-c", command, url]).await);
    }
    found
}

async fn next(url: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sql in NEXT {
        let text = format!("BEGIN; {sql}; ROLLBACK");
        found.push(run("psql", &["-X", "-At", "-c", &text, url]).await);
    }
    found
}

async fn proxy() -> (TestDatabase, TestProxy, String) {
    let database = TestDatabase::create(3).await;
    let proxy = TestProxy::start(&database, POLICY).await;
    let url = of_proxy(&proxy);
    (database, proxy, url)
}

async fn filled() -> (TestDatabase, TestProxy, String) {
    let (database, proxy, url) = proxy().await;
    let file = "integration/catalog/dump.sql";
    run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, &url]).await;
    (database, proxy, url)
}

#[tokio::test]
async fn a_dump_is_restored_anywhere_and_has_the_same_rows_and_numbers() {
    let (_one, _source, source) = filled().await;
    let folder = temp_folder("dumps");
    let at = |name: &str| folder.join(name).display().to_string();
    let (plain, custom, directory) = (at("plain.sql"), at("custom"), at("directory"));
    for (format, file) in [("p", &plain), ("c", &custom), ("d", &directory)] {
        run("pg_dump", &["-F", format, "-f", file, &source]).await;
    }
    let expected = state(&source).await;

    let server = TestDatabase::create(1).await;
    let (_two, _target, target) = proxy().await;
    let server_url = of_server(&server);
    for url in [&server_url, &target] {
        run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &plain, url]).await;
        assert_eq!(state(url).await, expected, "plain");
        for file in [&custom, &directory] {
            run("pg_restore", &["--clean", "--if-exists", "-d", url, file]).await;
            assert_eq!(state(url).await, expected, "{file}");
        }
    }
    let numbers = next(&source).await;
    assert_eq!(next(&target).await, numbers);
    assert_eq!(next(&server_url).await, numbers);

    // And from the server to a third one.
    let back = at("back");
    run("pg_dump", &["-F", "c", "-f", &back, &server_url]).await;
    let (third, _proxy, url) = proxy().await;
    run("pg_restore", &["--exit-on-error", "-d", &url, &back]).await;
    assert_eq!(state(&url).await, expected);
    for node in 0..3 {
        let leaves = "SELECT count(*) > 0 FROM pg_inherits WHERE inhparent = 'orders'::regclass";
        assert_eq!(rows(&third.client(node).await, leaves).await, ["t"]);
    }
}

#[tokio::test]
async fn a_dump_gives_everything_to_whom_it_belonged_on_every_node() {
    let (one, source, url) = filled().await;
    let role = "DO $$ BEGIN CREATE ROLE dumped; EXCEPTION WHEN duplicate_object THEN END $$";
    for node in 0..3 {
        one.client(node).await.batch_execute(role).await.unwrap();
    }
    let client = source.client().await;
    client.batch_execute("DROP MATERIALIZED VIEW totals, stats.later").await.unwrap();
    for statement in OWNED.split_terminator(';').map(str::trim).filter(|it| !it.is_empty()) {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    let dump = temp_folder("dump").join("custom").display().to_string();
    run("pg_dump", &["-F", "c", "-f", &dump, &url]).await;
    let (two, restored, target) = proxy().await;
    run("pg_restore", &["--exit-on-error", "-d", &target, &dump]).await;
    let owners = "SELECT relname, relkind, pg_get_userbyid(relowner) FROM pg_class \
        WHERE relnamespace IN ('public'::regnamespace, 'stats'::regnamespace) \
        AND relkind IN ('p', 'v', 'S', 'r') AND relname !~ '^events_' ORDER BY 1";
    for node in 0..3 {
        let (left, right) = (one.client(node).await, two.client(node).await);
        let found = rows(&right, owners).await;
        assert_eq!(found, rows(&left, owners).await, "node {node}");
        assert!(found.iter().all(|row| row.ends_with("|dumped")), "node {node}: {found:?}");
        assert!(found.iter().any(|row| row.starts_with("orders_s")), "node {node}: {found:?}");
    }
    // Who owns a table may change it.
    let client = restored.client().await;
    client.batch_execute("GRANT ALL ON SCHEMA public TO dumped; SET ROLE dumped").await.unwrap();
    for sql in [
        "ALTER TABLE orders ADD COLUMN more int, ADD CHECK (more > 0)",
        "CREATE INDEX ON orders (total)",
        "ALTER TABLE items ALTER COLUMN line TYPE bigint",
        "ALTER TABLE tenants DROP CONSTRAINT named",
        "ALTER TABLE plans ADD COLUMN more int",
        "DROP TABLE items",
    ] {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}
