//! Which statements a lookup leads, and which have to tell it.

use super::{map, show, tenant};
use crate::ids::{GroupId, NodeId};
use crate::router::{Context, Params, Route, Template, template, template_plain};
use crate::shard_map::{
    Bounds, Group, KeyType, KeyValue, Lookup, LookupStanding, MapParts, Shard, ShardMap, Table,
    TableKind,
};
use crate::sql::{Strings, TableName};

/// The map of the other tests with a lookup of orders by their note.
fn looked_up(standing: LookupStanding, unique: bool) -> ShardMap {
    let mut parts = MapParts::from(map());
    let name = TableName::new("public", "orders_by_note");
    let group = GroupId(u16::try_from(parts.groups.len()).unwrap());
    parts.groups.push(Group { name: "orders_by_note".to_owned(), key: vec![KeyType::Text] });
    let bounds = Bounds::Hash { modulus: 1, remainder: 0 };
    parts.shards.push(Shard { group, bounds, node: NodeId(1) });
    let kind = TableKind::Sharded { group, key: vec!["note".to_owned()] };
    parts.tables.push(Table { name: name.clone(), kind, columns: Vec::new() });
    let (table, column) = (TableName::new("public", "orders"), "note".to_owned());
    parts.declared.lookups.push(Lookup { name, table, column, unique, standing });
    ShardMap::try_from(parts).unwrap()
}

fn analysed(sql: &str, map: &ShardMap, plain: bool) -> Template {
    let path = ["public".to_owned()];
    let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
    if plain { template_plain(sql, &context, map) } else { template(sql, &context, map) }
}

/// The values that are looked up; `None` if none are.
fn values(sql: &str, map: &ShardMap) -> Option<Vec<String>> {
    match analysed(sql, map, false).route(&Params::default()) {
        Ok(Route::LookUp(look)) => Some(
            look.reads.iter().flat_map(|read| &read.values).filter_map(KeyValue::text).collect(),
        ),
        _ => None,
    }
}

const SELECT: &str = "SELECT * FROM orders WHERE note = 'a'";

#[test]
fn a_query_that_only_a_lookup_binds_goes_where_that_leads() {
    let map = looked_up(LookupStanding::Whole, true);
    for (sql, wanted) in [
        (SELECT, &["a"][..]),
        ("SELECT * FROM orders o WHERE o.note IN ('b', 'a', 'b', NULL)", &["a", "b"]),
        ("SELECT 1 FROM orders o JOIN items i USING (tenant_id) WHERE o.note = 'a'", &["a"]),
        ("SELECT * FROM (SELECT note, total FROM orders) x WHERE note = 'a'", &["a"]),
        ("UPDATE orders SET total = 1 WHERE note = 'a' AND total > 5", &["a"]),
        ("DELETE FROM orders WHERE note = 'a'", &["a"]),
        ("EXPLAIN SELECT * FROM orders WHERE note = 'a'", &["a"]),
        ("EXPLAIN ANALYZE SELECT * FROM orders WHERE note = 'a'", &["a"]),
    ] {
        assert_eq!(
            values(sql, &map).as_deref(),
            Some(&wanted.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{sql}"
        );
    }
    let keys = [vec![vec![KeyValue::Int(5)]]];
    let params = Params { looked_up: Some(&keys), ..Params::default() };
    assert_eq!(show(analysed(SELECT, &map, false).route(&params)), tenant(5));
    let none = [Vec::new()];
    let params = Params { looked_up: Some(&none), ..Params::default() };
    assert_eq!(show(analysed(SELECT, &map, false).route(&params)), "anywhere");
    assert!(show(analysed(SELECT, &map, true).route(&Params::default())).starts_with("scatter"));
}

#[test]
fn nothing_is_looked_up_where_that_could_leave_rows_out() {
    let map = looked_up(LookupStanding::Whole, true);
    for sql in [
        "SELECT * FROM orders WHERE note = 'a' AND tenant_id = 5",
        "SELECT * FROM orders WHERE note = 'a' OR total = 5",
        "SELECT * FROM orders WHERE NOT note = 'a'",
        "SELECT * FROM orders WHERE note > 'a'",
        "SELECT * FROM orders WHERE note = 5",
        "SELECT * FROM items i LEFT JOIN orders o ON o.tenant_id = i.tenant_id AND o.note = 'a'",
        "SELECT * FROM items, orders WHERE note = 'a'",
        "SELECT * FROM ONLY orders WHERE note = 'a'",
        "SELECT f(1) FROM orders WHERE note = 'a'",
        "UPDATE orders SET total = 1 WHERE note IN ('a', 'b')",
        "EXPLAIN ANALYZE DELETE FROM orders WHERE note = 'a'",
        "SELECT * FROM orders WHERE note = 'a'; SELECT 1",
        "DECLARE c CURSOR FOR SELECT * FROM orders WHERE note = 'a'",
    ] {
        assert_eq!(values(sql, &map).filter(|values| !values.is_empty()), None, "{sql}");
    }
    let kept = looked_up(LookupStanding::Kept, true);
    assert_eq!(values(SELECT, &kept), None);
    let several = looked_up(LookupStanding::Whole, false);
    assert!(values(SELECT, &several).is_some());
    assert_eq!(values("DELETE FROM orders WHERE note = 'a'", &several), None);
}

#[test]
fn a_lookup_is_told_of_what_may_change_it() {
    let kept = looked_up(LookupStanding::Kept, true);
    let declared = looked_up(LookupStanding::Declared, true);
    for (sql, keeps) in [
        ("INSERT INTO orders (tenant_id, id) VALUES (5, 1)", true),
        ("UPDATE orders SET note = 'b' WHERE tenant_id = 5", true),
        ("UPDATE orders SET total = 3 WHERE tenant_id = 5", false),
        ("DELETE FROM orders WHERE tenant_id = 5", true),
        ("DELETE FROM items WHERE tenant_id = 5", true),
        ("INSERT INTO items (tenant_id) VALUES (5)", false),
        ("WITH d AS (DELETE FROM orders WHERE tenant_id = 5 RETURNING 1) SELECT * FROM d", true),
        ("SELECT * FROM orders WHERE tenant_id = 5", false),
        ("EXPLAIN INSERT INTO orders (tenant_id, id) VALUES (5, 1)", false),
        ("EXPLAIN ANALYZE INSERT INTO orders (tenant_id, id) VALUES (5, 1)", true),
    ] {
        assert_eq!(analysed(sql, &kept, false).keeps_lookups, keeps, "{sql}");
        assert!(!analysed(sql, &declared, false).keeps_lookups, "{sql}");
    }
    let own = "INSERT INTO orders_by_note VALUES ('a', 5)";
    assert!(show(analysed(own, &kept, false).route(&Params::default())).starts_with("refused"));
}
