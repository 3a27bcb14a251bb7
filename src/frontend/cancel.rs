//! Which session a cancel request means; and with that, which sessions there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::directory::ClientInfo;
use crate::executor::{CancelTarget, Party};
use crate::ids::NodeId;
use crate::wire::CancelKey;

/// The sessions by the keys that their clients were given.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    sessions: Mutex<HashMap<CancelKey, (Arc<CancelTarget>, Who)>>,
}

/// Whose session it is.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub user: Arc<str>,
    pub database: String,
    /// None for the Unix socket.
    pub address: Option<IpAddr>,
    pub since: Instant,
}

/// A session's entry; ends with it.
#[derive(Debug)]
pub(super) struct CancelEntry {
    cancels: Arc<Cancels>,
    pub key: CancelKey,
}

impl Cancels {
    /// Enters a session under a key that nobody can guess.
    pub(super) fn enter(self: &Arc<Self>, target: Arc<CancelTarget>, who: Who) -> CancelEntry {
        let mut sessions = self.sessions.lock();
        let mut key = CancelKey { pid: rand::random::<i32>() & i32::MAX, secret: rand::random() };
        while sessions.contains_key(&key) {
            key.secret = rand::random();
        }
        sessions.insert(key, (target, who));
        CancelEntry { cancels: Arc::clone(self), key }
    }

    /// The session with this key.
    pub(super) fn find(&self, key: CancelKey) -> Option<Arc<CancelTarget>> {
        self.sessions.lock().get(&key).map(|(target, _)| Arc::clone(target))
    }

    /// The sessions that hold connections to several nodes.
    pub(super) fn of_several_nodes(&self) -> Vec<Party> {
        let sessions = self.sessions.lock();
        let several = sessions.iter().filter(|(_, (target, _))| target.held().0.len() > 1);
        let party = |(key, (target, _)): (&CancelKey, &(Arc<CancelTarget>, Who))| Party {
            client: key.pid,
            target: Arc::clone(target),
        };
        several.map(party).collect()
    }

    /// All sessions, with the nodes by these names.
    pub(super) fn list<'a>(&self, node: impl Fn(NodeId) -> &'a str) -> Vec<ClientInfo> {
        let sessions = self.sessions.lock();
        let info = |(key, (target, who)): (&CancelKey, &(Arc<CancelTarget>, Who))| {
            let (held, pinned) = target.held();
            ClientInfo {
                client: key.pid,
                user: who.user.to_string(),
                database: who.database.clone(),
                address: who.address.map(|address| address.to_string()),
                connected_s: who.since.elapsed().as_secs(),
                state: match (held.is_empty(), pinned) {
                    (true, _) => "idle",
                    (false, false) => "active",
                    (false, true) => "pinned",
                },
                servers: held
                    .iter()
                    .map(|(id, key)| format!("{}:{}", node(*id), key.pid))
                    .collect(),
            }
        };
        sessions.iter().map(info).collect()
    }
}

impl Drop for CancelEntry {
    fn drop(&mut self) {
        self.cancels.sessions.lock().remove(&self.key);
    }
}
