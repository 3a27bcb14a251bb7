//! The proxy's choice of a shard against a server's choice of a partition.

use foreshard::ids::{GroupId, NodeId};
use foreshard::shard_map::{Bounds, Group, KeyType, KeyValue, MapParts, Shard, ShardMap};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_postgres::Client;

use super::support::{TestDatabase, rows};

/// How many keys of each kind are tried.
const KEYS: usize = 300;

fn map(types: &[KeyType], bounds: &[Bounds]) -> ShardMap {
    let shard =
        |bounds: &Bounds| Shard { group: GroupId(0), bounds: bounds.clone(), node: NodeId(0) };
    let parts = MapParts {
        groups: vec![Group { name: "g".to_owned(), key: types.to_vec() }],
        shards: bounds.iter().map(shard).collect(),
        ..MapParts::of("d", ["n1"])
    };
    parts.try_into().unwrap()
}

fn key(types: &[KeyType], texts: &[Option<String>]) -> Vec<KeyValue> {
    let value = |(key_type, text): (&KeyType, &Option<String>)| match text {
        None => KeyValue::Null,
        Some(text) => key_type.parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}")),
    };
    types.iter().zip(texts).map(value).collect()
}

/// Ranges between cuts, given as texts.
fn ranges(types: &[KeyType], cuts: &[&[&str]]) -> Vec<Bounds> {
    let cut = |cut: &&[&str]| {
        key(types, &cut.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>())
    };
    let cuts: Vec<Vec<KeyValue>> = cuts.iter().map(cut).collect();
    (0..=cuts.len())
        .map(|at| Bounds::Range {
            from: at.checked_sub(1).map(|at| cuts[at].clone()),
            to: cuts.get(at).cloned(),
        })
        .collect()
}

/// Makes the partitions with the proxy's words, lets the server choose, and compares; then attaches
/// each partition anew with the condition that the mover gives it, and without a scan.
async fn check(
    client: &Client,
    types: &[KeyType],
    bounds: &[Bounds],
    keys: &[Vec<Option<String>>],
) {
    let map = map(types, bounds);
    let method = map.method(GroupId(0)).word();
    let names: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
    let column = |(name, key_type): (&String, &KeyType)| {
        let collation = if *key_type == KeyType::Text { " COLLATE \"C\"" } else { "" };
        format!("{name} {}{collation}", key_type.name())
    };
    let columns: Vec<String> = names.iter().zip(types).map(column).collect();
    let mut sql = format!(
        "DROP TABLE IF EXISTS t; CREATE TABLE t (at int, {}) PARTITION BY {method} ({});",
        columns.join(", "),
        names.join(", ")
    );
    for (at, bounds) in bounds.iter().enumerate() {
        let bounds = bounds.for_values(types.len());
        sql += &format!("CREATE TABLE t_s{at} PARTITION OF t {bounds};");
    }
    client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let mut expected = Vec::new();
    for (at, texts) in keys.iter().enumerate() {
        let value = |text: &Option<String>| match text {
            None => "NULL".to_owned(),
            Some(text) => format!("'{}'", text.replace('\'', "''")),
        };
        let values: Vec<String> = texts.iter().map(value).collect();
        let insert = format!("INSERT INTO t VALUES ({at}, {})", values.join(", "));
        let done = client.batch_execute(&insert).await;
        let shard = map.shard_of(GroupId(0), &key(types, texts));
        match (&done, shard) {
            (Ok(()), Some(shard)) => expected.push(format!("{at}|t_s{shard}")),
            (Err(error), None) => assert_eq!(error.code().unwrap().code(), "23514", "{insert}"),
            _ => panic!("{insert}: {done:?}, the proxy says {shard:?}"),
        }
    }
    assert_eq!(rows(client, "SELECT at, tableoid::regclass FROM t ORDER BY at").await, expected);
    attach_anew(client, types, bounds, &names).await;
}

async fn attach_anew(client: &Client, types: &[KeyType], bounds: &[Bounds], names: &[String]) {
    let oid = &rows(client, "SELECT 't'::regclass::oid").await[0];
    for (at, bounds) in bounds.iter().enumerate() {
        let condition = bounds.condition(names, oid.parse().unwrap());
        // Would the condition hold a row too few, it could not be added; one too many, not attached.
        let sql = format!(
            "ALTER TABLE t DETACH PARTITION t_s{at}; \
             ALTER TABLE t_s{at} ADD CONSTRAINT helper CHECK ({condition}); \
             ALTER TABLE t ATTACH PARTITION t_s{at} {}",
            bounds.for_values(types.len())
        );
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        for other in (0..rows(client, "SELECT 1 FROM pg_inherits").await.len()).filter(|o| *o != at)
        {
            let sql = format!("SELECT count(*) FROM t_s{other} WHERE {condition}");
            assert_eq!(rows(client, &sql).await, ["0"], "{sql}");
        }
    }
}

fn samples<S: Strategy>(strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..KEYS).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn singles(texts: Vec<String>, edges: &[&str]) -> Vec<Vec<Option<String>>> {
    let edges = edges.iter().map(|edge| vec![Some((*edge).to_owned())]);
    texts.into_iter().map(|text| vec![Some(text)]).chain(edges).chain([vec![None]]).collect()
}

