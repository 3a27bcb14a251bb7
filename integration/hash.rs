//! The proxy's key hash and key syntax against a real server's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use foreshard::shard_map::{KeyType, KeyValue, hash_key};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::{TestDatabase, rows};
use tokio_postgres::Client;

/// A date from the year 1000 on.
const DATE: &str = "[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";

/// How many values of each kind are tried.
const VALUES: usize = 400;

fn samples<S: Strategy>(strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..VALUES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Checks that the server puts each key where the proxy does: into remainder `hash % 1024`.
async fn check(client: &Client, types: &[KeyType], keys: &[Vec<Option<String>>]) {
    let names: Vec<&str> = types.iter().map(|key_type| key_type.name()).collect();
    let table = names.join("_").replace(' ', "");
    let columns: Vec<String> =
        names.iter().enumerate().map(|(i, name)| format!("c{i} {name}")).collect();
    let list: Vec<String> = (0..names.len()).map(|i| format!("c{i}")).collect();
    let create = format!(
        "CREATE TABLE {table} ({}) PARTITION BY HASH ({})",
        columns.join(", "),
        list.join(", ")
    );
    client.batch_execute(&create).await.unwrap();
    let mut tests = Vec::new();
    for key in keys {
        let values: Vec<KeyValue> = types
            .iter()
            .zip(key)
            .map(|(key_type, value)| match value {
                None => KeyValue::Null,
                Some(text) => key_type.parse(text.as_bytes()).unwrap(),
            })
            .collect();
        let sql: Vec<String> = names
            .iter()
            .zip(key)
            .map(|(name, value)| {
                let value = value.as_deref().map_or("NULL".to_owned(), literal);
                format!("{value}::{name}")
            })
            .collect();
        let remainder = hash_key(&values) % 1024;
        let sql = sql.join(", ");
        tests.push(format!(
            "SELECT satisfies_hash_partition('{table}'::regclass, 1024, {remainder}, {sql})"
        ));
    }
    let wrong = rows(client, &tests.join(" UNION ALL ")).await;
    for (key, right) in keys.iter().zip(&wrong) {
        assert_eq!(right, "t", "{names:?} {key:?}");
    }
    assert_eq!(wrong.len(), keys.len());
}

fn strings<T: ToString>(values: Vec<T>) -> Vec<Vec<Option<String>>> {
    values.into_iter().map(|value| vec![Some(value.to_string())]).collect()
}

fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[tokio::test]
async fn any_key_hashes_as_the_server_hashes_it() {
    let database = TestDatabase::create(1).await;
    let client = database.client(0).await;
    check(&client, &[KeyType::Int2], &strings(samples(&any::<i16>()))).await;
    check(&client, &[KeyType::Int4], &strings(samples(&any::<i32>()))).await;
    check(&client, &[KeyType::Int8], &strings(samples(&any::<i64>()))).await;
    check(&client, &[KeyType::Text], &strings(samples(&"[^\u{0}]{0,40}"))).await;
    let uuids = samples(&any::<u128>()).into_iter().map(uuid).collect();
    check(&client, &[KeyType::Uuid], &strings(uuids)).await;
    let dates = samples(&proptest::string::string_regex(DATE).unwrap());
    check(&client, &[KeyType::Date], &strings(dates.clone())).await;
    let times = dates.iter().map(|date| format!("{date} 03:04:05.678901+02"));
    check(&client, &[KeyType::Timestamptz], &strings(times.collect())).await;
    let two = samples(&(any::<Option<i64>>(), proptest::option::of("[^\u{0}]{0,20}")));
    let two: Vec<_> = two.into_iter().map(|(a, b)| vec![a.map(|a| a.to_string()), b]).collect();
    check(&client, &[KeyType::Int8, KeyType::Text], &two).await;
    let three = samples(&(any::<Option<u128>>(), any::<i16>(), any::<Option<i32>>()));
    let three: Vec<_> = three
        .into_iter()
        .map(|(a, b, c)| vec![a.map(uuid), Some(b.to_string()), c.map(|c| c.to_string())])
        .collect();
    check(&client, &[KeyType::Uuid, KeyType::Int2, KeyType::Int4], &three).await;
}

/// What the proxy calls invalid goes to any node for its error: there must be one.
#[tokio::test]
async fn text_that_the_proxy_calls_invalid_is_invalid_to_the_server() {
    let database = TestDatabase::create(1).await;
    let client = database.client(0).await;
    let function = "CREATE FUNCTION reads(value text, kind regtype) RETURNS text LANGUAGE plpgsql \
        AS $$ DECLARE r text; BEGIN EXECUTE format('SELECT %L::%s', value, kind) INTO r; RETURN r; \
        EXCEPTION WHEN data_exception THEN RETURN 'invalid'; END $$";
    client.batch_execute(function).await.unwrap();
    let cases = [
        (KeyType::Int2, samples(&"[ \t\n]?[-+]?[0-9_]{0,6}[ .ex]?")),
        (KeyType::Int4, samples(&"[ \u{b}]?[-+ ]?0?[xob]?[0-9]{0,11} ?")),
        (KeyType::Int8, samples(&"[-+]?[0-9]{17,20}|[^\u{0}]{0,4}")),
        (KeyType::Uuid, samples(&"\\{?[0-9a-fA-F]{8}-?([0-9a-f]{4}-?){3,5}[0-9a-f]{4,8}-?\\}?")),
    ];
    for (key_type, texts) in cases {
        let calls = texts
            .iter()
            .map(|text| format!("SELECT reads({}, '{}')", literal(text), key_type.name()));
        let read = rows(&client, &calls.collect::<Vec<_>>().join(" UNION ALL ")).await;
        let mut valid = 0;
        for (text, read) in texts.iter().zip(read) {
            let ours = key_type.parse(text.as_bytes());
            if read != "invalid" {
                valid += 1;
                let theirs = key_type.parse(read.as_bytes());
                assert!(ours.is_ok() && ours == theirs, "{key_type:?} {text:?}: {read} {ours:?}");
            }
        }
        assert!(valid > VALUES / 50, "{key_type:?}: only {valid} valid");
    }
}
