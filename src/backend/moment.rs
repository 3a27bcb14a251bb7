//! When something was, to a few milliseconds: how long a connection is idle is asked with each
//! statement, and an exact clock costs several times as much.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The system's clock that only goes forward, as of its last tick.
#[cfg(target_os = "linux")]
const COARSE: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
/// The same; not every system has a coarse one.
#[cfg(not(target_os = "linux"))]
const COARSE: ClockId = ClockId::CLOCK_MONOTONIC;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self(clock_gettime(COARSE).map_or(Duration::ZERO, Duration::from))
    }

    /// How long ago `earlier` was.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0 + later)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Moment;

    #[test]
    fn time_passes() {
        let (start, exact) = (Moment::now(), Instant::now());
        while Moment::now().since(start) < Duration::from_millis(50) {
            assert!(exact.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        assert!(exact.elapsed() >= Duration::from_millis(30));
        assert_eq!(start.since(Moment::now()), Duration::ZERO);
    }
}
