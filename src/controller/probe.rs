//! What the nodes say of themselves: connections, busy time, replication lag, disk; and their
//! machines, where a node exporter's address is in the policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use crate::backend::NodeAddress;
use crate::load::{self, Exported, Machine};
use crate::runtime::Tasks;

/// How long a node may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// The size of a database is asked for at each so many looks: it costs a look at each file.
const SIZE_EVERY: u32 = 10;
/// Bytes of an exporter's page.
const PAGE_BYTES_MAX: u64 = 8 << 20;

/// One row. `active_time` is since PostgreSQL 14.
const PROBE: &str = "\
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       (SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()),
       current_setting('max_connections')::bigint,
       (SELECT coalesce(sum(active_time), 0)::float8 FROM pg_stat_database),
       (SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 FROM pg_stat_replication
         WHERE state = 'streaming'),
       (SELECT coalesce(sum(blks_read), 0)::float8 FROM pg_stat_database)";
const SIZE: &str = "SELECT pg_database_size(current_database())";

/// What one node says.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct NodeProbe {
    /// Its name.
    pub node: String,
    /// Whether it answered the last time.
    pub answers: bool,
    /// Clients connected, those of the proxy and all others.
    pub connections: i64,
    /// Of these, how many work.
    pub active: i64,
    /// How many it takes.
    pub connections_max: i64,
    /// Busy seconds a second of all its databases, also of what the proxy does not see; `None`
    /// before the second look.
    pub busy: Option<f64>,
    /// How far its furthest standby is behind.
    pub replication_lag_seconds: f64,
    /// Blocks a second that it read from outside of its buffers.
    pub blocks_read_per_second: Option<f64>,
    /// The database of the shards.
    pub database_bytes: Option<i64>,
    /// Its machine.
    pub machine: Option<Machine>,
}

/// What the nodes said last, by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Probes(Arc<Mutex<BTreeMap<String, NodeProbe>>>);

impl Probes {
    /// All of them.
    pub(super) fn all(&self) -> Vec<NodeProbe> {
        self.0.lock().values().cloned().collect()
    }

    /// Asks each node again and again until `tasks` is stopped.
    pub(super) fn start(
        &self,
        nodes: &[NodeAddress],
        database: &str,
        config: &load::Config,
        tasks: &Tasks,
    ) {
        for address in nodes {
            let probe = Probe {
                address: address.clone(),
                database: database.to_owned(),
                exporter: config.node_exporters.get(&address.name).cloned(),
                tasks: tasks.clone(),
                client: None,
                counters: None,
                exported: None,
                looks: 0,
            };
            let interval = Duration::from_millis(config.probe_interval_ms);
            tasks.spawn("probe", probe.run(self.clone(), interval));
        }
    }
}

/// One node's.
struct Probe {
    address: NodeAddress,
    database: String,
    exporter: Option<String>,
    tasks: Tasks,
    client: Option<Client>,
    /// Milliseconds that backends worked, and blocks that they read; when.
    counters: Option<(f64, f64, Instant)>,
    exported: Option<(Exported, Instant)>,
    looks: u32,
}

impl Probe {
    async fn run(mut self, probes: Probes, interval: Duration) {
        let token = self.tasks.token().clone();
        let mut seen = NodeProbe { node: self.address.name.clone(), ..NodeProbe::default() };
        loop {
            let looked = tokio::select! {
                looked = timeout(DEADLINE, self.look(&mut seen)) => looked,
                () = token.cancelled() => return,
            };
            let failure = match looked {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            };
            if let Some(reason) = &failure {
                self.client = None;
                if seen.answers {
                    tracing::warn!(node = seen.node, reason, "a node could not be probed");
                }
            }
            seen.answers = failure.is_none();
            seen.machine = self.machine().await;
            publish(&seen);
            probes.0.lock().insert(seen.node.clone(), seen.clone());
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = token.cancelled() => return,
            }
        }
    }

    async fn look(&mut self, seen: &mut NodeProbe) -> Result<(), tokio_postgres::Error> {
        let client = match &mut self.client {
            Some(client) if !client.is_closed() => client,
            client => {
                let mut config = self.address.service_config(&self.database);
                config.application_name("foreshard probe").connect_timeout(DEADLINE);
                let (new, connection) = config.connect(self.address.tls.clone()).await?;
                self.tasks.spawn("probe connection", async move {
                    // The next look connects anew.
                    drop(connection.await);
                });
                client.insert(new)
            }
        };
        let row = client.query_one(PROBE, &[]).await?;
        (seen.connections, seen.active, seen.connections_max) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        seen.replication_lag_seconds = row.try_get(4)?;
        let (busy_ms, blocks): (f64, f64) = (row.try_get(3)?, row.try_get(5)?);
        let now = Instant::now();
        if let Some((busy_before, blocks_before, at)) =
            self.counters.replace((busy_ms, blocks, now))
        {
            let seconds = (now - at).as_secs_f64().max(1e-3);
            seen.busy = Some(((busy_ms - busy_before) / 1e3 / seconds).max(0.0));
            seen.blocks_read_per_second = Some(((blocks - blocks_before) / seconds).max(0.0));
        }
        if self.looks.is_multiple_of(SIZE_EVERY) {
            seen.database_bytes = Some(client.query_one(SIZE, &[]).await?.try_get(0)?);
        }
        self.looks = self.looks.wrapping_add(1);
        Ok(())
    }

    /// What the node exporter says since the look before.
    async fn machine(&mut self) -> Option<Machine> {
        let url = self.exporter.as_deref()?;
        let page = load::get(url, PAGE_BYTES_MAX).await;
        let page = page.inspect_err(|error| tracing::debug!(%error, "a node exporter is silent"));
        let (exported, now) = (Exported::read(&page.ok()?), Instant::now());
        let (before, at) = self.exported.replace((exported, now))?;
        Some(exported.since(&before, (now - at).as_secs_f64()))
    }
}

fn publish(seen: &NodeProbe) {
    let gauge = |name: &'static str, value: f64| {
        metrics::gauge!(name, "node" => seen.node.clone()).set(value);
    };
    let count = |count: i64| f64::from(i32::try_from(count).unwrap_or(i32::MAX));
    gauge("foreshard_node_answers", f64::from(u8::from(seen.answers)));
    gauge("foreshard_node_connections_count", count(seen.connections));
    gauge("foreshard_node_active_connections_count", count(seen.active));
    gauge("foreshard_node_replication_lag_seconds", seen.replication_lag_seconds);
    if let Some(busy) = seen.busy {
        gauge("foreshard_node_busy_ratio", busy);
    }
    if let Some(bytes) = seen.database_bytes {
        let mebibytes = count(bytes >> 20);
        gauge("foreshard_node_database_bytes", mebibytes * 1_048_576.0);
    }
    if let Some(machine) = seen.machine {
        gauge("foreshard_node_cpu_ratio", machine.cpu_share);
        gauge("foreshard_node_memory_ratio", machine.memory_share);
        gauge("foreshard_node_disk_busy_ratio", machine.disk_busy_share);
    }
}
