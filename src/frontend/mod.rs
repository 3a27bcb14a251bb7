//! The client's side: listener, startup, authentication, session, cancel.
//!
//! A connection belongs to one worker, a thread with a runtime of its own, and so do the server
//! connections that it uses: nothing on the way of a statement crosses threads.

mod auth;
mod batch;
mod cancel;
mod config;
mod control;
mod extended;
mod greeting;
mod listener;
mod pools;
mod session;
mod simple;
mod statements;
mod templates;
mod units;
mod worker;
mod writes;

pub use auth::{Authentication, Users};
pub use config::Config;
pub use listener::{Frontend, Listening};
