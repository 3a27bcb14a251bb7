//! Backlogs of small transactions: applied by a built-in subscription, then by a move, whose copy is
//! kept slow until the backlog is there.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use super::process_support::Deployment;
use super::support::{eventually, rows};
use super::{between, median};

/// Transactions of a backlog.
const TRANSACTIONS: u32 = 100_000;
/// Rows that each of them changes.
const EACH: u32 = 10;
/// At how many bytes a second a copy does not end before a backlog is written.
const SLOWLY: u32 = 20_000;
/// How often each backlog is measured.
const ROUNDS: u32 = 3;

const TABLES: &str = "
    CREATE TABLE ledger (tenant_id bigint NOT NULL, n bigint NOT NULL, v bigint NOT NULL DEFAULT 0,
        note text DEFAULT 'a note', PRIMARY KEY (tenant_id, n))";
/// The same tables for the subscription, of one shard alone.
const PLAIN: &str = "
    CREATE TABLE plain_entries (tenant_id bigint, writer int, n bigint, note text DEFAULT 'a note');
    CREATE INDEX ON plain_entries (tenant_id);
    CREATE TABLE plain_ledger (LIKE ledger INCLUDING ALL);
    CREATE TABLE plain_end (round int)";

/// What a backlog consists of.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Rows of a table without a key.
    Inserts,
    /// In a table with a key: eight updates, an insert and a delete a transaction.
    Updates,
}

impl Kind {
    fn table(self) -> &'static str {
        match self {
            Self::Inserts => "entries",
            Self::Updates => "ledger",
        }
    }

    /// A transaction of `round`, as the body of a loop over `i`.
    fn body(self, table: &str, tenant: &str, round: u32) -> String {
        let rows = TRANSACTIONS * EACH;
        match self {
            Self::Inserts => format!(
                "INSERT INTO {table} SELECT {tenant}, {round}, i * {EACH} + n \
                 FROM generate_series(1, {EACH}) n"
            ),
            Self::Updates => format!(
                "UPDATE {table} SET v = v + 1 WHERE tenant_id = {tenant} AND n = ANY (ARRAY(SELECT \
                 1 + (i * 8 + k) * 7919::bigint % {rows} FROM generate_series(1, 8) k)); \
                 INSERT INTO {table} VALUES ({tenant}, 1000000 + {rows} * {round} + i); \
                 DELETE FROM {table} WHERE tenant_id = {tenant} \
                 AND n = 1000000 + {rows} * {round} + i - 100"
            ),
        }
    }

    /// How many changes a backlog is.
    fn changes(self) -> u64 {
        let all = u64::from(TRANSACTIONS) * u64::from(EACH);
        match self {
            Self::Inserts => all,
            // The first find nothing to delete.
            Self::Updates => all - 100,
        }
    }
}

/// Writes a backlog into a table.
async fn write(source: &Client, kind: Kind, table: &str, tenant: &str, round: u32) {
    let body = kind.body(table, tenant, round);
    let sql =
        format!("DO $$ BEGIN FOR i IN 1..{TRANSACTIONS} LOOP {body}; COMMIT; END LOOP; END $$");
    source.batch_execute("SET synchronous_commit = off").await.unwrap();
    source.batch_execute(&sql).await.unwrap();
}

/// Measures both kinds.
pub(super) async fn streams(deployment: &Deployment) {
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let more = text.replace("entries: tenant_id }", "entries: tenant_id, ledger: tenant_id }");
    std::fs::write(&deployment.config, more).unwrap();
    let serving = deployment.serve().await;
    deployment.client().await.batch_execute(TABLES).await.unwrap();
    let [here, _] = ends(deployment).await;
    let owner = deployment.database.client(here).await;
    let tenant = rows(&owner, "SELECT min(tenant_id) FROM accounts_s0").await.remove(0);
    let fill = |table: &str| {
        let all = TRANSACTIONS * EACH;
        format!("INSERT INTO {table} SELECT {tenant}, n FROM generate_series(1, {all}) n")
    };
    owner.batch_execute(&fill("ledger_s0")).await.unwrap();
    for node in 0..2 {
        let client = deployment.database.client(node).await;
        client.batch_execute(PLAIN).await.unwrap();
        client.batch_execute(&fill("plain_ledger")).await.unwrap();
        client.batch_execute("VACUUM ANALYZE").await.unwrap();
    }
    for kind in [Kind::Inserts, Kind::Updates] {
        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let built_in = subscribed(deployment, kind, &tenant, round).await;
            let ours = moved(deployment, kind, &tenant, round).await;
            let ratio = 100.0 * built_in.as_secs_f64() / ours.as_secs_f64();
            println!(
                "stream of {} changes in {TRANSACTIONS} transactions, {kind:?}: built-in \
                 {built_in:.2?}, the move {ours:.2?} ({ratio:.0} % of its rate)",
                kind.changes()
            );
            ratios.push(ratio);
        }
        println!("{kind:?}: {:.0} % of the rate of a subscription in the median", median(ratios));
    }
    serving.stop(deployment).await;
}

