//! Round trips that reads of several sessions share.
//!
//! While one session's read is about to be sent, those of others that are ready may come along: the node
//! gets them in one piece, and answers them in their order. The connection goes from hand to hand with the
//! answers: whose turn it is holds it as any session holds its connection, and hands it on behind its own
//! answer. Who leaves, or can't hand it on, ends the trip; whoever has not had a turn then has seen nothing,
//! and runs its read by itself: reads only, so that it does no harm that the node may run them twice.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Guard, Moment, Pool, PoolMode, PreparedNumbers, Settings, share};
use crate::wire::TransactionStatus;

/// Most bytes of statements on one trip: a socket's buffers take that while nobody reads the answers.
const BYTES_MAX: usize = 8 * 1024;
/// How long no trip is opened after one that held up those behind its first; twice as long each time,
const REST: Duration = Duration::from_millis(50);
/// up to this,
const REST_MAX: Duration = Duration::from_secs(5);
/// unless that many reads came along since the last one: then it is rare enough.
const RARE: u64 = 2000;

/// A round trip of one connection with statements of several sessions.
#[derive(Debug)]
pub struct Trip {
    /// Of its connection.
    settings: Arc<Settings>,
    /// Most sessions on it.
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Statements of those behind the first, until it departs.
    messages: BytesMut,
    /// The prepared statements that its connection has, until it departs.
    prepared: PreparedNumbers,
    departed: bool,
    /// Nobody else gets a turn.
    ended: bool,
    /// Whose turn it is, by place; 0 is who opened it.
    turn: usize,
    /// The connection, on its way to whose turn it is.
    guard: Option<Guard>,
    /// Those behind the first.
    seats: SmallVec<[Seat; 8]>,
}

#[derive(Debug, Default)]
struct Seat {
    waker: Option<Waker>,
    left: bool,
}

/// One session's place on a trip. Who drops it leaves: in its own turn, or before the trip departs if it
/// has opened it, that ends the trip.
#[derive(Debug)]
pub struct Ride {
    trip: Arc<Trip>,
    place: usize,
    over: bool,
}

/// The trip of a pool that others may still come along on.
#[derive(Debug, Default)]
pub(super) struct Platform {
    trip: Option<Arc<Trip>>,
    rest: Rest,
}

/// A time in which no trip is opened.
#[derive(Debug, Default)]
struct Rest {
    /// Since when, if there is one.
    since: Option<Moment>,
    length: Duration,
    /// Reads that came along since the last one began.
    shared: u64,
}

impl Rest {
    fn begin(&mut self, now: Moment) {
        if self.is_on(now) {
            return;
        }
        let rare = self.length.is_zero() || self.shared >= RARE;
        self.length = if rare { REST } else { REST_MAX.min(self.length * 2) };
        (self.since, self.shared) = (Some(now), 0);
    }

    fn is_on(&mut self, now: Moment) -> bool {
        self.since = self.since.filter(|since| now.since(*since) < self.length);
        self.since.is_some()
    }
}

impl Pool {
    /// Opens a trip of a connection that is about to be sent a read, if others may come along. Until
    /// [`Ride::depart`] its prepared statements are the trip's.
    pub fn open_trip(&self, guard: &mut Guard) -> Option<Ride> {
        let max = self.config().shared_reads_max as usize;
        let ready = guard.mode == PoolMode::Transaction
            && guard.status == Some(TransactionStatus::Idle)
            && guard.incoming().is_empty()
            && !guard.owes_own()
            && !guard.trace.stale_sequences
            // What its owner's functions have left there is for nobody else.
            && !guard.trace.unknown;
        let mut platform = self.platform.lock();
        if max < 2 || !ready || platform.rest.is_on(Moment::now()) {
            return None;
        }
        guard.shared = true;
        let prepared = std::mem::take(&mut guard.prepared);
        let state = Mutex::new(State { prepared, ..State::default() });
        let trip = Arc::new(Trip { settings: Arc::clone(&guard.settings), max, state });
        platform.trip = Some(Arc::clone(&trip));
        Some(Ride { trip, place: 0, over: false })
    }

    /// The trip that sessions with these settings may come along on.
    pub fn boarding(&self, settings: &mut Arc<Settings>) -> Option<Arc<Trip>> {
        let platform = self.platform.lock();
        let trip = platform.trip.as_ref()?;
        share(&mut Arc::clone(&trip.settings), settings).then(|| Arc::clone(trip))
    }

    /// A session has waited for its turn for too long: its neighbours take longer than reads that
    /// may share a trip should.
    pub fn rest_from_trips(&self) {
        self.shared_reads_left.increment(1);
        self.platform.lock().rest.begin(Moment::now());
    }
}

