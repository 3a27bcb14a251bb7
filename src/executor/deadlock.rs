//! Transactions of several nodes that wait for each other. Each node sees only its part of such a
//! circle and waits for ever, so the proxy looks for it and ends the youngest of them, as PostgreSQL
//! does within one server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::waits::{Vertex, Waits, circle};
use super::{CancelTarget, ColumnsError, Engine};
use crate::cluster::HoldingSession;
use crate::ids::NodeId;
use crate::runtime::{Tasks, now_unix_ms};

/// How often it is looked whether to look at all.
const UNASKED: Duration = Duration::from_secs(1);
/// How long one node may take to tell who waits for whom.
const DEADLINE: Duration = Duration::from_secs(5);
/// A circle that is still there after this long is none of two looks at different moments.
const AGAIN: Duration = Duration::from_millis(100);

/// Who waits for a lock, and the processes that are in the way.
const WAITING: &str = "SELECT pid, pg_catalog.pg_blocking_pids(pid) FROM \
    (SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted LIMIT 1000) w";

/// A session that holds connections to several nodes.
#[derive(Debug, Clone)]
pub struct Party {
    /// The process number that its client was given.
    pub client: i32,
    /// What a cancel request for it reaches.
    pub target: Arc<CancelTarget>,
}

/// A session that has held the same connections since then.
#[derive(Debug, Clone)]
struct Suspect {
    /// None of a session of another proxy: that one ends it.
    target: Option<Arc<CancelTarget>>,
    held: SmallVec<[(NodeId, i32); 4]>,
    since_unix_ms: u64,
}

/// The number of a proxy, and the process number that its client was given.
type Client = (u64, i32);

impl Engine {
    /// Looks for circles at intervals, until it is stopped.
    pub async fn end_deadlocks_forever(
        self: Arc<Self>,
        parties: impl Fn() -> Vec<Party> + Send,
        tasks: Tasks,
    ) {
        let mut suspects = HashMap::new();
        loop {
            let interval = Duration::from_millis(self.config().deadlock_check_ms);
            tokio::select! {
                () = tasks.token().cancelled() => return,
                () = tokio::time::sleep(if interval.is_zero() { UNASKED } else { interval }) => {}
            }
            if interval.is_zero() {
                continue;
            }
            note(&mut suspects, self.number, parties());
            let for_long = |it: &Suspect| {
                now_unix_ms().saturating_sub(it.since_unix_ms) >= self.config().deadlock_check_ms
            };
            let all = self.with_others(&suspects, for_long).await;
            // It takes two that hold what others wait for on another node.
            if all.len() >= 2 && suspects.values().any(for_long) {
                self.end_deadlock(&all).await;
            }
        }
    }

    /// Those that wait for long, with those of other proxies.
    async fn with_others(
        &self,
        suspects: &HashMap<Client, Suspect>,
        for_long: impl Fn(&Suspect) -> bool,
    ) -> HashMap<Client, Suspect> {
        let ours = suspects.iter().filter(|(_, suspect)| for_long(suspect));
        let sessions = ours.clone().map(|((_, client), it)| HoldingSession {
            client: *client,
            since_unix_ms: it.since_unix_ms,
            held: it.held.to_vec(),
        });
        if let Err(error) = self.cluster.tell_holding(sessions.collect()).await {
            tracing::debug!(%error, "other proxies do not know who holds what");
        }
        let theirs = self.cluster.holding_elsewhere().into_iter().flat_map(|holding| {
            let proxy = holding.proxy;
            holding.sessions.into_iter().map(move |it| {
                let held = it.held.into();
                let suspect = Suspect { target: None, held, since_unix_ms: it.since_unix_ms };
                ((proxy, it.client), suspect)
            })
        });
        ours.map(|(client, suspect)| (*client, suspect.clone())).chain(theirs).collect()
    }

