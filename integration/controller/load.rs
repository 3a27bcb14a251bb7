//! Load that costs no processor: statements that sleep on their node while they hold a backend.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foreshard::runtime::Tasks;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::process_support::{Deployment, TENANTS, connect};

/// How long a statement keeps its backend busy.
const SLEEP_MS: u32 = 20;

/// Replaces what a deployment's policy says of placement, and adds more sections to it.
pub(crate) fn configure(deployment: &Deployment, placement: &str, more: &str) {
    let text = std::fs::read_to_string(&deployment.config).unwrap();
    let text = text.replace("{ mode: 'off' }", placement);
    std::fs::write(&deployment.config, text + more).unwrap();
}

/// The tenants of a shard by hash: of this modulus and remainder.
pub(crate) async fn tenants(deployment: &Deployment, modulus: u32, remainder: u32) -> Vec<i64> {
    let node = deployment.database.client(0).await;
    let sql = format!(
        "SELECT t FROM generate_series(1, {TENANTS}) t WHERE satisfies_hash_partition(\
         'accounts'::regclass, {modulus}, {remainder}, t::bigint)"
    );
    let rows = node.simple_query(&sql).await.unwrap();
    let tenant = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    };
    rows.iter().filter_map(tenant).collect()
}

/// Clients at work; they end with this.
pub(crate) struct Sleepers {
    stop: CancellationToken,
    handles: Vec<JoinHandle<u64>>,
}

impl Sleepers {
    /// A client for each list of tenants, whose rows it reads in turn without a pause.
    pub(crate) async fn start(deployment: &Deployment, tenants: &[Vec<i64>]) -> Self {
        Self::start_while(deployment, tenants, |_| true).await
    }

    /// The same at times, in ms since 1970, to which `works` says yes.
    pub(crate) async fn start_while(
        deployment: &Deployment,
        tenants: &[Vec<i64>],
        works: fn(u64) -> bool,
    ) -> Self {
        let (stop, mut handles) = (CancellationToken::new(), Vec::new());
        for tenants in tenants {
            let client = connect(&deployment.driver()).await.unwrap();
            let work = work(client, tenants.clone(), works, stop.clone());
            handles.push(Tasks::new().spawn("sleeper", work));
        }
        Self { stop, handles }
    }

    /// Lets them end; how many statements there were.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.cancel();
        let mut statements = 0;
        for handle in self.handles {
            statements += handle.await.unwrap();
        }
        statements
    }
}

async fn work(
    client: Client,
    tenants: Vec<i64>,
    works: fn(u64) -> bool,
    stop: CancellationToken,
) -> u64 {
    let sql = format!(
        "SELECT version, pg_sleep({}) FROM accounts WHERE tenant_id = $1",
        f64::from(SLEEP_MS) / 1_000.0
    );
    let statement = client.prepare(&sql).await.unwrap();
    let mut statements = 0;
    for tenant in tenants.iter().cycle() {
        if stop.is_cancelled() {
            break;
        }
        if works(now_ms()) {
            let rows = client.query(&statement, &[tenant]).await;
            assert_eq!(rows.unwrap_or_else(|error| panic!("{error:?}")).len(), 1);
            statements += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    statements
}

/// Now, in ms since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
