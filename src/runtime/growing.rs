//! A list that grows and never shrinks, read by all threads with each statement and without a lock.

use std::fmt;
use std::sync::OnceLock;

/// The first piece has so many places, each further one twice as many as the one before.
const FIRST: usize = 32;
/// Enough for all that a `u32` can number.
const PIECES: usize = 28;

/// A list without an end: what is at a place comes to be when that is first asked for, and stays.
pub struct Growing<T> {
    pieces: [OnceLock<Box<[T]>>; PIECES],
}

impl<T: Default> Growing<T> {
    /// What is at this place.
    pub fn at(&self, place: u32) -> &T {
        let (piece, within) = piece_of(place);
        let made = || (0..FIRST << piece).map(|_| T::default()).collect();
        &self.pieces[piece].get_or_init(made)[within]
    }
}

/// In which piece a place is, and where in it.
fn piece_of(place: u32) -> (usize, usize) {
    let moved = place as usize + FIRST;
    let piece = (moved.ilog2() - FIRST.ilog2()) as usize;
    (piece, moved - (FIRST << piece))
}

impl<T> Default for Growing<T> {
    fn default() -> Self {
        Self { pieces: [const { OnceLock::new() }; PIECES] }
    }
}

impl<T> fmt::Debug for Growing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{FIRST, Growing, PIECES, piece_of};

    #[test]
    fn each_place_is_one_of_its_own() {
        let list = Growing::<AtomicU32>::default();
        for place in (0..200).rev() {
            list.at(place).store(place, Ordering::Relaxed);
        }
        for place in 0..200 {
            assert_eq!(list.at(place).load(Ordering::Relaxed), place);
        }
        assert_eq!((piece_of(0), piece_of(31)), ((0, 0), (0, 31)));
        assert_eq!((piece_of(32), piece_of(95), piece_of(96)), ((1, 0), (1, 63), (2, 0)));
        let (piece, within) = piece_of(u32::MAX);
        assert!(piece < PIECES && within < FIRST << piece);
    }
}