    async fn end_deadlock(&self, suspects: &HashMap<Client, Suspect>) {
        let Some(first) = self.find_circle(suspects).await else { return };
        tokio::time::sleep(AGAIN).await;
        let Some(found) = self.find_circle(suspects).await else { return };
        let clients = |waits: &Waits| {
            let mut clients: Vec<_> = waits.iter().filter_map(|(of, _)| of.client()).collect();
            clients.sort_unstable();
            clients
        };
        if clients(&first) != clients(&found) {
            return;
        }
        let parties = clients(&found);
        let members = parties.iter().filter_map(|client| Some((client, suspects.get(client)?)));
        // All proxies come to the same one; its own ends it.
        let youngest = members.max_by_key(|(client, it)| (it.since_unix_ms, **client));
        let Some((client, Some(target))) = youngest.map(|(client, it)| (client.1, &it.target))
        else {
            return;
        };
        let detail = self.told(&found);
        tracing::warn!(client, %detail, "ended a transaction that was part of a deadlock");
        metrics::counter!("foreshard_executor_deadlocks_total").increment(1);
        target.end_as_deadlock(detail, self).await;
    }

    /// A circle among what the nodes of the suspects say.
    async fn find_circle(&self, suspects: &HashMap<Client, Suspect>) -> Option<Waits> {
        let mut processes = HashMap::new();
        for (client, suspect) in suspects {
            processes.extend(suspect.held.iter().map(|process| (*process, *client)));
        }
        let mut nodes: Vec<NodeId> = processes.keys().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let asked = nodes.iter().map(|node| timeout(DEADLINE, self.waiting_on(*node)));
        let mut edges: HashMap<Vertex, Vec<(Vertex, NodeId)>> = HashMap::new();
        let vertex = |node: NodeId, pid: i32| match processes.get(&(node, pid)) {
            Some((proxy, client)) => Vertex::Session(*proxy, *client),
            None => Vertex::Other(node, pid),
        };
        for (node, answer) in nodes.iter().zip(join_all(asked).await) {
            let waiting = match answer {
                Ok(Ok(waiting)) => waiting,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "who waits for whom could not be read");
                    continue;
                }
                Err(_) => continue,
            };
            for (pid, blockers) in waiting {
                let blockers = blockers.into_iter().map(|pid| (vertex(*node, pid), *node));
                edges.entry(vertex(*node, pid)).or_default().extend(blockers);
            }
        }
        circle(&edges)
    }

    async fn waiting_on(&self, node: NodeId) -> Result<Vec<(i32, Vec<i32>)>, ColumnsError> {
        let node = &self.nodes[node.index()];
        let config = node.service_config(self.live_map.snapshot().database());
        let (client, connection) = config.connect(node.tls.clone()).await?;
        let asked = async {
            node.enter(&client).await?;
            Ok::<_, ColumnsError>(client.query(WAITING, &[]).await?)
        };
        let rows = tokio::select! {
            rows = asked => rows?,
            ended = connection => return Ok(ended.map(|()| Vec::new())?),
        };
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The circle, for the client and the log.
    fn told(&self, circle: &Waits) -> String {
        let name = |vertex: &Vertex| match vertex {
            Vertex::Session(proxy, client) if *proxy == self.number => format!("client {client}"),
            Vertex::Session(proxy, client) => format!("client {client} of proxy {proxy}"),
            Vertex::Other(_, pid) => format!("process {pid}"),
        };
        let next = circle.iter().cycle().skip(1);
        let told = circle.iter().zip(next).map(|((of, node), (by, _))| {
            let node = &self.nodes[node.index()].name;
            format!("On node {node} {} waits for {}.", name(of), name(by))
        });
        told.collect::<Vec<_>>().join(" ")
    }
}

/// Takes note of who holds connections to several nodes, and since when the same ones.
fn note(suspects: &mut HashMap<Client, Suspect>, proxy: u64, parties: Vec<Party>) {
    let mut before = std::mem::take(suspects);
    for Party { client, target } in parties {
        let held = target.held().0.iter().map(|(node, key)| (*node, key.pid)).collect();
        let since_unix_ms = match before.remove(&(proxy, client)) {
            Some(known) if known.held == held => known.since_unix_ms,
            _ => now_unix_ms(),
        };
        suspects.insert((proxy, client), Suspect { target: Some(target), held, since_unix_ms });
    }
}
