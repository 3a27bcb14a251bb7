//! Clients that write and read through the proxy, and know what they may see.

use std::sync::Arc;
use std::time::Duration;

use foreshard::runtime::Tasks;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Error, NoTls, Statement};

use super::ledger::{Ledger, Outcome, TENANTS};
use super::process_support::connect;

/// How long a transaction may take, with all of its waits.
const STUCK: Duration = Duration::from_mins(1);

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Counts an account up and writes an entry, in one transaction.
    Single,
    /// The same for accounts of several shards in one transaction.
    Several,
    /// Moves money between the slots of a purse.
    Purse,
    /// Reads an account by its key.
    Point,
    /// Holds a transaction open for a while.
    Idle,
}

/// One client.
pub struct Worker {
    pub driver: tokio_postgres::Config,
    pub ledger: Arc<Ledger>,
    pub kind: Kind,
    pub id: i32,
    pub random: StdRng,
    pub n: i64,
}

/// Statements of a connection.
struct Prepared {
    count_up: Statement,
    enter: Statement,
    version: Statement,
    pay: Statement,
}

impl Worker {
    pub fn new(
        driver: &tokio_postgres::Config,
        ledger: &Arc<Ledger>,
        kind: Kind,
        id: i32,
        seed: u64,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed ^ u64::try_from(id).unwrap());
        Self { driver: driver.clone(), ledger: Arc::clone(ledger), kind, id, random, n: 0 }
    }

    /// Works until the ledger is closed.
    pub async fn run(mut self) {
        let ledger = Arc::clone(&self.ledger);
        while !ledger.stop.is_cancelled() {
            match timeout(STUCK, self.connect()).await {
                Ok(Ok((client, prepared))) => self.work(&client, &prepared).await,
                Ok(Err(error)) => ledger.error("connecting", &error),
                Err(_) => ledger.violation("a connection is never made".to_owned()),
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    async fn connect(&self) -> Result<(Client, Prepared), Error> {
        let client = connect(&self.driver).await?;
        client.batch_execute("SET lock_timeout = '3s'").await?;
        let version = client.prepare("SELECT version FROM accounts WHERE tenant_id = $1").await?;
        let sql =
            "UPDATE accounts SET version = version + 1 WHERE tenant_id = $1 RETURNING version";
        let count_up = client.prepare(sql).await?;
        let sql = "INSERT INTO entries (tenant_id, writer, n) VALUES ($1, $2, $3)";
        let enter = client.prepare(sql).await?;
        let sql = "UPDATE purse SET amount = amount + $3 WHERE tenant_id = $1 AND slot = $2";
        let pay = client.prepare(sql).await?;
        Ok((client, Prepared { count_up, enter, version, pay }))
    }

    /// Transaction after transaction, until the connection is gone.
    async fn work(&mut self, client: &Client, prepared: &Prepared) {
        let ledger = Arc::clone(&self.ledger);
        while !ledger.stop.is_cancelled() && !client.is_closed() {
            let turn = ledger.turn.read().await;
            let began = Instant::now();
            let canceller = self.canceller(client);
            let done = timeout(STUCK, self.transaction(client, prepared)).await;
            canceller.abort();
            ledger.took(began.elapsed());
            match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    ledger.error(&format!("{:?}", self.kind), &error);
                    if timeout(STUCK, client.batch_execute("ROLLBACK")).await.is_err() {
                        ledger.violation(format!("{:?}: a ROLLBACK is stuck", self.kind));
                        return;
                    }
                }
                Err(_) => {
                    let story = format!("{:?} {}: a transaction is stuck", self.kind, self.id);
                    return ledger.violation(story);
                }
            }
            drop(turn);
            sleep(Duration::from_millis(self.random.random_range(2..15))).await;
        }
    }

    /// Now and then a statement is cancelled.
    fn canceller(&mut self, client: &Client) -> tokio::task::JoinHandle<()> {
        let (token, cancels) = (client.cancel_token(), self.random.random_range(0..100) < 2);
        let after = Duration::from_micros(self.random.random_range(0..8_000));
        Tasks::new().spawn("canceller", async move {
            if cancels {
                sleep(after).await;
                drop(token.cancel_query(NoTls).await);
            }
        })
    }

    async fn transaction(&mut self, client: &Client, prepared: &Prepared) -> Result<(), Error> {
        let tenant = self.random.random_range(1..=TENANTS);
        match self.kind {
            Kind::Single if self.random.random_bool(0.4) => self.in_one_text(client, tenant).await,
            Kind::Single => self.count_up(client, prepared, vec![tenant]).await,
            Kind::Several => {
                let mut tenants: Vec<i64> = (0..self.random.random_range(2..4))
                    .map(|_| self.random.random_range(1..=TENANTS))
                    .collect();
                tenants.sort_unstable();
                tenants.dedup();
                self.count_up(client, prepared, tenants).await
            }
            Kind::Purse => self.pay(client, prepared, tenant).await,
            Kind::Point => self.read(client, prepared, tenant).await,
            Kind::Idle if self.random.random_bool(0.5) => {
                self.keep_a_snapshot(client, prepared, tenant).await
            }
            Kind::Idle => self.idle(client, prepared, tenant).await,
        }
    }

    /// Counts these accounts up, with an entry each. What failed before COMMIT must not be there.
    async fn count_up(
        &mut self,
        client: &Client,
        prepared: &Prepared,
        tenants: Vec<i64>,
    ) -> Result<(), Error> {
        self.n += 1;
        let id = (self.id, self.n);
        self.ledger.wrote(id, tenants.clone(), Outcome::Failed);
        client.batch_execute("BEGIN").await?;
        let mut versions = Vec::new();
        for tenant in &tenants {
            let rows = client.query(&prepared.count_up, &[tenant]).await?;
            let [row] = &rows[..] else {
                let (count, where_is) = (rows.len(), where_is(client, *tenant).await);
                let story = format!("UPDATE of account {tenant} touched {count} rows: {where_is}");
                self.ledger.violation(story);
                continue;
            };
            let version: i64 = row.get(0);
            versions.push((*tenant, version));
            let entered = client.execute(&prepared.enter, &[tenant, &self.id, &self.n]).await?;
            if entered != 1 {
                self.ledger.violation(format!("INSERT for {tenant} made {entered} rows"));
            }
            let seen = client.query(&prepared.version, &[tenant]).await?;
            let seen: Vec<i64> = seen.iter().map(|row| row.get(0)).collect();
            if seen != [version] {
                let story = format!("account {tenant} wrote {version} and reads {seen:?}");
                self.ledger.violation(story);
            }
        }
        self.ledger.wrote(id, tenants.clone(), Outcome::Unknown);
        client.batch_execute("COMMIT").await?;
        self.ledger.wrote(id, tenants, Outcome::Acknowledged);
        // What several nodes commit in two phases may be seen a little later.
        if let [(tenant, version)] = versions[..] {
            self.ledger.raise(tenant, version);
        }
        Ok(())
    }

    /// The same in one message.
    async fn in_one_text(&mut self, client: &Client, tenant: i64) -> Result<(), Error> {
        self.n += 1;
        let (id, n) = ((self.id, self.n), self.n);
        self.ledger.wrote(id, vec![tenant], Outcome::Unknown);
        let sql = format!(
            "BEGIN; UPDATE accounts SET version = version + 1 WHERE tenant_id = {tenant}; \
             INSERT INTO entries (tenant_id, writer, n) VALUES ({tenant}, {}, {n}); COMMIT",
            self.id
        );
        client.batch_execute(&sql).await?;
        self.ledger.wrote(id, vec![tenant], Outcome::Acknowledged);
        Ok(())
    }

    /// Whatever becomes of it, the purse holds the same.
    async fn pay(
        &mut self,
        client: &Client,
        prepared: &Prepared,
        tenant: i64,
    ) -> Result<(), Error> {
        let amount = self.random.random_range(1..50_i64);
        client.batch_execute("BEGIN").await?;
        for (slot, amount) in [(0_i32, -amount), (1, amount)] {
            let paid = client.execute(&prepared.pay, &[&tenant, &slot, &amount]).await?;
            if paid != 1 {
                self.ledger
                    .violation(format!("slot {slot} of purse {tenant} is there {paid} times"));
            }
        }
        client.batch_execute("COMMIT").await
    }

    /// An account is there once, and never goes back.
    async fn read(&self, client: &Client, prepared: &Prepared, tenant: i64) -> Result<(), Error> {
        let floor = self.ledger.floor(tenant);
        let seen = client.query(&prepared.version, &[&tenant]).await?;
        let seen: Vec<i64> = seen.iter().map(|row| row.get(0)).collect();
        match seen[..] {
            [version] if version >= floor => self.ledger.raise(tenant, version),
            _ => {
                let where_is = where_is(client, tenant).await;
                let story =
                    format!("account {tenant} is {seen:?}, and was {floor} before: {where_is}");
                self.ledger.violation(story);
            }
        }
        Ok(())
    }

    /// Locks a purse, and keeps it for a while.
    async fn idle(
        &mut self,
        client: &Client,
        prepared: &Prepared,
        tenant: i64,
    ) -> Result<(), Error> {
        let wait = Duration::from_millis(self.random.random_range(50..900));
        client.batch_execute("BEGIN").await?;
        let zero = 0_i64;
        client.execute(&prepared.pay, &[&tenant, &0_i32, &zero]).await?;
        sleep(wait).await;
        let other = self.random.random_range(1..=TENANTS);
        self.read(client, prepared, other).await?;
        client.batch_execute("COMMIT").await
    }

    /// Reads twice in one snapshot, with others' switches between.
    async fn keep_a_snapshot(
        &mut self,
        client: &Client,
        prepared: &Prepared,
        tenant: i64,
    ) -> Result<(), Error> {
        let wait = Duration::from_millis(self.random.random_range(50..900));
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let other = self.random.random_range(1..=TENANTS);
        let mut before = None;
        for tenant in [tenant, other, tenant] {
            let seen = client.query(&prepared.version, &[&tenant]).await?;
            let seen: Vec<i64> = seen.iter().map(|row| row.get(0)).collect();
            let first = before.get_or_insert_with(|| seen.clone()).clone();
            if seen.len() != 1 || (tenant != other && first != seen) {
                let story =
                    format!("a snapshot shows {seen:?} of account {tenant}, then {first:?}");
                self.ledger.violation(story);
            }
            sleep(wait / 2).await;
        }
        client.batch_execute("COMMIT").await
    }
}

/// Where the proxy looks for an account, for a story.
async fn where_is(client: &Client, tenant: i64) -> String {
    let sql = format!("EXPLAIN SELECT version FROM accounts WHERE tenant_id = {tenant}");
    let told = client.simple_query(&sql).await;
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{:.3} {told:?}", at.as_secs_f64() % 3600.0)
}
