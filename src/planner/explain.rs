//! What EXPLAIN shows of a statement that one node is not enough for.

use crate::ids::{GroupId, NodeId, ShardId};
use crate::planner::{InputKeys, PullInput, PullPlan};
use crate::router::{Explained, Pull, Route};
use crate::shard_map::ShardMap;

/// The lines that EXPLAIN shows for `text`, which starts with EXPLAIN.
pub fn explain(text: &str, explained: &Explained, map: &ShardMap) -> Vec<String> {
    let statement = |text: &str| one_line(text.get(explained.start..).unwrap_or_default());
    match &explained.route {
        Route::Scatter(group) => {
            let mut lines = vec!["Way: scatter, rows concatenated as they come".to_owned()];
            lines.extend(nodes(map, *group).into_iter().map(|node| {
                let shards: Vec<_> =
                    map.shards_on(node, *group).map(|shard| format!("s{shard}")).collect();
                format!("  On {} ({}): {}", map.node(node).name, shards.join(" "), statement(text))
            }));
            lines
        }
        Route::ScatterOver(shards) => {
            let mut lines = vec!["Way: scatter, rows concatenated as they come".to_owned()];
            lines.extend(on_shards(shards, &statement(text), map));
            lines
        }
        Route::Write(shards) => {
            let mut lines =
                vec!["Way: write, each node its own rows, in one transaction".to_owned()];
            lines.extend(on_shards(shards, &statement(text), map));
            lines
        }
        other => vec![in_a_word(other).to_owned()],
    }
}

/// A line a node that owns some of the shards.
fn on_shards(shards: &[ShardId], statement: &str, map: &ShardMap) -> Vec<String> {
    let line = |(id, node): (NodeId, &crate::shard_map::Node)| {
        let here = shards.iter().filter(|shard| map.node_of(**shard) == id);
        let here: Vec<_> = here.map(|shard| format!("s{shard}")).collect();
        let named = || format!("  On {} ({}): {statement}", node.name, here.join(" "));
        (!here.is_empty()).then(named)
    };
    map.nodes().filter_map(line).collect()
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

/// The lines that EXPLAIN shows where each node runs `select` and the rows are merged.
pub fn explain_sorted(select: &str, pull: &Pull, map: &ShardMap) -> Vec<String> {
    let from: Vec<_> = pull.groups.iter().flat_map(|group| nodes(map, *group)).collect();
    let names: Vec<_> = from.into_iter().map(|node| map.node(node).name.as_str()).collect();
    vec![
        "Way: merge, each node gives its rows in the order and they are merged as they come".into(),
        format!("  On {}: {}", names.join(", "), one_line(select)),
    ]
}

/// The lines that EXPLAIN shows for a pull of a text that has its statement at `start`.
pub fn explain_pull(plan: &PullPlan, start: usize, map: &ShardMap) -> Vec<String> {
    let home = &map.node(map.home()).name;
    let way = if plan.has_params {
        "Way: pull, rows brought together and the statement run on them"
    } else {
        "Way: reduce, each node does its part and the rest is done on what is left"
    };
    let mut lines = vec![way.to_owned()];
    lines.extend(plan.inputs.iter().map(|input| input_line(input, plan, map)));
    let start = if plan.has_params { start } else { 0 };
    let text = one_line(plan.text.get(start..).unwrap_or_default());
    lines.push(format!("  Merge by PostgreSQL on {home}: {text}"));
    lines
}

fn input_line(input: &PullInput, plan: &PullPlan, map: &ShardMap) -> String {
    let from: Vec<_> = match input.group {
        Some(group) => nodes(map, group),
        None => vec![map.home()],
    };
    let names: Vec<_> = from.into_iter().map(|node| map.node(node).name.as_str()).collect();
    let other = |keys: &InputKeys| plan.inputs.get(keys.of).map_or("", |other| other.name.as_str());
    let keys = input.keys.as_ref().map(|keys| {
        format!(", where {} is among {} of \"{}\"", keys.own, keys.column, other(keys))
    });
    let (select, keys) = (one_line(&input.select), keys.unwrap_or_default());
    format!("  \"{}\" from {}: {select}{keys}", input.name, names.join(", "))
}

/// The nodes that own shards of a group.
fn nodes(map: &ShardMap, group: GroupId) -> Vec<NodeId> {
    let owns = |node: &NodeId| map.shards_on(*node, group).next().is_some();
    map.nodes().map(|(node, _)| node).filter(owns).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
