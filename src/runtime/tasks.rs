//! One function that spawns, and a stop that cancels and waits.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Spawns tasks that end when it is stopped. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    /// An empty set of tasks with a token of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that a task selects on; cancelled by [`Tasks::stop`].
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// A set of tasks that is stopped with this one, but can be stopped alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), token: self.token.child_token() }
    }

    /// Runs `task` on the runtime of the caller, in a span of its name.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.tracker.track_future(task);
        #[expect(clippy::disallowed_methods, reason = "this is the one function that spawns")]
        tokio::spawn(task.instrument(tracing::debug_span!("task", name)))
    }

    /// Cancels the token and waits for the tasks, `grace` at the most. Whether all ended in time.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}
