//! Runs plans: one node, scatter, transactions, COPY; the gate of a shard that is being switched.

mod ddl_lock;
mod gate;
mod live_map;

pub use ddl_lock::{DdlLock, Exclusive, Shared};
pub use gate::{ClosedGate, Gates, Pass};
pub use live_map::LiveMap;
