//! What a session knows of its transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Exclusive, Pass, Writing};
use crate::ids::ShardId;
use crate::planner::More;
use crate::shard_map::{Column, ShardMap};
use crate::sql::TableName;

/// What was in force when a transaction began to look at its data.
#[derive(Debug)]
pub(super) struct Outset {
    /// The map.
    pub map: Arc<ShardMap>,
    /// [`super::Gates::reopened`].
    pub reopened: u64,
    /// The same when its servers last looked at which partitions there are.
    pub looked: u64,
}

/// What a session knows of its transaction.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent marks")]
pub(super) struct Transaction {
    /// The client's BEGIN, while its transaction lasts.
    pub begin: Option<String>,
    /// A text of several statements began it: with which modes is not known.
    pub begun_unseen: bool,
    /// It can only be rolled back, to a savepoint perhaps.
    pub failed: bool,
    /// A node's part of it is gone: it can only be rolled back as a whole.
    pub broken: bool,
    /// What a node that joins later must run after BEGIN: SET TRANSACTION, SET, savepoints and the
    /// way back to them, in the order in which the client gave them.
    pub prelude: Vec<String>,
    /// The shards that it has touched stay where they are until it ends.
    pub passes: SmallVec<[(ShardId, Pass); 2]>,
    /// It has done something that touched no shard then.
    pub elsewhere: Option<Pass>,
    /// What was in force when it first touched a node, or later if it keeps no snapshot.
    pub outset: Option<Outset>,
    /// A statement may have changed settings of the session.
    pub settings_changed: bool,
    /// No move while its DDL is not committed.
    pub ddl: Option<Exclusive>,
    /// The same for DDL that is still to come.
    pub reserved: Option<Exclusive>,
    /// What its DDL is about beside tables: types, functions, views.
    pub defines_more: More,
    /// It may have changed definitions that are the home node's alone.
    pub defines_at_home: bool,
    /// It may have made, renamed or dropped a home table, outside of a block too.
    pub moves_names: bool,
    /// It has written a reference table: no node becomes a member before it ends.
    pub references: Option<Writing>,
    /// Tables whose columns are to be read again after it.
    pub changed_tables: Vec<TableName>,
    /// The columns of those of them that are sharded or reference tables, as it sees them itself.
    pub own_columns: Vec<(TableName, Vec<Column>)>,
    /// The map with these, at the epoch that was in force when it was made.
    pub own_map: Option<Arc<ShardMap>>,
    /// Names of views that its DDL has made, changed or dropped.
    pub changed_views: BTreeSet<String>,
    /// Names of relations that it has asked for and that were not there.
    pub absent: BTreeSet<String>,
}

impl Transaction {
    /// It is over, and the next one begins with nothing. Most have little to let go of.
    pub(super) fn end(&mut self) {
        // All of them, so that whoever adds one has to think of it here.
        let Self {
            begin,
            begun_unseen,
            failed,
            broken,
            prelude,
            passes,
            elsewhere,
            outset,
            settings_changed,
            ddl,
            reserved,
            defines_more,
            defines_at_home,
            moves_names,
            references,
            changed_tables,
            own_columns,
            own_map: _,
            changed_views,
            absent,
        } = self;
        let more = *defines_more != More::Nothing || *defines_at_home || *moves_names;
        let defined = more
            || ddl.is_some()
            || reserved.is_some()
            || !changed_tables.is_empty()
            || !own_columns.is_empty()
            || !changed_views.is_empty();
        let wrote = references.is_some();
        if begin.is_some() || defined || wrote || !absent.is_empty() {
            *self = Self::default();
            return;
        }
        (*begun_unseen, *failed, *broken, *settings_changed) = (false, false, false, false);
        prelude.clear();
        passes.clear();
        (*elsewhere, *outset) = (None, None);
    }
}
