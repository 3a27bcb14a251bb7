//! Connections to a node that break in the middle of transactions over several: what is committed is
//! seen by everybody, and what has lost a part is not committed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use foreshard::executor;
use foreshard::runtime::Tasks;
use support::gap::Gap;
use support::{TestDatabase, TestProxy, rows};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};

const POLICY: &str = "groups:\n  shop: { key: bigint, shards: 4, tables: { accounts: id } }\n\
                      placement: { mode: 'off' }\n";

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
        gap.arm("COMMIT PREPARED");
        writer.batch_execute(&format!("UPDATE accounts SET version = {version}")).await.unwrap();
        assert!(!gap.is_armed(), "the connection was broken");
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

#[tokio::test]
async fn a_transaction_that_has_lost_a_nodes_part_goes_on_from_no_savepoint() {
    let mut database = TestDatabase::create(2).await;
    let direct = [database.client(0).await, database.client(1).await];
    let gap = Gap::before(database.nodes[1].port).await;
    database.nodes[1].port = gap.port;
    let proxy = TestProxy::start(&database, POLICY).await;
    let client = proxy.client().await;
    for sql in [
        "CREATE TABLE accounts (id bigint PRIMARY KEY, version int NOT NULL)",
        "INSERT INTO accounts SELECT n, 0 FROM generate_series(1, 40) n",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let mut ids = Vec::new();
    for node in &direct {
        ids.push(rows(node, "SELECT min(id) FROM accounts").await.remove(0));
    }
    let set =
        |id: &str, version: i32| format!("UPDATE accounts SET version = {version} WHERE id = {id}");
    for _ in 0..5 {
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&set(&ids[0], 1)).await.unwrap();
        client.batch_execute(&set(&ids[1], 1)).await.unwrap();
        client.batch_execute("SAVEPOINT here").await.unwrap();
        gap.arm("UPDATE");
        let broken = client.batch_execute(&set(&ids[1], 2)).await.unwrap_err();
        assert_eq!(broken.code().unwrap().code(), "08006", "{broken:?}");
        let refused = client.batch_execute("ROLLBACK TO here").await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "25P02", "{refused:?}");
        let refused = client.batch_execute(&set(&ids[0], 3)).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "25P02", "{refused:?}");
        client.batch_execute("COMMIT").await.unwrap();
        let seen = rows(&client, "SELECT DISTINCT version FROM accounts").await;
        assert_eq!(seen, ["0"], "nothing of it is committed");
    }
}

/// What has to do with temporary tables can't be prepared: what comes of that part decides.
#[tokio::test]
async fn a_part_that_cannot_be_prepared_takes_the_others_with_it() {
    let mut database = TestDatabase::create(2).await;
    let gap = Gap::before(database.nodes[0].port).await;
    database.nodes[0].port = gap.port;
    // The resolver alone would come too late.
    let config = executor::Config { resolve_interval_s: 3_600, ..executor::Config::default() };
    let proxy = TestProxy::start_limited(&database, POLICY, config).await;
    let reader = proxy.client().await;
    for sql in [
        "CREATE TABLE accounts (id bigint PRIMARY KEY, version int NOT NULL)",
        "INSERT INTO accounts SELECT n, 0 FROM generate_series(1, 40) n",
        "CREATE TABLE checked (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    ] {
        reader.batch_execute(sql).await.unwrap();
    }
    let seen = "SELECT DISTINCT version FROM accounts";
    for version in 1..=10 {
        let writer = proxy.client().await;
        let update =
            format!("UPDATE accounts SET version = {version} FROM few WHERE few.id = accounts.id");
        let statements = [
            "BEGIN",
            "CREATE TEMP TABLE few ON COMMIT DROP AS SELECT n AS id FROM generate_series(1, 40) n",
            &update,
            "INSERT INTO checked VALUES (1)",
        ];
        let begin = async || {
            for sql in statements {
                writer.batch_execute(sql).await.unwrap();
            }
        };
        // It is checked when it is committed: the other node is prepared by then.
        begin().await;
        writer.batch_execute("INSERT INTO checked VALUES (1)").await.unwrap();
        let failed = writer.batch_execute("COMMIT").await.unwrap_err();
        assert_eq!(failed.code().unwrap().code(), "23505", "{failed:?}");
        assert_eq!(rows(&reader, seen).await, [(version - 1).to_string()]);
        begin().await;
        gap.arm("COMMIT");
        let broken = writer.batch_execute("COMMIT").await.unwrap_err();
        assert!(!gap.is_armed(), "the connection was broken");
        assert_eq!(broken.code().unwrap().code(), "08006", "{broken:?}");
        assert_eq!(rows(&reader, seen).await, [(version - 1).to_string()]);
        begin().await;
        writer.batch_execute("COMMIT").await.unwrap();
        assert_eq!(rows(&reader, seen).await, [version.to_string()]);
        reader.batch_execute("DELETE FROM checked").await.unwrap();
    }
    let prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    for node in [0, 1] {
        let client = database.client(node).await;
        assert_eq!(rows(&client, prepared).await, [] as [&str; 0]);
    }
}

#[tokio::test]
async fn what_a_transaction_only_tells_is_not_heard_if_another_node_does_not_commit() {
    let policy = "groups:\n  shop: { key: bigint, shards: 4, tables: { parts: account } }\n\
                  placement: { mode: 'off' }\n";
    let database = TestDatabase::create(2).await;
    let proxy = TestProxy::start(&database, policy).await;
    let writer = proxy.client().await;
    let table = "CREATE TABLE parts (account bigint, part int, \
                 UNIQUE (account, part) DEFERRABLE INITIALLY DEFERRED)";
    writer.batch_execute(table).await.unwrap();
    writer
        .batch_execute("INSERT INTO parts SELECT n, 0 FROM generate_series(1, 40) n")
        .await
        .unwrap();
    let other = database.client(1).await;
    let account = rows(&other, "SELECT min(account) FROM parts").await.remove(0);
    let (listener, mut connection) = connection_to(&database).await;
    let (tell, mut heard) = tokio::sync::mpsc::channel(10);
    let tasks = Tasks::new();
    drop(tasks.spawn("listener", async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(note) = message {
                tell.send(note.payload().to_owned()).await.unwrap();
            }
        }
    }));
    listener.batch_execute("LISTEN news").await.unwrap();
    writer.batch_execute("BEGIN").await.unwrap();
    writer.batch_execute("NOTIFY news, 'lost'").await.unwrap();
    writer.batch_execute(&format!("INSERT INTO parts VALUES ({account}, 0)")).await.unwrap();
    let failed = writer.batch_execute("COMMIT").await.unwrap_err();
    assert_eq!(failed.code().unwrap().code(), "23505", "{failed:?}");
    writer.batch_execute("BEGIN").await.unwrap();
    writer.batch_execute("NOTIFY news, 'kept'").await.unwrap();
    writer.batch_execute(&format!("INSERT INTO parts VALUES ({account}, 1)")).await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(heard.recv().await.as_deref(), Some("kept"));
    assert_eq!(rows(&other, "SELECT count(*) FROM parts WHERE part = 1").await, ["1"]);
}

async fn connection_to(database: &TestDatabase) -> (Client, Connection<Socket, NoTlsStream>) {
    let node = &database.nodes[0];
    let mut config = Config::new();
    config.host(&node.host).port(node.port).user(&node.user).dbname(&database.name);
    config.connect(NoTls).await.unwrap()
}
