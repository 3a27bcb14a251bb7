//! Definitions: what runs on each node.

use std::ops::Range;

use super::routine::{first_word, if_there, is_about_routine, routine, told};
use super::shard_step::ShardStep;
use super::{Apart, LookupSql, More, Parents, alter, concurrent, create, index, more, trigger};
use crate::ids::{GroupId, NodeId};
use crate::router::Ddl;
use crate::shard_map::{ShardMap, Table, TableKind};
use crate::sql::{
    DdlStatement, Grant, Literal, Name, Strings, TableName, ViewStatement, ViewVerb, parse,
};
use crate::wire::ServerError;

/// What runs where, in one transaction over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdlPlan {
    /// The tables of the policy whose columns are to be read again afterwards.
    pub tables: Vec<TableName>,
    /// What these are, as the plan takes it.
    pub kinds: Vec<(TableName, TableKind)>,
    /// What it is about beside tables: types, functions, views.
    pub more: More,
    /// Names of views that it makes, changes or drops: what they mean is known once it is committed.
    pub views: Vec<String>,
    /// What follows outside of any transaction.
    pub apart: Option<Apart>,
    /// What runs instead if it is about constraints that only the leaves have.
    pub on_leaves: Option<OnLeaves>,
    /// What locks tables, on all nodes before anything else: who writes them and their lookups waits,
    /// or has ended.
    pub locks: Vec<String>,
    /// Sharded tables that it locks before their partitions.
    pub parents: Parents,
    /// The lookup table that it makes, which is to be filled.
    pub fills: Option<TableName>,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// On every node.
    Nodes(String),
    /// On the home node.
    Home(String),
    /// On the home node one, on the others the other.
    HomeAndOthers { home: String, others: String },
    /// On every node but the home node: its sequence of this column stays clear of the home node's.
    Sequence { table: TableName, column: String, limit: i64 },
    /// For each shard of the group that the node owns.
    Shards { group: GroupId, step: ShardStep },
}

/// A change of constraints that may be foreign keys, which only the leaves of a table have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnLeaves {
    /// The sharded table.
    pub table: TableName,
    /// The constraints.
    pub constraints: Vec<String>,
    /// The statement does nothing else.
    pub alone: bool,
    pub(super) steps: Vec<Step>,
}

impl OnLeaves {
    /// The query that gives a row where leaves have one of the constraints.
    pub fn question(&self) -> String {
        let names: Vec<_> = self.constraints.iter().map(|n| Literal(n).to_string()).collect();
        format!(
            "SELECT 1 FROM pg_catalog.pg_constraint c \
             JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.conrelid \
             WHERE i.inhparent = pg_catalog.to_regclass({}) AND c.contype = 'f' \
             AND c.conparentid = 0 AND c.conname = ANY (ARRAY[{}]::pg_catalog.name[]) LIMIT 1",
            Literal(&self.table.to_string()),
            names.join(", ")
        )
    }

    /// What runs on `node`; the same as [`DdlPlan::statements_for`].
    pub fn statements_for(&self, node: NodeId, map: &ShardMap) -> Vec<String> {
        statements(&self.steps, node, map)
    }
}

impl DdlPlan {
    pub(super) fn new(tables: Vec<TableName>, steps: Vec<Step>) -> Self {
        Self {
            tables,
            kinds: Vec::new(),
            more: More::Nothing,
            views: Vec::new(),
            apart: None,
            on_leaves: None,
            locks: Vec::new(),
            parents: Parents::default(),
            fills: None,
            steps,
        }
    }

    /// What runs on `node`, in order; the command tag of the first is the client's. Empty only where
    /// each shard is changed and the node owns none.
    pub fn statements_for(&self, node: NodeId, map: &ShardMap) -> Vec<String> {
        statements(&self.steps, node, map)
    }
}

