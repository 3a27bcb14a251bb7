//! Who waits for whom, and whether in a circle over several nodes.

use std::collections::{HashMap, HashSet};

use crate::ids::NodeId;

/// Most steps of a search: what is found later is found at the next look.
const STEPS_MAX: usize = 100_000;

/// Who waits, or is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Vertex {
    /// A session of this proxy and client.
    Session(u64, i32),
    /// Another process of a node.
    Other(NodeId, i32),
}

impl Vertex {
    pub(super) fn client(self) -> Option<(u64, i32)> {
        match self {
            Self::Session(proxy, client) => Some((proxy, client)),
            Self::Other(..) => None,
        }
    }
}

/// A circle: each waits on this node for the next, and the last for the first.
pub(super) type Waits = Vec<(Vertex, NodeId)>;

type Edges = HashMap<Vertex, Vec<(Vertex, NodeId)>>;

/// A circle of waits on more than one node; those on one are that node's own matter.
pub(super) fn circle(edges: &Edges) -> Option<Waits> {
    let mut starts: Vec<Vertex> = edges.keys().copied().collect();
    starts.sort_unstable();
    let mut steps = STEPS_MAX;
    starts.into_iter().find_map(|start| {
        let mut search = Search { edges, start, path: Vec::new(), seen: HashSet::new() };
        search.from(start, &mut steps).then_some(search.path)
    })
}

struct Search<'a> {
    edges: &'a Edges,
    start: Vertex,
    path: Waits,
    seen: HashSet<(Vertex, bool)>,
}

impl Search<'_> {
    /// Whether the path from here comes back to the start, over more than one node in all. What was
    /// seen on one node alone may be seen again on several.
    fn from(&mut self, at: Vertex, steps: &mut usize) -> bool {
        for (next, node) in self.edges.get(&at).into_iter().flatten() {
            if *steps == 0 {
                return false;
            }
            *steps -= 1;
            let several = self.path.iter().any(|(_, before)| before != node);
            if self.path.iter().any(|(on, _)| on == next) && *next != self.start {
                continue;
            }
            self.path.push((at, *node));
            if *next == self.start && several {
                return true;
            }
            let new = *next != self.start && self.seen.insert((*next, several));
            if new && self.from(*next, steps) {
                return true;
            }
            self.path.pop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Edges, Vertex, circle};
    use crate::ids::NodeId;

    fn edges(waits: &[(i32, i32, u16)]) -> Edges {
        let mut edges = Edges::new();
        for (of, by, node) in waits {
            let (of, by) = (Vertex::Session(1, *of), Vertex::Session(1, *by));
            edges.entry(of).or_default().push((by, NodeId(*node)));
        }
        edges
    }

    fn found(waits: &[(i32, i32, u16)]) -> Option<Vec<i32>> {
        let found = circle(&edges(waits))?;
        let clients = found.iter().filter_map(|(of, _)| of.client()).map(|(_, it)| it).collect();
        Some(clients)
    }

    #[test]
    fn a_circle_over_several_nodes_is_found() {
        assert_eq!(found(&[(1, 2, 0), (2, 1, 1)]), Some(vec![1, 2]));
        assert_eq!(found(&[(1, 2, 0), (2, 3, 0), (3, 1, 1)]), Some(vec![1, 2, 3]));
        let beside = [(9, 1, 0), (1, 8, 0), (1, 2, 0), (2, 3, 1), (3, 1, 0), (3, 7, 2)];
        assert_eq!(found(&beside), Some(vec![1, 2, 3]));
        // One waits on two nodes at once.
        assert_eq!(found(&[(1, 2, 0), (1, 2, 1), (2, 1, 1)]), Some(vec![1, 2]));
    }

    #[test]
    fn a_queue_and_a_circle_on_one_node_are_none() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[(1, 2, 0), (2, 3, 1), (4, 3, 2), (4, 1, 1)]), None);
        assert_eq!(found(&[(1, 2, 0), (2, 1, 0)]), None);
        assert_eq!(found(&[(1, 2, 0), (2, 1, 0), (3, 1, 1)]), None);
    }

    #[test]
    fn a_great_tangle_ends() {
        let all = (0..60).flat_map(|of| (0..60).map(move |by| (of, by, 0)));
        let tangle: Vec<_> = all.filter(|(of, by, _)| of < by).collect();
        assert_eq!(found(&tangle), None);
    }
}
