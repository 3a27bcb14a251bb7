//! Definitions → what runs on each of two nodes.

use super::{DdlPlan, ddl};
use crate::ids::{GroupId, NodeId};
use crate::router::{Context, Params, Route, template};
use crate::shard_map::{
    Bounds, Column, Group, KeyType, MapParts, Shard, ShardMap, Table, TableKind,
};
use crate::sql::TableName;
use crate::wire::ServerError;

/// Three shards of the group of tenants: two on node a, one on node b, which also has none of the
/// other group's single shard.
pub(super) fn map() -> ShardMap {
    let shard = |group, modulus, remainder, node| Shard {
        group: GroupId(group),
        bounds: Bounds::Hash { modulus, remainder },
        node: NodeId(node),
    };
    let table = |name: &str, group, key: &str| Table {
        name: TableName::new("public", name),
        kind: TableKind::Sharded { group: GroupId(group), key: vec![key.to_owned()] },
        columns: Vec::new(),
    };
    let column = |name: &str, type_oid, generated| Column {
        name: name.to_owned(),
        type_oid,
        generated,
        ..Column::default()
    };
    let mut orders = table("orders", 0, "tenant_id");
    orders.columns = vec![
        column("id", 20, false),
        column("double_id", 20, true),
        column("tenant_id", 20, false),
        column("note", 25, false),
    ];
    let parts = MapParts {
        groups: vec![
            Group { name: "tenants".to_owned(), key: vec![KeyType::Int8] },
            Group { name: "logs".to_owned(), key: vec![KeyType::Text] },
        ],
        shards: vec![shard(0, 4, 0, 0), shard(0, 4, 2, 0), shard(0, 2, 1, 1), shard(1, 1, 0, 0)],
        tables: vec![
            orders,
            table("tenants", 0, "id"),
            table("items", 0, "tenant_id"),
            table("logs", 1, "source"),
            Table {
                name: TableName::new("public", "countries"),
                kind: TableKind::Reference,
                columns: Vec::new(),
            },
        ],
        ..MapParts::of("shop", ["a", "b"])
    };
    ShardMap::try_from(parts).unwrap()
}

pub(super) fn routed(sql: &str) -> Result<Route, ServerError> {
    let path = ["public".to_owned()];
    let context =
        Context { database: "shop", search_path: &path, strings: crate::sql::Strings::Standard };
    template(sql, &context, &map()).route(&Params::default())
}

fn plan(sql: &str) -> Result<DdlPlan, ServerError> {
    match routed(sql)? {
        Route::Ddl(statement) => ddl(&statement, &map()),
        other => panic!("{sql}: {other:?}"),
    }
}

fn on(node: u16, sql: &str) -> Vec<String> {
    let plan = plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    plan.statements_for(NodeId(node), &map())
}

fn same(sql: &str, wanted: &str) {
    for node in [0, 1] {
        assert_eq!(on(node, sql), [wanted], "{sql}");
    }
}

#[test]
fn a_sharded_table_becomes_a_parent_with_the_nodes_own_leaves() {
    let sql = "CREATE TABLE orders (id bigint, tenant_id bigint NOT NULL, note text DEFAULT 'a,b)', \
               PRIMARY KEY (tenant_id, id)) WITH (fillfactor = 90) TABLESPACE fast;";
    let parent = "CREATE TABLE \"public\".\"orders\" (id bigint, tenant_id bigint NOT NULL, \
                  note text DEFAULT 'a,b)', PRIMARY KEY (tenant_id, id)) \
                  PARTITION BY HASH (\"tenant_id\")  TABLESPACE fast";
    assert_eq!(
        on(0, sql),
        [
            parent,
            "CREATE TABLE \"public\".\"orders_s0\" PARTITION OF \"public\".\"orders\" FOR VALUES \
             WITH (modulus 4, remainder 0) WITH (fillfactor = 90)",
            "CREATE TABLE \"public\".\"orders_s1\" PARTITION OF \"public\".\"orders\" FOR VALUES \
             WITH (modulus 4, remainder 2) WITH (fillfactor = 90)",
        ]
    );
    assert_eq!(
        on(1, sql),
        [
            parent,
            "CREATE TABLE \"public\".\"orders_s2\" PARTITION OF \"public\".\"orders\" FOR VALUES \
             WITH (modulus 2, remainder 1) WITH (fillfactor = 90)",
        ]
    );
    assert_eq!(plan(sql).unwrap().tables, [TableName::new("public", "orders")]);
}

