//! (Statement, parameters, &ShardMap) → which shards a statement needs, or why it is refused.
//!
//! The way through: [`template`] once a text (cache it by text, epoch, database and search path),
//! then [`Template::route`] once an execution. Right or refused: what can't be proved to be right
//! on one PostgreSQL node, or as a plain concatenation, is an error 0A000.

mod route;
mod template;

pub use crate::sql::{Control, Discard};
pub use route::{Access, Context, Params, Route};
pub use template::{CopyIn, Ddl, Template, template};
