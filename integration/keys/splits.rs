//! Moves, splits and merges of ranges and lists.

use foreshard::ids::{NodeId, ShardId};
use foreshard::mover::{HowToSplit, Wanted};
use foreshard::shard_map::KeyValue;

use super::shop::Shop;
use super::support::rows;

async fn fill(shop: &Shop) {
    shop.all_same(&[
        "INSERT INTO tenants SELECT g, 'n' || g FROM generate_series(-20, 3500) g",
        "INSERT INTO orders SELECT id, i, name FROM tenants, generate_series(1, 2) i",
        "INSERT INTO places SELECT r, r || g FROM generate_series(1, 20) g, \
         unnest(ARRAY['eu', 'uk', 'us', NULL, 'it''s', 'xx', 'yy', '']) r",
        "INSERT INTO visits SELECT date '2023-12-01' + g, v, g FROM generate_series(1, 500) g, \
         generate_series(1, 10) v",
        "INSERT INTO names SELECT chr(97 + g % 26) || g, g FROM generate_series(1, 300) g",
        "INSERT INTO events SELECT timestamptz '2023-12-01 00:00+00' + g * interval '7 hours', g \
         FROM generate_series(1, 2000) g",
    ])
    .await;
}

/// The shard that holds a key of a group.
fn shard_of(shop: &Shop, group: &str, key: &[KeyValue]) -> ShardId {
    let map = shop.map();
    let at = map.groups().iter().position(|g| g.name == group).unwrap();
    map.shard_of(foreshard::ids::GroupId(u16::try_from(at).unwrap()), key).unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn text(text: &str) -> KeyValue {
    KeyValue::Text(text.as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_moved_split_at_a_key_and_merged_with_its_neighbour() {
    let shop = Shop::start().await;
    fill(&shop).await;
    let int = |value| [KeyValue::Int(value)];
    let shard = shard_of(&shop, "shop", &int(1500));
    let to = NodeId((shop.map().node_of(shard).0 + 1) % 3);
    shop.change(&Wanted::Move { shards: vec![shard], to }).await;
    assert_eq!(shop.map().node_of(shard), to);
    shop.same_tables().await;
    let how = HowToSplit::At(texts(&["1234"]));
    let mv = shop.change(&Wanted::Split { shard, how, to: vec![NodeId(0), NodeId(2)] }).await;
    assert_eq!(mv.targets().len(), 2);
    let (low, high) = (shard_of(&shop, "shop", &int(1233)), shard_of(&shop, "shop", &int(1234)));
    assert_eq!([shop.map().node_of(low), shop.map().node_of(high)], [NodeId(0), NodeId(2)]);
    let sql = format!("SELECT min(id), max(id) FROM tenants_s{high}");
    assert_eq!(rows(&shop.database.client(2).await, &sql).await, ["1234|1999"]);
    shop.same_tables().await;
    // Its neighbours are those beside it, wherever they came from.
    let next = shard_of(&shop, "shop", &int(2000));
    let shards = vec![next, high];
    shop.change(&Wanted::Merge { shards, to: Some(NodeId(1)) }).await;
    shop.all_same(&[
        "INSERT INTO tenants VALUES (99999, 'new')",
        "SELECT count(*) FROM tenants WHERE id >= 1234 AND id < 3000",
        "UPDATE orders SET note = 'late' WHERE tenant_id BETWEEN 1230 AND 1240",
    ])
    .await;
    // A proxy that starts again over the same catalog has the same ranges.
    let map = shop.map();
    let Shop { database: _database, proxy, .. } = shop;
    let proxy = proxy.restart().await;
    assert_eq!(*proxy.proxy.engine.live_map.snapshot(), map);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_dates_texts_and_several_columns_are_split() {
    let shop = Shop::start().await;
    fill(&shop).await;
    let day = KeyValue::Date(8_918);
    let cases = [
        ("days", vec![day, KeyValue::Int(6)], texts(&["2024-06-01", "7"])),
        ("names", vec![text("b")], texts(&["c'\\"])),
        ("times", vec![KeyValue::Timestamp(i64::MIN)], texts(&["2023-12-24 12:00:00.5+00"])),
    ];
    for (group, key, at) in cases {
        let shard = shard_of(&shop, group, &key);
        let to = NodeId((shop.map().node_of(shard).0 + 1) % 3);
        let how = HowToSplit::At(at);
        shop.change(&Wanted::Split { shard, how, to: vec![to] }).await;
    }
    shop.all_same(&[
        "SELECT * FROM visits WHERE day = '2024-06-01' AND visitor >= 5",
        "INSERT INTO events VALUES ('2023-12-24 12:00:00.499999+00', 1), ('2023-12-24 12:00:00.5+00', 2)",
        "INSERT INTO names VALUES ('c', 1), ('c''', 2), ('c''\\', 3), ('c''\\x', 4)",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_leave_a_list_or_the_rest_and_come_back() {
    let shop = Shop::start().await;
    fill(&shop).await;
    let shard = shard_of(&shop, "places", &[text("us")]);
    let how = HowToSplit::Values(vec![None]);
    shop.change(&Wanted::Split { shard, how, to: vec![NodeId(0), NodeId(2)] }).await;
    let us = shard_of(&shop, "places", &[text("us")]);
    let null = shard_of(&shop, "places", &[KeyValue::Null]);
    assert_eq!([shop.map().node_of(us), shop.map().node_of(null)], [NodeId(0), NodeId(2)]);
    shop.same_tables().await;
    let rest = shard_of(&shop, "places", &[text("anything")]);
    let on = shop.map().node_of(rest);
    let how = HowToSplit::Values(vec![Some("xx".to_owned()), Some("new".to_owned())]);
    let to = vec![on, NodeId((on.0 + 1) % 3)];
    shop.change(&Wanted::Split { shard: rest, how, to }).await;
    shop.all_same(&[
        "INSERT INTO places VALUES ('new', 'n'), ('other', 'o'), ('xx', 'x')",
        "SELECT * FROM places WHERE region IN ('xx', 'yy')",
    ])
    .await;
    // What the node of the rest must not take, since others hold it, it does not take.
    let rest = shard_of(&shop, "places", &[text("anything")]);
    let node = shop.map().node_of(rest).index();
    let client = shop.database.client(node).await;
    for foreign in ["'xx'", "'new'"] {
        let sql = format!("INSERT INTO places VALUES ({foreign}, 'stray')");
        let error = client.batch_execute(&sql).await.expect_err(&sql);
        assert_eq!(error.code().unwrap().code(), "23514", "{error:?}");
    }
    // Beside a DEFAULT partition nothing is detached concurrently: the switch waits for a reader.
    let reader = shop.database.client(node).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM places").await.unwrap();
    let release = async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        reader.batch_execute("COMMIT").await.unwrap();
    };
    let to = NodeId(u16::try_from((node + 2) % 3).unwrap());
    let wanted = Wanted::Move { shards: vec![rest], to };
    tokio::join!(release, shop.change(&wanted));
    let listed = shard_of(&shop, "places", &[text("xx")]);
    shop.change(&Wanted::Merge { shards: vec![listed, rest, us], to: Some(NodeId(1)) }).await;
    shop.all_same(&[
        "INSERT INTO places VALUES ('new', 'n'), ('us', 'u'), (NULL, 'x')",
        "SELECT * FROM places WHERE region IN ('xx', 'us')",
    ])
    .await;
    let rest = shard_of(&shop, "places", &[text("us")]);
    shop.change(&Wanted::Move { shards: vec![rest], to: NodeId(2) }).await;
    shop.same_tables().await;
}
