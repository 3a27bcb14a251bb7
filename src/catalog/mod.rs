//! The durable store of the shard map, the moves and whatever else must survive a crash.
//!
//! Typed records over a small key-value interface ([`Kv`]): the embedded store is one file for one
//! proxy, etcd is for several of which one leads. All changes of a commit are applied together or not
//! at all, and are durable before the call returns.

mod embedded;
mod etcd;
mod kv;
mod mirror;
mod records;

pub use embedded::{EmbeddedKv, Page};
pub use etcd::{EtcdConfig, EtcdKv, Lead, Leader, Present};
pub use kv::{CatalogError, Entry, Expect, Kv, Op, Revision, Still};
pub use mirror::Mirror;
pub use records::{Catalog, Change, REPLICATED, Record, Versioned, is_local, numbered};
