//! Which session a cancel request means; and with that, which sessions there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::directory::ClientInfo;
use crate::cluster::Presence;
use crate::executor::{CancelTarget, Party};
use crate::ids::NodeId;
use crate::wire::ClientKey;

/// The sessions by the keys that their clients were given.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    /// Which of several proxies gave a key: part of each key.
    tag: i32,
    sessions: Mutex<HashMap<ClientKey, (Arc<CancelTarget>, Who)>>,
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
    pub key: ClientKey,
}

/// Bits of a process number that no tag is in.
const TAG_SHIFT: u32 = 24;

/// What the keys of a proxy with this number have in them. There are 128 of them.
fn tag(proxy: u64) -> i32 {
    i32::try_from(proxy % 128).unwrap_or_default()
}

impl Cancels {
    /// Those of a proxy with this number.
    pub(super) fn new(proxy: u64) -> Self {
        Self { tag: tag(proxy), sessions: Mutex::default() }
    }

    /// The proxy among these that may have given a key, which none of this one's sessions has.
    pub(super) fn elsewhere<'a>(
        &self,
        key: &ClientKey,
        proxies: &'a [(u64, Presence)],
    ) -> Option<&'a Presence> {
        let of = key.pid >> TAG_SHIFT;
        // One with the same tag hands nothing on: no request goes round in a circle.
        let mut there = proxies.iter().filter(|_| of != self.tag);
        there.find(|(number, _)| tag(*number) == of).map(|(_, presence)| presence)
    }

    /// Enters a session under a key that nobody can guess; its client speaks this minor version.
    pub(super) fn enter(
        self: &Arc<Self>,
        minor: u16,
        target: Arc<CancelTarget>,
        who: Who,
    ) -> CancelEntry {
        let mut sessions = self.sessions.lock();
        let pid = self.tag << TAG_SHIFT | rand::random::<i32>() & ((1 << TAG_SHIFT) - 1);
        let mut key = ClientKey::new(pid, minor, &rand::random());
        while sessions.contains_key(&key) {
            key = ClientKey::new(pid, minor, &rand::random());
        }
        sessions.insert(key.clone(), (target, who));
        CancelEntry { cancels: Arc::clone(self), key }
    }

    /// The session with this key.
    pub(super) fn find(&self, key: &ClientKey) -> Option<Arc<CancelTarget>> {
        self.sessions.lock().get(key).map(|(target, _)| Arc::clone(target))
    }

    /// The sessions that hold connections to several nodes.
    pub(super) fn of_several_nodes(&self) -> Vec<Party> {
        let sessions = self.sessions.lock();
        let several = sessions.iter().filter(|(_, (target, _))| target.held().0.len() > 1);
        let party = |(key, (target, _)): (&ClientKey, &(Arc<CancelTarget>, Who))| Party {
            client: key.pid,
            target: Arc::clone(target),
        };
        several.map(party).collect()
    }

    /// All sessions, with the nodes by these names.
    pub(super) fn list<'a>(&self, node: impl Fn(NodeId) -> &'a str) -> Vec<ClientInfo> {
        let sessions = self.sessions.lock();
        let info = |(key, (target, who)): (&ClientKey, &(Arc<CancelTarget>, Who))| {
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

#[cfg(test)]
mod tests {
    use super::{Cancels, tag};
    use crate::cluster::Presence;
    use crate::wire::ClientKey;

    #[test]
    fn a_key_says_which_proxy_gave_it() {
        let presence = |id: &str| Presence { id: id.to_owned(), ..Presence::default() };
        let proxies = [(3, presence("a")), (130, presence("b"))];
        let key = |proxy: u64| ClientKey::new(tag(proxy) << 24 | 5, 0, &[1; 32]);
        let here = Cancels::new(3);
        let other = |proxy: u64| here.elsewhere(&key(proxy), &proxies).map(|it| it.id.as_str());
        assert_eq!((other(3), other(130), other(4)), (None, Some("b"), None));
        assert!(key(127).pid > 0);
    }
}
