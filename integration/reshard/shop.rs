//! A shop whose rows have two keys, tenant and customer, and clients that know what they wrote.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use foreshard::runtime::Tasks;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::process_support::{Deployment, connect};
use super::support::rows;

/// What is there before anything is resharded; made through the proxy.
const TABLES: [&str; 23] = [
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "CREATE DOMAIN amount AS numeric(9, 2) CHECK (VALUE >= 0)",
    "CREATE TYPE place AS (street text, number int)",
    "CREATE TABLE kinds (kind int PRIMARY KEY, name text)",
    "INSERT INTO kinds VALUES (1, 'one'), (2, 'two')",
    "CREATE TABLE orders (tenant_id bigint, customer_id bigint, id bigint, \
     version bigint NOT NULL DEFAULT 0, kind int DEFAULT 1 REFERENCES kinds, \
     mood mood NOT NULL DEFAULT 'ok', \
     PRIMARY KEY (tenant_id, customer_id, id), CONSTRAINT counted CHECK (version >= 0))",
    "CREATE TABLE items (tenant_id bigint, customer_id bigint, order_id bigint, \
     no int GENERATED ALWAYS AS IDENTITY, id bigserial, what text DEFAULT 'thing', \
     twice bigint GENERATED ALWAYS AS (order_id * 2) STORED, \
     price amount DEFAULT 1.5, place place DEFAULT ROW('a, \"b\" \\', 3), \
     PRIMARY KEY (tenant_id, customer_id, order_id, id), \
     FOREIGN KEY (tenant_id, customer_id, order_id) \
     REFERENCES orders (tenant_id, customer_id, id) ON DELETE CASCADE)",
    "CREATE TABLE events (tenant_id bigint, customer_id bigint, what text, tags text[], \
     moods mood[] DEFAULT '{sad,ok}')",
    "CREATE INDEX events_of ON events (customer_id)",
    "CREATE INDEX \"Late items\" ON items (order_id DESC) WHERE order_id > 10",
    "CREATE UNIQUE INDEX once ON items (tenant_id, customer_id, no)",
    "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS \
     $$ BEGIN NEW.what := NEW.what || ', stamped'; RETURN NEW; END $$",
    "CREATE TRIGGER stamp BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION stamp()",
    "CREATE VIEW sums AS SELECT customer_id, count(*) AS orders FROM orders GROUP BY customer_id",
    "CREATE VIEW large AS SELECT * FROM sums WHERE orders > 2",
    "CREATE MATERIALIZED VIEW kept AS SELECT s.*, o.tenant_id FROM sums s \
     JOIN orders o USING (customer_id)",
    "COMMENT ON TABLE items IS 'what was ordered'",
    "COMMENT ON COLUMN items.order_id IS 'of the order'",
    "GRANT SELECT, UPDATE (version) ON orders TO pg_monitor WITH GRANT OPTION",
    "GRANT INSERT ON items TO PUBLIC",
    "CREATE POLICY mine ON items FOR SELECT USING (order_id > 0)",
    "ALTER TABLE items ALTER what SET STATISTICS 77",
    "ALTER TABLE events ALTER what SET STORAGE EXTERNAL",
];

/// Tables of the group, by the column of the key that counts.
fn tables(key: &str) -> String {
    format!("orders: {key}, items: {key}, events: {key}")
}

/// Writes the configuration with this group.
pub(crate) fn configure(deployment: &Deployment, group: &str) {
    deployment.configure("authentication: trust\n");
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let (first, rest) = text.split_once("    shop:\n").unwrap();
    let (_, last) = rest.split_once("  placement:").unwrap();
    let text = format!("{first}    shop:\n{group}  reference_tables: [kinds]\n  placement:{last}");
    std::fs::write(&deployment.config, text).unwrap();
}

/// The group with so many shards by a key.
pub(crate) fn by(key: &str, shards: u32) -> String {
    let tables = tables(key);
    format!("      key: bigint\n      shards: {shards}\n      tables: {{ {tables} }}\n")
}

