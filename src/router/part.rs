//! The route of one statement of a text, before its parameters are known.

use std::sync::Arc;

use smallvec::SmallVec;

use super::insert::{Evaluation, InsertRows};
use super::keyed::Keyed;
use super::{CopyIn, CopyOut, Ddl, Explained, First, MergeWith, Pull, Rekey, Route};
use crate::ids::{GroupId, ShardId};
use crate::sql::{Materialized, TableAs, UseCursor};

/// Where one statement goes.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Anywhere,
    Home,
    Keyed(Keyed),
    /// The one node of these shards, at least one.
    Shards(SmallVec<[ShardId; 2]>),
    Scatter(GroupId),
    Pull(Arc<Pull>),
    Explain(Arc<Explained>),
    EveryNode,
    /// UPDATE or DELETE over all shards of a group.
    Write(GroupId),
    Evaluate(Arc<Evaluation>),
    /// Parts of it run first.
    First(Arc<First>),
    /// A SELECT that locks rows in an order.
    Lock(Arc<Pull>),
    Select(Arc<InsertRows>),
    Rekey(Arc<Rekey>),
    Merge(Arc<MergeWith>),
    /// A table made of rows of several nodes.
    TableAs(Arc<TableAs>),
    /// About materialized views that may be kept ones.
    Materialized(Arc<Materialized>),
    Ddl(Arc<Ddl>),
    /// A cursor, as [`Route::Declare`].
    Declare(Route),
    Cursor(Arc<UseCursor>),
    CopyIn(Arc<CopyIn>),
    CopyOut(Arc<CopyOut>),
}
