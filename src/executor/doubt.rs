//! Nodes on which a part of a decided transaction may not be committed yet: its client knows that it
//! is committed, so nobody may see the node as it was before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{Engine, Fault};
use crate::cluster::{Barred, Closing};
use crate::ids::NodeId;
use crate::wire::{ServerError, SqlState};

/// How long a statement waits until a node's parts are finished.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long other proxies may take to hear of a doubt.
const TELL: Duration = Duration::from_secs(2);

/// How soon a node is asked again that is at work on its part.
const AGAIN: Duration = Duration::from_millis(20);

/// The nodes in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    marks: Mutex<Marks>,
    /// Those of other proxies, which finish what is left themselves.
    shared: Mutex<BTreeSet<(NodeId, String)>>,
    /// What other proxies were told of this one's.
    told: Mutex<Vec<(NodeId, Arc<Closing>)>>,
    any: AtomicBool,
    /// Somebody finishes what is left; the others wait.
    pub(super) finishing: tokio::sync::Mutex<()>,
    /// Something was left just now.
    pub(super) raised: Notify,
}

#[derive(Debug, Default)]
struct Marks {
    nodes: HashMap<NodeId, Mark>,
    count: u64,
}

/// Which doubt it is: what was looked at before a newer one was raised does not settle that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Doubts {
    /// Nobody may use this node before what is left there is finished.
    pub(super) fn raise(&self, node: NodeId) {
        let mut marks = self.marks.lock();
        marks.count += 1;
        let mark = Mark(marks.count);
        marks.nodes.insert(node, mark);
        self.any.store(true, Ordering::Release);
    }

    /// Nothing is left on this node, as was found after `mark` was seen.
    pub(super) fn settle(&self, node: NodeId, mark: Mark) {
        let mut marks = self.marks.lock();
        if marks.nodes.get(&node) == Some(&mark) {
            marks.nodes.remove(&node);
            self.told.lock().retain(|(of, _)| *of != node);
        }
        let shared = self.shared.lock();
        self.any.store(!marks.nodes.is_empty() || !shared.is_empty(), Ordering::Release);
    }

    /// Other proxies were told of a doubt; if it is not settled already.
    fn tell(&self, node: NodeId, closing: Arc<Closing>) {
        let marks = self.marks.lock();
        if marks.nodes.contains_key(&node) {
            self.told.lock().push((node, closing));
        }
    }

    /// Another proxy has a doubt of this name about a node.
    pub(super) fn share(&self, node: NodeId, name: String) {
        self.shared.lock().insert((node, name));
        self.any.store(true, Ordering::Release);
    }

    /// It has no more.
    pub(super) fn dispel(&self, node: NodeId, name: &str) {
        let marks = self.marks.lock();
        let mut shared = self.shared.lock();
        shared.retain(|(of, known)| (*of, known.as_str()) != (node, name));
        self.any.store(!marks.nodes.is_empty() || !shared.is_empty(), Ordering::Release);
    }

    /// Whether another proxy has one about a node.
    fn is_shared(&self, node: NodeId) -> bool {
        self.shared.lock().iter().any(|(of, _)| *of == node)
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The doubt about a node.
    pub(super) fn of(&self, node: NodeId) -> Option<Mark> {
        if self.any() { self.marks.lock().nodes.get(&node).copied() } else { None }
    }
}

impl Engine {
    /// Nobody uses these nodes, here or on other proxies, before the resolver has finished what is left
    /// there.
    pub(super) async fn doubt(&self, nodes: &[NodeId]) {
        nodes.iter().for_each(|node| self.doubts.raise(*node));
        self.doubts.raised.notify_one();
        self.share_doubts(nodes).await;
    }

    /// Tells other proxies of doubts.
    pub(super) async fn share_doubts(&self, nodes: &[NodeId]) {
        for node in nodes {
            if self.doubts.told.lock().iter().any(|(of, _)| of == node) {
                continue;
            }
            match self.cluster.close(Barred::Doubt(*node)).await {
                Ok(closing) => {
                    let closing = Arc::new(closing);
                    self.doubts.tell(*node, Arc::clone(&closing));
                    if timeout(TELL, closing.passed()).await.is_err() {
                        tracing::warn!(%node, "another proxy hears of a doubt later");
                    }
                }
                Err(error) => tracing::warn!(%error, "other proxies do not know of a doubt"),
            }
        }
    }

    /// Takes over the doubts of proxies that are not enrolled any more.
    pub async fn inherit_doubts(&self, enrolled: &[u64]) {
        let left = self.cluster.barriers().into_iter().filter_map(|barrier| match barrier.barred {
            Barred::Doubt(node) if !enrolled.contains(&barrier.by) => Some(node),
            _ => None,
        });
        self.doubt(&left.collect::<Vec<_>>()).await;
    }

    /// Makes sure that all that was decided is committed on `node`.
    ///
    /// # Errors
    /// 57P03: it can't be told, as the node does not answer.
    pub(super) async fn certain(&self, node: NodeId) -> Result<(), Fault> {
        if self.doubts.of(node).is_none() && !self.doubts.is_shared(node) {
            return Ok(());
        }
        let finish = async {
            while self.doubts.is_shared(node) {
                sleep(AGAIN).await;
            }
            let _only = self.doubts.finishing.lock().await;
            let Some(mark) = self.doubts.of(node) else { return true };
            let address = &self.nodes[node.index()];
            loop {
                match self.resolve_node(address, &self.finishing()).await {
                    Ok(()) => {
                        self.doubts.settle(node, mark);
                        return true;
                    }
                    // The session whose connection broke still finishes it.
                    Err(error) if error.is_busy() => sleep(AGAIN).await,
                    Err(error) => {
                        tracing::warn!(node = %address.name, %error, "prepared transactions stay");
                        return false;
                    }
                }
            }
        };
        if timeout(PATIENCE, finish).await == Ok(true) {
            return Ok(());
        }
        let name = &self.nodes[node.index()].name;
        let message = format!("node {name} has not finished a transaction that is committed");
        Err(ServerError::new(SqlState::CANNOT_CONNECT_NOW, message)
            .with_detail("It did not answer; its rows would be shown as they were before.")
            .with_hint("Nothing was executed; it is safe to try again.")
            .into())
    }
}
