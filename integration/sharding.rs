//! Sharded and reference tables through the proxy: definitions, COPY, and where rows really are.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use foreshard::ids::ShardId;
use foreshard::runtime::Tasks;
use futures_util::SinkExt;
use support::{TestDatabase, TestProxy, eventually, rows};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls};

/// Four shards over two nodes: s0 and s2 on n1, s1 and s3 on n2.
const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 4
    tables:
      tenants: id
      orders: tenant_id
      feelings: tenant_id
reference_tables: [plans]
";

const TABLES: &str = "
CREATE TABLE plans (id int PRIMARY KEY, name text NOT NULL);
";

async fn shop() -> (TestDatabase, TestProxy, Client) {
    let database = TestDatabase::create(2).await;
    let proxy = TestProxy::start(&database, POLICY).await;
    let client = proxy.client().await;
    client.batch_execute(TABLES.trim()).await.unwrap();
    client.batch_execute("CREATE TABLE tenants (id bigint PRIMARY KEY, name text)").await.unwrap();
    let orders = "CREATE TABLE orders (tenant_id bigint NOT NULL REFERENCES tenants (id), \
        id bigint, note text, PRIMARY KEY (tenant_id, id))";
    client.batch_execute(orders).await.unwrap();
    (database, proxy, client)
}

async fn copy(
    client: &Client,
    sql: &str,
    data: &'static [u8],
) -> Result<u64, tokio_postgres::Error> {
    let mut sink = pin!(client.copy_in::<_, Bytes>(sql).await?);
    for piece in data.chunks(7) {
        sink.send(Bytes::from_static(piece)).await?;
    }
    sink.finish().await
}

#[tokio::test]
async fn each_node_gets_the_partitions_that_it_owns() {
    let (database, _proxy, _client) = shop().await;
    let leaves = "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid \
        WHERE inhparent = 'orders'::regclass ORDER BY 1";
    assert_eq!(rows(&database.client(0).await, leaves).await, ["orders_s0", "orders_s2"]);
    assert_eq!(rows(&database.client(1).await, leaves).await, ["orders_s1", "orders_s3"]);
    let keys = "SELECT conrelid::regclass, confrelid::regclass FROM pg_constraint \
        WHERE contype = 'f' ORDER BY 1::text";
    let expected = ["orders_s0|tenants_s0", "orders_s2|tenants_s2"];
    assert_eq!(rows(&database.client(0).await, keys).await, expected);
}

#[tokio::test]
async fn copied_rows_land_on_the_nodes_that_own_them() {
    let (database, proxy, client) = shop().await;
    let text = b"1\tone\n2\ttwo\n3\tthree\n4\t\\N\n5\tf\\tive\n6\tsix\n7\tseven\n8\teight\n";
    assert_eq!(copy(&client, "COPY tenants FROM STDIN", text).await.unwrap(), 8);
    let csv = b"id,tenant_id,note\n1,1,\"a,b\"\n1,2,\"two\nlines\"\n1,3,\n1,8,x";
    let sql = "COPY orders (id, tenant_id, note) FROM STDIN WITH (FORMAT csv, HEADER)";
    assert_eq!(copy(&client, sql, csv).await.unwrap(), 4);
    let mut seen = Vec::new();
    for node in 0..2 {
        let node = database.client(node).await;
        seen.extend(rows(&node, "SELECT id FROM tenants").await);
    }
    seen.sort();
    assert_eq!(seen, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    // Each is found where its key leads to, by literal and by parameter.
    for id in 1..=8_i64 {
        let sql = format!("SELECT id FROM tenants WHERE id = {id}");
        assert_eq!(rows(&client, &sql).await, [id.to_string()]);
        let row = client.query_one("SELECT id FROM tenants WHERE id = $1", &[&id]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), id);
    }
    let note = "SELECT note FROM orders WHERE tenant_id = 2";
    assert_eq!(rows(&client, note).await, ["two\nlines"]);
    let mut all = rows(&client, "SELECT id FROM tenants").await;
    all.sort();
    assert_eq!(all, seen);
    drop(proxy);
}

