//! What EXPLAIN shows of a statement that one node is not enough for.

use crate::ids::{GroupId, NodeId, ShardId};
use crate::planner::{InputKeys, PullInput, PullPlan};
use crate::router::{Explained, Pull, Route};
use crate::shard_map::ShardMap;

/// A line that EXPLAIN shows, and what nodes run for it as it stands there.
#[derive(Debug)]
pub struct ExplainedStep {
    /// The line.
    pub line: String,
    /// Who runs `select`; nobody, if it depends on other rows, or is done where rows are brought together.
    pub nodes: Vec<NodeId>,
    /// The query that they run.
    pub select: String,
}

impl ExplainedStep {
    fn alone(line: impl Into<String>) -> Self {
        Self { line: line.into(), nodes: Vec::new(), select: String::new() }
    }
}

/// What EXPLAIN shows for `text`, which starts with EXPLAIN.
pub fn explain(text: &str, explained: &Explained, map: &ShardMap) -> Vec<ExplainedStep> {
    let statement = text.get(explained.start..).unwrap_or_default();
    match &explained.route {
        Route::Scatter(group) => {
            let of_group = map.shards().filter(|(_, shard)| shard.group == *group);
            let shards: Vec<_> = of_group.map(|(id, _)| id).collect();
            let mut steps =
                vec![ExplainedStep::alone("Way: scatter, rows concatenated as they come")];
            steps.extend(on_shards(&shards, statement, map));
            steps
        }
        Route::ScatterOver(shards) => {
            let mut steps =
                vec![ExplainedStep::alone("Way: scatter, rows concatenated as they come")];
            steps.extend(on_shards(shards, statement, map));
            steps
        }
        Route::Write(shards) => {
            let way = "Way: write, each node its own rows, in one transaction";
            let mut steps = vec![ExplainedStep::alone(way)];
            steps.extend(on_shards(shards, statement, map));
            steps
        }
        Route::Insert(rows, shards) => {
            let mut steps = vec![ExplainedStep::alone(in_a_word(&explained.route))];
            steps.extend(super::insert(rows, shards, map).iter().map(|part| of_rows(part, map)));
            steps
        }
        other => vec![ExplainedStep::alone(in_a_word(other))],
    }
}

/// What a node, or a leaf, gets of an INSERT's rows.
fn of_rows(part: &super::Fragment, map: &ShardMap) -> ExplainedStep {
    let shards: Vec<_> = part.shards.iter().map(|shard| format!("s{shard}")).collect();
    let (node, count) = (&map.node(part.node).name, part.rows.len());
    let rows = if count == 1 { "row" } else { "rows" };
    ExplainedStep::alone(format!("  On {node} ({}): {count} {rows}", shards.join(" ")))
}

/// A step a node that owns some of the shards.
fn on_shards(shards: &[ShardId], statement: &str, map: &ShardMap) -> Vec<ExplainedStep> {
    let step = |(id, node): (NodeId, &crate::shard_map::Node)| {
        let here = shards.iter().filter(|shard| map.node_of(**shard) == id);
        let here: Vec<_> = here.map(|shard| format!("s{shard}")).collect();
        let line = || format!("  On {} ({}): {}", node.name, here.join(" "), one_line(statement));
        (!here.is_empty()).then(|| ExplainedStep {
            line: line(),
            nodes: vec![id],
            select: statement.to_owned(),
        })
    };
    map.nodes().filter_map(step).collect()
}

/// What is done in steps that depend on the rows that they find.
fn in_a_word(route: &Route) -> &'static str {
    match route {
        Route::First(first) if first.once.is_some() => {
            "Way: every node, in one transaction, if a row meets one other or the same in all"
        }
        Route::First(first) if first.upsert.is_some() => {
            "Way: lookup of what conflicts, then new rows to their shards and changes to the others"
        }
        Route::First(_) => "Way: steps, what it reads first, then what is left, in one transaction",
        Route::Insert(..) => "Way: rows, each to its shard, in one transaction",
        Route::Select(_) => "Way: query, then its rows to their shards, in one transaction",
        Route::Merge(_) => "Way: source, then its rows to their shards, in one transaction",
        Route::Rekey(_) => "Way: rekey, rows with a new key move to its shard, in one transaction",
        Route::Evaluate(_) => "Way: values, computed once, then as a statement that has them",
        Route::TableAs(_) => {
            "Way: table, made empty on the home node and filled with the query's rows"
        }
        Route::Materialized(_) => {
            "Way: table, filled with the query's rows, from which the home node fills its view"
        }
        Route::Lock(_) => "Way: lock, row by row in the order, as they are merged",
        _ => "Way: every node, in one transaction",
    }
}

/// What EXPLAIN shows where each node runs `select` and the rows are merged.
pub fn explain_sorted(select: &str, pull: &Pull, map: &ShardMap) -> Vec<ExplainedStep> {
    let nodes: Vec<_> = pull.groups.iter().flat_map(|group| nodes(map, *group)).collect();
    let way = "Way: merge, each node gives its rows in the order and they are merged as they come";
    let line = format!("  On {}: {}", names(&nodes, map), one_line(select));
    vec![ExplainedStep::alone(way), ExplainedStep { line, nodes, select: select.to_owned() }]
}

/// What EXPLAIN shows for a pull of a text that has its statement at `start`.
pub fn explain_pull(plan: &PullPlan, start: usize, map: &ShardMap) -> Vec<ExplainedStep> {
    let home = &map.node(map.home()).name;
    let way = if plan.has_params {
        "Way: pull, rows brought together and the statement run on them"
    } else {
        "Way: reduce, each node does its part and the rest is done on what is left"
    };
    let mut steps = vec![ExplainedStep::alone(way)];
    steps.extend(plan.inputs.iter().map(|input| input_step(input, plan, map)));
    let start = if plan.has_params { start } else { 0 };
    let text = one_line(plan.text.get(start..).unwrap_or_default());
    steps.push(ExplainedStep::alone(format!("  Merge by PostgreSQL on {home}: {text}")));
    steps
}

fn input_step(input: &PullInput, plan: &PullPlan, map: &ShardMap) -> ExplainedStep {
    let from: Vec<_> = match input.group {
        Some(group) => nodes(map, group),
        None => vec![map.home()],
    };
    let other = |keys: &InputKeys| plan.inputs.get(keys.of).map_or("", |other| other.name.as_str());
    let keys = input.keys.as_ref().map(|keys| {
        format!(", where {} is among {} of \"{}\"", keys.own, keys.column, other(keys))
    });
    let (select, keys) = (one_line(&input.select), keys.unwrap_or_default());
    let line = format!("  \"{}\" from {}: {select}{keys}", input.name, names(&from, map));
    let as_it_stands = input.keys.is_none() && input.group.is_some();
    let nodes = if as_it_stands { from } else { Vec::new() };
    ExplainedStep { line, nodes, select: input.select.clone() }
}

fn names(nodes: &[NodeId], map: &ShardMap) -> String {
    let names: Vec<_> = nodes.iter().map(|node| map.node(*node).name.as_str()).collect();
    names.join(", ")
}

/// The nodes that own shards of a group.
fn nodes(map: &ShardMap, group: GroupId) -> Vec<NodeId> {
    let owns = |node: &NodeId| map.shards_on(*node, group).next().is_some();
    map.nodes().map(|(node, _)| node).filter(owns).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
