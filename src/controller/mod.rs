//! The leader's loop: sample → forecast → propose → move.