#[tokio::test]
async fn every_key_is_in_the_range_that_postgresql_puts_it_in() {
    let database = TestDatabase::create(1).await;
    let client = database.client(0).await;
    let one = |key_type: KeyType, cuts: &[&str]| {
        let cuts: Vec<&[&str]> = cuts.iter().map(std::slice::from_ref).collect();
        ([key_type], ranges(&[key_type], &cuts))
    };
    let near = |strategy: &str| samples(&proptest::string::string_regex(strategy).unwrap());
    let (types, bounds) = one(KeyType::Int4, &["-100", "-5", "0", "1000"]);
    let edges = ["-2147483648", "2147483647", "-6", "-5", "-4", "0", "999", "1000", "1001"];
    check(&client, &types, &bounds, &singles(near("-?[0-9]{1,4}"), &edges)).await;
    let (types, bounds) = one(KeyType::Int8, &["-9223372036854775808", "5"]);
    let edges = ["-9223372036854775808", "9223372036854775807", "4", "5"];
    check(&client, &types, &bounds, &singles(near("-?[0-9]{1,18}"), &edges)).await;
    let (types, bounds) = one(KeyType::Text, &["", "B", "a", "it's", "m", "zz", "ä"]);
    let edges = ["", "B", "a", "it", "it's", "it'", "m ", "M", "zz", "zzz", "ä", "é", "😀", "\\"];
    check(&client, &types, &bounds, &singles(near("[A-Za-z'é ]{0,4}"), &edges)).await;
    let middle = "80000000-0000-0000-0000-000000000000";
    let (types, bounds) = one(KeyType::Uuid, &[middle]);
    let edges = [middle, "7fffffff-ffff-ffff-ffff-ffffffffffff"];
    let uuids = near("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}");
    check(&client, &types, &bounds, &singles(uuids, &edges)).await;
    let (types, bounds) =
        one(KeyType::Date, &["-infinity", "1999-12-31", "2024-02-29", "infinity"]);
    let edges = ["-infinity", "infinity", "2024-02-28", "2024-02-29", "2024-03-01", "9999-12-31"];
    let dates = near("(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])");
    check(&client, &types, &bounds, &singles(dates, &edges)).await;
    let (types, bounds) = one(
        KeyType::Timestamptz,
        &["2000-01-01 00:00:00+00", "2024-02-29 12:00:00.5+01:30", "infinity"],
    );
    let edges = ["-infinity", "infinity", "2024-02-29 10:30:00.499999Z", "2024-02-29T10:30:00.5Z"];
    let times = near(
        "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])[ T]([01][0-9]|2[0-3]):[0-5][0-9]\
         (:[0-5][0-9](\\.[0-9]{1,6})?)?[+-](0[0-9]|1[0-4])(:[0-5][0-9])?",
    );
    check(&client, &types, &bounds, &singles(times, &edges)).await;
}

#[tokio::test]
async fn keys_of_several_columns_are_compared_column_by_column() {
    let database = TestDatabase::create(1).await;
    let client = database.client(0).await;
    let types = [KeyType::Int4, KeyType::Text];
    let bounds = ranges(&types, &[&["-1"], &["1", "b"], &["1", "m"], &["2"], &["3", ""]]);
    let number = samples(&(-3..5_i32));
    let text = samples(&proptest::string::string_regex("[a-z]{0,2}").unwrap());
    let null = samples(&(0..20_u8));
    let keys = number.iter().zip(text).zip(null).map(|((number, text), null)| {
        vec![(null != 1).then(|| number.to_string()), (null != 2).then_some(text)]
    });
    check(&client, &types, &bounds, &keys.collect::<Vec<_>>()).await;
    let types = [KeyType::Int2, KeyType::Date, KeyType::Int8];
    let cuts: [&[&str]; 3] = [&["1"], &["1", "2020-05-05"], &["1", "2020-05-05", "7"]];
    let number = samples(&(0..3_i16));
    let day = samples(&(4..7_u8));
    let last = samples(&(5..9_i64));
    let keys = number.iter().zip(day).zip(last).map(|((number, day), last)| {
        [number.to_string(), format!("2020-05-0{day}"), last.to_string()].map(Some).to_vec()
    });
    check(&client, &types, &ranges(&types, &cuts), &keys.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn every_value_is_in_the_list_that_postgresql_puts_it_in() {
    let database = TestDatabase::create(1).await;
    let client = database.client(0).await;
    let list = |key_type: KeyType, values: &[Option<&str>]| {
        let values = values.iter().map(|value| key(&[key_type], &[value.map(str::to_owned)]));
        values.flatten().collect::<Vec<_>>()
    };
    let near = |strategy: &str| samples(&proptest::string::string_regex(strategy).unwrap());
    let text = |values: &[Option<&str>]| list(KeyType::Text, values);
    let keys = singles(near("[a-d]{0,2}"), &["it's", "A", "a ", "", "ä", "\\"]);
    let lists = [
        text(&[Some("a"), Some("it's"), None]),
        text(&[Some("b"), Some("\\")]),
        text(&[Some("ä")]),
    ];
    let mut bounds: Vec<Bounds> = lists.iter().cloned().map(Bounds::List).collect();
    check(&client, &[KeyType::Text], &bounds, &keys).await;
    bounds.push(Bounds::Others(lists.concat()));
    check(&client, &[KeyType::Text], &bounds, &keys).await;
    let lists = [text(&[Some("a")]), text(&[Some("b")])];
    let mut bounds: Vec<Bounds> = lists.iter().cloned().map(Bounds::List).collect();
    bounds.push(Bounds::Others(lists.concat()));
    check(&client, &[KeyType::Text], &bounds, &keys).await;
    let only_null = vec![Bounds::List(text(&[None])), Bounds::Others(text(&[None]))];
    check(&client, &[KeyType::Text], &only_null, &keys).await;
    let number = |values: &[Option<&str>]| list(KeyType::Int4, values);
    let lists = [number(&[Some("-1"), Some("5")]), number(&[Some("7")])];
    let mut bounds: Vec<Bounds> = lists.iter().cloned().map(Bounds::List).collect();
    bounds.push(Bounds::Others(lists.concat()));
    check(&client, &[KeyType::Int4], &bounds, &singles(near("-?[0-9]"), &["77"])).await;
}
