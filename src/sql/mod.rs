//! SQL text: what a statement is about, and text that is safe to send.
//!
//! The only room that knows the parser's syntax tree. It does not know the shard map: which table
//! is sharded is the router's business.

mod control;
mod lexer;
mod quote;

pub use control::{Control, Discard};
pub use quote::{Ident, Literal, TableName};
