//! SQL text: what a statement is about, and text that is safe to send.
//!
//! The only room that knows the parser's syntax tree. It does not know the shard map: which table
//! is sharded is the router's business.
//!
//! [`parse`] reads with tokens of our own (`lexer`), so that byte positions, operators and escapes
//! are PostgreSQL's. Queries go on to the grammar (`bridge`, then `walk`); everything that it
//! misreads or does not know is read by hand (`control`, `copy`, `ddl`).

mod assign;
mod bare;
mod bridge;
mod conflict;
mod constants;
mod control;
mod copy;
mod cursor;
mod cursors;
mod ddl;
mod derived;
mod early;
mod explain;
mod fingerprint;
mod from;
mod hint;
mod insert;
mod lacking;
mod lexer;
mod materialized;
mod merge;
mod modes;
mod parse;
mod places;
mod prepared;
mod quote;
mod role_password;
mod shape;
mod statement;
mod table_as;
mod update;
mod walk;

pub use bare::{Bare, bare_columns};
pub use conflict::{ConflictLayout, ConflictUpdate};
pub use control::{Control, Discard};
pub use copy::{CopyFormat, CopyOptions, CopyStatement, OtherOption};
pub use cursor::Name;
pub use cursors::{DeclareCursor, UseCursor};
pub use ddl::{
    AlterAction, AlterTable, ColumnConstraint, ColumnDefinition, ConstraintKind, CreateIndex,
    CreateTable, DdlStatement, ForeignKey, Grant, Maintenance, Named, TableConstraint,
    TableElement, ViewStatement, ViewVerb,
};
pub use early::{Early, EarlyQuery, EarlyUse, EarlyWith, VOLATILE, early, locked};
pub use explain::PlanForm;
pub use fingerprint::fingerprint;
pub use hint::{Hint, hint};
pub use insert::{InsertLayout, RowLayout, calls_in, clock_calls, params_of};
pub use lexer::Strings;
pub use materialized::{Materialized, MaterializedQuery, materialized};
pub use merge::{Merge, MergeInsert, MergeValue};
pub use modes::{ComputedName, MODES, OF_CLIENT, asks_settings, modes_of_client};
pub use parse::parse;
pub use places::{Place, PlaceUse, Places, places};
pub use prepared::{Argument, ArgumentLiteral, ExecuteStatement, PrepareStatement, executed_table};
pub use quote::{Ident, Literal, TableName};
pub use role_password::{RolePassword, role_password};
pub use shape::{Aggregate, Item, Limit, OrderItem, REDUCIBLE, Shape};
pub use statement::{
    Call, ColumnRef, ColumnUse, Condition, Constant, ConstantValue, DerivedTable, Features, Insert,
    Join, JoinKind, Level, Parsed, Qualifier, Query, Source, Statement, StatementKind, TableRef,
    Target, Test, Verb,
};
pub use table_as::{TableAs, table_as};
pub use update::UpdateLayout;
