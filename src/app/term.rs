//! Each start of a proxy on a catalog begins a term, which its nodes are told of.

use std::sync::Arc;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::proxy::identity;
use super::terminal::story;
use crate::backend::{Fence, NodeAddress};
use crate::catalog::{Catalog, CatalogError, Expect, Record};
use crate::shard_map::ShardMap;

/// How often a proxy was started on the catalog.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Term {
    number: u64,
}

impl Record for Term {
    const PREFIX: &'static str = "term";

    fn id(&self) -> String {
        String::new()
    }
}

/// Begins a new term on the catalog, and keeps processes of older ones from the nodes. A node that
/// does not answer is told when it is first connected to.
pub(super) async fn fence_off(
    catalog: &Catalog,
    map: &ShardMap,
    nodes: &mut [NodeAddress],
) -> Result<(), CatalogError> {
    let stored = catalog.get::<Term>("").await?;
    let before = stored.as_ref().map_or(0, |stored| stored.record.number);
    let term = Term { number: before + 1 };
    let expect = stored.map_or(Expect::Absent, |stored| Expect::At(stored.revision));
    let revision = catalog.put(&term, expect).await?;
    catalog.hold::<Term>(revision);
    let fence = Arc::new(Fence {
        catalog: identity(catalog).await?.name,
        term: term.number,
        database: map.database().to_owned(),
    });
    for node in nodes.iter_mut() {
        node.fence = Some(Arc::clone(&fence));
    }
    let raised = join_all(nodes.iter().map(|node| fence.raise(node))).await;
    for (node, raised) in nodes.iter().zip(raised) {
        if let Err(error) = raised {
            let error = story(&error);
            tracing::warn!(node = node.name, error, "a node was not told of this process yet");
        }
    }
    Ok(())
}
