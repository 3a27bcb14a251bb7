//! Keeps a copy under its bandwidth, whatever that is by now.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What a copy passes on at once, at the most but for a row that is longer.
const CHUNK_BYTES: u64 = 64 << 10;
/// How often a copy that waits hears of another limit.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The limit, and what has passed under it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes_per_second: u64,
    bytes: u64,
    began: Option<Instant>,
}

impl Pace {
    /// How many bytes pass at once under this limit: a tenth of a second's.
    pub(super) fn chunk(bytes_per_second: u64) -> usize {
        let chunk = match bytes_per_second {
            0 => CHUNK_BYTES,
            limit => CHUNK_BYTES.min(limit.div_ceil(10)),
        };
        usize::try_from(chunk).unwrap_or(usize::MAX)
    }

    /// Waits until so many more bytes may pass under what `limit` says, in bytes a second; 0 is none.
    pub(super) async fn wait_for(&mut self, bytes: u64, limit: impl Fn() -> u64) {
        loop {
            let Some(due) = self.due(bytes, limit()) else { return };
            let now = Instant::now();
            if due <= now {
                self.bytes += bytes;
                return;
            }
            sleep_until(due.min(now + LOOK_EVERY)).await;
        }
    }

    /// When so many more bytes have passed, if there is a limit. Under another one than before what has
    /// passed does not count.
    fn due(&mut self, bytes: u64, bytes_per_second: u64) -> Option<Instant> {
        if self.bytes_per_second != bytes_per_second {
            *self = Self { bytes_per_second, ..Self::default() };
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        let after_ms = (self.bytes + bytes).saturating_mul(1_000).checked_div(bytes_per_second)?;
        Some(began + Duration::from_millis(after_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::Pace;

    #[tokio::test]
    async fn bytes_pass_no_faster_than_at_the_limit_s_rate() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        for _ in 0..10 {
            pace.wait_for(50, || 2_000).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(250));
        let without = timeout(Duration::from_secs(20), pace.wait_for(1 << 40, || 0));
        without.await.unwrap();
    }

    #[tokio::test]
    async fn another_limit_is_in_force_while_a_copy_waits() {
        let limit = AtomicU64::new(1);
        let mut pace = Pace::default();
        let lifted = async {
            sleep(Duration::from_millis(50)).await;
            limit.store(1_000_000, Ordering::Relaxed);
        };
        let waiting = timeout(
            Duration::from_secs(20),
            pace.wait_for(2_000, || limit.load(Ordering::Relaxed)),
        );
        let (waited, ()) = tokio::join!(waiting, lifted);
        waited.unwrap();
    }

    #[test]
    fn a_slow_copy_passes_less_at_once() {
        let chunks = [0, 1, 20_000, 100 << 20].map(Pace::chunk);
        assert_eq!(chunks, [64 << 10, 1, 2_000, 64 << 10]);
    }
}
