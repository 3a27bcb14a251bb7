//! Definitions that run outside of transactions, so that nobody waits for them: indexes partition by
//! partition, VACUUM, REINDEX.

use super::ddl::{DdlPlan, Scope, Step, splice, statements};
use super::shard_step::ShardStep;
use crate::ids::NodeId;
use crate::shard_map::{ShardMap, TableKind};
use crate::sql::{CreateIndex, Ident, Maintenance, Named, TableName};

/// What runs outside of any transaction, node by node, so that nobody has to wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// It is done in this way only where the home node has this; else the plan's own steps are all.
    pub only_if: Option<(String, Presence)>,
    /// Nodes that lack this relation are left out.
    pub only_where: Option<String>,
    /// The plan's own steps come first; else this is done in their place.
    pub after_steps: bool,
    each: Vec<Step>,
    last: Vec<Step>,
    undo: Vec<Step>,
}

/// What there has to be of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does not exist.
    Absent,
    /// It is an index of one table, not of a partitioned one.
    PlainIndex,
}

impl Apart {
    fn new(each: Vec<Step>) -> Self {
        Self {
            only_if: None,
            only_where: None,
            after_steps: false,
            each,
            last: Vec::new(),
            undo: Vec::new(),
        }
    }

    /// What runs on a node first, each statement on its own.
    pub fn each_on(&self, node: NodeId, map: &ShardMap) -> Vec<String> {
        statements(&self.each, node, map)
    }

    /// What runs on all nodes afterwards, in one transaction.
    pub fn last_on(&self, node: NodeId, map: &ShardMap) -> Vec<String> {
        statements(&self.last, node, map)
    }

    /// What takes back what was done, after an error.
    pub fn undo_on(&self, node: NodeId, map: &ShardMap) -> Vec<String> {
        statements(&self.undo, node, map)
    }
}

fn plan(steps: Vec<Step>, apart: Apart) -> DdlPlan {
    DdlPlan { apart: Some(apart), ..DdlPlan::new(Vec::new(), steps) }
}

/// `CREATE INDEX CONCURRENTLY` on a table of the policy: the parent's index, which is not valid yet,
/// then one for each partition without locks, then they are put together.
pub(super) fn created(create: &CreateIndex, scope: &Scope<'_>) -> DdlPlan {
    let Some(table) = scope.table(&create.table) else {
        return DdlPlan::new(Vec::new(), Vec::new());
    };
    let rest = scope.text.get(create.table.span.end..).unwrap_or_default().trim_end();
    let name = create.name.as_ref().map_or_else(|| made_up(create), |name| name.name.clone());
    let index = TableName::new(table.name.schema.clone(), name);
    let unique = if create.unique { "UNIQUE " } else { "" };
    let exists = if create.if_not_exists { "IF NOT EXISTS " } else { "" };
    let ident = Ident::new(&index.name);
    let on = |how: &str, only: &str| {
        format!("CREATE {unique}INDEX {how}{exists}{ident} ON {only}{}{rest}", table.name)
    };
    let drop = Step::Nodes(format!("DROP INDEX IF EXISTS {index}"));
    let absent = Some((index.to_string(), Presence::Absent));
    let TableKind::Sharded { group, .. } = &table.kind else {
        let each = Apart::new(vec![Step::Nodes(on("CONCURRENTLY ", ""))]);
        let exists = vec![Step::Nodes(on("", ""))];
        // What is there already says so by the plain statement.
        return plan(exists, Apart { only_if: absent, undo: vec![drop], ..each });
    };
    let shards = |step: ShardStep| Step::Shards { group: *group, step };
    let leaf = ShardStep::CreateIndex {
        table: table.name.clone(),
        index: index.clone(),
        unique: create.unique,
        rest: rest.to_owned(),
    };
    let apart = Apart {
        only_if: absent,
        after_steps: true,
        last: vec![shards(ShardStep::AttachIndex { index: index.clone() })],
        undo: vec![drop, shards(ShardStep::DropIndex { index })],
        ..Apart::new(vec![shards(leaf)])
    };
    plan(vec![Step::Nodes(on("", "ONLY "))], apart)
}

/// The name of an index that has none, as PostgreSQL makes it.
fn made_up(create: &CreateIndex) -> String {
    let columns = match create.columns.join("_") {
        none if none.is_empty() => "expr".to_owned(),
        columns => columns,
    };
    let mut name = format!("{}_{columns}_idx", create.table.name);
    // Room for the number of a shard.
    name.truncate(name.floor_char_boundary(56));
    name
}

/// `DROP INDEX CONCURRENTLY`: PostgreSQL has it for indexes of plain tables only, so that the index
/// of a partitioned one is dropped in a transaction of all nodes.
pub(super) fn dropped(named: &Named, scope: &Scope<'_>) -> DdlPlan {
    let list: Vec<_> = named.names.iter().map(|name| scope.slice(&name.span)).collect();
    let first = list.first().copied().unwrap_or_default().to_owned();
    let list = list.join(", ");
    let exists = if named.if_exists { "IF EXISTS " } else { "" };
    let step = |how: &str| Step::HomeAndOthers {
        home: format!("DROP INDEX {how}{exists}{list}"),
        others: format!("DROP INDEX {how}IF EXISTS {list}"),
    };
    let apart = Apart::new(vec![step("CONCURRENTLY ")]);
    plan(vec![step("")], Apart { only_if: Some((first, Presence::PlainIndex)), ..apart })
}

/// VACUUM and REINDEX on each node that has what they are about.
pub(super) fn maintenance(of: &Maintenance, scope: &Scope<'_>) -> DdlPlan {
    let only_where = of.index.as_ref().map(|index| scope.slice(&index.span).to_owned());
    let apart = Apart::new(vec![Step::Nodes(splice(scope.text, &[]))]);
    plan(Vec::new(), Apart { only_where, ..apart })
}
