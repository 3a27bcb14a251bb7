//! A node is drained: all its shards move to others, a few at a time, as moves of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;

use super::context::now_unix_ms;
use super::error::MoveError;
use super::jobs::Desk;
use super::join::set_standing;
use super::recall::let_lapse;
use super::request::{RequestError, request};
use crate::ids::{MoveId, NodeId, ShardId};
use crate::shard_map::{ShardMap, Standing};
use crate::shard_move::{Cause, Move, State};

/// The longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Moves every shard off the node. A failure leaves the node as one that takes no shards.
pub(super) async fn drain(desk: &mut Desk<'_>, node: NodeId) -> Result<(), MoveError> {
    let map = desk.context.live_map.snapshot();
    let name = map.node(node).name.clone();
    let refused = |why: &str| Err(MoveError::Refused(format!("node {name} {why}")));
    if map.home() == node {
        return refused("is the home node, which holds the tables that are not sharded: it stays");
    }
    match map.node(node).standing {
        Standing::Member => drop(set_standing(desk, node, Standing::Draining, None).await?),
        Standing::Draining => {}
        Standing::Joining | Standing::Gone => return refused("has nothing that could be moved"),
    }
    let mut drainer = Drainer { node, asked: BTreeMap::new(), tried: BTreeSet::new() };
    let mut commits = desk.context.catalog.watch();
    loop {
        commits.mark_unchanged();
        if drainer.step(desk).await? {
            break;
        }
        drop(timeout(LOOK_EVERY, commits.changed()).await);
    }
    let text = format!("node {name} owns no shard: it can be left out of the configuration now");
    desk.tell(text).await
}

struct Drainer {
    node: NodeId,
    /// The moves that were asked for here and not seen ended.
    asked: BTreeMap<MoveId, (ShardId, NodeId)>,
    /// What has failed, and is not asked for again.
    tried: BTreeSet<(ShardId, NodeId)>,
}

impl Drainer {
    /// Asks for what can be asked for now; whether nothing is left.
    async fn step(&mut self, desk: &mut Desk<'_>) -> Result<bool, MoveError> {
        let moves = desk.context.catalog.list::<Move>().await?;
        for mv in moves.iter().filter(|mv| mv.record.nodes().contains(&self.node)) {
            let reason = "the node is being drained".to_owned();
            let_lapse(&desk.context.catalog, mv, reason).await?;
        }
        let moves: Vec<Move> = moves.into_iter().map(|mv| mv.record).collect();
        for mv in moves.iter().filter(|mv| mv.is_finished()) {
            let Some((shard, to)) = self.asked.remove(&mv.id) else { continue };
            if mv.state == State::Aborted {
                self.tried.insert((shard, to));
                let why = mv.error.as_deref().unwrap_or("it was undone");
                desk.tell(format!("shard {shard} could not be moved: {why}")).await?;
            }
        }
        let map = desk.context.live_map.snapshot();
        if map.node(self.node).standing != Standing::Draining {
            return Err(MoveError::Refused("the node takes shards again".to_owned()));
        }
        let at_work: Vec<&Move> = moves.iter().filter(|mv| !mv.is_finished()).collect();
        let left: Vec<ShardId> =
            map.shards().filter(|(_, it)| it.node == self.node).map(|(id, _)| id).collect();
        if left.is_empty() && !at_work.iter().any(|mv| mv.nodes().contains(&self.node)) {
            return Ok(true);
        }
        let room = desk.context.config.concurrent_moves.max(1);
        for shard in left {
            let busy = at_work.iter().any(|mv| mv.touches(shard) && !mv.is_aside())
                || self.asked.values().any(|(asked, _)| *asked == shard);
            if busy || self.asked.len() >= room {
                continue;
            }
            self.ask(desk, &map, shard).await?;
        }
        Ok(false)
    }

    async fn ask(
        &mut self,
        desk: &mut Desk<'_>,
        map: &ShardMap,
        shard: ShardId,
    ) -> Result<(), MoveError> {
        let Some(to) = self.best(desk, map, shard) else {
            return Err(MoveError::Refused(format!("no node can take shard {shard}")));
        };
        let catalog = &desk.context.catalog;
        match request(catalog, map, shard, to, Cause::Operator, now_unix_ms()).await {
            Ok(id) => {
                self.asked.insert(id, (shard, to));
                let text = format!("move {id}: shard {shard} to {}", map.node(to).name);
                desk.tell(text).await
            }
            // Somebody else moves it: the next look tells where to.
            Err(
                RequestError::UnderWay { .. }
                | RequestError::AlreadyThere { .. }
                | RequestError::OnTheWay(_),
            ) => Ok(()),
            Err(RequestError::Catalog(error)) => Err(error.into()),
            Err(error) => Err(MoveError::Refused(error.to_string())),
        }
    }

    /// The node that is the least used with the shard, in proportion to what it can bear. Of a
    /// shard counts that it is there, and as much again what it has done on average.
    fn best(&self, desk: &Desk<'_>, map: &ShardMap, shard: ShardId) -> Option<NodeId> {
        let busy = desk.engine.counters.snapshot().shards;
        let busy = |id: ShardId| busy.get(id.index()).map_or(0.0, |it| seconds(it.busy_nanos));
        let all: f64 = map.shards().map(|(id, _)| busy(id)).sum();
        let mean = (all / count(map.shards().count().max(1))).max(1e-9);
        let weight = |id: ShardId| 1.0 + busy(id) / mean;
        let there = |node: NodeId| -> f64 {
            let on_node = map.shards().filter(|(_, it)| it.node == node).map(|(id, _)| weight(id));
            let coming = self.asked.values().filter(|(_, to)| *to == node);
            on_node.sum::<f64>() + coming.map(|(id, _)| weight(*id)).sum::<f64>()
        };
        let candidates = map.members().filter(|(id, node)| {
            node.standing == Standing::Member && !self.tried.contains(&(shard, *id))
        });
        let used = candidates.map(|(id, node)| {
            let capacity = desk.placement.capacity_of(&node.name).max(1e-9);
            (id, (there(id) + weight(shard)) / capacity)
        });
        used.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a weight")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}
