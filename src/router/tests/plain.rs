//! Statements as applications write them.

use super::check;

#[test]
fn statements_with_a_key_go_to_its_shard() {
    check(&[
        ("SELECT * FROM orders WHERE tenant_id = 5", "t5"),
        ("select * from public.orders where orders.tenant_id = 6 and total > 3", "t6"),
        ("SELECT count(*), max(total) FROM orders o WHERE o.tenant_id = 5 GROUP BY id", "t5"),
        ("SELECT * FROM orders WHERE 7 = tenant_id ORDER BY id LIMIT 3 FOR UPDATE", "t7"),
        ("SELECT * FROM ORDERS WHERE Tenant_ID = 8", "t8"),
        ("SELECT * FROM orders WHERE (id > 3 OR id < 1) AND (tenant_id = 5)", "t5"),
        ("SELECT * FROM orders WHERE tenant_id IN (5)", "t5"),
        ("SELECT * FROM orders WHERE tenant_id = ANY (ARRAY[5])", "t5"),
        ("SELECT * FROM orders WHERE tenant_id = -5", "t-5"),
        ("SELECT * FROM orders WHERE (tenant_id, id) = (5, 3)", "t5"),
        ("SELECT * FROM orders JOIN items USING (tenant_id) WHERE tenant_id = 5", "t5"),
        (
            "SELECT * FROM orders o JOIN items i ON i.tenant_id = o.tenant_id WHERE o.tenant_id = 5",
            "t5",
        ),
        (
            "SELECT * FROM orders o, items i WHERE i.tenant_id = o.tenant_id AND i.tenant_id = 5",
            "t5",
        ),
        (
            "SELECT * FROM orders o LEFT JOIN items i ON i.tenant_id = o.tenant_id WHERE o.tenant_id = 5",
            "t5",
        ),
        ("SELECT * FROM orders o LEFT JOIN items i ON i.tenant_id = 5 WHERE o.tenant_id = 5", "t5"),
        ("SELECT * FROM orders o JOIN countries c ON c.id = o.id WHERE tenant_id = 5", "t5"),
        (
            "SELECT * FROM orders o WHERE tenant_id = 5 AND EXISTS (SELECT 1 FROM items i WHERE i.tenant_id = o.tenant_id)",
            "t5",
        ),
        (
            "SELECT * FROM orders o WHERE tenant_id = 5 AND id IN (SELECT id FROM items WHERE tenant_id = 5)",
            "t5",
        ),
        ("WITH x AS (SELECT * FROM orders WHERE tenant_id = 5) SELECT * FROM x", "t5"),
        (
            "SELECT * FROM orders WHERE tenant_id = 5 UNION ALL SELECT * FROM items WHERE tenant_id = 5",
            "t5",
        ),
        ("UPDATE orders SET total = 3 WHERE tenant_id = 5", "t5"),
        (
            "UPDATE orders AS o SET total = i.x FROM items i WHERE i.tenant_id = o.tenant_id AND o.tenant_id = 5",
            "t5",
        ),
        ("DELETE FROM orders WHERE tenant_id = 5 RETURNING *", "t5"),
        ("DELETE FROM orders o USING items i WHERE o.tenant_id = 5 AND i.tenant_id = 5", "t5"),
        ("INSERT INTO orders (id, tenant_id) VALUES (1, 5)", "t5"),
        ("INSERT INTO orders VALUES (1, 5, 2.50)", "t5"),
        (
            "INSERT INTO orders AS o (id, tenant_id) VALUES (1, 5), (2, 5) ON CONFLICT (id) DO UPDATE SET total = 3 RETURNING id",
            "t5",
        ),
        (
            "WITH x AS (INSERT INTO orders (id, tenant_id) VALUES (1, 5) RETURNING id) SELECT * FROM x",
            "t5",
        ),
        // It says where it goes first.
        ("EXPLAIN SELECT * FROM orders WHERE tenant_id = 5", "look [] up"),
        ("EXPLAIN (FORMAT json) SELECT * FROM orders WHERE tenant_id = 5", "t5"),
        ("EXPLAIN (ANALYZE, BUFFERS) UPDATE orders SET total = 3 WHERE tenant_id = 5", "t5"),
        ("COPY (SELECT * FROM orders WHERE tenant_id = 5) TO STDOUT", "t5"),
        ("SELECT * FROM \"Shop\".\"Orders\" WHERE \"Tenant Id\" = 5", "t5"),
        ("SELECT * FROM shop.public.orders WHERE tenant_id = 5;", "t5"),
        ("TABLE countries", "anywhere"),
    ]);
}

