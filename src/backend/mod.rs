//! The server's side: one connection to a node, its pool, its guard.

mod address;

pub use address::{NodeAddress, Password};
