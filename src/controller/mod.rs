//! The leader's loop: sample → forecast → propose → move.
//!
//! It never performs a move: it writes a record, which the mover sees. What it sees and decides it
//! publishes as [`Status`]; nobody asks it anything.

mod accuracy;
mod config;
mod control;
mod expectation;
mod heatmap;
mod heritage;
mod import;
mod insight;
mod ledger;
mod metric;
mod moves;
mod planning;
mod probe;
mod status;
mod store;

pub use config::Config;
pub use control::{ControllerContext, Settings, run};
pub use heatmap::{HeatRow, Heatmap, Quantity, Window};
pub use insight::{Insight, ShardAccuracy};
pub use probe::NodeProbe;
pub use status::{MoveStatus, NodeStatus, ShardStatus, Status};

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
