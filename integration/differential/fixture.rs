//! The nodes, the proxy, the single PostgreSQL, and the rows that both sides hold.

use std::pin::pin;

use foreshard::executor;
use futures_util::{SinkExt, StreamExt};
use tokio_postgres::Client;

use super::compare::Pair;
use super::support::{TestDatabase, TestProxy};
use super::wire::Wire;

/// Both sides of the comparison.
pub struct Fixture {
    proxy: TestProxy,
    single: TestDatabase,
}

const SHOP_POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 7
    tables:
      tenants: id
      orders: tenant_id
      items: tenant_id
  people:
    key: text
    shards: 6
    tables:
      users: email
      sales.visits: email
  events:
    key: uuid
    shards: 6
    tables:
      events: id
reference_tables: [countries]
";

impl Fixture {
    /// A shop: tenants with orders and items, users and their visits, events, countries on every
    /// node, settings at home.
    pub async fn shop() -> Self {
        let fixture = Self::start(SHOP_POLICY).await;
        fixture.define(include_str!("shop/schema.sql")).await;
        fixture.fill(include_str!("shop/rows.sql")).await;
        fixture
    }

    /// The same behind a proxy with these limits.
    pub async fn shop_limited(limits: executor::Config) -> Self {
        let fixture = Self::start_limited(SHOP_POLICY, limits).await;
        fixture.define(include_str!("shop/schema.sql")).await;
        fixture.fill(include_str!("shop/rows.sql")).await;
        fixture
    }

    /// Empty databases behind a proxy over three nodes, and beside it on a fourth.
    pub async fn start(policy: &str) -> Self {
        Self::start_limited(policy, executor::Config::default()).await
    }

    async fn start_limited(policy: &str, limits: executor::Config) -> Self {
        let all = TestDatabase::create(4).await;
        let single = TestDatabase { nodes: vec![all.nodes[3].clone()], ..all.clone() };
        let nodes = TestDatabase { nodes: all.nodes[..3].to_vec(), ..all };
        Self { proxy: TestProxy::start_limited(&nodes, policy, limits).await, single }
    }

    /// A connection to each side.
    pub async fn pair(&self) -> Pair {
        let proxy = Wire::connect(self.proxy.proxy.address.port(), &self.single.name).await;
        let single = Wire::connect(self.single.nodes[0].port, &self.single.name).await;
        Pair { proxy, single }
    }

    /// A driver's client of each side: the proxy's, the single PostgreSQL's.
    pub async fn clients(&self) -> (Client, Client) {
        (self.proxy.client().await, self.single.client(0).await)
    }

    /// Runs definitions on both sides.
    pub async fn define(&self, text: &str) {
        let (proxy, single) = self.clients().await;
        for statement in super::statements(text) {
            for client in [&single, &proxy] {
                let done = client.batch_execute(&statement.sql).await;
                done.unwrap_or_else(|error| panic!("{}: {error:?}", statement.sql));
            }
        }
    }

    /// Makes rows on the single PostgreSQL and copies every table through the proxy.
    pub async fn fill(&self, text: &str) {
        let (proxy, single) = self.clients().await;
        single.batch_execute(text).await.unwrap();
        let tables = "SELECT c.oid::regclass::text FROM pg_class c \
            WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', 'sales') \
            ORDER BY c.oid";
        for row in single.query(tables, &[]).await.unwrap() {
            self.copy(&single, &proxy, row.get(0)).await;
        }
        single.batch_execute("ANALYZE").await.unwrap();
    }

    async fn copy(&self, single: &Client, proxy: &Client, table: &str) {
        let rows = single.copy_out(&format!("COPY {table} TO STDOUT")).await.unwrap();
        let sink = proxy.copy_in(&format!("COPY {table} FROM STDIN")).await;
        let mut sink = pin!(sink.unwrap_or_else(|error| panic!("{table}: {error:?}")));
        let mut rows = pin!(rows);
        while let Some(piece) = rows.next().await {
            sink.send(piece.unwrap()).await.unwrap();
        }
        sink.finish().await.unwrap();
    }
}
