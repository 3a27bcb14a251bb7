//! Which shards events touch, and what clients learn to be worth.

use std::collections::BTreeMap;

use super::super::planning::{Past, Picture, Studies};
use super::{Expectations, Pledges, touched};
use crate::forecast::{Config, Event};
use crate::ids::{GroupId, NodeId};
use crate::load::{History, Rates, ShardRates};
use crate::shard_map::{
    Bounds, Group, KeyType, KeyValue, MapParts, Shard, ShardMap, Table, TableKind,
};
use crate::sql::TableName;

const MINUTE_MS: u64 = 60_000;

/// Two groups of two shards: of `orders`, and of `logs`.
fn map() -> ShardMap {
    let shard = |(group, remainder)| Shard {
        group: GroupId(group),
        bounds: Bounds::Hash { modulus: 2, remainder },
        node: NodeId(0),
    };
    let table = |name: &str, group| Table {
        name: TableName::new("public", name),
        kind: TableKind::Sharded { group: GroupId(group), key: vec!["id".to_owned()] },
        columns: Vec::new(),
    };
    let group = |name: &str| Group { name: name.to_owned(), key: vec![KeyType::Int8] };
    let parts = MapParts {
        groups: vec![group("a"), group("b")],
        shards: [(0, 0), (0, 1), (1, 0), (1, 1)].map(shard).to_vec(),
        tables: vec![table("orders", 0), table("logs", 1)],
        ..MapParts::of("shop", ["n1"])
    };
    parts.try_into().unwrap()
}

fn config() -> Config {
    Config {
        day_ms: 40 * MINUTE_MS,
        week_ms: None,
        horizon_ms: 30 * MINUTE_MS,
        ..Config::default()
    }
}

/// Announced by a client at `begins`, for ten minutes.
fn announced(client: &str, begins: u64, factor: f64) -> Event {
    Event {
        name: format!("announced/{client}/{begins}"),
        begins: (begins * 60).to_string(),
        lasts_minutes: 10,
        factor: Some(factor),
        tables: vec!["orders".to_owned()],
        client: Some(client.to_owned()),
        ..Event::default()
    }
}

#[test]
fn an_event_touches_the_shards_of_its_tables_and_keys() {
    let map = map();
    let event = |tables: &[&str], keys: &[&str]| Event {
        tables: tables.iter().map(|name| (*name).to_owned()).collect(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..Event::default()
    };
    assert_eq!(touched(&event(&[], &[]), &map), [true; 4]);
    assert_eq!(touched(&event(&["public.logs"], &[]), &map), [false, false, true, true]);
    assert_eq!(touched(&event(&["other"], &[]), &map), [false; 4]);
    let owner = map.shard_of(GroupId(0), &[KeyValue::Int(42)]).unwrap();
    let of_key = touched(&event(&["orders"], &["42", "no number"]), &map);
    assert_eq!(of_key.iter().filter(|touched| **touched).count(), 1);
    assert!(of_key[owner.index()]);
}

/// Plays 200 minutes of a load of 1 in which each of two clients announces three rushes; those of
/// `true` come.
#[test]
fn a_client_that_was_right_gains_and_one_that_was_wrong_loses() {
    let (map, config) = (map(), config());
    let mut history = History::new(MINUTE_MS, 40, 1_000);
    let rush = |step: u64| step > 130 && step % 20 < 10;
    let (mut pledges, mut credits) = (Pledges::default(), BTreeMap::new());
    for step in 0..200 {
        let known = Expectations {
            events: vec![
                announced("right", step / 20 * 20 + 20, 3.0),
                Event {
                    tables: vec!["logs".to_owned()],
                    ..announced("wrong", step / 20 * 20 + 20, 3.0)
                },
            ],
            credits: credits.clone(),
        };
        if step >= 130 {
            let picture = Picture::of(&Past::of(&history, false), &config, &Studies::default());
            pledges.note(&picture, &known, &map, &config);
        }
        let busy = |shard: u32| ShardRates {
            busy: if shard < 2 && rush(step) { 3.0 } else { 1.0 },
            ..ShardRates::default()
        };
        history.push(step, &Rates { shards: (0..4).map(busy).collect(), nodes: vec![0.0] });
        for credit in pledges.settle(&history, &credits) {
            credits.insert(credit.client.clone(), credit);
        }
    }
    let trust = |client: &str| credits[client].trust();
    assert!(trust("right") > 0.6, "{credits:?}");
    assert!(trust("wrong") < 0.4, "{credits:?}");
}
