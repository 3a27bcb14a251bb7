//! Runs plans: one node, scatter, transactions, COPY; the gate of a shard that is being switched.
//!
//! It knows clients only as a socket to answer ([`Client`]); the protocol's states are the
//! frontend's.

mod apart;
mod arguments;
mod broadcast;
mod cancel;
mod client;
mod columns;
mod copy_in;
mod copy_relay;
mod copy_out;
mod commit;
mod ddl_lock;
mod derived;
mod direct;
mod doubt;
mod engine;
mod enter;
mod evaluate;
mod fault;
mod finish;
mod gate;
mod inflow;
mod learned;
mod leave;
mod live_map;
mod lookups;
mod merge_session;
mod open_pull;
mod outside;
mod pull;
mod pump;
mod reduce;
mod reference_lock;
mod resolver;
mod role_password;
mod run;
mod scatter;
mod session;
mod spread;
mod system_catalog;
mod transaction;
mod viewed;

pub use cancel::CancelTarget;
pub use client::{Client, ClientError};
pub use columns::ColumnsError;
pub use commit::CommitDecision;
pub use copy_relay::relay_copy_in;
pub use ddl_lock::{DdlLock, Exclusive, Shared};
pub use direct::{DirectLeaves, MayStand, Place};
pub use engine::{Config, Engine, EngineParts};
pub use enter::Entered;
pub use evaluate::Bound;
pub use fault::Fault;
pub use gate::{ClosedGate, Gates, Pass};
pub use live_map::LiveMap;
pub use open_pull::{OpenPull, Portion};
pub use outside::OutsideCommit;
pub use pull::{BindFrames, PullMode, PullRun};
pub use pump::{Verdict, pump};
pub use reference_lock::{ReferenceLock, Still, Writing};
pub use run::{Cost, query_message};
pub use scatter::Scatter;
pub use session::{Member, Session};
pub use spread::{Spread, SpreadPart};
