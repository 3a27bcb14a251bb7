//! Ways that few statements take, kept out of the one that most take.
//!
//! Code that waits for much is compiled into one function with all that it waits for: its stack frame has
//! room for whatever any of it may make. For a session these were tens of kilobytes, in pages that every
//! message touched.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use pin_project_lite::pin_project;

/// A future of something that is seldom done, in memory of its own. What is large and done more often is
/// for [`apart`]: to make it here copies it.
#[cold]
#[inline(never)]
pub fn aside<'a, F>(make: impl FnOnce() -> F) -> BoxFuture<'a, F::Output>
where
    F: Future + Send + 'a,
{
    Box::pin(make())
}

pin_project! {
    /// See [`apart`].
    #[derive(Debug)]
    pub struct Apart<F> {
        #[pin]
        work: F,
    }
}

/// A future that stays where it is, whose polls are a function of their own.
pub fn apart<F: Future>(work: F) -> Apart<F> {
    Apart { work }
}

impl<F: Future> Future for Apart<F> {
    type Output = F::Output;

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.project().work.poll(context)
    }
}
