//! Right or refused: random statements, routed over two nodes, give what one node with all the rows
//! gives, or are refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(clippy::print_stdout, reason = "how many were refused")]

mod support;

use foreshard::ids::{GroupId, NodeId};
use foreshard::planner;
use foreshard::router::{Context, Params, Route, TextShape, template};
use foreshard::shard_map::{Bounds, Group, KeyType, MapParts, Shard, ShardMap, Table, TableKind};
use foreshard::sql::TableName;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::TestDatabase;
use tokio_postgres::{Client, SimpleQueryMessage};

/// How many statements are tried.
const STATEMENTS: usize = 10_000;

/// The node that holds all rows, after the two that share them.
const WHOLE: usize = 2;

fn map() -> ShardMap {
    let shard = |remainder, node| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus: 4, remainder },
        node: NodeId(node),
    };
    let sharded = TableKind::Sharded { group: GroupId(0), key: vec!["k".to_owned()] };
    let table = |name: &str, kind: &TableKind| Table {
        name: TableName::new("public", name),
        kind: kind.clone(),
        columns: Vec::new(),
    };
    let parts = MapParts {
        groups: vec![Group { name: "g".to_owned(), key: vec![KeyType::Int8] }],
        shards: vec![shard(0, 0), shard(1, 1), shard(2, 0), shard(3, 1)],
        tables: vec![table("t", &sharded), table("u", &sharded), table("r", &TableKind::Reference)],
        ..MapParts::of("d", ["a", "b"])
    };
    ShardMap::try_from(parts).unwrap()
}

fn route(sql: &str, map: &ShardMap) -> Option<Route> {
    let path = ["public".to_owned()];
    let context =
        Context { database: "d", search_path: &path, strings: foreshard::sql::Strings::Standard };
    let route = template(sql, &context, map).route(&Params::default()).ok();
    let mut shape = TextShape::default();
    if let Some(literals) = shape.read(sql) {
        let shared = template(shape.text(), &context, map);
        let params = Params { literals: &literals, ..Params::default() };
        let shaped = shared.serves_shape().then(|| shared.route(&params));
        if let Some(Ok(Route::Shards(shards))) = shaped {
            assert!(matches!(&route, Some(Route::Shards(same)) if *same == shards), "{sql}");
        }
    }
    // What is rewritten is not sent verbatim, and a pull or steps need the proxy: `differential` has
    // those.
    route.filter(|route| {
        !matches!(
            route,
            Route::Pull(_)
                | Route::Evaluate(_)
                | Route::Insert(..)
                | Route::Select(_)
                | Route::Lock(_)
                | Route::First(_)
        )
    })
}

/// The nodes that a route goes to.
fn nodes(route: &Route, map: &ShardMap) -> Vec<usize> {
    match route {
        Route::Anywhere => vec![1],
        Route::Home => vec![map.home().index()],
        Route::Shards(shards) => vec![map.node_of(shards[0]).index()],
        Route::Write(shards) | Route::ScatterOver(shards) => {
            let nodes: std::collections::BTreeSet<_> =
                shards.iter().map(|shard| map.node_of(*shard).index()).collect();
            nodes.into_iter().collect()
        }
        Route::Scatter(_) | Route::EveryNode => vec![0, 1],
        other => panic!("{other:?}"),
    }
}

/// Sorted rows, then the row count; or the SQLSTATE.
async fn answer(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let outcome = client.simple_query(sql).await;
    let messages = outcome.map_err(|error| {
        error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
    })?;
    let mut rows = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|column| row.get(column).unwrap_or("∅"));
                rows.push(values.collect::<Vec<_>>().join("|"));
            }
            SimpleQueryMessage::CommandComplete(count) => rows.push(format!("#{count}")),
            _ => {}
        }
    }
    Ok(rows)
}

async fn set_up(clients: &[Client], map: &ShardMap) {
    for sql in [
        "CREATE TABLE t (id int, k bigint, n int)",
        "CREATE TABLE u (id int, k bigint, n int)",
        "CREATE TABLE r (id int, n int)",
    ] {
        clients[WHOLE].batch_execute(sql).await.unwrap();
        let Some(Route::Ddl(ddl)) = route(sql, map) else { panic!("{sql}") };
        let plan = planner::ddl(&ddl, map).unwrap();
        for (node, _) in map.nodes() {
            for statement in plan.statements_for(node, map) {
                clients[node.index()].batch_execute(&statement).await.unwrap();
            }
        }
    }
    for id in 0..24 {
        let (k, n) = (id % 8, id % 5);
        for sql in [
            format!("INSERT INTO t (id, k, n) VALUES ({id}, {k}, {n})"),
            format!("INSERT INTO u (id, k, n) VALUES ({id}, {n}, {k})"),
            format!("INSERT INTO r VALUES ({k}, {n})"),
        ] {
            clients[WHOLE].batch_execute(&sql).await.unwrap();
            for node in nodes(&route(&sql, map).unwrap(), map) {
                clients[node].batch_execute(&sql).await.unwrap();
            }
        }
    }
}