/// Source and destination of the shard's next move.
async fn ends(deployment: &Deployment) -> [usize; 2] {
    let to = deployment.other_node(0).await;
    let there = usize::from(to == deployment.database.nodes[1].name);
    [1 - there, there]
}

/// How long a subscription needs.
async fn subscribed(deployment: &Deployment, kind: Kind, tenant: &str, round: u32) -> Duration {
    let [here, there] = ends(deployment).await;
    let source = deployment.database.client(here).await;
    let destination = deployment.database.client(there).await;
    for client in [&source, &destination] {
        client.batch_execute("TRUNCATE plain_entries").await.unwrap();
    }
    let plain = format!("plain_{}", kind.table());
    let sql = format!("CREATE PUBLICATION streamed FOR TABLE {plain}, plain_end");
    source.batch_execute(&sql).await.unwrap();
    let slot = "SELECT pg_create_logical_replication_slot('streamed', 'pgoutput')";
    rows(&source, slot).await;
    let address = &deployment.database.nodes[here];
    let subscription = format!(
        "CREATE SUBSCRIPTION streamed CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' \
         PUBLICATION streamed WITH (create_slot = false, slot_name = 'streamed', copy_data = false, \
         enabled = false)",
        address.port, deployment.database.name
    );
    destination.batch_execute(&subscription).await.unwrap();
    write(&source, kind, &plain, tenant, round).await;
    source.batch_execute("INSERT INTO plain_end VALUES (1)").await.unwrap();
    let began = Instant::now();
    destination.batch_execute("ALTER SUBSCRIPTION streamed ENABLE").await.unwrap();
    let all = async || (!rows(&destination, "TABLE plain_end").await.is_empty()).then_some(());
    eventually("the subscription is up to date", Duration::from_mins(5), all).await;
    let took = began.elapsed();
    destination.batch_execute("DROP SUBSCRIPTION streamed").await.unwrap();
    for client in [&source, &destination] {
        client.batch_execute("TRUNCATE plain_end").await.unwrap();
    }
    source.batch_execute("DROP PUBLICATION streamed").await.unwrap();
    took
}

/// From now on a copy sends so many bytes a second, also one under way; 0 is no limit.
async fn copy_at(deployment: &Deployment, bytes_per_second: u32) {
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let (before, after) = text.split_once("mover: {").unwrap();
    let after = match after.split_once("copy_bytes_per_second: ") {
        Some((_, after)) => after.split_once(", ").unwrap().1,
        None => after,
    };
    let text = format!("{before}mover: {{copy_bytes_per_second: {bytes_per_second}, {after}");
    std::fs::write(&deployment.config, text).unwrap();
    let output = deployment.run(&["reload"]).await;

    assert!(output.status.success(), "{output:?}");
}

/// How long a move needs.
async fn moved(deployment: &Deployment, kind: Kind, tenant: &str, round: u32) -> Duration {
    let [here, there] = ends(deployment).await;
    let source = deployment.database.client(here).await;
    source.batch_execute("TRUNCATE entries_s0").await.unwrap();
    copy_at(deployment, SLOWLY).await;
    deployment.ask_for_move(0, &deployment.database.nodes[there].name).await;
    let copying = async || {
        let moves = deployment.admin("/api/v1/moves?limit=1").await;
        let mv = &moves["moves"][0];
        let rows = mv["progress"]["rows_copied"].as_u64()?;
        (mv["state"] == "copying" && rows > 0).then_some(())
    };
    eventually("the copy has begun", Duration::from_mins(1), copying).await;
    write(&source, kind, &format!("{}_s0", kind.table()), tenant, round).await;
    assert_eq!(copying().await, Some(()), "the copy ended before the backlog was there");
    copy_at(deployment, 0).await;
    let mv = deployment.until_moves_are_finished().await.remove(0);
    assert!(mv["changes_applied"].as_u64().unwrap() >= kind.changes(), "{mv}");
    between(&mv, "catching_up", "verifying")
}
