//! The server's side: one connection to a node, its pool, its guard.
//!
//! A connection that was left in the middle of a message, in a transaction or after an I/O error is
//! closed, never pooled.

mod address;
mod command;
mod config;
mod connection;
mod error;
mod limits;
mod login;
mod look;
mod pool;
mod prepared;
mod settings;
mod stream;
mod ticket;

pub use address::{NodeAddress, Password};
pub use command::{Command, CommandError};
pub use config::{Config, PoolMode};
pub use connection::Connection;
pub use error::{BackendError, ConnectError};
pub use limits::NodeLimit;
pub use login::Login;
pub use look::Found;
pub use pool::{Guard, Pool};
pub use prepared::{Given, PreparedNumbers};
pub use settings::Settings;
pub use stream::Stream;
pub use ticket::{Ticket, Trace};