impl Trip {
    /// Whether its connection has this prepared statement, by the proxy's own number.
    pub fn has(&self, number: u64) -> bool {
        self.state.lock().prepared.has(number)
    }

    /// Comes along with messages of which the last is a `Query` or a `Sync`; the answer is for whoever has
    /// the connection from [`Ride::poll_turn`].
    pub fn board(self: &Arc<Self>, messages: &[u8]) -> Option<Ride> {
        let mut state = self.state.lock();
        let full =
            state.seats.len() + 1 >= self.max || state.messages.len() + messages.len() > BYTES_MAX;
        if state.departed || state.ended || full {
            return None;
        }
        state.messages.extend_from_slice(messages);
        state.seats.push(Seat::default());
        let place = state.seats.len();
        Some(Ride { trip: Arc::clone(self), place, over: false })
    }
}

impl State {
    /// What is dropped and who is woken once its lock is free.
    fn end(&mut self) -> (Option<Guard>, SmallVec<[Waker; 8]>) {
        self.ended = true;
        let wakers = self.seats.iter_mut().filter_map(|seat| seat.waker.take()).collect();
        (self.guard.take(), wakers)
    }
}

impl Ride {
    /// Nobody else comes along: what the connection is to be sent for all of them, first `own`. `None` if
    /// nobody has; then this was no trip.
    pub fn depart(&mut self, guard: &mut Guard, own: &[u8]) -> Option<BytesMut> {
        let pool = Arc::clone(guard.pool());
        let mut platform = pool.platform.lock();
        if platform.trip.as_ref().is_some_and(|trip| Arc::ptr_eq(trip, &self.trip)) {
            platform.trip = None;
        }
        let mut state = self.trip.state.lock();
        state.departed = true;
        guard.prepared = std::mem::take(&mut state.prepared);
        let riders = state.seats.len() as u64;
        platform.rest.shared += riders;
        drop(platform);
        guard.shared = riders > 0;
        if !guard.shared {
            self.over = true;
            return None;
        }
        pool.shared_reads.increment(riders);
        let mut messages = BytesMut::with_capacity(own.len() + state.messages.len());
        messages.extend_from_slice(own);
        messages.extend_from_slice(&state.messages);
        Some(messages)
    }

    /// Waits for its turn: the connection, of which its own answer comes next. `None` if the trip has
    /// ended: nothing has happened.
    pub fn poll_turn(&self, context: &mut Context<'_>) -> Poll<Option<Guard>> {
        let state = &mut *self.trip.state.lock();
        if state.ended {
            return Poll::Ready(None);
        }
        if state.turn == self.place
            && let Some(guard) = state.guard.take()
        {
            return Poll::Ready(Some(guard));
        }
        if let Some(seat) = self.place.checked_sub(1).and_then(|at| state.seats.get_mut(at)) {
            seat.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Hands the connection on, behind its own answer; the last one gives it back to its pool.
    pub fn pass_on(mut self, mut guard: Guard) {
        self.over = true;
        let mut state = self.trip.state.lock();
        let (place, last) = (self.place + 1, state.seats.len());
        let ended = state.ended;
        let (left_over, wakers) = match state.seats.get_mut(self.place) {
            None => (Some(guard), SmallVec::new()),
            Some(seat) if !ended && !seat.left => {
                guard.status = None;
                guard.shared = place < last;
                let waker = seat.waker.take();
                (state.turn, state.guard) = (place, Some(guard));
                (None, waker.into_iter().collect())
            }
            Some(_) => {
                let (_, wakers) = state.end();
                (Some(guard), wakers)
            }
        };
        drop(state);
        drop(left_over);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut state = self.trip.state.lock();
        if let Some(seat) = self.place.checked_sub(1).and_then(|at| state.seats.get_mut(at)) {
            seat.left = true;
        }
        if state.turn != self.place {
            return;
        }
        let (guard, wakers) = state.end();
        drop(state);
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::{Moment, RARE, REST, REST_MAX, Rest};

    #[test]
    fn a_rest_is_longer_each_time_unless_many_reads_came_along_since() {
        let mut rest = Rest::default();
        let mut now = Moment::now();
        let mut lengths = Vec::new();
        for shared in [0, 0, RARE - 1, RARE, 0, 0, 0, 0, 0, 0, 0, 0] {
            assert!(!rest.is_on(now));
            rest.shared += shared;
            rest.begin(now);
            lengths.push(rest.length);
            // Others of the same trip.
            rest.begin(now + rest.length / 2);
            assert!(rest.is_on(now + rest.length * 9 / 10));
            now = now + rest.length;
        }
        let expected = [1, 2, 4, 1, 2, 4, 8, 16, 32, 64, 100, 100].map(|times| REST * times);
        assert_eq!(lengths, expected);
        assert_eq!(lengths.last(), Some(&REST_MAX));
    }
}
