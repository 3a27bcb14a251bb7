//! The server's side: one connection to a node, its pool, its guard.
//!
//! A connection that was left in the middle of a message, in a transaction or after an I/O error is
//! closed, never pooled.

mod address;
mod command;
mod config;
mod connection;
mod error;
mod login;
mod pool;
mod settings;
mod stream;

pub use address::{NodeAddress, Password};
pub use command::{Command, CommandError};
pub use config::Config;
pub use connection::Connection;
pub use error::{BackendError, ConnectError};
pub use login::Login;
pub use pool::{Guard, Pool};
pub use settings::Settings;
pub use stream::Stream;
