//! How far each move under way is, for those who look on. Lost with the process; what matters is in
//! the record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::ids::MoveId;

/// Live numbers of one move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// Rows copied so far.
    pub rows_copied: u64,
    /// Bytes copied so far.
    pub bytes_copied: u64,
    /// About how many rows there are to copy, as the planner estimates; 0 before that is known.
    pub rows_expected: u64,
    /// Segments that are copied, also by earlier tries.
    pub segments_done: u64,
    /// Segments that there are, of the lanes whose copy has begun.
    pub segments: u64,
    /// When the copy began.
    pub copy_began: Option<Instant>,
    /// When it ended.
    pub copy_ended: Option<Instant>,
    /// Changes of the stream applied so far by this process.
    pub changes_applied: u64,
    /// WAL of the source that is not worked through, when last looked at.
    pub lag_bytes: u64,
}

/// What is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Told {
    /// Rows copied so far.
    pub rows_copied: u64,
    /// Bytes copied so far.
    pub bytes_copied: u64,
    /// About how many rows there are to copy; 0 before that is known.
    pub rows_expected: u64,
    /// Segments that are copied, also by earlier tries.
    pub segments_done: u64,
    /// Segments that there are, of the shards whose copy has begun.
    pub segments: u64,
    /// The rate of the copy so far.
    pub bytes_per_second: f64,
    /// How long the copy will take at that rate; `None` before and after it.
    pub copy_left_seconds: Option<f64>,
    /// Changes of the stream applied so far by this process.
    pub changes_applied: u64,
    /// WAL of the source that is not worked through, when last looked at.
    pub lag_bytes: u64,
}

impl Live {
    /// What is told at `now`.
    pub fn told(&self, now: Instant) -> Told {
        let took = self.copy_began.map_or(Duration::ZERO, |began| {
            self.copy_ended.unwrap_or(now).saturating_duration_since(began)
        });
        let seconds = took.as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { real(count) / seconds } else { 0.0 };
        let rows_rate = rate(self.rows_copied);
        let copying = self.copy_began.is_some() && self.copy_ended.is_none() && rows_rate > 0.0;
        let left = real(self.rows_expected.saturating_sub(self.rows_copied));
        Told {
            rows_copied: self.rows_copied,
            bytes_copied: self.bytes_copied,
            rows_expected: self.rows_expected,
            segments_done: self.segments_done,
            segments: self.segments,
            bytes_per_second: rate(self.bytes_copied),
            copy_left_seconds: copying.then(|| left / rows_rate),
            changes_applied: self.changes_applied,
            lag_bytes: self.lag_bytes,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn real(count: u64) -> f64 {
    count as f64
}

/// Live numbers of all moves under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<BTreeMap<MoveId, Live>>>);

impl Progress {
    /// The numbers of one move; `None` if it is not under way.
    pub fn of(&self, id: MoveId) -> Option<Live> {
        self.0.lock().get(&id).copied()
    }

    /// The numbers of all moves under way.
    pub fn all(&self) -> BTreeMap<MoveId, Live> {
        self.0.lock().clone()
    }

    pub(super) fn update(&self, id: MoveId, change: impl FnOnce(&mut Live)) {
        change(self.0.lock().entry(id).or_default());
    }

    pub(super) fn forget(&self, id: MoveId) {
        self.0.lock().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Live;

    #[test]
    fn the_rate_so_far_says_how_long_the_copy_will_take() {
        let began = Instant::now();
        let now = began + Duration::from_secs(4);
        let mut live = Live { rows_copied: 100, bytes_copied: 8_000, ..Live::default() };
        assert_eq!(live.told(now).copy_left_seconds, None);
        live.copy_began = Some(began);
        live.rows_expected = 400;
        let told = live.told(now);
        assert!((told.bytes_per_second - 2_000.0).abs() < 1e-9);
        assert!((told.copy_left_seconds.unwrap() - 12.0).abs() < 1e-9);
        // The estimate was too low.
        live.rows_expected = 50;
        assert_eq!(live.told(now).copy_left_seconds, Some(0.0));
        live.copy_ended = Some(now);
        let later = live.told(now + Duration::from_mins(1));
        assert!((later.bytes_per_second - 2_000.0).abs() < 1e-9);
        assert_eq!(later.copy_left_seconds, None);
    }
}
