//! A node that can't finish its part of a committed transaction at once shows nobody what was before.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foreshard::executor;
use foreshard::runtime::Tasks;
use support::{TestDatabase, TestProxy, rows};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const POLICY: &str = "groups:\n  shop: { key: bigint, shards: 4, tables: { accounts: id } }\n\
                      placement: { mode: 'off' }\n";

/// Stands before a node; once armed, it breaks the connection that is about to commit what it has
/// prepared.
struct Gap {
    port: u16,
    armed: Arc<AtomicBool>,
    tasks: Tasks,
}

impl Gap {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gap = Self {
            port: listener.local_addr().unwrap().port(),
            armed: Arc::default(),
            tasks: Tasks::new(),
        };
        let (armed, tasks) = (Arc::clone(&gap.armed), gap.tasks.clone());
        drop(gap.tasks.spawn("gap", async move {
            while let Ok((client, _)) = listener.accept().await {
                let node = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                drop(tasks.spawn("link", link(client, node, Arc::clone(&armed))));
            }
        }));
        gap
    }
}

async fn link(client: TcpStream, node: TcpStream, armed: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let there = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = from_client.read(&mut bytes).await.unwrap_or(0);
            let said = bytes[..count].windows(15).any(|part| part == b"COMMIT PREPARED");
            if count == 0 || said && armed.swap(false, Ordering::SeqCst) {
                return;
            }
            if to_node.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let back = tokio::io::copy(&mut from_node, &mut to_client);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}

#[tokio::test]
async fn an_acknowledged_commit_is_seen_by_everybody_though_a_node_missed_its_end() {
    let mut database = TestDatabase::create(2).await;
    let gap = Gap::before(database.nodes[1].port).await;
    database.nodes[1].port = gap.port;
    // The resolver alone would come too late.
    let config = executor::Config { resolve_interval_s: 3_600, ..executor::Config::default() };
    let proxy = TestProxy::start_limited(&database, POLICY, config).await;
    let (writer, reader) = (proxy.client().await, proxy.client().await);
    writer
        .batch_execute("CREATE TABLE accounts (id bigint PRIMARY KEY, version int NOT NULL)")
        .await
        .unwrap();
    writer
        .batch_execute("INSERT INTO accounts SELECT n, 0 FROM generate_series(1, 40) n")
        .await
        .unwrap();
    for version in 1..=20 {
        // One that is inside of a transaction sees it as well.
        reader.batch_execute("BEGIN").await.unwrap();
        reader.batch_execute("SELECT count(*) FROM accounts").await.unwrap();
        gap.armed.store(true, Ordering::SeqCst);
        writer.batch_execute(&format!("UPDATE accounts SET version = {version}")).await.unwrap();
        assert!(!gap.armed.load(Ordering::SeqCst), "the connection was broken");
        let seen = "SELECT DISTINCT version FROM accounts";
        assert_eq!(rows(&reader, seen).await, [version.to_string()]);
        reader.batch_execute("COMMIT").await.unwrap();
        assert_eq!(rows(&writer, seen).await, [version.to_string()]);
    }
    let prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    for node in [0, 1] {
        let client = database.client(node).await;
        assert_eq!(rows(&client, prepared).await, [] as [&str; 0]);
    }
}
