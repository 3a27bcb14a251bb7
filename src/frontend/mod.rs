//! The client's side: listener, startup, authentication, session, cancel.
//!
//! A connection belongs to one worker, a thread with a runtime of its own, and so do the server
//! connections that it uses: nothing on the way of a statement crosses threads.

mod admission;
mod announce;
mod auth;
mod batch;
mod cancel;
mod config;
mod console;
mod control;
mod cursors;
mod directory;
mod explain;
mod extended;
mod failing;
mod fill;
mod greeting;
mod leaf;
mod listener;
mod look_up;
mod login;
mod materialized;
mod merge;
mod pools;
mod prepared;
mod rekey;
mod roles;
mod rules;
mod sampling;
mod savepoints;
mod seats;
mod session;
mod several;
mod simple;
mod socket;
mod spool;
mod statements;
mod table_as;
mod templates;
mod tls;
mod units;
mod upsert;
mod whole;
mod widened;
mod worker;
mod capture;
mod first;
mod select;
mod writes;

pub use admission::Admission;
pub use config::Config;
pub use console::{Console, ConsoleSlot, Table};
pub use directory::{ClientInfo, Directory, PoolInfo};
pub use listener::{Frontend, Listening};
pub use roles::MockSecret;
pub use rules::{Addresses, ClientCertificate, ConnectionKind, Method, Names, Rule};
pub use tls::ServerTls;
