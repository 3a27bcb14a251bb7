//! Statements that a careless reader would send to the wrong place.

use super::{check, map, route_in};
use crate::router::{Context, Params, Route, template};
use crate::shard_map::Derived;
use crate::sql::{Strings, TableName};

#[test]
fn what_only_looks_like_a_bound_key_binds_nothing() {
    check(&[
        ("SELECT count(*) FROM orders WHERE tenant_id = 5 OR id = 3", "spread"),
        ("SELECT count(*) FROM orders WHERE NOT tenant_id = 5", "spread"),
        ("SELECT count(*) FROM orders WHERE NOT (tenant_id = 5 AND id = 3)", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id <> 5", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id + 0 = 5", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 5 + 1", "spread"),
        ("SELECT count(*) FROM orders WHERE (tenant_id = 5) IS NOT TRUE", "spread"),
        ("SELECT count(*) FROM orders WHERE (tenant_id = 5) = false", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 5 IS NULL", "spread"),
        ("SELECT count(*) FROM orders WHERE (tenant_id = 5) isnull", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 5 isnull", "spread"),
        (
            "SELECT count(*) FROM orders WHERE CASE WHEN tenant_id = 5 THEN true ELSE true END",
            "spread",
        ),
        ("SELECT count(*) FROM orders WHERE tenant_id NOT IN (5)", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = ALL (ARRAY[5])", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id =@ 5", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id OPERATOR(public.=) 5", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id == 5", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id BETWEEN 5 AND 5", "spread"),
        ("SELECT count(*) FROM orders WHERE true BETWEEN false AND tenant_id = 5", "spread"),
        (
            "SELECT count(*) FROM orders WHERE id IS DISTINCT FROM 3 OR total = 1 AND tenant_id = 5",
            "spread",
        ),
        (
            "SELECT count(*) FROM orders WHERE tenant_id = 5 AND id IS DISTINCT FROM 3 OR total = 1",
            "spread",
        ),
        ("SELECT count(*) FROM orders WHERE tenant_id = id", "spread"),
        ("SELECT count(*) FROM orders HAVING min(tenant_id) = 5", "spread"),
        ("SELECT count(*) FILTER (WHERE tenant_id = 5) FROM orders", "spread"),
        ("SELECT tenant_id = 5 FROM orders LIMIT 1", "spread"),
        ("SELECT count(*) FROM orders -- WHERE tenant_id = 5", "spread"),
        ("SELECT count(*) FROM orders /* WHERE tenant_id = 5 */", "spread"),
        ("SELECT count(*) FROM orders WHERE total = ' AND tenant_id = 5 '", "spread"),
        ("SELECT count(*) FROM orders WHERE 'x\\' = name AND tenant_id = 5 --'", "t5"),
        ("SELECT count(*) FROM orders o(tenant_id, id) WHERE o.tenant_id = 5", "spread"),
        ("SELECT count(*) FROM orders WHERE \"Tenant_id\" = 5", "spread"),
        ("SELECT count(*) FROM \"Shop\".\"Orders\" WHERE tenant_id = 5", "spread"),
        ("SELECT count(*) FROM docs WHERE owner = 'a'", "spread"),
    ]);
}

#[test]
fn literals_have_the_value_that_the_column_gives_them() {
    check(&[
        ("SELECT count(*) FROM orders WHERE tenant_id = '05'", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = ' 5 '", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 005", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = E'5'", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = $$5$$", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = '1' -- two lines\n '5'", "t15"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 5::bigint", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = '5'::int", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = CAST('5' AS smallint)", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = bigint '5'", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = - 5", "t-5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = -(-5)", "t5"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 5.0", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 1e3", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 5::numeric", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 5::oid", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = '5'::text::bigint", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = E'\\065'", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = U&'5'", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = B'101'", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = true", "spread"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 'abc'", "home"),
        ("SELECT count(*) FROM orders WHERE tenant_id = '5.0'", "home"),
        ("SELECT count(*) FROM orders WHERE tenant_id = '9223372036854775808'", "home"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 9223372036854775808", "anywhere"),
        ("SELECT count(*) FROM orders WHERE tenant_id = NULL", "anywhere"),
        ("SELECT count(*) FROM orders WHERE tenant_id = 0x5", "refused"),
    ]);
}

#[test]
fn each_query_level_needs_its_own_key() {
    check(&[
        ("SELECT * FROM orders WHERE id IN (SELECT id FROM items) AND tenant_id = 5", "spread"),
        ("SELECT * FROM orders WHERE id IN (SELECT id FROM items WHERE tenant_id = 5)", "spread"),
        ("SELECT *, (SELECT count(*) FROM items) FROM orders WHERE tenant_id = 5", "spread"),
        ("SELECT * FROM orders WHERE tenant_id = 5 UNION SELECT * FROM orders", "spread"),
        ("SELECT * FROM orders WHERE tenant_id = 5 UNION TABLE orders", "spread"),
        ("SELECT * FROM (SELECT * FROM orders) x WHERE x.tenant_id = 5", "spread"),
        ("SELECT * FROM orders x, (SELECT * FROM items x) y WHERE x.tenant_id = 5", "spread"),
        (
            "SELECT * FROM orders o WHERE o.tenant_id = 5 AND EXISTS (SELECT 1 FROM items o WHERE o.tenant_id = o.tenant_id)",
            "spread",
        ),
        (
            "SELECT * FROM orders o WHERE EXISTS (SELECT 1 FROM items i WHERE o.tenant_id = 5 AND i.tenant_id = 5)",
            "spread",
        ),
        (
            "SELECT * FROM orders o LEFT JOIN items i ON o.tenant_id = 5 AND i.tenant_id = o.tenant_id",
            "scatter 0",
        ),
        (
            "SELECT * FROM orders o LEFT JOIN items i ON o.tenant_id = 5 AND i.tenant_id = 5",
            "spread",
        ),
        (
            "SELECT * FROM orders o RIGHT JOIN items i ON o.tenant_id = 5 AND i.tenant_id = 5",
            "spread",
        ),
        (
            "SELECT * FROM orders o FULL JOIN items i ON o.tenant_id = 5 AND i.tenant_id = 5",
            "spread",
        ),
        ("SELECT * FROM orders o LEFT JOIN items i ON i.id = o.id WHERE o.tenant_id = 5", "spread"),
        (
            "WITH orders AS (SELECT 1 AS tenant_id) SELECT * FROM orders WHERE tenant_id = 5",
            "anywhere",
        ),
        (
            "WITH orders AS (SELECT * FROM orders) SELECT * FROM orders WHERE tenant_id = 5",
            "spread",
        ),
        (
            "WITH RECURSIVE orders AS (SELECT 1 UNION SELECT * FROM orders) SELECT * FROM orders",
            "anywhere",
        ),
        ("WITH orders AS (SELECT 1) SELECT * FROM public.orders WHERE tenant_id = 5", "t5"),
        (
            "WITH x AS (SELECT 1), orders AS (SELECT 2) SELECT 1 FROM (WITH y AS (SELECT 3) SELECT * FROM orders) z",
            "anywhere",
        ),
        (
            "SELECT 1 FROM (WITH orders AS (SELECT 3) SELECT * FROM orders) z, orders LIMIT 1",
            "spread",
        ),
        ("WITH orders AS (SELECT 1) DELETE FROM orders", "first"),
        ("WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x WHERE tenant_id = 5", "first"),
        ("DELETE FROM orders WHERE id = (SELECT max(id) FROM orders WHERE tenant_id = 5)", "first"),
        ("SELECT * FROM (orders o JOIN items i USING (id)) AS o WHERE o.tenant_id = 5", "spread"),
        (
            "SELECT * FROM orders o WHERE tenant_id = 5 ORDER BY (SELECT 1 FROM items i WHERE i.tenant_id = o.tenant_id)",
            "spread",
        ),
    ]);
}

#[test]
fn two_keys_are_one_route_only_on_one_node() {
    let on = |sql: &str| route_in(&["public"], "shop", sql);
    let mut same = 0;
    for other in 1..20 {
        let sql = format!("SELECT * FROM orders WHERE tenant_id IN (1, {other})");
        let (a, b) = (super::tenant(1), super::tenant(other));
        let node = |shard: &str| shard == "s0" || shard == "s1";
        let route = on(&sql);
        if node(&a) == node(&b) {
            same += 1;
            assert!(route.starts_with('s') && route.contains(&b), "{other}: {route}");
        } else {
            assert!(route.starts_with("scatter"), "{route}");
        }
    }
    assert!((2..19).contains(&same), "{same}");
}

#[test]
fn writes_that_can_not_be_placed_are_refused() {
    check(&[
        ("UPDATE orders SET total = (SELECT max(total) FROM items)", "first"),
        ("UPDATE orders SET total = i.n FROM items i WHERE i.id = orders.id", "first"),
        ("DELETE FROM orders USING docs WHERE docs.id = orders.id", "first"),
        ("DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT 3)", "first"),
        ("DELETE FROM orders WHERE id = other()", "refused"),
        ("UPDATE orders SET tenant_id = 5 WHERE tenant_id = 5", "rekey"),
        ("UPDATE orders SET (id, tenant_id) = (1, 2) WHERE tenant_id = 5", "rekey"),
        ("UPDATE orders SET tenant_id = v.a FROM (VALUES (1)) AS v (a) WHERE id = v.a", "rekey"),
        ("UPDATE orders SET tenant_id = i.id FROM items i WHERE i.id = orders.id", "first"),
        (
            "UPDATE orders SET tenant_id = a FROM (VALUES (1)) AS v (a) RETURNING v.a",
            "refused: the shard key",
        ),
        (
            "INSERT INTO orders (id, tenant_id) VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET tenant_id = 6",
            "refused: the shard key",
        ),
        // NULL, which its node stores or refuses.
        ("INSERT INTO orders (id) VALUES (5)", "s0"),
        ("INSERT INTO orders (id, tenant_id) VALUES (5, DEFAULT)", "s0"),
        ("INSERT INTO items (id) VALUES (5)", "refused: INSERT into \"items\" needs the shard key"),
        (
            "INSERT INTO orders (id, tenant_id) VALUES (5, (SELECT max(tenant_id) FROM items))",
            "first",
        ),
        ("INSERT INTO orders DEFAULT VALUES", "s0"),
        ("INSERT INTO orders SELECT * FROM items WHERE tenant_id = 5", "select"),
        ("INSERT INTO items VALUES (1, 5)", "refused: the columns of"),
        ("INSERT INTO orders VALUES (1)", "s0"),
        ("UPDATE orders SET total = nextval('s') WHERE tenant_id = 5", "refused: nextval"),
        ("SELECT pg_advisory_xact_lock(3) FROM orders WHERE tenant_id = 5", "refused: pg_advisory"),
        ("SELECT pg_notify('a', 'b') FROM orders WHERE tenant_id = 5", "refused: pg_notify"),
        ("SELECT * INTO x FROM orders WHERE tenant_id = 5", "table"),
        ("UPDATE countries SET x = 1 FROM orders WHERE orders.tenant_id = 5", "first"),
        (
            "MERGE INTO orders USING items ON orders.tenant_id = items.tenant_id \
             WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES (items.id)",
            "refused",
        ),
        ("INSERT INTO orders (id, tenant_id) SELECT 1, 5", "select"),
    ]);
}

#[test]
fn names_hide_nowhere() {
    check(&[
        ("SELECT count(*) FROM ONLY orders WHERE tenant_id = 5", "spread"),
        ("SELECT count(*) FROM ONLY (orders) WHERE tenant_id = 5", "refused"),
        ("UPDATE ONLY orders SET total = 3 WHERE tenant_id = 5", "refused: ONLY"),
        ("SELECT count(*) FROM \"orders\"", "spread"),
        ("SELECT count(*) FROM U&\"ord\\0065rs\"", "refused"),
        ("SELECT count(*) FROM orders_s1", "refused: \"orders_s1\" is a partition"),
        ("DELETE FROM public.items_s3 WHERE tenant_id = 5", "refused: \"items_s3\" is a partition"),
        ("SELECT count(*) FROM orders_sx", "home"),
        ("SELECT * FROM orders, customers WHERE tenant_id = 5", "spread"),
        ("SELECT * FROM orders, pg_class WHERE tenant_id = 5", "spread"),
        ("DO $$ begin delete from orders; end $$", "refused: DO that names"),
        ("DO $$ begin execute 'delete from orders'; end $$", "refused: DO that names"),
        ("DO $a$ begin execute $b$ delete from \"orders\" $b$; end $a$", "refused: DO that names"),
        ("DO 'begin delete from orders; end'", "refused: DO that names"),
        ("PREPARE p AS SELECT * FROM orders WHERE tenant_id = 5", "home"),
        ("DECLARE c CURSOR FOR SELECT * FROM orders WHERE tenant_id = 5", "cursor t5"),
        ("LOCK TABLE orders", "every node"),
        ("LOCK TABLE countries", "home"),
        ("VACUUM orders", "ddl"),
        ("PREPARE TRANSACTION 'x'", "home"),
        ("COMMIT PREPARED 'x'", "home"),
        ("SELECT set_config('search_path', 'x', false)", "home"),
        ("SELECT set_config('search_path', v, false) FROM v", "refused: set_config"),
        ("SET standard_conforming_strings = off", "refused: standard_conforming"),
        ("SET standard_conforming_strings = on", "anywhere"),
    ]);
}

#[test]
fn the_search_path_says_which_table_is_meant() {
    let sql = "SELECT count(*) FROM orders WHERE tenant_id = 5";
    assert_eq!(route_in(&["public"], "shop", sql), super::tenant(5));
    assert_eq!(route_in(&["pg_catalog", "public"], "shop", sql), super::tenant(5));
    assert_eq!(route_in(&["other"], "shop", sql), "home");
    assert_eq!(route_in(&[], "shop", sql), "home");
    assert_eq!(route_in(&["other", "public"], "shop", sql), super::tenant(5));
    let path = ["other".to_owned(), "public".to_owned()];
    let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
    let behind = [("orders".to_owned(), "public".to_owned())];
    assert_eq!(template(sql, &context, &map()).placed, behind);
    let other = TableName::new("other", "orders");
    let derived = Derived { namesakes: vec![other], ..Derived::default() };
    let hidden = template(sql, &context, &map().with_derived(derived));
    assert_eq!(hidden.placed, [("orders".to_owned(), "other".to_owned())]);
    assert!(matches!(hidden.route(&Params::default()), Ok(Route::Home)));
    assert_eq!(route_in(&["public", "other"], "shop", sql), super::tenant(5));
    assert_eq!(route_in(&["public"], "elsewhere", "SELECT count(*) FROM orders"), "home");
    let quoted = "DELETE FROM \"Orders\" WHERE \"Tenant Id\" = 5";
    assert_eq!(route_in(&["Shop"], "shop", quoted), super::tenant(5));
}

#[test]
fn several_statements_go_to_one_node_or_are_run_one_by_one() {
    check(&[
        ("SELECT 1; SELECT 2", "anywhere"),
        ("BEGIN; UPDATE orders SET total = 1 WHERE tenant_id = 5; COMMIT", "t5"),
        // Other nodes may join what is open afterwards.
        ("BEGIN; UPDATE orders SET total = 1 WHERE tenant_id = 5", "2 one by one"),
        ("BEGIN; SELECT 1; COMMIT; START TRANSACTION READ ONLY", "4 one by one"),
        ("SELECT * FROM a; SELECT * FROM b", "home"),
        ("SELECT * FROM a; SELECT * FROM orders WHERE tenant_id = 5", "2 one by one"),
        ("SELECT * FROM orders; SELECT * FROM orders", "2 one by one"),
        ("SET search_path = x; SELECT * FROM a; SELECT * FROM a", "3 one by one"),
        ("PREPARE TRANSACTION 'x'; SELECT * FROM orders", "refused"),
        (
            "DELETE FROM orders WHERE tenant_id = 5; SELECT * FROM orders WHERE tenant_id = 'x'",
            "2 one by one",
        ),
        ("INSERT INTO countries VALUES (1); INSERT INTO countries VALUES (2)", "2 one by one"),
    ]);
    let path = ["public".to_owned()];
    let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
    let several = template("BEGIN; SET x = 1", &context, &map());
    assert!(
        several.moves_transaction
            && several.leaves >= crate::router::Leaves::State
            && several.statement_count == 2
    );
}

#[test]
fn long_chains_and_deep_nests_neither_crash_nor_hang() {
    let path = ["public".to_owned()];
    let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
    let map = map();
    let long = format!("SELECT * FROM orders WHERE a = 1{}", " OR a = 1".repeat(100_000));
    let deep = format!("SELECT {}1{} FROM orders", "(".repeat(50_000), ")".repeat(50_000));
    let unions = format!("SELECT 1{}", " UNION SELECT 1".repeat(20_000));
    let endless =
        format!("SELECT * FROM orders WHERE tenant_id = 5 AND a = 1{}", " + 1".repeat(300_000));
    for sql in [long, deep, unions, endless] {
        drop(template(&sql, &context, &map).route(&Params::default()));
    }
}

proptest::proptest! {
    #[test]
    fn any_text_gets_a_route_or_an_error(sql in "(SELECT|UPDATE|FROM|orders|WHERE|tenant_id|=|5|\\(|\\)|,|;|'|\"|\\$1|JOIN|ON|AND|OR|WITH|AS|INSERT INTO|VALUES|COPY|SET| |--|/\\*){0,40}") {
        let path = ["public".to_owned()];
        let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
        drop(template(&sql, &context, &map()).route(&Params::default()));
    }
}
