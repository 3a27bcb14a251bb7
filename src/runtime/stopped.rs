//! Waiting for a stop beside something else, again and again: a session does so with each statement.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The stop of some tasks. Who has waited for it is woken when it comes, and need not say again that
/// they wait.
#[derive(Debug)]
pub struct Stopped {
    token: CancellationToken,
    waits: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Who is woken.
    waker: Option<Waker>,
}

impl Stopped {
    /// The stop that `token` brings.
    pub fn new(token: CancellationToken) -> Self {
        Self { waits: Box::pin(token.clone().cancelled_owned()), token, waker: None }
    }

    /// Waits for it. Cancel safe.
    pub async fn wait(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    /// The same for a future that waits for more than this.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.token.is_cancelled() {
            return Poll::Ready(());
        }
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        self.waker = Some(context.waker().clone());
        self.waits.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::Stopped;
    use crate::runtime::Tasks;

    #[tokio::test]
    async fn who_has_waited_before_is_woken_by_a_stop() {
        let token = CancellationToken::new();
        let mut stopped = Stopped::new(token.clone());
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(5), stopped.wait()).await.is_err());
        }
        let waiting = Tasks::new().spawn("waiting", async move {
            // Once in the task itself, then again.
            tokio::select! {
                biased;
                () = stopped.wait() => panic!("nobody has stopped it"),
                () = tokio::task::yield_now() => {}
            }
            stopped.wait().await;
            stopped.wait().await;
        });
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        token.cancel();
        timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }
}