/// Rows before anybody writes: some are large, some twice, some without a customer.
const ROWS: [&str; 5] = [
    "INSERT INTO orders SELECT g % 20, g % 50, g FROM generate_series(1, 600) g",
    "INSERT INTO items (tenant_id, customer_id, order_id) \
     SELECT g % 20, g % 50, g FROM generate_series(1, 600) g",
    "INSERT INTO events SELECT g % 20, g % 50, 'event ' || g % 200, ARRAY[g::text, NULL] \
     FROM generate_series(1, 400) g",
    "INSERT INTO events SELECT g % 20, g % 50, repeat(md5(g::text), 200), NULL \
     FROM generate_series(1, 20) g",
    "INSERT INTO events SELECT 3, NULL, 'twice', '{}' FROM generate_series(1, 4) g",
];

/// How many rows of each table that makes.
pub(crate) const COUNTS: [(&str, i64); 3] = [("orders", 600), ("items", 600), ("events", 424)];

/// Makes tables and rows through the proxy.
pub(crate) async fn load(deployment: &Deployment) {
    let client = deployment.client().await;
    for sql in TABLES.iter().chain(&ROWS) {
        execute(&client, sql).await;
    }
    for node in 0..deployment.database.nodes.len() {
        // The proxy does not take it.
        let direct = deployment.database.client(node).await;
        execute(&direct, "CREATE STATISTICS keys ON tenant_id, customer_id FROM orders").await;
    }
}

/// Executes what must work.
pub(crate) async fn execute(client: &Client, sql: &str) {
    let done = client.batch_execute(sql).await;
    assert!(done.is_ok(), "{sql}: {done:?}");
}

/// A deployment with the shop, sharded by the tenant, which is served.
pub(crate) async fn shop(nodes: usize) -> Deployment {
    let deployment = Deployment::new(nodes).await;
    configure(&deployment, &by("tenant_id", 6));
    deployment
}

/// What writers know: the ids of orders.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Committed, as they were told.
    pub(crate) acknowledged: BTreeSet<i64>,
    /// COMMIT was sent, and there was no answer.
    pub(crate) unknown: BTreeSet<i64>,
    /// The longest transaction that was not cut off.
    pub(crate) longest: Duration,
}

impl Known {
    /// Adds what others know.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.longest = self.longest.max(other.longest);
    }
}

/// The ids that the next client begins with: each has a million of its own.
static NEXT: AtomicI64 = AtomicI64::new(1);

/// Clients that order.
pub(crate) struct Clients {
    stop: CancellationToken,
    handles: Vec<JoinHandle<Known>>,
}

impl Clients {
    /// Starts some.
    pub(crate) fn start(deployment: &Deployment, count: i64) -> Self {
        Self::start_with(deployment, count, false)
    }

    /// The same where nodes die: clients are told so, and go on.
    pub(crate) fn start_beside_nodes_that_die(deployment: &Deployment, count: i64) -> Self {
        Self::start_with(deployment, count, true)
    }

    fn start_with(deployment: &Deployment, count: i64, die: bool) -> Self {
        let stop = CancellationToken::new();
        let one = |_| {
            let (deployment, stop) = (deployment.clone(), stop.clone());
            let first = NEXT.fetch_add(1, Ordering::Relaxed) * 1_000_000;
            Tasks::new().spawn("client", run(deployment, (first, die), stop))
        };
        let handles = (0..count).map(one).collect();
        Self { stop, handles }
    }

    /// Stops them; what they know.
    pub(crate) async fn stop(self) -> Known {
        self.stop.cancel();
        let mut all = Known::default();
        for handle in self.handles {
            all.absorb(handle.await.unwrap());
        }
        all
    }
}

/// What a client may be told whose node died: it is away, or nobody knows what came of a COMMIT.
const AWAY: [&str; 4] = ["08", "57", "58", "40"];

async fn run(deployment: Deployment, (first, die): (i64, bool), stop: CancellationToken) -> Known {
    let (mut known, mut id) = (Known::default(), first);
    let deadline = Instant::now() + Duration::from_mins(4);
    while !stop.is_cancelled() {
        assert!(Instant::now() < deadline, "nobody stops it");
        let Ok(client) = connect(&deployment.driver()).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        if let Err(error) = write(&client, &mut known, &mut id, &stop).await {
            // The end of the proxy is no surprise; an error that it tells is one.
            let code = error.code().map(tokio_postgres::error::SqlState::code);
            let away = |code: &str| die && AWAY.iter().any(|class| code.starts_with(class));
            let expected = code.is_none_or(|code| code == "57P01" || away(code));
            assert!(expected, "{error:?}");
        }
    }
    known
}

