//! The leader's loop: sample → forecast → propose → move.
//!
//! It never performs a move: it writes a record, which the mover sees. What it sees and decides it
//! publishes as [`Status`]; nobody asks it anything.

mod planning;

#[cfg(test)]
mod simulation;
