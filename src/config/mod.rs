//! Every room's own configuration, composed; YAML; all faults at once with file, line and key path.
//!
//! Two documents: the *policy* says what is sharded and how load is forecast and placed; the
//! *serve* configuration says where the proxy listens, which nodes there are, who may log in, and
//! which policy holds.

mod access;
mod catalog;
mod fault;
mod fit;
mod group;
mod lookup;
mod nodes;
mod policy;
mod section;
mod serve;
mod tree;

pub use access::UserLookup;
pub use fault::{Fault, Faults};
pub use fit::PolicyMismatch;
pub use lookup::LookupPolicy;
pub use policy::{FunctionPolicy, GroupPolicy, Policy, TablePolicy};
pub use serve::Serve;

#[cfg(test)]
mod tests;
