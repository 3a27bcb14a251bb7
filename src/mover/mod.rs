//! Performs a move: slot, copy, stream, verify, switch, clean up.
//!
//! What is to be done stands in the stored record ([`crate::shard_move`]); this room does it, stores
//! the outcome, and goes on from there, also after a crash. It decides nothing about which shard
//! should be where.

mod apply;
mod audit;
mod back;
mod batch;
mod build;
mod bulk;
mod call_off;
mod catch_up;
mod change;
mod check;
mod cleanup;
mod commit;
mod config;
mod context;
mod copy;
mod detach;
mod differ;
mod drain;
mod drive;
mod error;
mod import;
mod jobs;
mod join;
mod keep;
mod lane;
mod look;
mod names;
mod open;
mod pace;
mod phases;
mod position;
mod prepare;
mod progress;
mod recall;
mod rehearse;
mod request;
mod reshard;
mod room;
mod run;
mod segments;
mod session;
mod settle;
mod switch;
mod tables;
mod verify;
mod walsender;
mod window;
mod writer;

pub use call_off::{UnderWay, call_off};
pub use config::Config;
pub use context::MoverContext;
pub use error::MoveError;
pub use jobs::{JobParts, request_job, run_jobs};
pub use progress::{Live, Progress, Told};
pub use recall::{Switched, confirm, reverse};
pub use request::{HowToSplit, RequestError, Wanted, lanes, request, request_any};
pub use run::{recover_before_serving, run};
