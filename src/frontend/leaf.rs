//! Prepared point statements that come often are sent to the leaf partition itself: PostgreSQL keeps
//! their plans there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::session::ClientSession;
use super::statements::{OnLeaf, Prepared};
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
        let (Some(site), [shard]) = (&template.leaf, cost.shards.as_slice()) else {
            return Ok(prepared);
        };
        if prepared.number == 0 || prepared.uses.fetch_add(1, Ordering::Relaxed) < USES_MIN {
            return Ok(prepared);
        }
        if !self.worker.engine.config().leaf_plans || !self.session.acts_as_login() {
            return Ok(prepared);
        }
        let Some(leaf) = self.known_leaf(node, &prepared, site, *shard) else {
            return Ok(prepared);
        };
        let guard = &self.session.member(node).await?.guard;
        let max = guard.pool().config().prepared_statements_max;
        // One that pushes another out would be worth less than nothing.
        let fits = guard.prepared.has_or_fits(leaf.number, max);
        // A definition that comes wants statements to go by the parent.
        Ok(if fits && self.session.go_to_leaf(*shard) { leaf } else { prepared })
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
        let made = self.worker.statements.named(&text, None, &prepared.types);
        let user = Arc::clone(&self.user);
        let leaf = OnLeaf { node, shard, prepared: Arc::clone(&made), user, generation, until };
        match place {
            Some(at) => known[at] = leaf,
            None => known.push(leaf),
        }
        Some(made)
    }
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
