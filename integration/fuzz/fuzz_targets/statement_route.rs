//! Where a statement goes: nothing makes the router or the planner panic, a text and its shape never
//! lead to different shards, and every refusal says why and what would work.
#![no_main]

use std::sync::LazyLock;

use foreshard::ids::{GroupId, NodeId};
use foreshard::planner;
use foreshard::router::{Context, Params, Route, TextShape, template};
use foreshard::shard_map::{
    Bounds, Column, Group, KeyType, MapParts, Shard, ShardMap, Table,
    TableKind,
};
use foreshard::sql::{Strings, TableName};
use libfuzzer_sys::fuzz_target;

/// The tables of the differential tests, by bigint, over two nodes.
static MAP: LazyLock<ShardMap> = LazyLock::new(|| {
    let shard = |remainder| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus: 4, remainder },
        node: NodeId(u16::from(remainder > 1)),
    };
    let column = |name: &str| Column { name: name.to_owned(), type_oid: 20, ..Column::default() };
    let table = |name: &str, key: &str, columns: &[&str]| Table {
        name: TableName::new("public", name),
        kind: TableKind::Sharded { group: GroupId(0), key: vec![key.to_owned()] },
        columns: columns.iter().copied().map(column).collect(),
    };
    let plans = TableName::new("public", "plans");
    let parts = MapParts {
        groups: vec![Group { name: "tenants".to_owned(), key: vec![KeyType::Int8] }],
        shards: (0..4).map(shard).collect(),
        tables: vec![
            table("tenants", "id", &["id", "name", "plan", "country"]),
            table("orders", "tenant_id", &["tenant_id", "id", "total", "state"]),
            table("items", "tenant_id", &["tenant_id", "order_id", "id", "price"]),
            Table { name: plans, kind: TableKind::Reference, columns: Vec::new() },
        ],
        ..MapParts::of("shop", ["a", "b"])
    };
    ShardMap::try_from(parts).expect("the map is valid")
});

fuzz_target!(|text: &str| {
    let path = ["public".to_owned()];
    let context = Context { database: "shop", search_path: &path, strings: Strings::Standard };
    let direct = template(text, &context, &MAP).route(&Params::default());
    match &direct {
        Err(error) => {
            assert!(!error.message.is_empty());
            assert!(error.code.0 != "0A000" || error.hint.is_some(), "{error:?}");
        }
        Ok(Route::Insert(insert, shards)) => drop(planner::insert(insert, shards, &MAP)),
        Ok(Route::Pull(pull)) => drop(planner::pull(text, pull, &Params::default(), false)),
        Ok(Route::Explain(explained)) => drop(planner::explain(text, explained, &MAP)),
        Ok(Route::Ddl(ddl)) => drop(planner::ddl(ddl, &MAP)),
        Ok(Route::Rekey(rekey)) => drop(planner::rekey(rekey)),
        Ok(_) => {}
    }
    let mut shape = TextShape::default();
    let Some(literals) = shape.read(text) else { return };
    let shared = template(shape.text(), &context, &MAP);
    if !shared.serves_shape() {
        return;
    }
    let params = Params { literals: &literals, ..Params::default() };
    if let Ok(Route::Shards(shards)) = shared.route(&params) {
        match direct {
            Ok(Route::Shards(own)) => assert_eq!(shards, own),
            other => panic!("its shape goes to {shards:?}, the text itself to {other:?}"),
        }
    }
});
