//! How many connections and clients there are, against the limits on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is there now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<AtomicUsize>);

/// One of those that are there now; it leaves when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    /// How many were there before it.
    pub place: usize,
    gauge: Option<metrics::Gauge>,
}

impl Seats {
    /// A seat, if fewer than `limit` are taken; shown in a metric if there is a name for it.
    pub(super) fn take(&self, limit: usize, gauge: Option<&'static str>) -> Option<Seat> {
        let place = self.0.fetch_add(1, Ordering::Relaxed);
        if place >= limit {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let gauge = gauge.map(|name| metrics::gauge!(name));
        if let Some(gauge) = &gauge {
            gauge.increment(1.0);
        }
        Some(Seat { seats: self.clone(), place, gauge })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0.fetch_sub(1, Ordering::Relaxed);
        if let Some(gauge) = &self.gauge {
            gauge.decrement(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Seats;

    #[test]
    fn a_seat_is_free_again_when_it_is_left() {
        let seats = Seats::default();
        let first = seats.take(2, None).unwrap();
        let second = seats.take(2, None).unwrap();
        assert_eq!((first.place, second.place), (0, 1));
        assert!(seats.take(2, None).is_none());
        drop(first);
        assert!(seats.take(2, None).is_some());
    }
}
