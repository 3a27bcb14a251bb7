//! (Map, forecast, policy) → what to move, why, at what cost and for what benefit.
//!
//! The rule: act when the overload that a move is expected to avoid, over the time that it takes
//! and a window after it, is more than its price. No threshold trigger stands beside it: the level
//! of now is part of the forecast. Every decision says why, also one not to act.

mod config;
mod decide;
mod decision;
mod overload;
mod scene;

pub use config::{Config, Mode};
pub use decide::{decide, expected_loads};
pub use decision::{Basis, Candidate, Decision, NotTaken, Proposal, Standing};
pub use overload::{Normal, Sum};
pub use scene::{InFlight, NodeLoad, Scene, ShardLoad};

#[cfg(test)]
mod tests;