#[tokio::test]
async fn rows_are_copied_into_a_table_in_the_block_that_makes_it() {
    let (_database, _proxy, client) = shop().await;
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("CREATE TABLE feelings (what text, tenant_id bigint)").await.unwrap();
    let text = b"one\t1\ntwo\t2\nthree\t3\nfour\t4\nfive\t5\n";
    assert_eq!(copy(&client, "COPY feelings FROM STDIN", text).await.unwrap(), 5);
    let insert = "INSERT INTO feelings VALUES ($1, $2)";
    for (what, tenant) in [("six", 6_i64), ("seven", 7)] {
        assert_eq!(client.execute(insert, &[&what, &tenant]).await.unwrap(), 1);
    }
    client.batch_execute("COMMIT").await.unwrap();
    for (tenant, what) in [(2, "two"), (5, "five"), (7, "seven")] {
        let sql = format!("SELECT what FROM feelings WHERE tenant_id = {tenant}");
        assert_eq!(rows(&client, &sql).await, [what]);
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM feelings").await, ["7"]);
}

#[tokio::test]
async fn a_copy_that_fails_on_one_node_leaves_no_row_anywhere() {
    let (database, _proxy, client) = shop().await;
    client.batch_execute("INSERT INTO tenants VALUES (5, 'there already')").await.unwrap();
    let text = b"1\tone\n2\ttwo\n3\tthree\n4\tfour\n5\tfive\n6\tsix\n";
    let error = copy(&client, "COPY tenants FROM STDIN", text).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    let error = copy(&client, "COPY tenants FROM STDIN", b"1\tone\nx\ttwo\n").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22P02");
    let mut seen = Vec::new();
    for node in 0..2 {
        let node = database.client(node).await;
        seen.extend(rows(&node, "SELECT id FROM tenants").await);
        assert!(
            rows(&node, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
                .await
                .is_empty()
        );
    }
    assert_eq!(seen, ["5"]);
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn definitions_change_on_every_node_or_on_none() {
    let (database, proxy, client) = shop().await;
    client.batch_execute("ALTER TABLE orders ADD COLUMN total int DEFAULT 7").await.unwrap();
    client.batch_execute("CREATE INDEX orders_note ON orders (note)").await.unwrap();
    client.batch_execute("BEGIN; ").await.unwrap();
    client.batch_execute("ALTER TABLE orders ADD COLUMN gone int").await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    let columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'orders'::regclass \
        AND attnum > 0 ORDER BY attnum";
    for node in 0..2 {
        let node = database.client(node).await;
        assert_eq!(rows(&node, columns).await, ["tenant_id", "id", "note", "total"]);
        let index = "SELECT count(*) FROM pg_indexes WHERE tablename = 'orders' \
            AND indexname = 'orders_note'";
        assert_eq!(rows(&node, index).await, ["1"]);
    }
    // The proxy knows the new column: an INSERT without a column list finds the key.
    client.batch_execute("INSERT INTO tenants VALUES (9, 'nine')").await.unwrap();
    client.batch_execute("INSERT INTO orders VALUES (9, 1, 'x', 3)").await.unwrap();
    let error = client.batch_execute("ALTER TABLE orders ADD UNIQUE (note)").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000");
    assert!(error.as_db_error().unwrap().hint().is_some_and(|hint| hint.contains("tenant_id")));
    let proxy = proxy.restart().await;
    let client = proxy.client().await;
    client.batch_execute("INSERT INTO orders VALUES (9, 2, 'y', 4)").await.unwrap();
    client.batch_execute("DROP TABLE orders").await.unwrap();
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'orders%'";
    assert_eq!(rows(&database.client(1).await, left).await, ["0"]);
}

#[tokio::test]
async fn a_reference_table_is_written_on_every_node_and_joined_on_one() {
    let (database, _proxy, client) = shop().await;
    assert_eq!(copy(&client, "COPY plans FROM STDIN", b"1\tfree\n2\tpaid\n").await.unwrap(), 2);
    let inserted = client.execute("INSERT INTO plans VALUES (3, 'gold')", &[]).await.unwrap();
    assert_eq!(inserted, 1);
    client.execute("UPDATE plans SET name = $1 WHERE id = 2", &[&"pro"]).await.unwrap();
    for node in 0..2 {
        let names = rows(&database.client(node).await, "SELECT name FROM plans ORDER BY id").await;
        assert_eq!(names, ["free", "pro", "gold"]);
    }
    client.batch_execute("INSERT INTO tenants VALUES (1, 'pro'), (1, 'x')").await.unwrap_err();
    client.batch_execute("INSERT INTO tenants VALUES (1, 'pro')").await.unwrap();
    let joined = "SELECT p.id FROM tenants t JOIN plans p ON p.name = t.name WHERE t.id = 1";
    assert_eq!(rows(&client, joined).await, ["2"]);
}

#[tokio::test]
async fn a_transaction_of_two_nodes_commits_on_both_or_on_none() {
    let (database, _proxy, mut client) = shop().await;
    let count = "SELECT count(*) FROM tenants";
    let total = async || {
        let (one, other) = (database.client(0).await, database.client(1).await);
        let (one, other) = (rows(&one, count).await, rows(&other, count).await);
        one[0].parse::<u32>().unwrap() + other[0].parse::<u32>().unwrap()
    };
    let transaction = client.transaction().await.unwrap();
    for id in 1..=8_i64 {
        transaction.execute("INSERT INTO tenants VALUES ($1, '')", &[&id]).await.unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(total().await, 8);
    let transaction = client.transaction().await.unwrap();
    for id in 11..=18_i64 {
        transaction.execute("INSERT INTO tenants VALUES ($1, '')", &[&id]).await.unwrap();
    }
    let error = transaction.execute("INSERT INTO tenants VALUES (1, '')", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    transaction.commit().await.ok();
    assert_eq!(total().await, 8);
    for node in 0..2 {
        let prepared = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
        assert_eq!(rows(&database.client(node).await, prepared).await, ["0"]);
    }
}

/// Text in the format of whatever type the parameter has.
#[derive(Debug)]
struct Label(&'static str);

impl ToSql for Label {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[tokio::test]
async fn types_and_tables_have_the_same_ids_whatever_node_answers() {
    let (database, proxy, client) = shop().await;
    // From here on the second node gives other ids.
    let apart = "CREATE TYPE a AS (x int); CREATE TYPE b AS (x int); CREATE TABLE c (x int)";
    database.client(1).await.batch_execute(apart).await.unwrap();
    client.batch_execute("CREATE TYPE mood AS ENUM ('sad', 'ok')").await.unwrap();
    let table = "CREATE TABLE feelings (tenant_id bigint PRIMARY KEY, mood mood)";
    client.batch_execute(table).await.unwrap();
    let of = |name: &str| format!("SELECT '{name}'::regclass::oid");
    let ids = async |node: usize| rows(&database.client(node).await, &of("feelings")).await;
    assert_ne!(ids(0).await, ids(1).await);
    let feelings: u32 = client.query_one(&of("feelings"), &[]).await.unwrap().get(0);

    // A connection of its own: the types that this one meets it looks up again.
    let client = proxy.client().await;
    let insert = client.prepare("INSERT INTO feelings VALUES ($1, $2)").await.unwrap();
    let mood = insert.params()[1].clone();
    assert_eq!((mood.name(), mood.kind()), ("mood", &Kind::Enum(vec!["sad".into(), "ok".into()])));
    for id in 1..=8_i64 {
        client.execute(&insert, &[&id, &Label("ok")]).await.unwrap();
    }
    let sql = "SELECT mood FROM feelings WHERE tenant_id = $1 AND mood = $2";
    let find = client.prepare_typed(sql, &[Type::INT8, mood.clone()]).await.unwrap();
    for id in 1..=8_i64 {
        let row = client.query_one(&find, &[&id, &Label("ok")]).await.unwrap();
        assert_eq!(row.columns()[0].type_(), &mood);
        let sql = format!("SELECT * FROM feelings WHERE tenant_id = {id}");
        let found = client.prepare(&sql).await.unwrap();
        assert_eq!(found.columns()[1].type_(), &mood);
        assert_eq!(found.columns()[1].table_oid(), Some(feelings), "{id}");
    }
    let all = "SELECT mood FROM feelings WHERE mood = $1";
    let all = client.prepare_typed(all, std::slice::from_ref(&mood)).await.unwrap();
    assert_eq!(client.query(&all, &[&Label("ok")]).await.unwrap().len(), 8);
    let returned = "UPDATE feelings SET mood = $1 WHERE tenant_id IN (1, 2, 3, 4) RETURNING mood";
    let returned = client.prepare(returned).await.unwrap();
    for row in client.query(&returned, &[&Label("sad")]).await.unwrap() {
        assert_eq!(row.columns()[0].type_(), &mood);
    }
}

/// The texts that the node's sessions of this database ran last.
async fn last_texts(database: &TestDatabase, node: usize) -> String {
    let last = "SELECT query FROM pg_stat_activity WHERE datname = current_database() \
        AND pid <> pg_backend_pid()";
    rows(&database.client(node).await, last).await.join("\n")
}

#[tokio::test]
async fn prepared_point_statements_get_their_plans_on_leaves_and_nothing_else_changes() {
    let (database, proxy, client) = shop().await;
    client.batch_execute("INSERT INTO tenants VALUES (1, 'a'), (2, 'b'), (3, 'c')").await.unwrap();
    client.batch_execute("CREATE ROLE reader LOGIN").await.unwrap();
    client.batch_execute("GRANT SELECT, UPDATE, DELETE ON tenants TO reader").await.unwrap();
    let tenants: u32 =
        client.query_one("SELECT 'tenants'::regclass::oid", &[]).await.unwrap().get(0);
    let find = client.prepare("SELECT name, id FROM tenants WHERE id = $1").await.unwrap();
    let rename = "UPDATE tenants SET name = name || 'x' WHERE id = $1 RETURNING name";
    let rename = client.prepare(rename).await.unwrap();
    let on_leaves = async || {
        for id in [1_i64, 2, 3] {
            let row = client.query_one(&find, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, i64>(1), id);
            assert_eq!(row.columns()[0].table_oid(), Some(tenants));
            client.query_one(&rename, &[&id]).await.unwrap();
        }
        let texts = [last_texts(&database, 0).await, last_texts(&database, 1).await];
        texts.iter().all(|texts| texts.contains("tenants_s")).then_some(())
    };
    let soon = Duration::from_secs(30);
    eventually("both nodes run the statements on leaves", soon, on_leaves).await;

    // A role that has no rights on the leaves goes on by its rights on their parent.
    let (reader, connection) = proxy.config().user("reader").connect(NoTls).await.unwrap();
    drop(Tasks::new().spawn("client", connection));
    let mine = reader.prepare("SELECT name FROM tenants WHERE id = $1").await.unwrap();
    for _ in 0..40 {
        for id in [1_i64, 2, 3] {
            reader.query_one(&mine, &[&id]).await.unwrap();
        }
    }
    // So does one that a session takes on.
    let hidden = "ALTER TABLE tenants ENABLE ROW LEVEL SECURITY";
    client.batch_execute(hidden).await.unwrap();
    assert!(reader.query(&mine, &[&1_i64]).await.unwrap().is_empty());
    client.batch_execute("SET ROLE reader").await.unwrap();
    assert!(client.query(&find, &[&1_i64]).await.unwrap().is_empty());
    client.batch_execute("RESET ROLE").await.unwrap();
    client.batch_execute("ALTER TABLE tenants DISABLE ROW LEVEL SECURITY").await.unwrap();
    eventually("they are on leaves again", soon, on_leaves).await;
}

#[tokio::test]
async fn indexes_are_made_concurrently_partition_by_partition_and_taken_back_on_error() {
    let (database, _proxy, client) = shop().await;
    client
        .batch_execute("INSERT INTO tenants SELECT i, 't' FROM generate_series(1, 20) i")
        .await
        .unwrap();
    client
        .batch_execute("INSERT INTO orders SELECT i, i, 'n' FROM generate_series(1, 20) i")
        .await
        .unwrap();
    let made = "CREATE INDEX CONCURRENTLY by_note ON orders (note, id DESC) WHERE id > 3";
    client.batch_execute(made).await.unwrap();
    let error = client.batch_execute(made).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42P07");
    let quiet = "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_note ON orders (note)";
    client.batch_execute(quiet).await.unwrap();
    client.batch_execute("CREATE INDEX CONCURRENTLY ON orders (id)").await.unwrap();
    client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY named ON plans (name)").await.unwrap();
    let indexes = "SELECT c.relname, i.indisvalid, (SELECT count(*) FROM pg_inherits h \
        JOIN pg_index l ON l.indexrelid = h.inhrelid AND l.indisvalid WHERE h.inhparent = c.oid) \
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
        WHERE t.relname IN ('orders', 'plans') AND NOT i.indisprimary ORDER BY 1";
    for node in 0..2 {
        let found = rows(&database.client(node).await, indexes).await;
        assert_eq!(found, ["by_note|t|2", "named|t|0", "orders_id_idx|t|2"], "node {node}");
    }
    let within = "BEGIN; CREATE INDEX CONCURRENTLY x ON orders (note)";
    let error = client.batch_execute(within).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25001");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    let error =
        client.batch_execute("CREATE INDEX CONCURRENTLY x ON orders (note)").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25001");
    client.batch_execute("ROLLBACK").await.unwrap();
    // Rows that are not unique on one node: nothing stays on any.
    client
        .batch_execute("INSERT INTO orders VALUES (7, 100, 'same'), (7, 101, 'same')")
        .await
        .unwrap();
    let unique = "CREATE UNIQUE INDEX CONCURRENTLY once ON orders (tenant_id, note)";
    let error = client.batch_execute(unique).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'once%'";
    for node in 0..2 {
        assert_eq!(rows(&database.client(node).await, left).await, ["0"], "node {node}");
    }
    for sql in [
        "REINDEX INDEX by_note",
        "REINDEX TABLE CONCURRENTLY orders",
        "VACUUM (ANALYZE) orders, plans",
        "VACUUM",
        "DROP INDEX CONCURRENTLY by_note",
        "DROP INDEX CONCURRENTLY named",
        "DROP INDEX CONCURRENTLY IF EXISTS named",
    ] {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    for node in 0..2 {
        let found = rows(&database.client(node).await, indexes).await;
        assert_eq!(found, ["orders_id_idx|t|2"], "node {node}");
        let vacuumed =
            "SELECT count(*) > 0 FROM pg_class WHERE relname = 'plans' AND reltuples >= 0";
        assert_eq!(rows(&database.client(node).await, vacuumed).await, ["t"]);
    }
    let error = client.batch_execute("REINDEX INDEX nothing").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42P01");
}

#[tokio::test]
async fn the_replica_identity_of_a_table_is_that_of_all_its_partitions() {
    let (database, proxy, client) = shop().await;
    let identities = "SELECT DISTINCT relreplident FROM pg_class WHERE relname ~ '^orders(_s[0-9])?$' \
        AND relkind IN ('r', 'p')";
    client.batch_execute("INSERT INTO tenants SELECT generate_series(1, 50)").await.unwrap();
    client.batch_execute("INSERT INTO orders SELECT id, 1, 'x' FROM tenants").await.unwrap();
    for (set, expected) in [("FULL", "f"), ("DEFAULT", "d"), ("FULL", "f")] {
        let sql = format!("ALTER TABLE orders REPLICA IDENTITY {set}");
        client.batch_execute(&sql).await.unwrap();
        for node in 0..2 {
            assert_eq!(rows(&database.client(node).await, identities).await, [expected]);
        }
    }
    proxy.move_shard(ShardId(1)).await;
    for node in 0..2 {
        assert_eq!(rows(&database.client(node).await, identities).await, ["f"]);
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM orders").await, ["50"]);
    let nothing = "ALTER TABLE orders REPLICA IDENTITY NOTHING";
    let error = client.batch_execute(nothing).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000");
}

#[tokio::test]
async fn whether_a_row_is_new_is_told_to_roles_that_may_use_its_partition() {
    let (database, proxy, client) = shop().await;
    let role = format!("clerk_{}", database.name);
    for sql in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT SELECT, INSERT, UPDATE ON tenants TO {role}"),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
    let mut config = proxy.config();
    let (clerk, connection) = config.user(&role).connect(NoTls).await.unwrap();
    drop(Tasks::new().spawn("clerk", connection));
    let upsert = "INSERT INTO tenants VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = 'b'";
    let told = format!("{upsert} RETURNING name, (xmax = 0)::text");
    // Neither the right answer nor a wrong one, and no row.
    for _ in 0..2 {
        let error = clerk.simple_query(&told).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "0A000", "{error:?}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{error:?}");
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM tenants").await, ["0"]);
    clerk.batch_execute(upsert).await.unwrap();
    assert_eq!(rows(&client, &told).await, ["b|false"]);
    let others = upsert.replace("(1,", "(1, 'c'), (2, 'd'), (3,");
    assert!(clerk.simple_query(&format!("{others} RETURNING xmax = 0")).await.is_err());
    assert_eq!(rows(&client, "SELECT count(*) FROM tenants").await, ["1"]);
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.ok();
}
