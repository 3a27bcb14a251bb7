//! Writes through the proxy and on one PostgreSQL server: the same statements, the same answers, the
//! same rows afterwards.

#[path = "writes/blocks.rs"]
mod blocks;
mod support;
mod write_support;

use std::time::Duration;

use support::{TestDatabase, eventually, rows};
use write_support::{Pair, copied};

#[tokio::test]
async fn rows_of_one_insert_go_to_the_nodes_of_their_keys() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "INSERT INTO tenants (id, name) VALUES (1, 'one'), (2, 'two'), (3, 'it''s'), (4, NULL), \
         (5, 'f'), (6, E'a\\nb'), (7, 'g'), (8, 'h')",
        "INSERT INTO orders (tenant_id, id, total) VALUES (1, 1, 5), (2, 1, 7.125), (3, 1, 0), \
         (4, 1, 3), (1, 2, 1), (5, 9, NULL) RETURNING tenant_id, id, note, total",
        "INSERT INTO orders VALUES (1, 3), (2, 3), (3, 3) RETURNING *",
        // In the order of VALUES, whichever node has them.
        "INSERT INTO orders AS o (id, tenant_id) VALUES (30, 8), (31, 7), (32, 6), (33, 5), (34, 4) \
         RETURNING o.id",
        "INSERT INTO orders (tenant_id, id, note) VALUES (1, 1, 'again'), (2, 77, 'new'), \
         (3, 1, 'again') ON CONFLICT (tenant_id, id) DO UPDATE SET note = excluded.note || '!' \
         RETURNING tenant_id, note",
        "INSERT INTO orders (tenant_id, id) VALUES (1, 1), (2, 78), (3, 1) ON CONFLICT DO NOTHING",
        // One bad row, and no row stays.
        "INSERT INTO orders (tenant_id, id) VALUES (1, 100), (2, 100), (3, 1), (4, 100)",
        "INSERT INTO orders (tenant_id, id, total) VALUES (1, 101, 1), (2, 101, -1)",
        "INSERT INTO orders (tenant_id, id) VALUES (1, 102), (99, 102), (2, 102)",
        "INSERT INTO orders (tenant_id, id) VALUES (1, 102), (NULL, 102), (2, 102)",
        "INSERT INTO orders (tenant_id, id) VALUES (1, 'x'), (2, 3)",
        "INSERT INTO notes (tenant_id, body) VALUES (1, 'a'), (2, 'bb'), (3, DEFAULT) \
         RETURNING body, twice",
    ])
    .await;
}

#[tokio::test]
async fn parameters_of_split_rows_come_as_text_and_binary() {
    let pair = Pair::start().await;
    for client in [&pair.shop, &pair.plain] {
        let sql = "INSERT INTO tenants (name, id) VALUES ($1, $2), ($3, $4), ($1, $5), ('x', 9) \
            RETURNING id, name";
        let statement = client.prepare(sql).await.unwrap();
        for offset in [10_i64, 20] {
            let ids = [offset, offset + 1, offset + 2];
            if offset == 20 {
                client.execute("DELETE FROM tenants WHERE id = 9", &[]).await.unwrap();
            }
            let got =
                client.query(&statement, &[&"a", &ids[0], &"b", &ids[1], &ids[2]]).await.unwrap();
            let got: Vec<(i64, &str)> = got.iter().map(|row| (row.get(0), row.get(1))).collect();
            assert_eq!(got, [(ids[0], "a"), (ids[1], "b"), (ids[2], "a"), (9, "x")]);
        }
        let count = client.execute(
            "UPDATE tenants SET name = name || $1 WHERE name <> $2 AND plan = $3",
            &[&"+", &"b", &1_i32],
        );
        assert_eq!(count.await.unwrap(), 5);
        let one = client.query_one(
            "INSERT INTO tenants (id, name) VALUES ($1 + 0, $2) RETURNING id, name",
            &[&100_i32, &"computed"],
        );
        assert_eq!(one.await.unwrap().get::<_, i64>(0), 100);
        let two = "INSERT INTO tenants (name) VALUES ($1), ($2), (upper($1)) RETURNING id, name";
        let two = client.query(two, &[&"p", &"q"]).await.unwrap();
        let two: Vec<(i64, &str)> = two.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(two, [(1, "p"), (2, "q"), (3, "P")]);
    }
    pair.same_tables().await;
}