pub(super) fn statements(steps: &[Step], node: NodeId, map: &ShardMap) -> Vec<String> {
    let mut statements = Vec::new();
    for step in steps {
        match step {
            Step::Nodes(text) => statements.push(text.clone()),
            Step::Home(text) if node == map.home() => statements.push(text.clone()),
            Step::Home(_) => {}
            Step::HomeAndOthers { home, others } => {
                let text = if node == map.home() { home } else { others };
                statements.push(text.clone());
            }
            Step::Sequence { table, column, limit } => {
                if node != map.home() {
                    statements.push(set_apart(table, column, *limit, node));
                }
            }
            Step::Shards { group, step } => {
                let shards = map.shards_on(node, *group);
                statements.extend(shards.map(|shard| step.statement(shard, map)));
            }
        }
    }
    statements
}

/// Where the sequence of a column stands at first on a node that is not the home node; `limit` is
/// the largest number of the column's type.
pub fn sequence_start(limit: i64, node: NodeId) -> i64 {
    limit / 2 + limit / 2 / 256 * i64::from(node.0 % 256)
}

/// Moves a node's own sequence to where the home node's will hardly come: numbers are taken at home
/// wherever the proxy sees it, but triggers may take them from the node that they run on.
fn set_apart(table: &TableName, column: &str, limit: i64, node: NodeId) -> String {
    let (table, column) = (table.to_string(), Literal(column).to_string());
    let start = sequence_start(limit, node);
    format!(
        "SELECT pg_catalog.setval(pg_catalog.pg_get_serial_sequence({}, {column}), {start})",
        Literal(&table)
    )
}

/// Plans a definition.
///
/// # Errors
/// 0A000 where it can't be had over several nodes, with what would work.
pub fn ddl(ddl: &Ddl, map: &ShardMap) -> Result<DdlPlan, ServerError> {
    let scope = Scope { text: &ddl.text, search_path: &ddl.search_path, map };
    let mut plan = planned(ddl, &scope)?;
    plan.tables.extend(more::named_anew(&ddl.statement, &ddl.text, map));
    let known = plan.tables.iter().filter_map(|name| map.table(name));
    plan.kinds = known.map(|table| (table.name.clone(), table.kind.clone())).collect();
    plan.parents = Parents::of(&ddl.statement, &scope);
    plan.locks.extend(plan.parents.locks_before(&ddl.statement, &ddl.text));
    Ok(plan)
}

fn planned(ddl: &Ddl, scope: &Scope<'_>) -> Result<DdlPlan, ServerError> {
    let as_written = || vec![Step::Nodes(ddl.text.trim().to_owned())];
    match &ddl.statement {
        DdlStatement::CreateTable(create) => create::table(create, scope),
        DdlStatement::CreateIndex(index) => create::index(index, scope),
        DdlStatement::AlterTable(table) => alter::table(table, scope),
        DdlStatement::DropTable(named) => {
            let others = scope.for_others(&named.names, &named.parts);
            Ok(dropped(scope.policy_tables(&named.names), (&ddl.text, &others), scope.map))
        }
        DdlStatement::DropIndex(named) if named.concurrently => {
            Ok(concurrent::dropped(named, scope))
        }
        DdlStatement::Maintenance(of) => Ok(concurrent::maintenance(of, scope)),
        DdlStatement::DropIndex(named) => Ok(DdlPlan::new(
            Vec::new(),
            // An index of a home table is at home only.
            vec![Step::HomeAndOthers {
                home: ddl.text.trim().to_owned(),
                others: drop_if_exists(&ddl.text, named),
            }],
        )),
        DdlStatement::View(view) => Ok(views(view, ddl)),
        DdlStatement::Global { object, routine: index, .. }
            if matches!(object.as_str(), "sequence" | "statistics" | "index") =>
        {
            Ok(index::altered(index.as_ref(), scope, if_exists(&ddl.text, object)))
        }
        DdlStatement::Global { object, routine: name, .. }
            if matches!(object.as_str(), "function" | "procedure" | "routine") =>
        {
            Ok(routine(object, name.as_ref(), scope))
        }
        DdlStatement::Global { object, routine: Some(function), table } if object == "trigger" => {
            Ok(trigger::created(function, table.as_ref(), scope))
        }
        DdlStatement::Truncate(named) => {
            let others = scope.for_others(&named.names, &named.parts);
            Ok(apart(&ddl.text, keep_numbers(&others)))
        }
        DdlStatement::Analyze(named) | DdlStatement::Lock(named) => {
            Ok(apart(&ddl.text, scope.for_others(&named.names, &named.parts)))
        }
        DdlStatement::Grant(Grant { tables: Some(tables), .. }) => {
            let parts: Vec<_> = tables.iter().map(|name| name.span.clone()).collect();
            Ok(apart(&ddl.text, scope.for_others(tables, &parts)))
        }
        DdlStatement::Grant(_) | DdlStatement::Comment if is_about_routine(&ddl.text) => {
            Ok(told(&ddl.text))
        }
        DdlStatement::Grant(_) | DdlStatement::Comment => {
            Ok(DdlPlan::new(Vec::new(), as_written()))
        }
        DdlStatement::Global { object, .. } => {
            let more = More::of(object, ddl.text.trim());
            Ok(DdlPlan { more, ..DdlPlan::new(Vec::new(), as_written()) })
        }
    }
}

