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
mod defaults;
mod error;
mod fence;
mod limits;
mod login;
mod look;
mod moment;
mod oids;
mod permits;
mod place;
mod pool;
mod prepared;
mod proof;
mod service_tls;
mod settings;
mod shelf;
mod stream;
mod ticket;
mod tls;
mod trip;
mod turns;

pub use address::{NodeAddress, Password};
pub use certificate::{common_name, end_point};
pub use command::{Command, CommandError};
pub use config::{Config, LiveConfig, PoolMode};
pub use connection::{Connection, rows_of};
pub use credential::Credential;
pub use defaults::{Defaults, DefaultsOf};
pub use error::{BackendError, ConnectError};
pub use fence::{Fence, RaiseError, Term};
pub use limits::NodeLimit;
pub use login::Login;
pub use look::Found;
pub use moment::Moment;
pub use oids::Oids;
pub use permits::Permits;
pub use pool::{Filling, Guard, Pool, PoolOf};
pub use prepared::{Given, PreparedNumbers};
pub use service_tls::{ServiceConnector, ServiceStream};
pub use settings::{Settings, share};
pub use stream::Stream;
use ticket::TicketId;
pub use ticket::{StillLooking, Ticket, Trace};
pub use tls::{NodeTls, TlsFiles, TlsMode, authorities, certificates, revocations};
pub use trip::{Ride, Trip};
