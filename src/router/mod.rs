//! (Statement, parameters, &ShardMap) → which shards a statement needs, or why it is refused.
//!
//! The way through: [`template`] once a text (cache it by text, epoch, database and search path),
//! then [`Template::route`] once an execution. Right or refused: what can't be proved to be right
//! on one PostgreSQL node, or as a plain concatenation, is an error 0A000.
//!
//! `statement` looks at each statement of the text, `names` says what its tables are, `bind` which
//! keys they are bound to, `keyed` which shards these are; `scatter` proves concatenations.

mod bind;
mod definition;
mod first;
mod functions;
mod global;
mod hint;
mod insert;
mod keyed;
mod leaf;
mod leaves;
mod lookup;
mod merge;
mod merge_rows;
mod names;
mod operand;
mod part;
mod pull;
mod pull_keys;
mod query;
mod reference;
mod rekey;
mod route;
mod scatter;
mod text_shape;
mod through;
mod upsert;
mod statement;
mod system;
mod template;
mod trust;
mod view;
mod views;
mod write;
#[cfg(test)]
mod tests;

pub use crate::sql::{Control, Discard};
pub use first::{Before, First, Written};
pub use functions::is_pure_function;
pub use insert::{Evaluation, InsertRows, Piece, Segment, takes_number, varies};
pub use leaf::LeafSite;
pub use leaves::Leaves;
pub use lookup::{LookUp, LookUpRead};
pub use merge_rows::{MergeKey, MergeRows, MergeTo, MergeWith};
pub use pull::{Pull, PullColumn, PullKind, PullTable, Reduction};
pub use pull_keys::PullKeys;
pub use reference::Once;
pub use reference::through_view;
pub use rekey::Rekey;
pub use route::{Access, Context, Declared, Explained, Params, Route};
pub use template::{CopyIn, CopyOut, Ddl, Template, template, template_plain, template_together};
pub use text_shape::{PlainLiteral, PlainLiterals, TextShape};
pub use through::through;
pub use upsert::Upsert;
pub use views::Expanded;
