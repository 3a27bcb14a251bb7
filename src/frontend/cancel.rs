//! Which session a cancel request means.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::executor::CancelTarget;
use crate::wire::CancelKey;

/// The sessions by the keys that their clients were given.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    sessions: Mutex<HashMap<CancelKey, Arc<CancelTarget>>>,
}

/// A session's entry; ends with it.
#[derive(Debug)]
pub(super) struct CancelEntry {
    cancels: Arc<Cancels>,
    pub key: CancelKey,
}

impl Cancels {
    /// Enters a session under a key that nobody can guess.
    pub(super) fn enter(self: &Arc<Self>, target: Arc<CancelTarget>) -> CancelEntry {
        let mut sessions = self.sessions.lock();
        let mut key = CancelKey { pid: rand::random::<i32>() & i32::MAX, secret: rand::random() };
        while sessions.contains_key(&key) {
            key.secret = rand::random();
        }
        sessions.insert(key, target);
        CancelEntry { cancels: Arc::clone(self), key }
    }

    /// The session with this key.
    pub(super) fn find(&self, key: CancelKey) -> Option<Arc<CancelTarget>> {
        self.sessions.lock().get(&key).cloned()
    }
}

impl Drop for CancelEntry {
    fn drop(&mut self) {
        self.cancels.sessions.lock().remove(&self.key);
    }
}
