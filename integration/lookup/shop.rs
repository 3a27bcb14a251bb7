//! A proxy in front of three nodes with looked-up users.

use foreshard::ids::{GroupId, ShardId};
use foreshard::shard_map::KeyValue;
use tokio_postgres::Client;

use crate::support::{TestDatabase, TestProxy, rows};

/// Users of tenants, found by their e-mail address and by their city.
const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 8
    tables:
      tenants: id
      users: tenant_id
lookups:
  users_by_email: {table: users, column: email, type: text, unique: true, shards: 4}
  users_by_city: {table: users, column: city, type: text, shards: 4}
";

pub const TABLES: [&str; 2] = [
    "CREATE TABLE tenants (id bigint PRIMARY KEY, name text)",
    "CREATE TABLE users (tenant_id bigint NOT NULL, id bigint, email text, city text, name text, \
     PRIMARY KEY (tenant_id, id), \
     FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE)",
];

pub const LOOKUPS: [&str; 2] = [
    "CREATE TABLE users_by_email (email text PRIMARY KEY, tenant_id bigint NOT NULL)",
    "CREATE TABLE users_by_city (city text, tenant_id bigint, row_count bigint NOT NULL, \
     PRIMARY KEY (city, tenant_id))",
];

/// What random statements come of: that of the environment, or a new one; it is told.
pub fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("SEED={seed}");
    seed
}

/// The proxy and its nodes.
pub struct Shop {
    pub database: TestDatabase,
    pub proxy: TestProxy,
    pub client: Client,
}

impl Shop {
    /// Without the lookups.
    pub async fn bare() -> Self {
        let database = TestDatabase::create(3).await;
        let proxy = TestProxy::start(&database, POLICY).await;
        let client = proxy.client().await;
        let shop = Self { database, proxy, client };
        shop.run(&TABLES).await;
        shop.run(&["INSERT INTO tenants SELECT g, 't' || g FROM generate_series(1, 20) g"]).await;
        shop
    }

    /// With them.
    pub async fn start() -> Self {
        let shop = Self::bare().await;
        shop.run(&LOOKUPS).await;
        shop
    }

    pub async fn run(&self, statements: &[&str]) {
        for sql in statements {
            let ran = self.client.batch_execute(sql).await;
            ran.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    /// Runs a statement; the SQLSTATE of its error.
    pub async fn fails(&self, sql: &str) -> String {
        let error = self.client.batch_execute(sql).await.expect_err(sql);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
        eprintln!("{sql}: {error:?}");
        error.code().code().to_owned()
    }

    /// The shard of a key of a group: that of the users is 0, of e-mail addresses 1.
    pub fn shard_of(&self, group: u16, key: KeyValue) -> ShardId {
        let map = self.proxy.proxy.engine.live_map.snapshot();
        map.shard_of(GroupId(group), &[key]).unwrap()
    }

    /// How many statements each shard has had, by id.
    pub fn statements(&self) -> Vec<u64> {
        let shards = self.proxy.proxy.engine.counters.snapshot().shards;
        shards.iter().map(|shard| shard.reads + shard.writes).collect()
    }

    /// Moves a shard to the next node, and waits until it is done.
    pub async fn move_shard(&self, shard: ShardId) {
        self.proxy.move_shard(shard).await;
    }

    /// Rows over all nodes, asked of these themselves, in order.
    pub async fn on_all_nodes(&self, sql: &str) -> Vec<String> {
        let mut all = Vec::new();
        for node in 0..self.database.nodes.len() {
            all.extend(rows(&self.database.client(node).await, sql).await);
        }
        all.sort();
        all
    }

    /// The lookups say what the rows say, no less and no more, and nothing is left to be done.
    pub async fn lookups_fit(&self) {
        for (found, said) in [
            (
                "SELECT email, tenant_id FROM users WHERE email IS NOT NULL",
                "SELECT email, tenant_id FROM users_by_email",
            ),
            (
                "SELECT city, tenant_id, count(*) FROM users WHERE city IS NOT NULL GROUP BY 1, 2",
                "SELECT city, tenant_id, row_count FROM users_by_city",
            ),
        ] {
            assert_eq!(self.on_all_nodes(found).await, self.on_all_nodes(said).await, "{said}");
        }
        let left = "SELECT * FROM foreshard.journal";
        assert_eq!(self.on_all_nodes(left).await, Vec::<String>::new());
    }
}