/// The home node's text as it is written, and that of the others.
fn apart(home: &str, others: String) -> DdlPlan {
    let home = home.trim().to_owned();
    DdlPlan::new(Vec::new(), vec![Step::HomeAndOthers { home, others }])
}

/// TRUNCATE with RESTART IDENTITY: the home node gives the numbers, and those that the others may
/// give stay clear of them.
fn keep_numbers(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words = lower.split_ascii_whitespace().rev().take(3).any(|word| word == "restart");
    match lower.rfind("restart").filter(|_| words) {
        Some(at) => format!("{}CONTINUE{}", &text[..at], &text[at + "restart".len()..]),
        None => text.to_owned(),
    }
}

/// DROP TABLE: a lookup goes with what it finds, and takes its triggers with it.
fn dropped(mut tables: Vec<TableName>, (home, others): (&str, &str), map: &ShardMap) -> DdlPlan {
    let (mut first, mut locks) = (Vec::new(), Vec::new());
    for lookup in &map.declared().lookups {
        let (own, of) = (tables.contains(&lookup.name), tables.contains(&lookup.table));
        let there = |name| map.table(name).is_some_and(|table| !table.columns.is_empty());
        if !(own || of) || !there(&lookup.name) || !there(&lookup.table) {
            continue;
        }
        locks.push(format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", lookup.table));
        first.extend(LookupSql { map, lookup }.drop_triggers());
        if !own {
            first.push(format!("DROP TABLE IF EXISTS {}", lookup.name));
            tables.push(lookup.name.clone());
        }
    }
    // In one text, of which the last tag counts.
    let whole = |last: &str| {
        let all: Vec<_> = first.iter().map(String::as_str).chain([last.trim()]).collect();
        all.join("; ")
    };
    let step = Step::HomeAndOthers { home: whole(home), others: whole(others) };
    DdlPlan { locks, ..DdlPlan::new(tables, vec![step]) }
}

/// A view stands where its tables are; nodes that lack it have nothing to change.
fn views(view: &ViewStatement, ddl: &Ddl) -> DdlPlan {
    let home = ddl.text.trim().to_owned();
    let step = match view.verb {
        ViewVerb::Create if ddl.home_only => Step::Home(home),
        ViewVerb::Create => Step::Nodes(home),
        ViewVerb::Alter | ViewVerb::Drop => {
            let first = view.names.first().filter(|_| !view.if_exists);
            let edits = first.map(|n| (n.span.start..n.span.start, "IF EXISTS ".to_owned()));
            let others = splice(&ddl.text, edits.as_slice());
            Step::HomeAndOthers { home, others }
        }
    };
    let mut plan = DdlPlan::new(Vec::new(), vec![step]);
    plan.more = More::Named(Vec::new());
    plan.views = match view.verb {
        ViewVerb::Alter => identifiers(&ddl.text),
        ViewVerb::Create | ViewVerb::Drop => view.names.iter().map(|n| n.name.clone()).collect(),
    };
    plan
}

/// A sequence of a home table is at home only, and so are its statistics and its indexes.
pub(super) fn if_exists(text: &str, object: &str) -> DdlPlan {
    if object == "statistics" && first_word(text) == "alter" {
        return if_there(text);
    }
    let home = text.trim().to_owned();
    let folded = home.to_ascii_lowercase();
    let head = folded.find(object).map_or(home.len(), |at| at + object.len());
    let written = folded[head..].trim_start().starts_with("if ");
    let others = if written || folded.starts_with("create") {
        home.clone()
    } else {
        format!("{} IF EXISTS{}", &home[..head], &home[head..])
    };
    DdlPlan::new(Vec::new(), vec![Step::HomeAndOthers { home, others }])
}

/// Every identifier of a statement: also the new name of what is renamed.
fn identifiers(text: &str) -> Vec<String> {
    let parsed = parse(text, Strings::Standard);
    parsed.statements.into_iter().flat_map(|statement| statement.identifiers).collect()
}

fn drop_if_exists(text: &str, named: &crate::sql::Named) -> String {
    if named.if_exists {
        return text.trim().to_owned();
    }
    let Some(first) = named.names.first() else { return text.trim().to_owned() };
    splice(text, &[(first.span.start..first.span.start, "IF EXISTS ".to_owned())])
}

/// The statement's text with its names' meaning.
pub(super) struct Scope<'a> {
    pub(super) text: &'a str,
    pub(super) search_path: &'a [String],
    pub(super) map: &'a ShardMap,
}

