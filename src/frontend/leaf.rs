//! Prepared point statements that come often are sent to the leaf partition itself: PostgreSQL keeps
//! their plans there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::session::ClientSession;
use super::statements::{OnLeaf, Prepared};
use crate::backend::Guard;
use crate::executor::{Cost, Fault};
use crate::ids::{NodeId, ShardId};
use crate::planner::Fragment;
use crate::router::{InsertRows, LeafSite, Template};
use crate::shard_map::leaf_name;
use crate::wire::ServerError;

/// A statement that was bound fewer times does not earn a plan of its own on each leaf.
const USES_MIN: u32 = 16;
/// How long what is known of a leaf is not looked up again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl ClientSession {
    /// The statement that `node` is to run for `prepared`: the same on the leaf of its one shard, if
    /// that gives the same answer, else itself.
    pub(super) async fn on_leaf(
        &mut self,
        node: NodeId,
        prepared: Arc<Prepared>,
        template: &Template,
        cost: &Cost,
    ) -> Result<Arc<Prepared>, Fault> {
        let Some((leaf, shard)) = self.leaf_of(node, &prepared, template, cost) else {
            return Ok(prepared);
        };
        let fits = fits(&self.session.member(node).await?.guard, &leaf);
        // A definition that comes wants statements to go by the parent.
        Ok(if fits && self.session.go_to_leaf(shard) { leaf } else { prepared })
    }

    /// The same, where the session has a connection to `node` or gets one at once.
    pub(super) fn on_leaf_at_once(
        &mut self,
        node: NodeId,
        prepared: &Arc<Prepared>,
        template: &Template,
        cost: &Cost,
    ) -> Option<Arc<Prepared>> {
        self.session.at_once(node)?;
        let leaf = self.leaf_of(node, prepared, template, cost);
        let guard = &self.session.at_once(node)?.guard;
        let on_leaf = leaf
            .filter(|(leaf, _)| fits(guard, leaf))
            .filter(|(_, shard)| self.session.go_to_leaf(*shard));
        Some(on_leaf.map_or_else(|| Arc::clone(prepared), |(leaf, _)| leaf))
    }

    /// The statement on the leaf of its one shard, if it comes often enough and may go there.
    pub(super) fn leaf_of(
        &self,
        node: NodeId,
        prepared: &Prepared,
        template: &Template,
        cost: &Cost,
    ) -> Option<(Arc<Prepared>, ShardId)> {
        let (Some(site), [shard]) = (&template.leaf, cost.shards.as_slice()) else { return None };
        if prepared.number == 0 || prepared.uses.fetch_add(1, Ordering::Relaxed) < USES_MIN {
            return None;
        }
        if !self.worker.engine.config().leaf_plans || !self.session.acts_as_login() {
            return None;
        }
        Some((self.known_leaf(node, prepared, site, *shard)?, *shard))
    }

    /// Whether the rows of an INSERT that goes to leaves mean there what they mean on the table.
    pub(super) async fn check_leaves(
        &mut self,
        insert: &InsertRows,
        fragments: &[Fragment],
    ) -> Result<(), Fault> {
        let Some(site) = &insert.leaf else { return Ok(()) };
        for fragment in fragments {
            let Some(shard) = fragment.shards.first().copied() else { continue };
            let place = (Arc::clone(&self.user), fragment.node, site.table.clone());
            let leaf = leaf_name(&site.table, shard).name;
            let may = self.session.acts_as_login() && !self.session.defines();
            if !may
                || !self.worker.engine.takes(&place, &leaf).await
                || !self.session.go_to_leaf(shard)
            {
                return Err(not_on_leaf(&site.table.name).into());
            }
        }
        Ok(())
    }

    /// The statement on the leaf, if it is known to give the same answer now.
    fn known_leaf(
        &self,
        node: NodeId,
        prepared: &Prepared,
        site: &LeafSite,
        shard: ShardId,
    ) -> Option<Arc<Prepared>> {
        let engine = &self.worker.engine;
        let (now, generation) = (Instant::now(), engine.direct.generation());
        let mut known = prepared.on_leaves.lock();
        let place = known
            .iter()
            .position(|leaf| leaf.shard == shard && leaf.node == node && leaf.user == self.user);
        if let Some(leaf) = place.and_then(|at| known.get(at))
            && leaf.generation == generation
            && leaf.until > now
        {
            return Some(Arc::clone(&leaf.prepared));
        }
        let table = (Arc::clone(&self.user), node, site.table.clone());
        let may_stand = engine.direct.may_stand(&table, &leaf_name(&site.table, shard).name);
        if may_stand.ask {
            let engine = Arc::clone(engine);
            let ask = async move { engine.ask_leaves(table).await };
            self.worker.tasks.spawn("leaves", ask);
        }
        let until = may_stand.until?.min(now + LOOK_AGAIN);
        let text = site.text(&prepared.text, shard);
        let made = self.worker.statements.named((&text, None), &prepared.types, generation);
        let user = Arc::clone(&self.user);
        let leaf = OnLeaf { node, shard, prepared: Arc::clone(&made), user, generation, until };
        match place {
            Some(at) => known[at] = leaf,
            None => known.push(leaf),
        }
        Some(made)
    }
}

/// Whether it pushes no other statement out of its connection: it would be worth less than nothing.
fn fits(guard: &Guard, leaf: &Prepared) -> bool {
    let max = guard.pool().config().prepared_statements_max;
    guard.prepared.has_or_fits(leaf.number, max)
}

fn not_on_leaf(table: &str) -> ServerError {
    ServerError::refused(
        format!("an INSERT into \"{table}\" can't return xmax here"),
        "PostgreSQL tells it of rows of a partition only, and the partition may not stand for the table: \
         it has row security, rules, statement triggers, an identity column or other rights, or a \
         definition of it is under way.",
        "Return something else, such as a column that only DO UPDATE sets.",
    )
}