#[tokio::test]
async fn changes_without_the_key_reach_all_nodes_or_none() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "INSERT INTO plans (name) VALUES ('free'), ('paid'), ('gold')",
        "INSERT INTO tenants (id, name, plan) VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), \
         (4, 'd', 1), (5, 'e', 2), (6, 'f', 3), (7, 'g', 1), (8, 'h', 2)",
        "INSERT INTO orders (tenant_id, id, total) VALUES (1, 1, 10), (2, 1, 20), (3, 1, 30), \
         (4, 1, 40), (5, 1, 50), (6, 1, 60), (7, 1, 70), (8, 1, 80)",
        "UPDATE orders SET total = total * 2",
        "UPDATE orders SET note = 'big', total = total + 1 WHERE total > 70 \
         RETURNING tenant_id, id, note",
        "UPDATE orders SET note = 'in' WHERE tenant_id IN (1, 2, 3, 4)",
        "UPDATE orders o SET note = t.name FROM tenants t WHERE t.id = o.tenant_id AND t.plan = 2 \
         RETURNING o.tenant_id, t.name",
        "UPDATE orders o SET note = p.name FROM tenants t, plans p \
         WHERE t.id = o.tenant_id AND p.id = t.plan",
        "UPDATE tenants SET name = (SELECT p.name FROM plans p WHERE p.id = tenants.plan)",
        "UPDATE tenants t SET plan = 3 WHERE EXISTS \
         (SELECT 1 FROM orders o WHERE o.tenant_id = t.id AND o.total > 100)",
        "UPDATE tenants SET name = 'x' WHERE id = 99",
        "UPDATE orders SET note = 'x' WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 2)",
        "UPDATE orders SET note = (SELECT max(name) FROM tenants)",
        "DELETE FROM orders o USING tenants t WHERE t.id = o.tenant_id AND t.plan = 1",
        "DELETE FROM orders WHERE total > 150 RETURNING tenant_id",
        // One node refuses, and all keep what they had.
        "UPDATE orders SET total = total - 100",
        "DELETE FROM tenants",
        "DELETE FROM orders USING tenants WHERE total > 3",
        "DELETE FROM orders",
        "DELETE FROM tenants WHERE id IN (1, 2, 3, 4, 5, 6)",
        "DELETE FROM tenants",
    ])
    .await;
    pair.same("UPDATE notes SET at = now()").await;
    for sql in [
        "UPDATE orders SET note = 'x' WHERE ctid = '(0,1)'",
        "UPDATE orders SET note = nextval('journal_id_seq')::text",
    ] {
        pair.refused(sql).await;
    }
}

#[tokio::test]
async fn a_clock_that_stands_still_is_the_same_on_all_nodes() {
    let pair = Pair::start().await;
    let shop = &pair.shop;
    shop.batch_execute("INSERT INTO notes (tenant_id) VALUES (1), (2), (3), (4), (5)")
        .await
        .unwrap();
    shop.batch_execute("UPDATE notes SET at = now()").await.unwrap();
    let mut times = rows(shop, "SELECT at FROM notes").await;
    times.dedup();
    assert_eq!(times.len(), 1);
    shop.batch_execute(
        "INSERT INTO plans (name, made) VALUES ('a', CURRENT_TIMESTAMP - '1 day'::interval)",
    )
    .await
    .unwrap();
    shop.batch_execute("UPDATE plans SET made = now() - interval '1 day', tag = NULL")
        .await
        .unwrap();
    pair.refused("UPDATE plans SET tag = gen_random_uuid()").await;
    pair.refused("UPDATE plans SET tag = DEFAULT").await;
    shop.batch_execute("DELETE FROM notes").await.unwrap();
    pair.plain.batch_execute("INSERT INTO plans (name) VALUES ('a')").await.unwrap();
    pair.same_tables().await;
}