/// A sharded table's place in the map.
#[derive(Clone, Copy)]
pub(super) struct ShardedTable<'a> {
    pub(super) table: &'a Table,
    pub(super) group: GroupId,
    pub(super) key: &'a [String],
}

impl<'a> Scope<'a> {
    /// The table of the policy that `name` means: the router has refused what is ambiguous.
    pub(super) fn table(&self, name: &Name) -> Option<&'a Table> {
        match &name.schema {
            Some(schema) => self.map.table(&TableName::new(schema.as_str(), name.name.as_str())),
            None => self
                .search_path
                .iter()
                .find_map(|schema| self.map.table(&TableName::new(schema.as_str(), &*name.name))),
        }
    }

    /// The same, if it is sharded.
    pub(super) fn sharded(&self, name: &Name) -> Option<ShardedTable<'a>> {
        let table = self.table(name)?;
        match &table.kind {
            TableKind::Sharded { group, key } => Some(ShardedTable { table, group: *group, key }),
            TableKind::Reference => None,
        }
    }

    /// The text for nodes that lack the home tables among `names`, each of which `parts` places.
    fn for_others(&self, names: &[Name], parts: &[Range<usize>]) -> String {
        let known = |name: &Name| self.table(name).is_some() || self.is_view_everywhere(name);
        let kept: Vec<&str> = names
            .iter()
            .zip(parts)
            .filter(|(name, _)| known(name))
            .map(|(_, part)| self.slice(part))
            .collect();
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
            return self.text.trim().to_owned();
        };
        if kept.len() == names.len() {
            return self.text.trim().to_owned();
        }
        splice(self.text, &[(first.start..last.end, kept.join(", "))])
    }

    fn is_view_everywhere(&self, name: &Name) -> bool {
        let everywhere = |schema: &str| {
            let view = self.map.view(&TableName::new(schema, name.name.as_str()));
            view.is_some_and(|view| view.everywhere)
        };
        match &name.schema {
            Some(schema) => everywhere(schema),
            None => self.search_path.iter().any(|schema| everywhere(schema)),
        }
    }

    fn policy_tables(&self, names: &[Name]) -> Vec<TableName> {
        names.iter().filter_map(|name| self.table(name)).map(|table| table.name.clone()).collect()
    }

    /// The bytes of the text.
    pub(super) fn slice(&self, range: &Range<usize>) -> &'a str {
        self.text.get(range.clone()).unwrap_or_default()
    }
}

/// `text` with each range replaced; ranges in order, none overlapping.
pub(super) fn splice(text: &str, edits: &[(Range<usize>, String)]) -> String {
    let mut spliced = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for (range, replacement) in edits {
        spliced.push_str(text.get(at..range.start).unwrap_or_default());
        spliced.push_str(replacement);
        at = range.end;
    }
    spliced.push_str(text.get(at..).unwrap_or_default());
    spliced.trim().to_owned()
}
