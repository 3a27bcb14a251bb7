//! A proxy with groups by range and by list in front of three nodes, and one server that should be
//! like it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foreshard::mover::{Wanted, request_any};
use foreshard::shard_map::ShardMap;
use foreshard::shard_move::{Cause, Move, State};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::support::{TestDatabase, TestProxy, eventually};

const POLICY: &str = "
groups:
  shop:
    key: bigint
    method: range
    split_at: [-10, 1000, 2000, 3000]
    tables: {tenants: id, orders: tenant_id}
  places:
    key: text
    method: list
    values: [[eu, uk], [us, null], [it's]]
    default: true
    tables: {places: region, streets: region}
  few:
    key: int
    method: list
    values: [[1, 2], [3]]
    tables: {few: k}
  days:
    key: [date, int]
    method: range
    split_at: [2024-01-01, [2024-06-01, 5], [2024-06-01, 9], 2025-01-01]
    tables: {visits: [day, visitor]}
  names:
    key: text
    method: range
    split_at: [B, a, m]
    tables: {names: name}
  times:
    key: timestamptz
    method: range
    split_at: ['2024-01-01 00:00:00+00', '2025-01-01 00:00:00+00']
    tables: {events: at}
";

const TABLES: [&str; 8] = [
    "CREATE TABLE tenants (id bigint PRIMARY KEY, name text)",
    "CREATE TABLE orders (tenant_id bigint REFERENCES tenants (id), id int, note text, \
     PRIMARY KEY (tenant_id, id))",
    "CREATE TABLE places (region text, name text)",
    "CREATE TABLE streets (region text, name text)",
    "CREATE TABLE few (k int, v text)",
    "CREATE TABLE visits (day date, visitor int, n int, PRIMARY KEY (day, visitor))",
    "CREATE TABLE names (name text COLLATE \"C\" PRIMARY KEY, n int)",
    "CREATE TABLE events (at timestamptz PRIMARY KEY, n int)",
];

/// A proxy in front of three nodes, and one server that should be like it.
pub struct Shop {
    pub database: TestDatabase,
    pub proxy: TestProxy,
    pub client: Client,
    pub plain: Client,
    _one: TestDatabase,
}

impl Shop {
    pub async fn start() -> Self {
        let (database, one) = (TestDatabase::create(3).await, TestDatabase::create(1).await);
        let proxy = TestProxy::start(&database, POLICY).await;
        let (client, plain) = (proxy.client().await, one.client(0).await);
        for table in TABLES {
            client.batch_execute(table).await.unwrap_or_else(|error| panic!("{table}: {error:?}"));
            plain.batch_execute(table).await.unwrap();
        }
        // Where there is no partition for a row, it is as if there was a CHECK.
        let check = "ALTER TABLE few ADD CHECK (k IS NOT NULL AND k IN (1, 2, 3))";
        plain.batch_execute(check).await.unwrap();
        Self { database, proxy, client, plain, _one: one }
    }

    /// Runs a statement on both; rows in any order, counts and SQLSTATEs have to agree.
    pub async fn same(&self, sql: &str) {
        let (shop, plain) = (answer(&self.client, sql).await, answer(&self.plain, sql).await);
        assert_eq!(shop, plain, "left the proxy, right one server: {sql}");
    }

    pub async fn all_same(&self, statements: &[&str]) {
        for sql in statements {
            self.same(sql).await;
        }
        self.same_tables().await;
    }

    pub async fn same_tables(&self) {
        for table in ["tenants", "orders", "places", "streets", "few", "visits", "names", "events"]
        {
            self.same(&format!("SELECT * FROM {table}")).await;
        }
    }

    /// Whether EXPLAIN says so.
    pub async fn goes_to_one_node(&self, sql: &str) -> bool {
        let messages = self.client.simple_query(&format!("EXPLAIN {sql}")).await;
        let messages = messages.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let first = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let first = first.unwrap_or_default();
        first == "Way: one node" || !first.starts_with("Way:")
    }

    pub fn map(&self) -> ShardMap {
        ShardMap::clone(&self.proxy.proxy.engine.live_map.snapshot())
    }

    /// Asks for a move, a split or a merge, and waits until it is done.
    pub async fn change(&self, wanted: &Wanted) -> Move {
        let (catalog, map) = (&self.proxy.proxy.mover.catalog, self.map());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now = u64::try_from(now).unwrap();
        let id = request_any(catalog, &map, wanted, Cause::Operator, now).await.unwrap();
        let finished = eventually("the move is finished", Duration::from_secs(90), async || {
            let moves = catalog.list::<Move>().await.unwrap();
            moves.into_iter().map(|mv| mv.record).find(|mv| mv.id == id && mv.is_finished())
        });
        let mv = finished.await;
        assert_eq!(mv.state, State::Done, "{mv:#?}");
        mv
    }
}

/// Rows sorted, then counts; or the SQLSTATE.
async fn answer(client: &Client, sql: &str) -> Result<(Vec<String>, Vec<u64>), String> {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => match error.as_db_error() {
            Some(error) if error.code().code() == "0A000" => return Err(format!("{error:?}")),
            Some(error) => return Err(error.code().code().to_owned()),
            None => panic!("{sql}: {error:?}"),
        },
    };
    let (mut found, mut counts) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let columns = (0..row.len()).map(|column| row.get(column).unwrap_or("∅"));
                found.push(columns.collect::<Vec<_>>().join("|"));
            }
            SimpleQueryMessage::CommandComplete(count) => counts.push(count),
            _ => {}
        }
    }
    found.sort();
    Ok((found, counts))
}