#[tokio::test]
async fn keys_and_numbers_come_from_sequences_and_expressions() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "INSERT INTO tenants (name) VALUES ('a') RETURNING id",
        "INSERT INTO tenants (name) VALUES ('b'), ('c'), ('d'), ('e') RETURNING id, name",
        "INSERT INTO tenants DEFAULT VALUES RETURNING *",
        "INSERT INTO tenants VALUES (DEFAULT, 'x'), (DEFAULT, DEFAULT) RETURNING *",
        "INSERT INTO tenants (id, name) VALUES (40 + 2, 'computed') RETURNING id",
        "INSERT INTO tenants (id, name) VALUES (nextval('tenants_id_seq'), 'next') RETURNING id",
        "INSERT INTO orders (tenant_id, id) VALUES (1, 1), (2, 1), (3, 1)",
        "INSERT INTO items (tenant_id, order_id, what) VALUES (1, 1, 'p'), (2, 1, 'q'), (3, 1, 'r') \
         RETURNING id, what",
        "INSERT INTO items (tenant_id, order_id, what) VALUES (1, 1, 's') RETURNING id",
        "INSERT INTO items VALUES (1, 1, 77, 'given')",
        "INSERT INTO items OVERRIDING SYSTEM VALUE VALUES (1, 1, 77, 'given')",
        "INSERT INTO items OVERRIDING USER VALUE VALUES (2, 1, 78, 'given') RETURNING id",
        "INSERT INTO items VALUES (3, 1, DEFAULT, 'default') RETURNING id",
        "INSERT INTO plans (name) VALUES ('p'), ('q') RETURNING id, name",
        "INSERT INTO plans (id, name) VALUES (10, 'r') ON CONFLICT (name) DO NOTHING",
        "INSERT INTO plans (name) VALUES ('p') ON CONFLICT (name) DO UPDATE SET name = 'pp'",
        "INSERT INTO tenants (id, name) VALUES ((SELECT max(id) + 500 FROM plans), 'sub') RETURNING id",
    ])
    .await;
    let own = "SELECT count(*) FROM (SELECT id FROM items GROUP BY id HAVING count(*) > 1) x";
    for node in 0..3 {
        assert_eq!(rows(&pair.database.client(node).await, own).await, ["0"]);
    }
}

#[tokio::test]
async fn an_insert_of_a_thousand_rows_is_about_one_statement_a_node() {
    let pair = Pair::start().await;
    let values: Vec<String> = (1..=1000).map(|id| format!("({id}, 'n{id}')")).collect();
    let sql = format!("INSERT INTO tenants (id, name) VALUES {}", values.join(", "));
    pair.same(&sql).await;
    pair.same_tables().await;
    for node in 0..3 {
        // Each node has seen one INSERT: its rows have one xmin.
        let seen = "SELECT count(DISTINCT xmin::text), count(*) > 200 FROM tenants";
        assert_eq!(rows(&pair.database.client(node).await, seen).await, ["1|t"]);
    }
    drop(pair.proxy);
}

