//! What EXPLAIN shows of a statement that one node is not enough for.

use crate::ids::{GroupId, NodeId};
use crate::planner::{PullInput, pull};
use crate::router::{Explained, Params, Route};
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
        Route::Pull(plan) => {
            let plan = pull(text, plan, &Params::default(), false);
            let home = &map.node(map.home()).name;
            let mut lines = vec![format!("Way: pull, merged by PostgreSQL on {home}")];
            lines.extend(plan.inputs.iter().map(|input| input_line(input, map)));
            // What was spliced comes after the start.
            lines.push(format!("  Merge on {home}: {}", statement(&plan.text)));
            lines
        }
        _ => vec!["Way: every node, in one transaction".to_owned()],
    }
}

fn input_line(input: &PullInput, map: &ShardMap) -> String {
    let from: Vec<_> = match input.group {
        Some(group) => nodes(map, group),
        None => vec![map.home()],
    };
    let names: Vec<_> = from.into_iter().map(|node| map.node(node).name.as_str()).collect();
    format!("  \"{}\" from {}: {}", input.name, names.join(", "), one_line(&input.select))
}

/// The nodes that own shards of a group.
fn nodes(map: &ShardMap, group: GroupId) -> Vec<NodeId> {
    let owns = |node: &NodeId| map.shards_on(*node, group).next().is_some();
    map.nodes().map(|(node, _)| node).filter(owns).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