#[test]
fn whole_groups_are_scattered_only_as_plain_concatenations() {
    check(&[
        ("SELECT * FROM orders", "scatter 0"),
        ("SELECT id, upper(name) FROM orders WHERE total > 5 AND id IS NOT NULL", "scatter 0"),
        (
            "SELECT * FROM orders o JOIN items i ON i.tenant_id = o.tenant_id AND i.id = o.id",
            "scatter 0",
        ),
        ("SELECT * FROM orders JOIN items USING (tenant_id)", "scatter 0"),
        ("SELECT * FROM orders o, items i WHERE i.tenant_id = o.tenant_id", "scatter 0"),
        ("SELECT * FROM orders o LEFT JOIN items i ON i.tenant_id = o.tenant_id", "scatter 0"),
        ("SELECT * FROM orders o LEFT JOIN countries c ON c.id = o.id", "scatter 0"),
        ("SELECT * FROM countries c JOIN orders o ON c.id = o.id", "scatter 0"),
        ("SELECT * FROM docs a JOIN docs b ON a.owner = b.owner AND b.id = a.id", "scatter 1"),
        ("TABLE orders", "scatter 0"),
        ("SELECT * FROM orders WHERE tenant_id > 5", "scatter 0"),
        ("SELECT * FROM orders WHERE tenant_id = 5 OR tenant_id = 6", "scatter 0"),
        ("SELECT * FROM docs a JOIN docs b ON a.owner = b.owner", "spread"),
        ("SELECT * FROM orders o JOIN items i ON i.id = o.id", "spread"),
        ("SELECT * FROM orders, items", "spread"),
        ("SELECT * FROM orders o JOIN docs d ON o.tenant_id = d.id", "spread"),
        ("SELECT * FROM countries c LEFT JOIN orders o ON c.id = o.id", "spread"),
        ("SELECT * FROM orders o RIGHT JOIN countries c ON c.id = o.id", "spread"),
        ("SELECT * FROM orders o FULL JOIN items i USING (tenant_id)", "spread"),
        ("SELECT * FROM orders NATURAL JOIN items", "spread"),
        ("SELECT count(*) FROM orders", "spread"),
        ("SELECT * FROM orders ORDER BY id", "spread"),
        ("SELECT * FROM orders LIMIT 1", "spread"),
        ("SELECT * FROM orders FETCH FIRST 1 ROW ONLY", "spread"),
        ("SELECT * FROM orders OFFSET 1", "spread"),
        ("SELECT DISTINCT id FROM orders", "spread"),
        ("SELECT id FROM orders GROUP BY id", "spread"),
        ("SELECT 1 FROM orders HAVING true", "spread"),
        ("SELECT row_number() OVER () FROM orders", "spread"),
        ("SELECT id FROM orders UNION ALL SELECT 1", "spread"),
        ("WITH x AS (SELECT 1) SELECT * FROM orders", "spread"),
        ("SELECT * FROM orders FOR UPDATE", "write s0 s1 s2 s3"),
        ("SELECT random() FROM orders", "spread"),
        ("SELECT my_function(id) FROM orders", "spread"),
        ("SELECT now() FROM orders", "spread"),
        ("SELECT * FROM orders WHERE at > 'today'", "spread"),
        ("SELECT ctid FROM orders", "refused"),
        ("SELECT ctid FROM orders WHERE tenant_id = 5", "s1"),
        ("SELECT ctid FROM orders WHERE tenant_id IN (5, 6, 7, 8)", "refused"),
        ("SELECT tableoid FROM orders WHERE tenant_id = 5", "refused"),
        ("SELECT id, o.xmin FROM orders o", "spread"),
        ("SELECT id FROM orders WHERE xmin::text = '5'", "refused"),
        ("SELECT id, xmin FROM orders ORDER BY id", "refused"),
        ("SELECT max(xmin::text) FROM orders", "refused"),
        ("SELECT * FROM orders TABLESAMPLE system (1)", "spread"),
        ("SELECT count(*) FROM orders TABLESAMPLE system (1)", "spread"),
        ("SELECT count(*) FROM orders TABLESAMPLE system (1) REPEATABLE (2)", "refused"),
        ("SELECT (SELECT 1) FROM orders", "spread"),
        ("SELECT * FROM (SELECT * FROM orders) x", "spread"),
        ("SELECT * FROM orders, generate_series(1, 2)", "spread"),
    ]);
}

#[test]
fn reference_rows_are_not_told_apart_by_what_differs_from_node_to_node() {
    check(&[
        ("UPDATE countries SET name = 'x' WHERE id = 1 AND xmin::text = '5'", "refused"),
        ("DELETE FROM countries a USING countries b WHERE a.ctid < b.ctid", "refused"),
        ("DELETE FROM countries WHERE id = 1 RETURNING xmax", "every node"),
        ("DELETE FROM countries WHERE id = 1 RETURNING xmin", "refused"),
        ("UPDATE countries SET name = 'x' WHERE name <> 'returning' AND xmax = 0", "refused"),
        ("DELETE FROM countries WHERE name = 'returning' AND xmax = 0 RETURNING id", "refused"),
        ("SELECT ctid, xmin FROM countries", "anywhere"),
    ]);
}

