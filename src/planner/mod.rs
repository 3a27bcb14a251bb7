//! (Statement, Route) → what is sent where; all rewriting of SQL.
//!
//! For the executor: [`ddl`] for a `Route::Ddl`, then [`DdlPlan::statements_for`] each node, all in
//! one two-phase transaction under the session's search_path; [`copy_in`] for a `Route::CopyIn`, then
//! a [`Splitter`] for its rows; [`pull`] for a `Route::Pull`; [`explain`] says it
//! in words.

mod alter;
mod before;
mod catalog;
mod copy;
mod concurrent;
mod create;
mod ddl;
mod explain;
mod explained;
mod given;
mod in_place;
mod index;
mod insert;
mod kept;
mod lookup;
mod merge;
mod more;
mod once;
mod order;
mod parents;
mod pull;
mod reduce;
mod rekey;
mod rename;
mod routine;
mod shard_step;
mod trigger;
mod upsert;
#[cfg(test)]
mod tests;

pub use before::obstacles;
pub use catalog::{
    CATALOG_SCHEMAS, CATALOG_TABLES, CATALOG_VIEWS, CatalogTable, INFORMATION_VIEWS,
    catalog_grants, catalog_tables, catalog_view, shown,
};
pub use concurrent::{Apart, Presence};
pub use copy::{CopyInPlan, Splitter, copy_in};
pub use ddl::{DdlPlan, OnLeaves, ddl, sequence_start};
pub use explain::{ExplainedStep, explain, explain_pull, explain_sorted};
pub use explained::{StepPlan, explained};
pub use given::{given_list, given_rows, replaced, table_rows};
pub use in_place::{GIVEN_BYTES_MAX, GIVEN_VALUES_MAX, Given, InPlace};
pub use insert::{Evaluated, Fragment, evaluated, evaluation_queries, insert, literal, renumbered};
pub use kept::{KEPT_SET_UP, KeptView, at_home, is_sequence, kept_view, sequence_owner};
pub use lookup::{
    LOOKUP_IS_SET_UP, LOOKUP_SET_UP, LookupChange, LookupSql, MADE_LOOKUPS, TAKE_LOOKUPS,
};
pub use merge::merge;
pub use more::More;
pub use once::once;
pub use order::{Direction, Ordered, ordered};
pub use parents::Parents;
pub use pull::{InputKeys, PullInput, PullPlan, is_portable_type, pull, table_source};
pub use reduce::{REDUCED_TABLE, Reduced, SumType, finish, param_text, reduce};
pub use rekey::{RekeySteps, rekey};
pub use upsert::UpsertSql;