#[test]
fn foreign_keys_go_from_leaf_to_leaf() {
    let sql = "create table items (tenant_id int8 references tenants (id) on delete cascade \
               deferrable, id int8, order_id int8, country int constraint c references countries, \
               constraint \"To Order\" foreign key (tenant_id, order_id) references orders \
               (tenant_id, id) on delete set null, check (id > 0))";
    assert_eq!(
        on(1, sql),
        [
            "create table \"public\".\"items\" (tenant_id int8, id int8, order_id int8, \
             country int, check (id > 0)) PARTITION BY HASH (\"tenant_id\")",
            "CREATE TABLE \"public\".\"items_s2\" PARTITION OF \"public\".\"items\" FOR VALUES \
             WITH (modulus 2, remainder 1)",
            "ALTER TABLE \"public\".\"items_s2\" ADD CONSTRAINT \"items_tenant_id_fkey\" FOREIGN KEY (\"tenant_id\") REFERENCES \
             \"public\".\"tenants_s2\" (\"id\") on delete cascade deferrable",
            "ALTER TABLE \"public\".\"items_s2\" ADD CONSTRAINT \"c\" FOREIGN KEY (\"country\") \
             REFERENCES \"public\".\"countries\"",
            "ALTER TABLE \"public\".\"items_s2\" ADD CONSTRAINT \"To Order\" FOREIGN KEY \
             (\"tenant_id\", \"order_id\") REFERENCES \"public\".\"orders_s2\" (\"tenant_id\", \
             \"id\") on delete set null",
        ]
    );
}

#[test]
fn nodes_hear_only_of_tables_that_they_have() {
    let create =
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END";
    for (home, other) in [
        ("DROP TABLE customers, orders CASCADE", "DROP TABLE orders CASCADE"),
        (
            "TRUNCATE orders, customers, countries RESTART IDENTITY CASCADE",
            "TRUNCATE orders, countries CONTINUE IDENTITY CASCADE",
        ),
        ("ANALYZE customers (a), orders (id, note)", "ANALYZE orders (id, note)"),
        ("GRANT SELECT ON customers, orders TO x", "GRANT SELECT ON orders TO x"),
        ("LOCK customers, orders IN SHARE MODE", "LOCK orders IN SHARE MODE"),
        (
            create,
            &format!(
                "SET LOCAL check_function_bodies = off; DO 'BEGIN EXECUTE ''{create}''; EXCEPTION \
                 WHEN undefined_object OR undefined_table THEN NULL; END'"
            ),
        ),
        ("DROP FUNCTION f(customers)", "DROP FUNCTION IF EXISTS f(customers)"),
    ] {
        assert_eq!(on(0, home), [home]);
        assert_eq!(on(1, home), [other]);
    }
}