#[tokio::test]
async fn the_rows_of_a_query_are_inserted_wherever_they_come_from_and_belong() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "INSERT INTO tenants (name, plan) SELECT 't' || n, n % 3 + 1 FROM generate_series(1, 9) AS n",
        "INSERT INTO plans (name) SELECT 'p' || n FROM generate_series(1, 3) AS n RETURNING id, name",
        "INSERT INTO orders (tenant_id, id, total) SELECT id, 1, id * 1.5 FROM tenants",
        "INSERT INTO orders SELECT tenant_id, id + 1, note, total FROM orders WHERE total > 5 \
         RETURNING tenant_id, id",
        "INSERT INTO orders (tenant_id, id, note) SELECT t.id, 7, p.name FROM tenants t \
         JOIN plans p ON p.id = t.plan WHERE t.id < 5",
        "INSERT INTO journal (what) SELECT note FROM orders WHERE note <> 'none'",
        "INSERT INTO journal (what) SELECT count(*)::text FROM orders",
        "INSERT INTO orders (tenant_id, id) SELECT 1, max(id) + 1 FROM orders",
        "INSERT INTO orders (tenant_id, id) SELECT tenant_id, id FROM orders ON CONFLICT DO NOTHING",
        "INSERT INTO orders (tenant_id, id) SELECT tenant_id, id FROM orders WHERE id = 1 \
         ON CONFLICT (tenant_id, id) DO UPDATE SET note = 'again' RETURNING tenant_id, note",
        "INSERT INTO orders (tenant_id, id) SELECT tenant_id, id FROM orders",
        "INSERT INTO orders (tenant_id, id) SELECT tenant_id, id FROM orders WHERE false",
        "INSERT INTO orders (tenant_id, id) SELECT tenant_id FROM orders",
        "INSERT INTO plans (name, made) SELECT name, now() FROM plans ON CONFLICT (name) DO NOTHING",
        "INSERT INTO notes (tenant_id, body) WITH x AS (SELECT 3 AS k) SELECT k, 'w' FROM x",
        "INSERT INTO notes (tenant_id, body) SELECT 5, NULL UNION ALL SELECT 6, E'a\\\\b''c'",
        "INSERT INTO notes (tenant_id, body) SELECT n, 'many' FROM generate_series(1, 2500) AS n",
    ])
    .await;
    pair.same("SELECT what FROM journal").await;
    for client in [&pair.shop, &pair.plain] {
        let sql = "INSERT INTO orders (tenant_id, id, note) SELECT tenant_id, id + $1, $2 FROM orders \
            WHERE id = $3 RETURNING tenant_id";
        let inserted = client.query(sql, &[&100_i64, &"bound", &1_i64]).await.unwrap();
        assert_eq!(inserted.len(), 9);
    }
    pair.same_tables().await;
}

#[tokio::test]
async fn rows_are_copied_out_as_one_stream_and_in_by_every_option() {
    use futures_util::SinkExt;
    let pair = Pair::start().await;
    let insert =
        "INSERT INTO tenants (id, name) SELECT n, 'n,\"' || n FROM generate_series(1, 40) AS n";
    pair.same(insert).await;
    pair.same(
        "INSERT INTO notes (tenant_id, at, body) SELECT n, NULL, 'b' FROM generate_series(1, 5) n",
    )
    .await;
    for (shop, plain) in [
        ("COPY tenants TO STDOUT", "COPY tenants TO STDOUT"),
        (
            "COPY tenants (name, id) TO STDOUT CSV HEADER",
            "COPY tenants (name, id) TO STDOUT CSV HEADER",
        ),
        ("COPY tenants TO STDOUT (FORMAT binary)", "COPY tenants TO STDOUT (FORMAT binary)"),
        (
            "COPY tenants TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *, DELIMITER ';')",
            "COPY tenants TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *, DELIMITER ';')",
        ),
        ("COPY notes TO STDOUT", "COPY notes TO STDOUT"),
        (
            "COPY (SELECT id FROM tenants WHERE id > 7) TO STDOUT (FORMAT text)",
            "COPY (SELECT id FROM tenants WHERE id > 7) TO STDOUT (FORMAT text)",
        ),
        (
            "COPY (SELECT count(*), max(name) FROM tenants) TO STDOUT CSV HEADER",
            "COPY (SELECT count(*), max(name) FROM tenants) TO STDOUT CSV HEADER",
        ),
        (
            "COPY (SELECT id FROM tenants WHERE id < 0) TO STDOUT (FORMAT binary)",
            "COPY (SELECT id FROM tenants WHERE id < 0) TO STDOUT (FORMAT binary)",
        ),
    ] {
        assert_eq!(copied(&pair.shop, shop).await, copied(&pair.plain, plain).await, "{shop}");
    }
    for client in [&pair.shop, &pair.plain] {
        for (sql, data) in [
            (
                "COPY orders (tenant_id, id, note) FROM STDIN (FORMAT csv, FORCE_NULL (note), NULL '-')",
                "1,1,\"-\"\n2,1,-\n3,1,x\n",
            ),
            (
                "COPY orders (tenant_id, id, note) FROM STDIN (FORMAT csv, FORCE_NOT_NULL (note))",
                "1,2,\n2,2,\"\"\n3,2,x\n",
            ),
            (
                "COPY orders (tenant_id, id, note) FROM STDIN (FORMAT csv, HEADER) WHERE id > 5",
                "tenant_id,id,note\n1,3,a\n2,6,b\n3,7,c\n",
            ),
            (
                "COPY plans (id, name, made, tag) FROM STDIN (FORMAT csv, HEADER match)",
                "id,name,made,tag\n5,five,2020-01-01,\n",
            ),
        ] {
            let mut sink = std::pin::pin!(client.copy_in::<_, bytes::Bytes>(sql).await.unwrap());
            sink.send(bytes::Bytes::from_static(data.as_bytes())).await.unwrap();
            sink.finish().await.unwrap();
        }
    }
    pair.same_tables().await;
}