#[test]
fn a_refresh_that_cannot_be_read_goes_nowhere() {
    check(&[
        ("REFRESH MATERIALIZED VIEW kept", "materialized"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY s.kept WITH DATA", "materialized"),
        ("REFRESH MATERIALIZED VIEW U&\"kept\"", "refused"),
        ("REFRESH MATERIALIZED VIEW \"kept\" WITH DATA UESCAPE '!'", "refused"),
        ("REFRESH MATERIALIZED VIEW kept WITH NO DATA", "home"),
    ]);
}

#[test]
fn tables_at_home_and_no_tables_stay_simple() {
    check(&[
        ("", "anywhere"),
        (" ; ; ", "anywhere"),
        ("SELECT 1", "anywhere"),
        ("SELECT now(), version()", "anywhere"),
        ("VALUES (1), (2)", "anywhere"),
        ("SELECT my_function(5)", "home"),
        ("SELECT nextval('s')", "home"),
        ("SELECT * FROM customers", "home"),
        ("SELECT * FROM pg_catalog.pg_class", "home"),
        ("SELECT * FROM other.orders", "home"),
        ("INSERT INTO customers SELECT * FROM countries", "home"),
        ("SELECT * FROM countries JOIN customers USING (id)", "home"),
        ("SELECT * FROM countries WHERE id = 3", "anywhere"),
        ("SELECT count(*) FROM countries", "anywhere"),
        ("SELECT * FROM countries FOR UPDATE", "home"),
        ("SELECT f(id) FROM countries", "home"),
        ("DO $$ begin perform 1; end $$", "home"),
        ("CALL p(3)", "home"),
        ("MERGE INTO customers USING x ON true WHEN MATCHED THEN DELETE", "home"),
        ("COPY customers FROM STDIN", "home"),
        ("COPY countries TO STDOUT", "anywhere"),
        ("VACUUM customers", "home"),
        ("not even SQL", "home"),
        ("SELECT 'never ends", "home"),
    ]);
}

#[test]
fn reference_tables_are_written_on_every_node_if_all_get_the_same() {
    check(&[
        ("INSERT INTO countries VALUES (1, 'de')", "every node"),
        ("UPDATE countries SET name = upper(name) WHERE id = 3", "every node"),
        (
            "DELETE FROM countries WHERE id IN (SELECT id FROM countries WHERE name = 'x')",
            "every node",
        ),
        ("INSERT INTO countries VALUES (1, now())", "evaluate now()"),
        ("INSERT INTO countries VALUES (1, 'now')", "refused"),
        ("INSERT INTO countries VALUES (nextval('s'))", "refused"),
        ("INSERT INTO countries (id) VALUES (nextval('s'))", "evaluate nextval('s')"),
        ("INSERT INTO countries SELECT * FROM customers", "select"),
        ("INSERT INTO countries SELECT * FROM countries LIMIT 1", "select"),
        ("INSERT INTO countries SELECT * FROM orders WHERE tenant_id = 5", "select"),
        ("EXPLAIN ANALYZE DELETE FROM countries", "refused"),
        ("EXPLAIN ANALYZE UPDATE orders SET total = 1", "explain"),
        ("EXPLAIN (FORMAT json) UPDATE orders SET total = 1", "explain"),
        ("EXPLAIN UPDATE orders SET total = 1", "explain"),
        ("EXPLAIN DELETE FROM orders WHERE total > (SELECT max(total) FROM orders)", "explain"),
        ("EXPLAIN INSERT INTO orders SELECT * FROM orders", "explain"),
        ("COPY countries FROM STDIN", "copy in"),
        ("COPY orders (tenant_id, id) FROM STDIN WITH (FORMAT csv, HEADER)", "copy in"),
        ("COPY orders FROM '/tmp/x'", "refused"),
        ("COPY orders TO STDOUT", "copy out 0"),
        ("COPY (SELECT * FROM orders) TO STDOUT", "copy out 0"),
    ]);
}

#[test]
fn writes_over_nodes_are_spread_or_split_by_row() {
    check(&[
        ("UPDATE orders SET total = 3", "write s0 s1 s2 s3"),
        ("DELETE FROM orders WHERE id = 3", "write s0 s1 s2 s3"),
        ("DELETE FROM orders WHERE tenant_id = 5 OR id = 3", "write s0 s1 s2 s3"),
        (
            "UPDATE orders o SET total = 0 WHERE EXISTS \
             (SELECT 1 FROM items i WHERE i.tenant_id = o.tenant_id)",
            "write s0 s1 s2 s3",
        ),
        ("UPDATE orders SET total = 3 WHERE id < 9 AND total > now()", "evaluate now()"),
        ("INSERT INTO orders (id, tenant_id) VALUES (5, 2 + 3)", "evaluate CAST(2 + 3 AS bigint)"),
        (
            "INSERT INTO orders (id, tenant_id) VALUES (1, 5), (2, nextval('s'))",
            "evaluate CAST(nextval('s') AS bigint)",
        ),
        ("INSERT INTO orders (id, tenant_id) VALUES (nextval('s'), 5)", "evaluate nextval('s')"),
    ]);
}
