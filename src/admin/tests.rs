//! Over HTTP, with a catalog in a file.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{AdminServer, Metrics, Readiness, Service};
use crate::backend::{NodeAddress, Password};
use crate::catalog::{Catalog, EmbeddedKv, Expect};
use crate::executor::LiveMap;
use crate::forecast::Credit;
use crate::frontend::Directory;
use crate::ids::{Epoch, GroupId, MoveId, NodeId, ShardId};
use crate::shard_map::{Bounds, Group, KeyType, MapParts, Shard, ShardMap, Table, TableKind};
use crate::shard_move::{Cause, Move};
use crate::sql::TableName;

struct Running {
    server: AdminServer,
    catalog: Catalog,
    readiness: watch::Sender<Readiness>,
    folder: std::path::PathBuf,
}

impl Running {
    fn start(test: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("foreshard-admin-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let kv = EmbeddedKv::open(Path::new(&folder.join("catalog"))).unwrap();
        let catalog = Catalog::new(Arc::new(kv));
        let (readiness, receiver) = watch::channel(Readiness::Starting("n2 is down".to_owned()));
        let service = Service {
            catalog: catalog.clone(),
            live_map: LiveMap::new(map()),
            nodes: addresses().into(),
            status: Arc::new(|| json!({ "samples": 7 })),
            insight: crate::controller::Insight::default(),
            counters: crate::load::Counters::new(0, 0),
            samples: crate::load::Samples::default(),
            local: None,
            cluster: crate::cluster::Cluster::alone(catalog.clone()),
            progress: crate::mover::Progress::default(),
            directory: Directory::default(),
            imports: Arc::default(),
            reload: None,
            readiness: receiver,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = AdminServer::start(address, service, Metrics::detached().unwrap()).unwrap();
        Self { server: server.0, catalog, readiness, folder }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn map() -> ShardMap {
    let shard = |remainder, node| Shard {
        group: GroupId(0),
        bounds: Bounds::Hash { modulus: 2, remainder },
        node: NodeId(node),
    };
    let table = Table {
        name: TableName::new("public", "orders"),
        kind: TableKind::Sharded { group: GroupId(0), key: vec!["id".to_owned()] },
        columns: Vec::new(),
    };
    let parts = MapParts {
        epoch: Epoch(4),
        groups: vec![Group { name: "shop".to_owned(), key: vec![KeyType::Int8] }],
        shards: vec![shard(0, 0), shard(1, 1)],
        tables: vec![table],
        ..MapParts::of("shop", ["n1", "n2"])
    };
    ShardMap::try_from(parts).unwrap()
}

fn addresses() -> Vec<NodeAddress> {
    let address = |name: &str, port| NodeAddress {
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        user: "postgres".to_owned(),
        password: Some(Password::new("secret")),
        tls: crate::backend::NodeTls::default(),
        fence: None,
    };
    vec![address("n1", 5001), address("n2", 5002)]
}

#[tokio::test]
async fn the_map_and_the_nodes_are_shown_without_passwords() {
    let running = Running::start("map");
    let shards = running.json("/api/v1/shards").await;
    assert_eq!(shards["epoch"], 4);
    assert_eq!(shards["shards"][1]["node"], "n2");
    assert_eq!(shards["shards"][1]["tables"], json!(["public.orders_s1"]));
    let nodes = running.json("/api/v1/nodes").await;
    let first = json!({
        "id": 0, "node": "n1", "host": "127.0.0.1", "port": 5001, "home": true, "shards": [0], "standing": "member",
    });
    assert_eq!(nodes["nodes"][0], first);
    assert!(!nodes.to_string().contains("secret"));
    let status = running.json("/api/v1/status").await;
    assert_eq!(status, json!({ "ready": false, "epoch": 4, "controller": { "samples": 7 } }));
}

#[tokio::test]
async fn the_heatmap_and_the_accuracy_are_empty_until_the_controller_runs() {
    let running = Running::start("heatmap");
    let heatmap = running.json("/api/v1/heatmap?quantity=reads&past=10&ahead=5").await;
    assert_eq!((&heatmap["quantity"], &heatmap["shards"]), (&json!("reads"), &json!([])));
    assert_eq!(running.json("/api/v1/forecasts?shard=1").await, json!({ "forecasts": [] }));
    let (status, answer) = running.ask("GET", "/api/v1/heatmap?quantity=wishes", "").await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn events_are_added_announced_and_taken_away() {
    let running = Running::start("events");
    let sale =
        r#"{"name": "sale", "begins": "2030-11-27 08:00", "lasts_minutes": 60, "factor": 3}"#;
    assert_eq!(running.ask("POST", "/api/v1/events", sale).await.0, 201);
    let (status, answer) = running.ask("POST", "/api/v1/announcements", sale).await;
    assert!(status == 422 && answer.contains("client is missing"), "{answer}");
    let by_shop = sale.replace("\"name\": \"sale\"", "\"client\": \"shop\"");
    assert_eq!(running.ask("POST", "/api/v1/announcements", &by_shop).await.0, 201);
    let events = running.json("/api/v1/events").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 2);
    assert_eq!(events["events"][0]["name"], "announced/shop/");
    assert_eq!(
        (&events["events"][0]["client"], &events["events"][1]["client"]),
        (&json!("shop"), &Value::Null)
    );
    let mut credit = Credit::of("shop");
    credit.learn(3.0, 3.0);
    running.catalog.put(&credit, Expect::Absent).await.unwrap();
    let announced = running.json("/api/v1/announcements").await;
    assert_eq!(announced["announcements"].as_array().unwrap().len(), 1);
    assert!(announced["clients"][0]["trust"].as_f64().unwrap() > 0.6, "{announced}");
    let bad = sale.replace("2030-11-27 08:00", "soon");
    let (status, answer) = running.ask("POST", "/api/v1/events", &bad).await;
    assert_eq!(status, 422);
    assert!(answer.contains("is no time"), "{answer}");
    assert_eq!(running.ask("DELETE", "/api/v1/events?name=sale", "").await.0, 204);
    assert_eq!(running.ask("DELETE", "/api/v1/events?name=sale", "").await.0, 404);
    assert_eq!(running.json("/api/v1/events").await["events"].as_array().unwrap().len(), 1);
}

/// A short text as a client's frame of a WebSocket (RFC 6455, §5.2); masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[tokio::test]
async fn announcements_come_over_a_websocket_too() {
    let running = Running::start("socket");
    let mut stream = TcpStream::connect(running.server.address()).await.unwrap();
    let request = "GET /api/v1/announcements/socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
                   upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let said = r#"{"client": "shop", "lasts_minutes": 5, "factor": 2, "location": "eu-west"}"#;
    stream.write_all(&frame(said)).await.unwrap();
    stream.write_all(&frame("no announcement")).await.unwrap();
    let mut answer = Vec::new();
    let both = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).into_owned();
        (text.contains("announced/shop/") && text.contains("\"error\"")).then_some(text)
    };
    let text = loop {
        if let Some(text) = both(&answer) {
            break text;
        }
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    };
    assert!(text.starts_with("HTTP/1.1 101") && text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let events = running.json("/api/v1/events").await;
    assert_eq!(events["events"][0]["location"], "eu-west");
}

#[tokio::test]
async fn readiness_follows_the_proxy_and_health_does_not() {
    let running = Running::start("ready");
    assert_eq!(running.ask("GET", "/healthz", "").await, (200, "ok\n".to_owned()));
    assert_eq!(running.ask("GET", "/readyz", "").await, (503, "n2 is down\n".to_owned()));
    running.readiness.send_replace(Readiness::Ready);
    assert_eq!(running.ask("GET", "/readyz", "").await, (200, "ready\n".to_owned()));
    running.readiness.send_replace(Readiness::Stopping);
    assert_eq!(running.ask("GET", "/readyz", "").await, (503, "stopping\n".to_owned()));
}

#[tokio::test]
async fn moves_are_listed_newest_first_with_the_names_of_their_nodes() {
    let running = Running::start("moves");
    assert_eq!(running.json("/api/v1/moves").await, json!({ "moves": [] }));
    for id in 1..=3 {
        let (from, to) = (NodeId(0), NodeId(1));
        let record = Move::requested(MoveId(id), ShardId(0), from, to, Cause::Operator, 1_000 + id);
        running.catalog.put(&record, Expect::Absent).await.unwrap();
    }
    let moves = running.json("/api/v1/moves?limit=2").await;
    let moves = moves["moves"].as_array().unwrap();
    let ids: Vec<_> = moves.iter().map(|record| record["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [3, 2]);
    assert_eq!(moves[0]["from_node"], "n1");
    assert_eq!(moves[0]["to_node"], "n2");
    assert_eq!(moves[0]["state"], "requested");
    assert_eq!(moves[0]["finished"], false);
}

#[tokio::test]
async fn a_move_is_asked_for_once_by_a_record() {
    let running = Running::start("request");
    let body = "{\"shard\": 0, \"node\": \"n2\"}";
    let (status, answer) = running.ask("POST", "/api/v1/moves", body).await;
    assert_eq!((status, answer.as_str()), (202, r#"{"id":1,"node":"n2","shards":[0]}"#));
    let stored = running.catalog.list::<Move>().await.unwrap().remove(0).record;
    assert_eq!((stored.shard, stored.from, stored.to), (ShardId(0), NodeId(0), NodeId(1)));
    assert_eq!(stored.cause, Cause::Operator);
    let (status, answer) = running.ask("POST", "/api/v1/moves", body).await;
    assert_eq!(status, 409);
    assert!(answer.contains("being moved already, by move 1"), "{answer}");
}

#[tokio::test]
async fn wrong_requests_get_a_status_code_and_say_what_is_wrong() {
    let running = Running::start("wrong");
    let cases = [
        ("GET", "/nowhere", "", 404, "no such path"),
        ("GET", "/api/v1/nowhere", "", 404, "no such path"),
        ("DELETE", "/api/v1/moves", "", 405, "no such method"),
        ("GET", "/api/v1/moves?limit=many", "", 400, "invalid digit"),
        ("GET", "/api/v1/moves?page=2", "", 400, "unknown field"),
        ("POST", "/api/v1/moves", "{", 400, "EOF"),
        ("POST", "/api/v1/moves", "{\"shard\": -1, \"node\": \"n2\"}", 422, "invalid value"),
        ("POST", "/api/v1/moves", "{\"shard\": 9, \"node\": \"n2\"}", 404, "no shard 9"),
        ("POST", "/api/v1/moves", "{\"shard\": 0, \"node\": \"n9\"}", 404, "no node \"n9\""),
        ("POST", "/api/v1/moves", "{\"shard\": 0, \"node\": \"n1\"}", 409, "on node n1 already"),
    ];
    for (method, path, body, expected, words) in cases {
        let (status, answer) = running.ask(method, path, body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"].as_str().unwrap().contains(words), "{method} {path}: {answer}");
    }
}