async fn write(
    client: &Client,
    known: &mut Known,
    id: &mut i64,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let order = client
        .prepare("INSERT INTO orders (tenant_id, customer_id, id) VALUES ($1, $2, $3)")
        .await?;
    let item = client
        .prepare("INSERT INTO items (tenant_id, customer_id, order_id) VALUES ($1, $2, $3)")
        .await?;
    let version = "UPDATE orders SET version = version + 1, kind = 2 \
         WHERE tenant_id = $1 AND customer_id = $2 AND id = $3";
    let version = client.prepare(version).await?;
    let event = "INSERT INTO events VALUES ($1, $2, 'order ' || $3::bigint::text)";
    let event = client.prepare(event).await?;
    while !stop.is_cancelled() {
        *id += 1;
        let (began, n) = (Instant::now(), *id);
        let (tenant, customer) = (n % 20, n % 50);
        let transaction = async {
            client.batch_execute("BEGIN").await?;
            client.execute(&order, &[&tenant, &customer, &n]).await?;
            client.execute(&item, &[&tenant, &customer, &n]).await?;
            assert_eq!(client.execute(&version, &[&tenant, &customer, &n]).await?, 1, "{n}");
            client.execute(&event, &[&tenant, &customer, &n]).await?;
            if n % 7 == 0 {
                // A row of events goes to another customer: to another shard, one day.
                let sql = format!(
                    "UPDATE events SET customer_id = {} WHERE tenant_id = {tenant} \
                     AND customer_id = {customer} AND what = 'order {n}'",
                    (customer + 13) % 50
                );
                client.batch_execute(&sql).await?;
            }
            if n % 11 == 0 {
                let sql = format!(
                    "DELETE FROM items WHERE tenant_id = {tenant} AND customer_id = {customer} \
                     AND order_id = {n}; INSERT INTO items (tenant_id, customer_id, order_id, what) \
                     VALUES ({tenant}, {customer}, {n}, 'other')"
                );
                client.batch_execute(&sql).await?;
            }
            known.unknown.insert(n);
            client.batch_execute("COMMIT").await
        };
        timeout(Duration::from_secs(20), transaction).await.unwrap()?;
        known.unknown.remove(&n);
        known.acknowledged.insert(n);
        known.longest = known.longest.max(began.elapsed());
        sleep(Duration::from_millis(3)).await;
    }
    Ok(())
}

/// All that was acknowledged is there, on all nodes together, nothing twice, and nothing that nobody
/// wrote; the tables tell the same.
pub(crate) async fn assert_written(deployment: &Deployment, known: &Known) {
    let mut found: [Vec<i64>; 3] = Default::default();
    let queries = [
        "SELECT id FROM orders WHERE id > 1000000 AND version = 1 AND kind = 2 AND mood = 'ok'",
        "SELECT order_id FROM items WHERE order_id > 1000000 AND what LIKE '%, stamped' \
         AND twice = order_id * 2 AND price = 1.5 AND place = ROW('a, \"b\" \\', 3)::place",
        "SELECT substr(what, 7)::bigint FROM events WHERE what ~ '^order' AND moods = '{sad,ok}'",
    ];
    let mut before = 0;
    for node in 0..deployment.database.nodes.len() {
        let client = deployment.database.client(node).await;
        for (all, sql) in found.iter_mut().zip(queries) {
            all.extend(rows(&client, sql).await.iter().map(|id| id.parse::<i64>().unwrap()));
        }
        let sql = "SELECT (SELECT count(*) FROM orders WHERE id <= 1000000) + \
             (SELECT count(*) FROM items WHERE order_id <= 1000000) + \
             (SELECT count(*) FROM events WHERE what !~ '^order')";
        before += rows(&client, sql).await.concat().parse::<i64>().unwrap();
    }
    assert_eq!(before, COUNTS.iter().map(|(_, count)| count).sum::<i64>(), "rows of before");
    for all in &mut found {
        let count = all.len();
        let set: BTreeSet<i64> = all.iter().copied().collect();
        assert_eq!(set.len(), count, "doubled rows");
        let lost: Vec<_> = known.acknowledged.difference(&set).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let strange = set.iter().filter(|id| !known.acknowledged.contains(id));
        let strange: Vec<_> = strange.filter(|id| !known.unknown.contains(id)).collect();
        assert!(strange.is_empty(), "nobody wrote: {strange:?}");
    }
    found.iter_mut().for_each(|all| all.sort_unstable());
    assert!(found[0] == found[1] && found[1] == found[2], "transactions are whole or not at all");
}