/// A choice among texts, the earlier ones more often.
fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    (0..texts.len(), 0..texts.len()).prop_map(|(a, b)| texts[a.min(b)].to_owned())
}

fn constant() -> impl Strategy<Value = String> {
    one_of(&[
        "3",
        "5",
        "'5'",
        "' 3 '",
        "3::bigint",
        "'05'",
        "5.0",
        "3 + 2",
        "-1",
        "NULL",
        "int '5'",
        "9999999999999999999",
    ])
}

fn column(aliases: &'static [&'static str]) -> impl Strategy<Value = String> {
    (one_of(aliases), one_of(&["k", "k", "k", "id", "n"])).prop_map(|(a, c)| format!("{a}.{c}"))
}

fn condition(aliases: &'static [&'static str]) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        4 => (column(aliases), constant()).prop_map(|(c, v)| format!("{c} = {v}")),
        3 => (column(aliases), column(aliases)).prop_map(|(a, b)| format!("{a} = {b}")),
        1 => (constant(), column(aliases)).prop_map(|(v, c)| format!("{v} = {c}")),
        1 => (column(aliases), constant()).prop_map(|(c, v)| format!("{c} IN ({v}, 3)")),
        1 => (column(aliases), constant()).prop_map(|(c, v)| format!("{c} > {v}")),
        1 => column(aliases).prop_map(|c| format!("{c} IS NULL")),
        1 => column(aliases).prop_map(|c| format!("({c} = 5) IS NOT TRUE")),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            6 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} AND {b}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} OR {b}")),
            1 => inner.clone().prop_map(|a| format!("NOT {a}")),
            1 => inner.prop_map(|a| format!("({a})")),
        ]
    })
    .boxed()
}

