//! Clients that know which of their transactions were acknowledged, over crashes of the proxy.

use std::collections::BTreeSet;
use std::time::Duration;

use foreshard::runtime::Tasks;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::deployment::connect;
use super::{Deployment, TENANTS};

/// How long a writer looks for a proxy.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a transaction may take, with all of its waits.
const STUCK: Duration = Duration::from_secs(15);

/// An entry: tenant, writer, number.
pub type Entry = (i64, i32, i64);

/// What writers know.
#[derive(Debug, Default)]
pub struct Written {
    /// Committed, as they were told.
    pub acknowledged: BTreeSet<Entry>,
    /// COMMIT was sent, and the proxy died before its answer.
    pub unknown: BTreeSet<Entry>,
    /// The longest transaction that was not cut off.
    pub longest: Duration,
}

impl Written {
    /// Adds what others know.
    pub fn absorb(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.longest = self.longest.max(other.longest);
    }
}

/// Some writers at work.
pub struct Writers {
    stop: CancellationToken,
    handles: Vec<JoinHandle<Written>>,
}

struct Writer {
    driver: tokio_postgres::Config,
    id: i32,
    n: i64,
    written: Written,
    stop: CancellationToken,
    /// Whether the end of a node is no surprise, either.
    nodes_die: bool,
}

impl Writers {
    /// Starts writers with these numbers, each used once in a deployment.
    pub fn start(deployment: &Deployment, ids: std::ops::Range<i32>) -> Self {
        Self::beside(deployment, ids, false)
    }

    /// The same where transactions may fail because nodes end, too.
    pub fn start_beside_nodes_that_die(deployment: &Deployment, ids: std::ops::Range<i32>) -> Self {
        Self::beside(deployment, ids, true)
    }

    fn beside(deployment: &Deployment, ids: std::ops::Range<i32>, nodes_die: bool) -> Self {
        let stop = CancellationToken::new();
        let writers = ids.map(|id| Writer {
            driver: deployment.driver(),
            id,
            n: 0,
            written: Written::default(),
            stop: stop.clone(),
            nodes_die,
        });
        let handles = writers.map(|writer| Tasks::new().spawn("writer", writer.run())).collect();
        Self { stop, handles }
    }

    /// Stops them; what they know.
    pub async fn stop(self) -> Written {
        self.stop.cancel();
        let mut all = Written::default();
        for handle in self.handles {
            all.absorb(handle.await.unwrap());
        }
        all
    }
}

impl Writer {
    async fn run(mut self) -> Written {
        while !self.stop.is_cancelled() {
            let Some(client) = self.connect().await else { break };
            if let Err(error) = self.write(&client).await {
                // The end of the proxy is no surprise; an error that it tells is one.
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                let of_node = |code: &str| code.starts_with("08") || code.starts_with("57P");
                let expected = matches!(code, None | Some("57P01"))
                    || self.nodes_die && code.is_some_and(of_node);
                assert!(expected, "writer {}: {error:?}", self.id);
            }
        }
        self.written
    }

    /// `None` if it was told to stop first.
    async fn connect(&self) -> Option<Client> {
        let deadline = Instant::now() + PATIENCE;
        while !self.stop.is_cancelled() {
            match timeout(STUCK, connect(&self.driver)).await {
                Ok(Ok(client)) => return Some(client),
                Ok(Err(error)) => assert!(Instant::now() < deadline, "no proxy: {error:?}"),
                Err(error) => panic!("writer {}: the proxy does not let it in: {error}", self.id),
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Writes until it is stopped or cut off.
    async fn write(&mut self, client: &Client) -> Result<(), Error> {
        let sql = "UPDATE accounts SET version = version + 1 WHERE tenant_id = $1";
        let update = client.prepare(sql).await?;
        let sql = "INSERT INTO entries (tenant_id, writer, n) VALUES ($1, $2, $3)";
        let insert = client.prepare(sql).await?;
        while !self.stop.is_cancelled() {
            self.n += 1;
            let entry = ((self.n * 7 + i64::from(self.id) * 31) % TENANTS + 1, self.id, self.n);
            let began = Instant::now();
            let transaction = async {
                client.batch_execute("BEGIN").await?;
                assert_eq!(client.execute(&update, &[&entry.0]).await?, 1, "{entry:?}");
                client.execute(&insert, &[&entry.0, &entry.1, &entry.2]).await?;
                self.written.unknown.insert(entry);
                client.batch_execute("COMMIT").await
            };
            match timeout(STUCK, transaction).await {
                Ok(done) => done?,
                Err(error) => panic!("writer {}: a transaction is stuck: {error}", self.id),
            }
            self.written.unknown.remove(&entry);
            self.written.acknowledged.insert(entry);
            self.written.longest = self.written.longest.max(began.elapsed());
            sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }
}
