//! A text, analysed once against one shard map.

use super::{Access, Context, Control, Params, Route};
use crate::ids::Epoch;
use crate::shard_map::ShardMap;
use crate::sql::TableName;
use crate::wire::ServerError;

/// A text that was analysed against one map: what does not depend on parameters is decided.
#[derive(Debug, Clone)]
pub struct Template {
    /// Of the map that it was analysed against.
    pub epoch: Epoch,
    /// How many statements the text holds; 0 for an empty one.
    pub statement_count: usize,
    /// What it does to the session, if it is exactly one statement.
    pub control: Control,
    /// The strongest access of its statements.
    pub access: Access,
    /// It leaves state on the server connection: the session keeps that one.
    pub pins: bool,
    /// A text of several statements that begins or ends a transaction on the way: never send it to
    /// one node of a transaction that has joined several.
    pub moves_transaction: bool,
    target: Target,
}

#[derive(Debug, Clone)]
enum Target {
    Fixed(Route),
    Refused(ServerError),
}

/// DDL that concerns all nodes, with its names resolved: goes to `planner::ddl`.
#[derive(Debug, Clone)]
pub struct Ddl {
    /// The statement.
    pub text: String,
}

/// `COPY … FROM STDIN` with its table resolved: goes to `planner::copy_in`.
#[derive(Debug, Clone)]
pub struct CopyIn {
    /// The statement.
    pub text: String,
    /// The sharded or reference table.
    pub table: TableName,
}

/// Analyses a text.
pub fn template(text: &str, context: &Context<'_>, map: &ShardMap) -> Template {
    let _ = (text, context);
    Template {
        epoch: map.epoch(),
        statement_count: 1,
        control: Control::None,
        access: Access::Read,
        pins: false,
        moves_transaction: false,
        target: Target::Fixed(Route::Home),
    }
}

impl Template {
    /// Whether [`Template::route`] looks at its parameters.
    pub fn depends_on_params(&self) -> bool {
        false
    }

    /// Where the text goes with these parameters, at the template's epoch.
    ///
    /// # Errors
    /// 0A000 where the right answer can't be had.
    pub fn route(&self, params: &Params<'_>) -> Result<Route, ServerError> {
        let _ = params;
        match &self.target {
            Target::Fixed(route) => Ok(route.clone()),
            Target::Refused(error) => Err(error.clone()),
        }
    }
}