const A: &[&str] = &["a"];
const AB: &[&str] = &["a", "b"];
const ABC: &[&str] = &["a", "b", "c"];
const TABLES: &[&str] = &["t", "u", "r"];
const JOINS: &[&str] = &["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];

/// FROM and WHERE, over up to three tables.
fn body() -> BoxedStrategy<String> {
    let table = || one_of(TABLES);
    prop_oneof![
        2 => (table(), condition(A)).prop_map(|(t, w)| format!("{t} a WHERE {w}")),
        3 => (table(), one_of(JOINS), table(), condition(AB), condition(AB))
            .prop_map(|(t, j, u, on, w)| format!("{t} a {j} {u} b ON {on} WHERE {w}")),
        1 => (table(), one_of(JOINS), table(), condition(AB))
            .prop_map(|(t, j, u, on)| format!("{t} a {j} {u} b ON {on}")),
        2 => (table(), one_of(JOINS), table(), one_of(&["k", "n"]), condition(AB))
            .prop_map(|(t, j, u, c, w)| format!("{t} a {j} {u} b USING ({c}) WHERE {w}")),
        1 => (table(), one_of(JOINS), table(), constant())
            .prop_map(|(t, j, u, v)| format!("{t} a {j} {u} b USING (k) WHERE k = {v}")),
        2 => (table(), table(), condition(AB)).prop_map(|(t, u, w)| format!("{t} a, {u} b WHERE {w}")),
        3 => ((table(), one_of(JOINS), table(), one_of(JOINS), table()), condition(AB), condition(ABC), condition(ABC))
            .prop_map(|((t, j, u, k, v), on, on2, w)| {
                format!("{t} a {j} {u} b ON {on} {k} {v} c ON {on2} WHERE {w}")
            }),
        2 => ((table(), one_of(JOINS), table(), one_of(JOINS), table()), condition(&["b", "c"]), condition(ABC), condition(ABC))
            .prop_map(|((t, j, u, k, v), on, on2, w)| {
                format!("{t} a {j} ({u} b {k} {v} c ON {on}) ON {on2} WHERE {w}")
            }),
        2 => (table(), condition(A), table(), condition(AB)).prop_map(|(t, w, u, x)| {
            format!("{t} a WHERE {w} AND EXISTS (SELECT 1 FROM {u} b WHERE {x})")
        }),
    ]
    .boxed()
}

fn statement() -> BoxedStrategy<String> {
    let table = || one_of(TABLES);
    prop_oneof![
        5 => body().prop_map(|b| format!("SELECT a.* FROM {b}")),
        2 => body().prop_map(|b| format!("SELECT count(*) FROM {b}")),
        1 => (body(), body()).prop_map(|(a, b)| format!("SELECT a.id FROM {a} UNION ALL SELECT a.n FROM {b}")),
        1 => (body(), condition(A)).prop_map(|(b, w)| {
            format!("WITH t AS (SELECT a.* FROM {b}) SELECT a.id FROM t a WHERE {w}")
        }),
        1 => (body(), table(), condition(AB)).prop_map(|(b, t, w)| {
            format!("SELECT a.* FROM {t} a, (SELECT a.k, a.id, a.n FROM {b}) b WHERE {w}")
        }),
        2 => (table(), condition(A)).prop_map(|(t, w)| format!("UPDATE {t} a SET n = n + 1 WHERE {w} RETURNING *")),
        2 => (table(), table(), condition(AB)).prop_map(|(t, u, w)| {
            format!("UPDATE {t} a SET n = 7 FROM {u} b WHERE {w}")
        }),
        2 => (table(), table(), condition(AB)).prop_map(|(t, u, w)| format!("DELETE FROM {t} a USING {u} b WHERE {w}")),
        1 => (table(), condition(A), constant()).prop_map(|(t, w, v)| {
            format!("WITH d AS (DELETE FROM {t} a WHERE {w} RETURNING *) SELECT count(*) FROM d WHERE k = {v}")
        }),
        1 => (table(), constant(), constant()).prop_map(|(t, v, w)| {
            format!("INSERT INTO {t} (id, k) VALUES (1, {v}), (2, {w})")
        }),
    ]
    .boxed()
}

/// One statement in a transaction that is rolled back, on each of `nodes`.
async fn run(
    clients: &[Client],
    nodes: &[usize],
    every: bool,
    sql: &str,
) -> Result<Vec<String>, String> {
    let (mut all, mut count) = (Vec::new(), 0);
    for node in nodes {
        clients[*node].batch_execute("BEGIN").await.unwrap();
        let rows = answer(&clients[*node], sql).await;
        clients[*node].batch_execute("ROLLBACK").await.unwrap();
        let rows = rows?;
        if every && !all.is_empty() {
            continue;
        }
        let counts = rows.iter().filter_map(|row| row.strip_prefix('#')?.parse::<u64>().ok());
        count += counts.sum::<u64>();
        all.extend(
            rows.into_iter().filter(|row| every || nodes.len() == 1 || !row.starts_with('#')),
        );
    }
    if nodes.len() > 1 && !every {
        all.push(format!("#{count}"));
    }
    all.sort();
    Ok(all)
}

#[tokio::test]
async fn a_routed_statement_gives_what_one_node_with_all_rows_gives() {
    let database = TestDatabase::create(3).await;
    let mut clients = Vec::new();
    for node in 0..3 {
        clients.push(database.client(node).await);
    }
    let map = map();
    set_up(&clients, &map).await;
    let mut runner = TestRunner::deterministic();
    let strategy = statement();
    let mut seen = [0; 5];
    for _ in 0..STATEMENTS {
        let sql = strategy.new_tree(&mut runner).unwrap().current();
        let Some(route) = route(&sql, &map) else {
            seen[0] += 1;
            continue;
        };
        let every = matches!(route, Route::EveryNode);
        let given = run(&clients, &nodes(&route, &map), every, &sql).await;
        let wanted = run(&clients, &[WHOLE], false, &sql).await;
        assert_eq!(given, wanted, "{sql}\n{route:?}");
        seen[match (&route, &given) {
            (_, Err(_)) => 1,
            (Route::Shards(_), _) => 2,
            (Route::Scatter(_) | Route::ScatterOver(_), _) => 3,
            _ => 4,
        }] += 1;
    }
    let [refused, errors, shards, scatters, others] = seen;
    println!(
        "{refused} refused, {errors} errors, {shards} on one node, {scatters} scattered, {others} anywhere"
    );
    assert!(seen.iter().all(|count| *count > STATEMENTS / 300), "{seen:?}");
}
