//! The server's side: one connection to a node, its pool, its guard.
//!
//! A connection that was left in the middle of a message, in a transaction or after an I/O error is
//! closed, never pooled.

mod address;
mod certificate;
mod command;
mod config;
mod connection;
mod credential;
mod error;
mod login;
mod pool;
mod proof;
mod service_tls;
mod settings;
mod stream;
mod tls;

pub use address::{NodeAddress, Password};
pub use certificate::{common_name, end_point};
pub use command::{Command, CommandError};
pub use config::Config;
pub use connection::Connection;
pub use credential::Credential;
pub use error::{BackendError, ConnectError};
pub use login::Login;
pub use pool::{Guard, Pool};
pub use service_tls::{ServiceConnector, ServiceStream};
pub use settings::Settings;
pub use stream::Stream;
pub use tls::{NodeTls, TlsFiles, TlsMode, authorities, certificates};
