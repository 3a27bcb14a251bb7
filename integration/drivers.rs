//! Real drivers of several languages, each with a program that uses what its users use: prepared
//! statements, binary values, transactions, COPY, errors, notifications, pools.
//!
//! A language whose toolchain is not on the machine is skipped, and says so; everything else that is
//! missing is installed by `setup/install.sh`, or is an error.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

mod support;

use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use support::{TestDatabase, TestProxy, rows};
use tokio::process::Command;
use tokio_postgres::{AsyncMessage, NoTls};

/// How long an installation, and a program, may take.
const PATIENCE: Duration = Duration::from_mins(4);

/// Runs a program to its end; what it printed.
async fn run(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
        .env("NODE_PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/target/drivers/node/node_modules"));
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    said
}

/// Whether a toolchain is on the machine; says so if it is not. Installs the drivers for it.
async fn has(toolchain: &[&str], drivers: &str) -> bool {
    for program in toolchain {
        let mut look = Command::new(program);
        look.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if look.status().await.is_err() {
            println!("skipped: there is no {program} on this machine");
            return false;
        }
    }
    run("bash", &["integration/setup/install.sh", drivers]).await;
    true
}

/// A proxy over two nodes.
async fn proxy() -> TestProxy {
    let database = TestDatabase::create(2).await;
    let policy = "groups: {g: {key: bigint, shards: 4, tables: {sharded: id}}}";
    TestProxy::start(&database, policy).await
}

fn url(proxy: &TestProxy) -> String {
    format!("postgresql://postgres@127.0.0.1:{}/{}", proxy.proxy.address.port(), proxy.database)
}

#[tokio::test]
async fn psycopg_3_works() {
    if !has(&["python3"], "python-drivers").await {
        return;
    }
    let proxy = proxy().await;
    let python = "target/drivers/python/bin/python";
    assert_eq!(run(python, &["integration/drivers/psycopg3.py", &url(&proxy)]).await, "ok\n");
}

#[tokio::test]
async fn asyncpg_works() {
    if !has(&["python3"], "python-drivers").await {
        return;
    }
    let proxy = proxy().await;
    let python = "target/drivers/python/bin/python";
    assert_eq!(run(python, &["integration/drivers/asyncpg_test.py", &url(&proxy)]).await, "ok\n");
}

#[tokio::test]
async fn node_postgres_works() {
    if !has(&["node", "npm"], "node-drivers").await {
        return;
    }
    let proxy = proxy().await;
    assert_eq!(run("node", &["integration/drivers/node_postgres.js", &url(&proxy)]).await, "ok\n");
}

#[tokio::test]
async fn pgjdbc_works() {
    if !has(&["java", "javac"], "java-driver").await {
        return;
    }
    let proxy = proxy().await;
    let place = format!("jdbc:{}", url(&proxy).replace("postgres@", ""));
    let program = "integration/drivers/Pgjdbc.java";
    let args = ["-cp", "/usr/share/java/postgresql.jar", program, &place, "postgres"];
    assert_eq!(run("java", &args).await, "ok\n");
}

#[tokio::test]
async fn tokio_postgres_works() {
    let proxy = proxy().await;
    let (mut client, mut connection) = proxy.config().connect(NoTls).await.unwrap();
    let (heard_by, mut heard) = tokio::sync::mpsc::channel(8);
    drop(foreshard::runtime::Tasks::new().spawn("client", async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(note) = message {
                heard_by.send(note.payload().to_owned()).await.unwrap();
            }
        }
    }));
    let table =
        "CREATE TABLE rust (id int PRIMARY KEY, ns int8[], at timestamptz, raw bytea, f float8)";
    client.batch_execute(table).await.unwrap();
    let at = std::time::UNIX_EPOCH + Duration::from_micros(1_709_209_801_123_456);
    let (ns, raw) = (vec![Some(1_i64), None, Some(i64::MIN)], vec![0_u8, 255]);
    let insert = client.prepare("INSERT INTO rust VALUES ($1, $2, $3, $4, $5)").await.unwrap();
    client.execute(&insert, &[&1, &ns, &at, &raw, &f64::NAN]).await.unwrap();
    let row = client.query_one("SELECT * FROM rust WHERE id = $1", &[&1]).await.unwrap();
    assert_eq!(row.get::<_, Vec<Option<i64>>>(1), ns);
    assert_eq!((row.get::<_, std::time::SystemTime>(2), row.get::<_, Vec<u8>>(3)), (at, raw));
    assert!(row.get::<_, f64>(4).is_nan());

    // Statements that do not wait for each other.
    let double = client.prepare("SELECT $1::int * 2").await.unwrap();
    let asked = (0..100).map(|n| {
        let (client, double) = (&client, &double);
        async move { client.query_one(double, &[&n]).await.unwrap().get::<_, i32>(0) }
    });
    let doubled = futures_util::future::join_all(asked).await;
    assert_eq!(doubled, (0..100).map(|n| 2 * n).collect::<Vec<_>>());

    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT generate_series(1, 10)", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 4).await.unwrap().len(), 4);
    assert_eq!(transaction.query_portal(&portal, 40).await.unwrap().len(), 6);
    let error = transaction.execute(&insert, &[&1, &ns, &at, &vec![0_u8], &0.0]).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().constraint(), Some("rust_pkey"));
    transaction.rollback().await.unwrap();

    let mut sink = Box::pin(client.copy_in("COPY rust (id) FROM STDIN").await.unwrap());
    for id in 100..1100 {
        sink.send(bytes::Bytes::from(format!("{id}\n"))).await.unwrap();
    }
    assert_eq!(sink.as_mut().finish().await.unwrap(), 1000);
    let copied = client.copy_out("COPY rust TO STDOUT (FORMAT binary)").await.unwrap();
    let copied: Vec<_> = copied.collect().await;
    assert!(copied.iter().all(Result::is_ok) && copied.len() > 1000);

    client.batch_execute("LISTEN rust_news").await.unwrap();
    proxy.client().await.batch_execute("NOTIFY rust_news, 'hello'").await.unwrap();
    let note = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap();
    assert_eq!(note.as_deref(), Some("hello"));
    assert_eq!(rows(&client, "SELECT count(*) FROM rust").await, ["1001"]);
}
