//! Nodes on which a part of a decided transaction may not be committed yet: its client knows that it
//! is committed, so nobody may see the node as it was before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{Engine, Fault};
use crate::ids::NodeId;
use crate::wire::{ServerError, SqlState};

/// How long a statement waits until a node's parts are finished.
const PATIENCE: Duration = Duration::from_secs(10);

/// How soon a node is asked again that is at work on its part.
const AGAIN: Duration = Duration::from_millis(20);

/// The nodes in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    marks: Mutex<Marks>,
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
        }
        self.any.store(!marks.nodes.is_empty(), Ordering::Release);
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
    /// Makes sure that all that was decided is committed on `node`.
    ///
    /// # Errors
    /// 57P03: it can't be told, as the node does not answer.
    pub(super) async fn certain(&self, node: NodeId) -> Result<(), Fault> {
        if self.doubts.of(node).is_none() {
            return Ok(());
        }
        let finish = async {
            let _only = self.doubts.finishing.lock().await;
            let Some(mark) = self.doubts.of(node) else { return true };
            let address = &self.nodes[node.index()];
            loop {
                match self.resolve_node(address).await {
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
