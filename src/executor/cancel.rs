//! Cancel requests: they reach every connection at work for a session, and no other.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Engine, Session};
use crate::backend::Stream;
use crate::ids::NodeId;
use crate::wire::{CancelKey, ServerError, SqlState, body, read_error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// How long passing a cancel request on may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The connections that a session holds, for cancel requests.
#[derive(Debug, Default)]
pub struct CancelTarget {
    held: Mutex<SmallVec<[(NodeId, CancelKey); 1]>>,
    /// A request was passed on: it may arrive at any time, so the connections must not be reused.
    hit: AtomicBool,
    /// State keeps the session on a connection between transactions.
    pinned: AtomicBool,
    /// Its transaction is being ended: there is a reason.
    doomed: AtomicBool,
    /// The client has asked for it during the statement under way.
    requested: AtomicBool,
    /// Wakes the session where it waits for other than a node. A `Notify` would cost each wait for a
    /// connection of a pool a place in its list.
    waiting: Mutex<Option<Waker>>,
    /// Who waits for whom.
    deadlock: Mutex<Option<String>>,
}

impl CancelTarget {
    pub(super) fn add(&self, node: NodeId, key: CancelKey) {
        self.held.lock().push((node, key));
    }

    /// The session gives the connection up; whether a cancel request may still hit it.
    pub(super) fn remove(&self, node: NodeId, key: CancelKey) -> bool {
        let mut held = self.held.lock();
        held.retain(|held| *held != (node, key));
        let hit = self.hit.load(Ordering::Relaxed);
        if held.is_empty() {
            self.hit.store(false, Ordering::Relaxed);
        }
        hit
    }

    pub(super) fn set_pinned(&self, pinned: bool) {
        if self.pinned.load(Ordering::Relaxed) != pinned {
            self.pinned.store(pinned, Ordering::Relaxed);
        }
    }

    /// The connections that the session holds, and whether state keeps it on one.
    pub fn held(&self) -> (SmallVec<[(NodeId, CancelKey); 1]>, bool) {
        (self.held.lock().clone(), self.pinned.load(Ordering::Relaxed))
    }

    /// Ends the statement under way as one of a deadlock: the node says that it was cancelled, and the
    /// client hears of the deadlock.
    pub(super) async fn end_as_deadlock(&self, detail: String, engine: &Engine) {
        *self.deadlock.lock() = Some(detail);
        self.doomed.store(true, Ordering::Relaxed);
        self.cancel(engine).await;
    }

    /// What the client gets instead of a node's error, if it was the proxy that cancelled the statement.
    pub(super) fn instead_of(&self, frame: &[u8]) -> Option<ServerError> {
        let cancelled = || read_error(body(frame)).code == SqlState::QUERY_CANCELED.0;
        if !self.doomed.load(Ordering::Relaxed) || !cancelled() {
            return None;
        }
        let detail = self.deadlock.lock().take()?;
        self.doomed.store(false, Ordering::Relaxed);
        let error = ServerError::new(SqlState::DEADLOCK_DETECTED, "deadlock detected");
        Some(error.with_detail(detail).with_hint("Repeat the transaction."))
    }

    /// The transaction is over.
    pub(super) fn spare(&self) {
        if self.doomed.swap(false, Ordering::Relaxed) {
            *self.deadlock.lock() = None;
        }
    }

    /// The client's next message comes: a request before it was for what has ended.
    pub fn forget_request(&self) {
        if self.requested.load(Ordering::Relaxed) {
            self.requested.store(false, Ordering::Relaxed);
        }
    }

    /// Does `work`, which waits for other sessions here; a cancel request ends that, also one that came
    /// earlier in the statement, between two steps of it. Cancel safe if `work` is.
    ///
    /// # Errors
    /// 57014: it was cancelled.
    pub(super) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, ServerError> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            let mut waiting = self.waiting.lock();
            if !waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waiting = Some(context.waker().clone());
            }
            // Looked at under the lock: a request sets it before it takes the waker.
            match self.check() {
                Ok(()) => Poll::Pending,
                Err(cancelled) => Poll::Ready(Err(cancelled)),
            }
        })
        .await
    }

    /// Errors with 57014 if it was cancelled.
    pub(super) fn check(&self) -> Result<(), ServerError> {
        if !self.requested.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message = "canceling statement due to user request";
        Err(ServerError::new(SqlState::QUERY_CANCELED, message))
    }

    /// Passes a cancel request on to every connection that the session holds now.
    pub async fn cancel(&self, engine: &Engine) {
        // Before the session hears of it, and goes on to its next statement.
        let keys = {
            let held = self.held.lock();
            self.hit.store(!held.is_empty(), Ordering::Relaxed);
            held.clone()
        };
        self.requested.store(true, Ordering::Relaxed);
        let waiting = self.waiting.lock().take();
        waiting.into_iter().for_each(Waker::wake);
        for (node, key) in keys {
            pass_on(engine, node, key).await;
        }
    }
}

impl Session {
    /// Waits before another try; a cancel request ends that.
    ///
    /// # Errors
    /// 57014: it was cancelled.
    pub async fn pause(&self, pause: Duration) -> Result<(), ServerError> {
        self.cancel.unless_cancelled(sleep(pause)).await
    }
}

/// Passes a cancel request on to one connection; it has been signalled when this returns, unless
/// the node is slow.
pub(super) async fn pass_on(engine: &Engine, node: NodeId, key: CancelKey) {
    let address = &engine.nodes[node.index()];
    let passed = timeout(DEADLINE, async {
        let mut stream = Stream::connect(address).await?;
        stream.write_all(&key.packet()).await?;
        stream.flush().await?;
        // The server closes the connection once it has signalled its process.
        stream.read(&mut [0]).await
    });
    if !matches!(passed.await, Ok(Ok(_))) {
        tracing::warn!(node = %address.name, "a cancel request could not be passed on");
    }
}
