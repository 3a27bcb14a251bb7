//! Who may have a connection of a pool, in the order in which they ask.
//!
//! Under load most statements wait here, so that a wait costs a place in a queue and a wake-up, and
//! no timer of its own: one watch a pool ends the waits that last too long.

use std::collections::VecDeque;
use std::task::Waker;

use tokio::time::Instant;

/// The places of a pool: as many as it may have connections. Nobody waits while one is free.
#[derive(Debug)]
pub(super) struct Turns {
    size: u32,
    taken: u32,
    /// In the order of their tickets.
    queue: VecDeque<Waiting>,
    next: Number,
    /// Whether somebody sees to it that waits end at their deadlines.
    pub watched: bool,
}

/// A number in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

#[derive(Debug)]
struct Waiting {
    number: Number,
    deadline: Instant,
    waker: Waker,
}

/// What has come of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// A place is taken for it.
    Come,
    /// Its deadline has passed; it is in the queue no more.
    Over,
    /// It will be woken.
    NotYet,
}

impl Turns {
    /// All free.
    pub(super) fn new(size: u32) -> Self {
        let (queue, next) = (VecDeque::new(), Number(0));
        Self { size: size.max(1), taken: 0, queue, next, watched: false }
    }

    /// How many there are.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// How many somebody has.
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    /// How many nobody has.
    pub(super) fn free(&self) -> u32 {
        self.size.saturating_sub(self.taken)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&mut self) -> bool {
        let free = self.taken < self.size;
        self.taken += u32::from(free);
        free
    }

    /// A place becomes free, or goes to whoever waits longest: that one is to be woken, best without
    /// the lock that this is behind.
    #[must_use]
    pub(super) fn leave(&mut self) -> Option<Waker> {
        self.taken = self.taken.saturating_sub(1);
        self.grant()
    }

    /// There are so many from now on, at least one. Those that are taken stay so; if there are more
    /// than before, [`Turns::grant`] is to be called until nobody gets one.
    pub(super) fn resize(&mut self, size: u32) {
        self.size = size.max(1);
    }

    /// Gives a free place to whoever waits longest, who is to be woken.
    #[must_use]
    pub(super) fn grant(&mut self) -> Option<Waker> {
        if self.taken >= self.size {
            return None;
        }
        let first = self.queue.pop_front()?;
        self.taken += 1;
        Some(first.waker)
    }

    /// Joins the end of the queue; `waker` is woken when its turn has come.
    pub(super) fn ask(&mut self, deadline: Instant, waker: &Waker) -> Number {
        let number = self.next;
        self.next.0 += 1;
        self.queue.push_back(Waiting { number, deadline, waker: waker.clone() });
        number
    }

    /// What has come of a wait. If it is not over yet `waker` is woken then.
    pub(super) fn poll(&mut self, number: Number, now: Instant, waker: &Waker) -> Turn {
        let Ok(at) = self.place_of(number) else { return Turn::Come };
        let waiting = &mut self.queue[at];
        if waiting.deadline <= now {
            self.queue.remove(at);
            return Turn::Over;
        }
        waiting.waker.clone_from(waker);
        Turn::NotYet
    }

    /// Whoever had this number does not wait any more. The next one is to be woken if its turn had come.
    #[must_use]
    pub(super) fn withdraw(&mut self, number: Number) -> Option<Waker> {
        match self.place_of(number) {
            Ok(at) => {
                self.queue.remove(at);
                None
            }
            Err(_) => self.leave(),
        }
    }

    /// Those whose deadline has passed, to be woken, and the next deadline.
    pub(super) fn overdue(&mut self, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        let (over, rest): (Vec<_>, Vec<_>) = self.queue.iter().partition(|w| w.deadline <= now);
        let next = rest.iter().map(|waiting| waiting.deadline).min();
        (over.iter().map(|waiting| waiting.waker.clone()).collect(), next)
    }

    /// Who is not in the queue any more has a place.
    fn place_of(&self, number: Number) -> Result<usize, usize> {
        self.queue.binary_search_by_key(&number, |waiting| waiting.number)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Turn, Turns};

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn places_go_to_those_who_wait_in_their_order() {
        let (now, waker) = (Instant::now(), Waker::noop());
        let later = now + Duration::from_secs(1);
        let mut turns = Turns::new(2);
        assert!(turns.take() && turns.take() && !turns.take());
        let [a, b, c] = [(); 3].map(|()| turns.ask(later, waker));
        for waiting in [a, b, c] {
            assert_eq!(turns.poll(waiting, now, waker), Turn::NotYet);
        }
        assert!(turns.leave().is_some());
        assert_eq!(turns.poll(b, now, waker), Turn::NotYet);
        assert_eq!(turns.poll(a, now, waker), Turn::Come);
        assert!(turns.withdraw(b).is_none(), "it only waited");
        assert!(turns.leave().is_some());
        assert!(turns.withdraw(c).is_none(), "it had a place, and nobody waits");
        assert_eq!((turns.free(), turns.waiting()), (1, 0));
        assert!(turns.take() && !turns.take());
    }

    #[test]
    fn a_turn_that_is_not_taken_goes_to_the_next() {
        let (now, count) = (Instant::now(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut turns = Turns::new(1);
        assert!(turns.take());
        let [a, b] = [(); 2].map(|()| turns.ask(now + Duration::from_secs(1), &waker));
        for waiting in [a, b] {
            assert_eq!(turns.poll(waiting, now, &waker), Turn::NotYet);
        }
        turns.leave().unwrap().wake();
        turns.withdraw(a).unwrap().wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(turns.poll(b, now, &waker), Turn::Come);
        assert!(!turns.take());
    }

    #[test]
    fn waits_end_at_their_deadlines() {
        let (now, waker) = (Instant::now(), Waker::noop());
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut turns = Turns::new(1);
        assert!(turns.take());
        let [long, short] = [3, 2].map(|seconds| turns.ask(at(seconds), waker));
        for waiting in [long, short] {
            assert_eq!(turns.poll(waiting, now, waker), Turn::NotYet);
        }
        let (over, next) = turns.overdue(at(1));
        assert_eq!((over.len(), next), (0, Some(at(2))));
        let (over, next) = turns.overdue(at(2));
        assert_eq!((over.len(), next), (1, Some(at(3))));
        assert_eq!(turns.poll(short, at(2), waker), Turn::Over);
        assert_eq!(turns.poll(long, at(2), waker), Turn::NotYet);
        assert!(turns.leave().is_some());
        assert_eq!(turns.poll(long, at(4), waker), Turn::Come, "a place is a place");
    }

    #[test]
    fn there_are_more_at_once_and_fewer_as_they_come_back() {
        let mut turns = Turns::new(1);
        assert!(turns.take());
        turns.ask(Instant::now(), Waker::noop());
        turns.resize(3);
        assert!(turns.grant().is_some() && turns.grant().is_none());
        turns.resize(1);
        assert_eq!((turns.taken(), turns.free()), (2, 0));
        for free in [0, 1] {
            assert!(turns.leave().is_none());
            assert_eq!(turns.free(), free);
        }
    }
}
