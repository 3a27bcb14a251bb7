//! Where a leaf may stand for the table of a point statement.

use super::map;
use crate::ids::ShardId;
use crate::router::{Context, template};
use crate::sql::Strings;

fn on_leaf(sql: &str) -> Option<String> {
    let path = ["public".to_owned()];
    let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
    Some(template(sql, &context, &map()).leaf?.text(sql, ShardId(3)))
}

#[test]
fn a_leaf_stands_for_the_only_table_and_columns_find_it_by_the_same_name() {
    for (sql, expected) in [
        (
            "SELECT total FROM orders WHERE tenant_id = $1",
            "SELECT total FROM \"public\".\"orders_s3\" AS \"orders\" WHERE tenant_id = $1",
        ),
        (
            "SELECT *, count(*) OVER () FROM Orders AS \"O\" WHERE tenant_id = $1",
            "SELECT *, count(*) OVER () FROM \"public\".\"orders_s3\" AS \"O\" WHERE tenant_id = $1",
        ),
        (
            "UPDATE orders SET total = total + $2 WHERE tenant_id = $1 RETURNING *",
            "UPDATE \"public\".\"orders_s3\" AS \"orders\" SET total = total + $2 WHERE tenant_id = $1 RETURNING *",
        ),
        (
            "DELETE FROM \"Shop\".\"Orders\" WHERE \"Tenant Id\" = $1",
            "DELETE FROM \"Shop\".\"Orders_s3\" AS \"Orders\" WHERE \"Tenant Id\" = $1",
        ),
    ] {
        assert_eq!(on_leaf(sql).as_deref(), Some(expected), "{sql}");
    }
}

#[test]
fn no_leaf_stands_where_something_else_would_be_meant_or_checked() {
    for sql in [
        "SELECT orders FROM orders WHERE tenant_id = $1",
        "SELECT row_to_json(o) FROM orders o WHERE tenant_id = $1",
        "SELECT (orders).total FROM orders WHERE tenant_id = $1",
        "SELECT count(orders . *) FROM orders WHERE tenant_id = $1",
        "SELECT f(orders./* a row */*) FROM orders WHERE tenant_id = $1",
        "SELECT o.* FROM orders o WHERE tenant_id = $1",
        "SELECT public.orders.total FROM orders WHERE tenant_id = $1",
        "SELECT * FROM ONLY orders WHERE tenant_id = $1",
        "SELECT * FROM orders o (a, b, c) WHERE b = $1",
        "SELECT * FROM orders WHERE tenant_id = $1 FOR UPDATE",
        "SELECT * FROM orders WHERE tenant_id = $1 AND id IN (SELECT id FROM items)",
        "SELECT * FROM orders, items WHERE orders.tenant_id = $1 AND items.tenant_id = $1",
        "SELECT * FROM orders WHERE tenant_id = $1 UNION ALL SELECT * FROM orders WHERE tenant_id = $1",
        "WITH x AS (SELECT 1) SELECT * FROM orders WHERE tenant_id = $1",
        "INSERT INTO orders (tenant_id) VALUES ($1)",
        "UPDATE orders SET total = DEFAULT WHERE tenant_id = $1",
        "UPDATE orders SET tenant_id = 7 WHERE tenant_id = $1",
        "SELECT * FROM countries WHERE id = $1",
        "SELECT * FROM home_table WHERE id = $1",
        "SELECT 1; SELECT * FROM orders WHERE tenant_id = 5",
    ] {
        assert_eq!(on_leaf(sql), None, "{sql}");
    }
}
