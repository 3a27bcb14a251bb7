//! A transaction in two phases that belongs to no session: its decision is committed with other
//! records.

use std::sync::Arc;

use super::{CommitDecision, Engine};
use crate::ids::NodeId;

/// Keeps the resolver away from a prepared transaction while somebody is at work on it.
#[derive(Debug)]
pub struct OutsideCommit {
    engine: Arc<Engine>,
    gid: String,
}

impl OutsideCommit {
    /// A name that no other prepared transaction has.
    pub fn new(engine: &Arc<Engine>) -> Self {
        let gid = engine.next_gid();
        engine.live_gids.lock().insert(gid.clone());
        Self { engine: Arc::clone(engine), gid }
    }

    /// The name to prepare the transaction by.
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// This node may not have committed what was decided: nobody uses it before the resolver has done
    /// that.
    pub async fn doubt(&self, node: NodeId) {
        self.engine.doubt(&[node]).await;
    }

    /// Once this record is in the catalog the transaction may only be committed, and the resolver
    /// does that if nobody else does; without it, it is rolled back.
    pub fn decision(&self) -> CommitDecision {
        CommitDecision { gid: self.gid.clone(), last: None }
    }
}

impl Drop for OutsideCommit {
    fn drop(&mut self) {
        self.engine.live_gids.lock().remove(&self.gid);
    }
}
