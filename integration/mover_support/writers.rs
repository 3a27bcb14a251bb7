//! Clients that write to the moved shard as the proxy's executor does: enter the gate, look up the
//! node, run the statement. Each knows exactly what its rows must be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foreshard::runtime::Tasks;
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{Proxy, Shop, shard_of};
use crate::support::{connect, rows};

/// Some writers at work.
pub struct Writers {
    stop: CancellationToken,
    longest: Arc<Mutex<Duration>>,
    handles: Vec<JoinHandle<Writer>>,
    nodes: Vec<Client>,
    serving: Arc<RwLock<Option<Proxy>>>,
}

struct Writer {
    tenant: i64,
    serving: Arc<RwLock<Option<Proxy>>>,
    clients: Vec<Client>,
    longest: Arc<Mutex<Duration>>,
    /// Orders by id: v and the length of `big`.
    model: BTreeMap<i64, (i64, i64)>,
    events: i64,
    acknowledged: u64,
    step: i64,
}

impl Writers {
    /// Starts `count` writers, each with a tenant of its own.
    pub async fn start(shop: &Shop, count: usize) -> Self {
        let (token, longest) = (CancellationToken::new(), Arc::default());
        let mut handles = Vec::new();
        for tenant in shop.tenants.iter().rev().take(count) {
            let mut clients = Vec::new();
            for node in &shop.database.nodes {
                clients.push(connect(node, &shop.database.name).await);
            }
            let writer = Writer {
                tenant: *tenant,
                serving: Arc::clone(&shop.serving),
                clients,
                longest: Arc::clone(&longest),
                model: BTreeMap::new(),
                events: 0,
                acknowledged: 0,
                step: 0,
            };
            handles.push(Tasks::new().spawn("writer", writer.run(token.clone())));
        }
        let nodes = vec![shop.client(0).await, shop.client(1).await];
        Self { stop: token, longest, handles, nodes, serving: Arc::clone(&shop.serving) }
    }

    /// The longest that a statement took, with its wait at the gate.
    pub fn longest_wait(&self) -> Duration {
        *self.longest.lock()
    }

    /// Stops them, and checks that each row is what its writer was told. How many statements were
    /// acknowledged.
    pub async fn stop(self) -> u64 {
        self.stop.cancel();
        let mut acknowledged = 0;
        for handle in self.handles {
            let writer = handle.await.unwrap();
            let map = serving(&self.serving).await.live_map.snapshot();
            let node = map.node_of(shard_of(&map, writer.tenant));
            let client = &self.nodes[node.index()];
            writer.check(client).await;
            acknowledged += writer.acknowledged;
        }
        println!("longest statement: {:?}, {acknowledged} statements", self.longest.lock());
        acknowledged
    }
}

/// The process that serves; after a crash the next one.
async fn serving(serving: &RwLock<Option<Proxy>>) -> Proxy {
    loop {
        let proxy = serving.read().clone();
        if let Some(proxy) = proxy.filter(Proxy::is_alive) {
            return proxy;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) -> Self {
        while !stop.is_cancelled() {
            self.step += 1;
            self.write().await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        self
    }

    /// One statement, and what it does to the model.
    async fn write(&mut self) {
        let (tenant, step) = (self.tenant, self.step);
        let oldest = self.model.first_key_value().map(|(id, row)| (*id, *row));
        match (step % 8, oldest) {
            (1, Some((id, (v, _)))) => {
                let sql =
                    format!("UPDATE orders SET v = v + 1 WHERE tenant_id = {tenant} AND id = {id}");
                self.execute(&sql, 1).await;
                self.model.get_mut(&id).unwrap().0 = v + 1;
            }
            (2, Some((id, row))) => {
                let new = step + 1_000_000;
                let sql = format!(
                    "UPDATE orders SET id = {new} WHERE tenant_id = {tenant} AND id = {id}"
                );
                self.execute(&sql, 1).await;
                self.model.remove(&id);
                self.model.insert(new, row);
            }
            (3, Some((id, _))) if self.model.len() > 20 => {
                let sql = format!("DELETE FROM orders WHERE tenant_id = {tenant} AND id = {id}");
                self.execute(&sql, 1).await;
                self.model.remove(&id);
            }
            (4, _) => {
                let sql = format!(
                    "INSERT INTO events (tenant_id, what, flags) \
                     VALUES ({tenant}, '{{\"step\":1}}', 'ab')"
                );
                self.execute(&sql, 1).await;
                self.events += 1;
            }
            (5, _) if self.events > 3 => {
                let sql = format!(
                    "UPDATE events SET flags = 'c' || {} WHERE ctid = \
                     (SELECT ctid FROM events WHERE tenant_id = {tenant} LIMIT 1) \
                     AND tenant_id = {tenant}",
                    step % 7
                );
                self.execute(&sql, 1).await;
            }
            _ => {
                let sql = format!(
                    "WITH o AS (INSERT INTO orders (tenant_id, id, v, note, big) VALUES \
                     ({tenant}, {step}, 1, NULL, (SELECT string_agg(md5((x + {step})::text), '') \
                     FROM generate_series(1, 200) x)) RETURNING id) \
                     INSERT INTO items SELECT {tenant}, id, 1, 2.25 FROM o"
                );
                self.execute(&sql, 1).await;
                self.model.insert(step, (1, 6_400));
            }
        }
    }

    async fn execute(&mut self, sql: &str, touched: u64) {
        let began = Instant::now();
        loop {
            let proxy = serving(&self.serving).await;
            let soon = Duration::from_millis(50);
            let map = proxy.live_map.snapshot();
            let shard = shard_of(&map, self.tenant);
            let Ok(pass) = tokio::time::timeout(soon, proxy.gates.enter(shard)).await else {
                // Its process may be dead: then the next one answers.
                continue;
            };
            if !proxy.is_alive() || proxy.live_map.load().epoch() != map.epoch() {
                continue;
            }
            let node = map.node_of(shard);
            let result = self.clients[node.index()].execute(sql, &[]).await;
            drop(pass);
            assert_eq!(result.unwrap_or_else(|e| panic!("{sql}: {e:?}")), touched, "{sql}");
            break;
        }
        self.acknowledged += 1;
        let mut longest = self.longest.lock();
        *longest = longest.max(began.elapsed());
    }

    async fn check(&self, client: &Client) {
        let tenant = self.tenant;
        let sql = format!(
            "SELECT id, v, coalesce(length(big), 0), twice FROM orders WHERE tenant_id = {tenant} \
             ORDER BY id"
        );
        let expected: Vec<String> =
            self.model.iter().map(|(id, (v, big))| format!("{id}|{v}|{big}|{}", v * 2)).collect();
        assert_eq!(rows(client, &sql).await, expected);
        let sql = format!("SELECT order_id FROM items WHERE tenant_id = {tenant} ORDER BY 1");
        let expected: Vec<String> = self.model.keys().map(ToString::to_string).collect();
        assert_eq!(rows(client, &sql).await, expected);
        let sql = format!("SELECT count(*) FROM events WHERE tenant_id = {tenant}");
        assert_eq!(rows(client, &sql).await, [self.events.to_string()]);
    }
}
