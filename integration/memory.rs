//! A scan, a sort and a cursor over a million rows on three nodes: what the proxy keeps of them is
//! bounded. The proxy runs in this process, and no other test does.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by a panic")]

mod support;

use std::fs;
use std::pin::pin;

use futures_util::TryStreamExt;
use support::{TestDatabase, TestProxy};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

const POLICY: &str = "
groups:
  big:
    key: bigint
    shards: 6
    tables:
      big: id
";

/// Rows of about 120 bytes.
const ROWS: i64 = 1_000_000;

/// How much more memory this process may use than before, in kB: a tenth of what the rows take.
const MORE_KB: u64 = 16 * 1024;

/// Puts the rows into the partitions of this node.
const FILL: &str = "DO $$ DECLARE leaf oid; BEGIN \
    FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'big'::regclass LOOP \
    EXECUTE format('INSERT INTO %s SELECT id, (id * 7919) %% 1000003, repeat(md5(id::text), 3) \
    FROM (SELECT generate_series(1, 1000000)::bigint AS id) g WHERE %s', leaf::regclass, \
    pg_get_partition_constraintdef(leaf)); END LOOP; END $$";

/// A field of `/proc/self/status`, in kB.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Reads all rows of a query; how many, and how much memory was used at the most beyond what was
/// used before.
async fn read(client: &Client, sql: &str) -> (i64, u64) {
    let before = status("VmRSS");
    // Starts the measure of the peak anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let none: [&dyn ToSql; 0] = [];
    let mut rows = pin!(client.query_raw(sql, none).await.unwrap());
    let mut count = 0;
    while rows.try_next().await.unwrap().is_some() {
        count += 1;
    }
    (count, status("VmHWM").saturating_sub(before))
}

#[tokio::test]
async fn a_million_rows_pass_without_being_kept() {
    let database = TestDatabase::create(3).await;
    let proxy = TestProxy::start(&database, POLICY).await;
    let client = proxy.client().await;
    let table = "CREATE TABLE big (id bigint PRIMARY KEY, n bigint, pad text)";
    client.batch_execute(table).await.unwrap();
    for node in 0..3 {
        database.client(node).await.batch_execute(FILL).await.unwrap();
    }
    // What is made once is there.
    read(&client, "SELECT id, n, pad FROM big WHERE n < 1000").await;
    read(&client, "SELECT id, n, pad FROM big WHERE n < 1000 ORDER BY n").await;
    for sql in ["SELECT id, n, pad FROM big", "SELECT id, n, pad FROM big ORDER BY n DESC, id"] {
        let (count, more_kb) = read(&client, sql).await;
        println!("{sql}: {count} rows, {more_kb} kB more at the most");
        assert_eq!(count, ROWS);
        assert!(more_kb < MORE_KB, "{sql}: {more_kb} kB");
    }
    client.batch_execute("BEGIN").await.unwrap();
    client
        .batch_execute("DECLARE c CURSOR FOR SELECT id, n, pad FROM big ORDER BY n")
        .await
        .unwrap();
    for _ in 0..5 {
        let (count, more_kb) = read(&client, "FETCH 10000 FROM c").await;
        assert_eq!(count, 10_000);
        assert!(more_kb < MORE_KB, "{more_kb} kB");
    }
    client.batch_execute("COMMIT").await.unwrap();
}
