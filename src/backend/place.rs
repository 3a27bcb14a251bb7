//! A place in a pool, and the wait for one.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, sleep_until};

use super::Pool;
use super::turns::{Number, Turn};

/// A place in a pool; it is free again when this is dropped.
pub(super) struct Place<'a>(&'a Pool);

/// Waits for a place. Cancel safe.
pub(super) struct Waits<'a> {
    pool: &'a Arc<Pool>,
    deadline: Instant,
    /// Its number in the queue, while it is there.
    number: Option<Number>,
}

impl<'a> Place<'a> {
    /// One that somebody has taken.
    pub(super) fn taken(pool: &'a Pool) -> Self {
        Self(pool)
    }

    /// One as soon as it is this one's turn; `None` after the deadline.
    pub(super) fn wait(pool: &'a Arc<Pool>, deadline: Instant) -> Waits<'a> {
        Waits { pool, deadline, number: None }
    }

    /// It stays taken.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let next = self.0.shelf.lock().turns.leave();
        next.into_iter().for_each(Waker::wake);
    }
}

impl Waits<'_> {
    fn turn(&mut self, waker: &Waker) -> Turn {
        let turns = &mut self.pool.shelf.lock().turns;
        if let Some(number) = self.number {
            return turns.poll(number, Instant::now(), waker);
        }
        if turns.take() {
            return Turn::Come;
        }
        self.number = Some(turns.ask(self.deadline, waker));
        if !std::mem::replace(&mut turns.watched, true) {
            let watch = watch(Arc::downgrade(self.pool), self.deadline);
            self.pool.watch.spawn("checkouts", watch);
        }
        Turn::NotYet
    }
}

impl<'a> Future for Waits<'a> {
    type Output = Option<Place<'a>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let turn = self.turn(context.waker());
        if turn == Turn::NotYet {
            return Poll::Pending;
        }
        self.number = None;
        Poll::Ready((turn == Turn::Come).then_some(Place(self.pool)))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let next = self.pool.shelf.lock().turns.withdraw(number);
            next.into_iter().for_each(Waker::wake);
        }
    }
}

/// Wakes those whose wait lasts too long, while somebody waits.
async fn watch(pool: Weak<Pool>, mut deadline: Instant) {
    loop {
        sleep_until(deadline).await;
        let Some(pool) = pool.upgrade() else { return };
        let (over, next) = {
            let turns = &mut pool.shelf.lock().turns;
            let (over, next) = turns.overdue(Instant::now());
            turns.watched = next.is_some();
            (over, next)
        };
        over.into_iter().for_each(Waker::wake);
        match next {
            Some(next) => deadline = next,
            None => return,
        }
    }
}
