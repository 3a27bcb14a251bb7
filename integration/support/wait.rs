//! Patience with an end.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Asks `probe` again and again until it gives a value; panics with `what` after `within`.
pub async fn eventually<T, F>(what: &str, within: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
