//! Tables of statements with their routes, on a map of two nodes.

mod hostile;
mod leaf;
mod lookup;
mod merge;
mod params;
mod plain;

use super::{Context, Params, Route, TextShape, template};
use crate::ids::{Epoch, GroupId, NodeId};
use crate::shard_map::{
    Bounds, Column, Group, KeyType, KeyValue, MapParts, Shard, ShardMap, Table, TableKind, hash_key,
};
use crate::sql::{Strings, TableName};

/// Four shards of `orders`, `items` and `"Shop"."Orders"` by bigint, and two of `docs` by
/// (text, int4), half on each node; `countries` is a reference table.
pub(super) fn map() -> ShardMap {
    let shard = |group, modulus, remainder, node| Shard {
        group: GroupId(group),
        bounds: Bounds::Hash { modulus, remainder },
        node: NodeId(node),
    };
    let column = |(name, type_oid): (&str, u32)| Column {
        name: name.to_owned(),
        type_oid,
        ..Column::default()
    };
    let table = |schema: &str, name: &str, group, key: &[&str], columns: &[(&str, u32)]| Table {
        name: TableName::new(schema, name),
        kind: TableKind::Sharded {
            group: GroupId(group),
            key: key.iter().map(|k| (*k).to_owned()).collect(),
        },
        columns: columns.iter().copied().map(column).collect(),
    };
    let order = [("id", 20), ("tenant_id", 20), ("total", 1700)];
    let parts = MapParts {
        epoch: Epoch(7),
        groups: vec![
            Group { name: "tenants".to_owned(), key: vec![KeyType::Int8] },
            Group { name: "docs".to_owned(), key: vec![KeyType::Text, KeyType::Int4] },
        ],
        shards: vec![
            shard(0, 4, 0, 0),
            shard(0, 4, 1, 0),
            shard(0, 4, 2, 1),
            shard(0, 4, 3, 1),
            shard(1, 2, 0, 0),
            shard(1, 2, 1, 1),
        ],
        tables: vec![
            table("public", "orders", 0, &["tenant_id"], &order),
            table("public", "items", 0, &["tenant_id"], &[]),
            table("Shop", "Orders", 0, &["Tenant Id"], &[]),
            table("public", "docs", 1, &["owner", "id"], &[("owner", 25), ("id", 23)]),
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

/// A route as text: keys of the tenants' group are written as `t5`, so that cases can be read.
fn show(route: Result<Route, crate::wire::ServerError>) -> String {
    match route {
        Ok(Route::Anywhere) => "anywhere".to_owned(),
        Ok(Route::Home) => "home".to_owned(),
        Ok(Route::Shards(shards) | Route::Keep(shards)) => {
            let shards: Vec<_> = shards.iter().map(|shard| format!("s{shard}")).collect();
            shards.join(" ")
        }
        Ok(Route::ScatterOver(shards)) => format!("scatter over {shards:?}"),
        Ok(Route::Scatter(group)) => format!("scatter {group}"),
        Ok(Route::Pull(pull)) => {
            let groups: Vec<_> = pull.groups.iter().map(ToString::to_string).collect();
            format!("pull {}", groups.join(" "))
        }
        Ok(Route::LookUp(look)) => format!("look {:?} up", look.reads),
        Ok(Route::Explain(_)) => "explain".to_owned(),
        Ok(Route::EveryNode) => "every node".to_owned(),
        Ok(Route::Write(shards)) => {
            let shards: Vec<_> = shards.iter().map(|shard| format!("s{shard}")).collect();
            format!("write {}", shards.join(" "))
        }
        Ok(Route::Insert(_, shards)) => {
            let shards: Vec<_> = shards.iter().map(|shard| format!("s{shard}")).collect();
            format!("rows {}", shards.join(" "))
        }
        Ok(Route::Several(spans)) => format!("{} one by one", spans.len()),
        Ok(Route::CopyOut(copy)) => format!("copy out {}", copy.group),
        Ok(Route::Select(_)) => "select".to_owned(),
        Ok(Route::First(_)) => "first".to_owned(),
        Ok(Route::Lock(_)) => "lock".to_owned(),
        Ok(Route::TableAs(_)) => "table".to_owned(),
        Ok(Route::Materialized(_)) => "materialized".to_owned(),
        Ok(Route::Rekey(_)) => "rekey".to_owned(),
        Ok(Route::Merge(_)) => "merge with rows".to_owned(),
        Ok(Route::Declare(declared)) => format!("cursor {}", show(Ok(declared.route.clone()))),
        Ok(Route::Cursor(_)) => "use cursor".to_owned(),
        Ok(Route::Evaluate(first)) => {
            let pieces: Vec<_> = first.pieces.iter().map(|p| p.expression.as_str()).collect();
            format!("evaluate {}", pieces.join(", "))
        }
        Ok(Route::Ddl(_)) => "ddl".to_owned(),
        Ok(Route::CopyIn(_)) => "copy in".to_owned(),
        Err(error) => {
            assert_eq!(error.code.0, "0A000");
            assert!(error.detail.is_some() && error.hint.is_some());
            format!("refused: {}", error.message)
        }
    }
}

fn route_in(path: &[&str], database: &str, sql: &str) -> String {
    let path: Vec<String> = path.iter().map(|schema| (*schema).to_owned()).collect();
    let context = Context { database, search_path: &path, strings: Strings::Standard };
    let route = show(template(sql, &context, &map()).route(&Params::default()));
    assert!(shaped(sql, &context).is_none_or(|shaped| shaped == route), "{sql}");
    route
}

/// Where the text's shape says that it goes, if it says that it goes to shards.
fn shaped(sql: &str, context: &Context<'_>) -> Option<String> {
    let mut shape = TextShape::default();
    let literals = shape.read(sql)?;
    let template = template(shape.text(), context, &map());
    let params = Params { literals: &literals, ..Params::default() };
    let route = template.serves_shape().then(|| template.route(&params))?;
    matches!(route, Ok(Route::Shards(_))).then(|| show(route))
}

#[test]
fn texts_that_differ_in_their_literals_share_an_analysis() {
    let context = Context {
        database: "shop",
        search_path: &["public".to_owned()],
        strings: Strings::Standard,
    };
    for sql in [
        "SELECT * FROM orders WHERE tenant_id = 5 AND note = 'x' LIMIT 3",
        "UPDATE orders SET note = 'y' WHERE tenant_id = '5' AND id = 7",
        "INSERT INTO orders (tenant_id, id) VALUES (5, 9)",
    ] {
        assert_eq!(shaped(sql, &context), Some(tenant(5)), "{sql}");
    }
}

#[test]
fn an_update_does_not_change_how_what_follows_is_read() {
    let path = ["public".to_owned()];
    let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
    for (sql, changes) in [
        ("UPDATE orders SET note = 'y' WHERE tenant_id = 5", false),
        ("INSERT INTO orders (tenant_id) VALUES (5) ON CONFLICT DO UPDATE SET note = 'y'", false),
        ("SELECT set_config('search_path', 'a', false)", true),
        ("SET search_path = a", true),
        ("DO $$BEGIN SET search_path = a; END$$", true),
    ] {
        assert_eq!(template(sql, &context, &map()).changes_reading, changes, "{sql}");
    }
}

#[test]
fn what_may_define_a_table_that_is_being_imported_is_known() {
    let (path, strings) = (["public".to_owned()], Strings::Standard);
    let context = Context { database: "shop", search_path: &path, strings };
    let importing = map().with_importing(vec![TableName::new("public", "old")]);
    for (sql, defines) in [
        ("ALTER TABLE old ADD COLUMN x int", true),
        ("SELECT 1; CREATE INDEX ON \"old\" (x)", true),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO somebody", true),
        ("CREATE POLICY p ON public.old", true),
        ("DO $$ BEGIN EXECUTE 'ALTER TABLE old ADD x int'; END $$", true),
        ("ALTER TABLE other ADD COLUMN x int", false),
        ("INSERT INTO old VALUES (1)", false),
        ("SELECT * FROM old FOR UPDATE", false),
    ] {
        assert_eq!(template(sql, &context, &importing).defines_imported, defines, "{sql}");
        assert!(!template(sql, &context, &map()).defines_imported, "{sql}");
    }
}

/// The shard of a tenant.
fn tenant(id: i64) -> String {
    let shard = map().shard_of_hash(GroupId(0), hash_key(&[KeyValue::Int(id)]));
    format!("s{shard}")
}

/// Checks each `(sql, route)`; `tN` is the shard of tenant N, and a refusal is told by a part of its
/// message, and `spread` is either way over several nodes.
fn check(cases: &[(&str, &str)]) {
    let mut faults = Vec::new();
    for (sql, wanted) in cases {
        let route = route_in(&["public"], "shop", sql);
        let as_wanted = match wanted.strip_prefix('t').and_then(|id| id.parse().ok()) {
            Some(id) => route == tenant(id),
            None if wanted.starts_with("cursor t") => {
                route == format!("cursor {}", tenant(wanted[8..].parse().unwrap()))
            }
            None if *wanted == "spread" => {
                route.starts_with("pull") || route.starts_with("scatter")
            }
            None if wanted.starts_with("refused") => route.starts_with(wanted),
            None => route == *wanted,
        };
        if !as_wanted {
            faults.push(format!("{sql}\n    wanted {wanted}, got {route}"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