#[tokio::test]
async fn triggers_and_policies_stand_on_every_node() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$",
        "CREATE TRIGGER loud BEFORE INSERT OR UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION shout()",
        "INSERT INTO tenants (name) VALUES ('a'), ('b'), ('c'), ('d'), ('e') RETURNING id, name",
        "UPDATE tenants SET name = name || 'x'",
        "DROP TRIGGER loud ON tenants",
        "UPDATE tenants SET name = name || 'x' RETURNING name",
        "CREATE POLICY mine ON tenants USING (id > 2)",
        "DROP POLICY mine ON tenants",
        "DROP FUNCTION shout()",
    ])
    .await;
}

#[tokio::test]
async fn what_is_computed_from_rows_is_the_same_in_every_copy() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "INSERT INTO plans (name) VALUES ('free'), ('team')",
        "INSERT INTO tenants (name, plan) SELECT 'T' || i, 1 + i % 2 FROM generate_series(1, 9) i",
        "WITH w AS (INSERT INTO plans (name) VALUES ('in WITH') RETURNING name) SELECT name FROM w",
        "WITH w AS (INSERT INTO tenants (name) VALUES ('in WITH') RETURNING id) SELECT id FROM w",
        "UPDATE plans SET name = plans.name || x.n FROM (SELECT plan, count(*) AS n FROM tenants \
         GROUP BY plan) x WHERE x.plan = plans.id RETURNING plans.id, x.n",
        "UPDATE plans SET name = 'Plan ' || plans.id FROM tenants t WHERE t.plan = plans.id",
        "UPDATE plans SET name = t.name FROM tenants t WHERE t.plan = plans.id AND t.id = 2",
    ])
    .await;
    pair.refused("UPDATE plans SET name = t.name FROM tenants t WHERE t.plan = plans.id").await;
    pair.refused("UPDATE plans SET name = 'x' FROM tenants t WHERE plan = plans.id RETURNING t.id")
        .await;
    pair.same_tables().await;
}

