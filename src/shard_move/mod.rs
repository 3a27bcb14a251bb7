//! A move as a value: its states, the table of transitions, and what each state does next.
//!
//! The mover performs what [`Move::next_action`] says and tells the outcome by [`Move::on_event`];
//! every state is stored before it is acted on, and every action can be repeated. Nothing here
//! talks to a node.

mod import;
mod job;
mod record;
mod resharding;
mod state;

#[cfg(test)]
mod tests;

pub use import::{Import, ImportedTable, finer};
pub use job::{Errand, Finding, FindingKind, Job, JobState, Report};
pub use record::{
    Across, Cause, Kind, Lane, Move, MovedColumn, MovedTable, Object, ObjectKind, Part, Proof,
    Reversed, Step,
};
pub use resharding::{Resharding, Stage};
pub use state::{Action, Event, InvalidEvent, State};