#[test]
fn other_definitions_run_everywhere_as_written() {
    same("DROP TABLE orders, countries CASCADE", "DROP TABLE orders, countries CASCADE");
    same("TRUNCATE orders", "TRUNCATE orders");
    same("ANALYZE orders (id)", "ANALYZE orders (id)");
    same("CREATE SCHEMA app", "CREATE SCHEMA app");
    same("CREATE TYPE mood AS ENUM ('a')", "CREATE TYPE mood AS ENUM ('a')");
    same("CREATE ROLE x LOGIN", "CREATE ROLE x LOGIN");
    same("GRANT SELECT ON orders TO x", "GRANT SELECT ON orders TO x");
    same("GRANT a TO b", "GRANT a TO b");
    same(
        "create index on orders using btree (id)",
        "create index on \"public\".\"orders\" using btree (id)",
    );
    same(
        "CREATE UNIQUE INDEX u ON orders (tenant_id, id)",
        "CREATE UNIQUE INDEX u ON \"public\".\"orders\" (tenant_id, id)",
    );
    same(
        "CREATE UNIQUE INDEX u ON countries (name)",
        "CREATE UNIQUE INDEX u ON \"public\".\"countries\" (name)",
    );
    same(
        "ALTER TABLE orders ADD COLUMN at timestamptz DEFAULT now(), DROP COLUMN note",
        "ALTER TABLE \"public\".\"orders\" ADD COLUMN at timestamptz DEFAULT now(), DROP COLUMN note",
    );
    same(
        "ALTER TABLE orders ADD CONSTRAINT u UNIQUE (tenant_id, id)",
        "ALTER TABLE \"public\".\"orders\" ADD CONSTRAINT u UNIQUE (tenant_id, id)",
    );
    same(
        "CREATE TABLE countries (id int PRIMARY KEY, price numeric DEFAULT 0::numeric(10,2))",
        "CREATE TABLE \"public\".\"countries\" (id int PRIMARY KEY, price numeric DEFAULT 0::numeric(10,2))",
    );
    assert_eq!(on(0, "DROP INDEX a, b"), ["DROP INDEX a, b"]);
    assert_eq!(on(1, "DROP INDEX a, b"), ["DROP INDEX IF EXISTS a, b"]);
    assert_eq!(
        on(1, "ALTER TABLE items ADD FOREIGN KEY (country) REFERENCES countries (id)"),
        [
            "ALTER TABLE \"public\".\"items_s2\" ADD CONSTRAINT \"items_country_fkey\" FOREIGN KEY (\"country\") REFERENCES \"public\".\"countries\" (\"id\")"
        ]
    );
    let again = "CREATE TABLE IF NOT EXISTS orders (tenant_id bigint)";
    assert_eq!(on(0, again).len(), 1);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn what_would_break_over_several_nodes_is_refused_with_what_would_work() {
    let cases = [
        (
            "CREATE TABLE orders (id bigint PRIMARY KEY, tenant_id bigint)",
            "Use PRIMARY KEY (tenant_id, id).",
        ),
        (
            "CREATE TABLE orders (id bigint, tenant_id bigint, UNIQUE (id))",
            "Use UNIQUE (tenant_id, id).",
        ),
        ("CREATE UNIQUE INDEX ON orders (id)", "Use UNIQUE (tenant_id, id)."),
        ("CREATE UNIQUE INDEX ON orders ((tenant_id + 0), id)", "Use UNIQUE (tenant_id, id)."),
        ("CREATE TABLE orders (id bigint)", "Add it"),
        ("CREATE TABLE orders (tenant_id int)", "Add it"),
        ("CREATE TABLE orders (tenant_id bigint[])", "Add it"),
        ("CREATE TABLE logs (source text COLLATE ci)", "Add it"),
        ("CREATE TABLE orders (tenant_id serial)", "Add it"),
        ("ALTER TABLE orders ADD COLUMN n serial", "Add the column without"),
        ("CREATE TABLE orders (LIKE x)", "Write CREATE TABLE"),
        ("CREATE TABLE orders AS SELECT 1 AS tenant_id", "Write CREATE TABLE"),
        ("CREATE TABLE orders (tenant_id bigint) INHERITS (x)", "Write CREATE TABLE"),
        (
            "CREATE TABLE orders (tenant_id bigint) PARTITION BY LIST (tenant_id)",
            "Write CREATE TABLE",
        ),
        ("CREATE UNLOGGED TABLE orders (tenant_id bigint)", "Write CREATE TABLE"),
        (
            "CREATE TABLE items (tenant_id bigint, o bigint REFERENCES orders (id))",
            "Write FOREIGN KEY (tenant_id, …)",
        ),
        (
            "CREATE TABLE items (tenant_id bigint, o int, FOREIGN KEY (tenant_id, o) REFERENCES orders)",
            "Write FOREIGN KEY",
        ),
        (
            "CREATE TABLE items (tenant_id bigint, o bigint REFERENCES orders)",
            "Write FOREIGN KEY (tenant_id, …)",
        ),
        (
            "CREATE TABLE items (tenant_id bigint, x text REFERENCES logs (source))",
            "Put both tables",
        ),
        (
            "CREATE TABLE items (tenant_id bigint, x int REFERENCES customers)",
            "Declare the referenced",
        ),
        ("CREATE TABLE countries (x bigint REFERENCES orders)", "Declare the other"),
        ("ALTER TABLE countries ADD COLUMN at date DEFAULT now()", "Leave the default out"),
        ("ALTER TABLE countries ADD COLUMN at date DEFAULT current_date", "Leave the default out"),
        ("ALTER TABLE orders DROP COLUMN tenant_id", "Create a new table"),
        ("ALTER TABLE orders ALTER tenant_id TYPE int", "Create a new table"),
        ("ALTER TABLE orders RENAME tenant_id TO t", "Create a new table"),
        ("ALTER TABLE orders RENAME TO t", "Declare \"public\".\"t\" in the policy in group"),
        ("ALTER TABLE orders SET SCHEMA t", "Declare \"t\".\"orders\" in the policy"),
        ("ALTER TABLE orders REPLICA IDENTITY NOTHING", "Use REPLICA IDENTITY FULL"),
        ("ALTER TABLE orders REPLICA IDENTITY FULL, ADD x int", "Set it in a statement"),
        ("ALTER TABLE orders CLUSTER ON orders_pkey", "Rows of a sharded table"),
        ("ALTER TABLE orders ADD PRIMARY KEY (id)", "Use PRIMARY KEY"),
        ("ALTER TABLE orders DETACH PARTITION orders_s1", "Only columns"),
        ("ALTER TABLE orders ADD x int REFERENCES countries, ADD y int", "Add this column"),
        (
            "ALTER TABLE orders ADD COLUMN IF NOT EXISTS x int REFERENCES countries",
            "Leave IF NOT EXISTS out",
        ),
        ("CREATE TABLE customers (o bigint REFERENCES orders (id))", "Declare the table"),
        ("CREATE TEMP TABLE orders (a int)", "Choose another name"),
        ("ALTER TABLE customers RENAME TO orders", "Choose another name"),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT count(*) FROM orders'",
            "Declare it in the policy",
        ),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM countries'",
            "Let the application",
        ),
        ("CREATE TEMP VIEW v AS SELECT * FROM orders", "Create a plain view"),
        ("CREATE TRIGGER t AFTER INSERT ON orders EXECUTE FUNCTION f()", "Write it in a simpler"),
        ("DROP VIEW orders_s2", "Name the sharded table instead"),
    ];
    for (sql, hint) in cases {
        let error = match routed(sql) {
            Err(error) => error,
            Ok(Route::Ddl(statement)) => match ddl(&statement, &map()) {
                Err(error) => error,
                Ok(plan) => panic!("{sql}: {plan:?}"),
            },
            Ok(other) => panic!("{sql}: {other:?}"),
        };
        assert_eq!(error.code.0, "0A000", "{sql}: {error}");
        let told = error.hint.clone().unwrap_or_default();
        assert!(told.contains(hint), "{sql}\n    {error}\n    {told}");
    }
}

#[test]
fn definitions_of_home_tables_stay_at_home() {
    for sql in [
        "CREATE TABLE customers (id serial PRIMARY KEY, items jsonb, c int REFERENCES countries)",
        "CREATE TABLE other.orders (id int)",
        "ALTER TABLE customers ADD COLUMN orders int",
        "CREATE INDEX CONCURRENTLY ON customers (id)",
        "DROP TABLE customers",
        "TRUNCATE customers",
        "CREATE VIEW v AS SELECT * FROM countries",
        "CREATE SEQUENCE s OWNED BY customers.id",
        "GRANT SELECT ON customers TO x",
        "GRANT USAGE ON SEQUENCE s TO x",
        "CREATE TEMP TABLE x (a int)",
        "ANALYZE",
    ] {
        assert!(matches!(routed(sql), Ok(Route::Home)), "{sql}: {:?}", routed(sql));
    }
}