/// Whether anybody waits for a lock.
async fn waits(database: &TestDatabase) -> bool {
    let sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
               AND datname = current_database()";
    for node in 0..database.nodes.len() {
        if !rows(&database.client(node).await, sql).await.is_empty() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_new_shard_key_follows_what_others_write_meanwhile() {
    let pair = Pair::start().await;
    for (database, client) in [(&pair.database, &pair.shop), (&pair.one, &pair.plain)] {
        let fill = "INSERT INTO notes (tenant_id, body) VALUES (4, 'four'), (2, 'two')";
        client.batch_execute(fill).await.unwrap();
        let other = match database.nodes.len() {
            1 => database.client(0).await,
            _ => pair.proxy.client().await,
        };
        other
            .batch_execute("BEGIN; UPDATE notes SET body = 'more' || body WHERE tenant_id = 4")
            .await
            .unwrap();
        let moved = client.batch_execute("UPDATE notes SET tenant_id = length(body)");
        let ended = async {
            eventually("the UPDATE waits for the row", Duration::from_secs(20), || async {
                waits(database).await.then_some(())
            })
            .await;
            other.batch_execute("COMMIT").await.unwrap();
        };
        let (moved, ()) = tokio::join!(moved, ended);
        moved.unwrap();
    }
    pair.same("SELECT tenant_id, body FROM notes").await;
}

#[tokio::test]
async fn what_would_differ_from_node_to_node_is_refused() {
    let pair = Pair::start().await;
    for sql in [
        "CREATE TRIGGER t BEFORE INSERT ON plans FOR EACH ROW EXECUTE FUNCTION suppress()",
        "CREATE TRIGGER t AFTER INSERT ON tenants EXECUTE FUNCTION suppress()",
        "UPDATE plans SET tag = gen_random_uuid()",
        "INSERT INTO orders (tenant_id, id) VALUES (1, 1) ON CONFLICT (tenant_id, id) \
         DO UPDATE SET tenant_id = 2",
        "ALTER TABLE tenants ADD COLUMN n serial",
        "ALTER TABLE plans ADD COLUMN at timestamptz DEFAULT now()",
    ] {
        pair.refused(sql).await;
    }
}

#[tokio::test]
async fn types_that_have_another_oid_on_each_node_are_told_by_their_names() {
    let pair = Pair::start().await;
    for node in 0..3 {
        // The same OIDs mean other types here and there.
        for filler in 0..node {
            let made = format!("CREATE TYPE filler{filler} AS (a int)");
            pair.database.client(node).await.batch_execute(&made).await.unwrap();
        }
    }
    pair.all_same(&[
        "CREATE TYPE mood AS ENUM ('calm', 'glad')",
        "CREATE TYPE pair AS (a int, b text)",
        "ALTER TABLE orders ADD COLUMN mood mood, ADD COLUMN pair pair",
        "INSERT INTO tenants (id) SELECT generate_series(1, 20)",
        "INSERT INTO orders (tenant_id, id, mood, pair) VALUES (5, 1, 'glad', ROW(1, 'x,(')), \
         (6, 1, 'calm', NULL), (7, 1, 'glad', '(,)'), (8, 1, NULL, NULL)",
        "INSERT INTO orders (tenant_id, id, mood, pair) SELECT tenant_id, 2, mood, pair \
         FROM orders",
        "INSERT INTO orders (tenant_id, id, mood) SELECT tenant_id, 3, mood FROM orders \
         WHERE tenant_id = 7 AND id = 1",
        "INSERT INTO orders (tenant_id, id, mood) SELECT id, 4, 'glad' FROM tenants",
        "SELECT mood, pair, count(*) FROM orders GROUP BY mood, pair",
    ])
    .await;
}

/// Text for a parameter of any type.
#[derive(Debug)]
struct Word(&'static str);

impl tokio_postgres::types::ToSql for Word {
    fn to_sql(
        &self,
        _kind: &tokio_postgres::types::Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(tokio_postgres::types::IsNull::No)
    }

    fn accepts(_kind: &tokio_postgres::types::Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

#[tokio::test]
async fn what_has_no_type_takes_that_of_its_column() {
    let pair = Pair::start().await;
    pair.all_same(&[
        "CREATE TYPE mood AS ENUM ('sad', 'glad')",
        "ALTER TABLE notes ADD COLUMN mood mood, ADD COLUMN raw bytea, ADD COLUMN n int",
        "INSERT INTO tenants (id) SELECT n FROM generate_series(1, 9) n",
        "INSERT INTO notes (tenant_id, mood) SELECT id, 'sad' FROM tenants",
        "INSERT INTO notes (mood, tenant_id) SELECT 'glad' AS m, id FROM tenants WHERE id < 4",
        "INSERT INTO notes (tenant_id, mood) SELECT id, ('sad') FROM tenants ORDER BY id LIMIT 3",
        "INSERT INTO notes (tenant_id, mood) SELECT id, E'sad' FROM tenants",
        "INSERT INTO notes (tenant_id, mood) SELECT id, $$glad$$ FROM tenants",
        "INSERT INTO notes (tenant_id, mood) SELECT id, 'sad'::mood FROM tenants",
        "INSERT INTO notes (tenant_id, mood) SELECT id, NULL FROM tenants",
        "INSERT INTO notes (tenant_id, mood) SELECT id, 'sad' FROM tenants WHERE id > 100",
        "INSERT INTO notes (tenant_id, mood) SELECT id, 'bad' FROM tenants",
        "INSERT INTO notes (tenant_id, mood) SELECT id, 'sad'::text FROM tenants",
        "INSERT INTO notes (tenant_id, mood) WITH x AS (SELECT id FROM tenants) SELECT id, 'sad' FROM x",
        "INSERT INTO notes (tenant_id, mood) SELECT row_number() OVER (), 'glad' FROM tenants",
        "INSERT INTO notes (tenant_id, mood) SELECT 5, 'sad' UNION SELECT 6, 'glad'",
        "INSERT INTO notes (tenant_id, mood) SELECT id, x FROM tenants, (SELECT 'sad' AS x) s",
        "INSERT INTO notes (tenant_id, mood) SELECT id, CASE WHEN id > 3 THEN 'sad' END FROM tenants",
        "SELECT tenant_id, mood, count(*) FROM notes GROUP BY 1, 2",
    ])
    .await;
    for client in [&pair.shop, &pair.plain] {
        let sql = "INSERT INTO notes (tenant_id, mood) SELECT id, $1 FROM tenants WHERE id > $2";
        assert_eq!(client.execute(sql, &[&Word("glad"), &0_i64]).await.unwrap(), 9);
        assert_eq!(client.execute(sql, &[&Word("glad"), &500_i64]).await.unwrap(), 0);
        let sql = "INSERT INTO notes (tenant_id, raw, n) SELECT id, $1, $2 FROM tenants";
        let raw = b"\\x4142".as_slice();
        assert_eq!(client.execute(sql, &[&raw, &0x4142_i32]).await.unwrap(), 9);
    }
    pair.all_same(&["SELECT tenant_id, mood, raw, n FROM notes"]).await;
}

#[tokio::test]
async fn explain_says_how_a_write_over_several_nodes_is_done() {
    let pair = Pair::start().await;
    pair.same("INSERT INTO tenants (id, name) SELECT i, 'n' || i FROM generate_series(1, 30) i")
        .await;
    for (sql, way) in [
        ("UPDATE tenants SET name = 'x'", "write, each node"),
        ("DELETE FROM tenants WHERE id IN (1, 2, 3, 4, 5, 6)", "write, each node"),
        ("DELETE FROM tenants WHERE id < (SELECT avg(id) FROM tenants)", "steps"),
        ("INSERT INTO orders (tenant_id, id) VALUES (1, 1), (2, 1), (3, 1), (4, 1)", "rows"),
        ("INSERT INTO orders (tenant_id, id) SELECT id, 9 FROM tenants", "query"),
        ("UPDATE notes SET tenant_id = tenant_id + 1", "rekey"),
        (
            "INSERT INTO plans (id, name, made, tag) VALUES (7, 'x', '2024-01-01', NULL)",
            "every node",
        ),
        ("UPDATE tenants SET name = 'x' WHERE id = 5", "one node"),
    ] {
        let lines = rows(&pair.shop, &format!("EXPLAIN (COSTS OFF) {sql}")).await;
        let told = lines[0].strip_prefix("Way: ").unwrap_or_default();
        assert!(told.starts_with(way), "{sql}: {lines:?}");
    }
    pair.same_tables().await;
}
