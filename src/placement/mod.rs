//! (Map, forecast, policy) → what to move, why, at what cost and for what benefit.
//!
//! The rule: act when the overload that a move is expected to avoid, over the time that it takes
//! and a window after it, is more than its price. No threshold trigger stands beside it: the level
//! of now is part of the forecast. Every decision says why, also one not to act.

mod candidates;
mod config;
mod decide;
mod decision;
mod merge;
mod overload;
mod scene;
mod words;

pub use config::{Config, Mode};
pub use decide::{decide, expected_loads};
pub use decision::{Action, Basis, Candidate, Cut, Decision, NotTaken, Proposal, Standing};
pub use merge::merge;
pub use overload::{Normal, Sum};
pub use scene::{Division, Halves, HotKey, InFlight, NodeLoad, Scene, ShardLoad};

#[cfg(test)]
mod tests;
