//! PostgreSQL's wire protocol, version 3: frames, the messages that the proxy reads or makes itself.
//!
//! The only room that knows the message crate. Works on bytes, never on sockets.

mod error;

pub use error::{ServerError, Severity, SqlState};
