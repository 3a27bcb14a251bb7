//! What routing answers: where a statement goes, and what it means for the session.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::insert::{Evaluation, InsertRows};
use super::{CopyIn, CopyOut, Ddl, First, LookUp, MergeWith, PlainLiteral, Pull, Rekey};
use crate::ids::{GroupId, ShardId};
use crate::shard_map::KeyValue;
use crate::sql::{Materialized, PlanForm, Strings, TableAs, UseCursor};

/// A statement for several nodes behind EXPLAIN.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Where it starts in the text.
    pub start: usize,
    /// It runs, and the answer tells what happened.
    pub analyzes: bool,
    /// The form of the answer.
    pub form: PlanForm,
    /// Where it would go.
    pub route: Route,
}

impl Explained {
    /// Whether nodes are asked for their plans.
    pub fn asks_nodes(&self) -> bool {
        self.analyzes || self.form != PlanForm::Text
    }
}

/// A cursor that is declared.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its name, as stored.
    pub name: String,
    /// It lives on after its transaction.
    pub hold: bool,
    /// Where its query starts in the text.
    pub start: usize,
    /// Where its rows are: one node's shards, the home node, or brought together.
    pub route: Route,
}

/// What names in a statement mean: the session's database and search path.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The database that the session is connected to.
    pub database: &'a str,
    /// The schemas of `search_path` in order, `"$user"` already dropped.
    pub search_path: &'a [String],
    /// How the session's strings are read.
    pub strings: Strings,
}

/// A statement's parameters, as Parse and Bind carry them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Params<'a> {
    /// The declared type OIDs of Parse; missing or 0 where the server infers them.
    pub types: &'a [u32],
    /// Format codes of Bind: none (all text), one for all, or one each.
    pub formats: &'a [i16],
    /// The values; `None` for NULL.
    pub values: &'a [Option<&'a [u8]>],
    /// What lookups gave, in the order in which [`LookUp`] asks for it: keys of rows. `None` before
    /// they are asked.
    pub looked_up: Option<&'a [Vec<Vec<KeyValue>>]>,
    /// Instead of values: the literals of the text whose [`TextShape`](super::TextShape) was analysed.
    pub literals: &'a [PlainLiteral<'a>],
}

/// What a statement does to data, for load counters and read replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only, as far as the text says.
    Read,
    /// May write, or take row locks.
    Write,
    /// Changes definitions.
    Ddl,
}

/// Where a statement goes.
#[derive(Debug, Clone)]
pub enum Route {
    /// Any one node gives the right answer: no tables at all, reference tables only, or no row can
    /// match.
    Anywhere,
    /// The home node: home tables, the system catalogs, utility commands.
    Home,
    /// The one node that owns all of these shards at the template's epoch; the text verbatim. Never
    /// empty, sorted, without doubles.
    Shards(SmallVec<[ShardId; 2]>),
    /// A SELECT over all shards of a group: the text verbatim on each node that owns one, results
    /// concatenated in any order.
    Scatter(GroupId),
    /// The same over the nodes that own these shards: no row of another counts.
    ScatterOver(SmallVec<[ShardId; 2]>),
    /// A SELECT that a merge session runs on rows of all nodes: `planner::pull` says which.
    Pull(Arc<Pull>),
    /// A write of which parts run first: then it is routed with their rows in it.
    First(Arc<First>),
    /// A SELECT that locks rows of all nodes in an order, one by one: only what each node can do of
    /// it is used.
    Lock(Arc<Pull>),
    /// EXPLAIN of a statement for several nodes: `planner::explain` says what to show.
    Explain(Arc<Explained>),
    /// A write to reference tables: the text verbatim on every node in one two-phase transaction. All
    /// nodes must report the same command tag and, with RETURNING, the same rows; one is shown.
    EveryNode,
    /// An UPDATE, DELETE or MERGE over these shards, on several nodes: the text verbatim on each that owns
    /// one of them, in one transaction. Counts are added, rows concatenated.
    Write(SmallVec<[ShardId; 2]>),
    /// A statement of one node that may change what a lookup says: as `Shards`, but in a transaction
    /// at the end of which the lookup is told.
    Keep(SmallVec<[ShardId; 2]>),
    /// Where its rows are has to be looked up first; then it is routed with what was found.
    LookUp(Arc<LookUp>),
    /// An INSERT whose rows belong on several nodes, with the shard of each row.
    Insert(Arc<InsertRows>, Vec<ShardId>),
    /// An INSERT of a query's rows: the query is run as any other, then its rows are inserted.
    Select(Arc<InsertRows>),
    /// An UPDATE of the shard key, which may move rows.
    Rekey(Arc<Rekey>),
    /// A MERGE: its source is run as any other query, then it runs with these rows.
    Merge(Arc<MergeWith>),
    /// CREATE TABLE AS or SELECT INTO of rows of several nodes: the home node gets the table.
    TableAs(Arc<TableAs>),
    /// A statement about materialized views, which may be of rows of several nodes: the home node
    /// keeps those.
    Materialized(Arc<Materialized>),
    /// Several statements that do not all go to the same node, by their bytes in the text: each is
    /// routed on its own, all in one transaction.
    Several(Arc<[Range<usize>]>),
    /// DECLARE of a cursor.
    Declare(Arc<Declared>),
    /// FETCH, MOVE or CLOSE of a cursor: where it was declared, else the home node.
    Cursor(Arc<UseCursor>),
    /// Parts of the statement are to be evaluated first; the statement with their values in their
    /// places is routed anew.
    Evaluate(Arc<Evaluation>),
    /// Definitions: `planner::ddl` says what runs on each node.
    Ddl(Arc<Ddl>),
    /// `COPY … FROM STDIN` into a sharded or reference table: the planner's `copy_in` says
    /// how rows are split.
    CopyIn(Arc<CopyIn>),
    /// `COPY … TO STDOUT` of rows on all nodes of a group, one after the other.
    CopyOut(Arc<CopyOut>),
}
