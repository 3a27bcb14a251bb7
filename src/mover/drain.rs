//! A node is drained: its shards move to others, those that go to the same node a batch at a time. A
//! shard whose batch failed moves alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;

use super::context::now_unix_ms;
use super::error::MoveError;
use super::jobs::Desk;
use super::join::set_standing;
use super::recall::let_lapse;
use super::request::{RequestError, Wanted, request_any};
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
    let mut drainer =
        Drainer { node, asked: BTreeMap::new(), alone: BTreeSet::new(), tried: BTreeSet::new() };
    let mut commits = desk.context.catalog.watch::<Move>();
    loop {
        commits.mark_unchanged();
        if desk.called_off.is_cancelled() {
            drop(set_standing(desk, node, Standing::Member, None).await?);
            desk.tell(format!("node {name} takes shards again; moves under way go on")).await?;
            return Err(MoveError::CalledOff);
        }
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
    asked: BTreeMap<MoveId, (Vec<ShardId>, NodeId)>,
    /// What has failed with others.
    alone: BTreeSet<ShardId>,
    /// What has failed alone, and is not asked for again.
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
            let Some((shards, to)) = self.asked.remove(&mv.id) else { continue };
            if mv.state == State::Aborted {
                let why = mv.error.as_deref().unwrap_or("it was undone");
                desk.tell(format!("{} could not be moved: {why}", named(&shards))).await?;
                match shards.as_slice() {
                    [shard] => drop(self.tried.insert((*shard, to))),
                    together => self.alone.extend(together),
                }
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
        let room = desk.context.config().concurrent_moves.max(1);
        let mut planned: Vec<(Vec<ShardId>, NodeId)> = Vec::new();
        for shard in left {
            let busy = at_work.iter().any(|mv| mv.touches(shard) && !mv.is_aside())
                || self.asked.values().any(|(asked, _)| asked.contains(&shard));
            if !busy {
                self.plan(desk, &map, shard, &mut planned)?;
            }
        }
        for (shards, to) in planned.into_iter().take(room.saturating_sub(self.asked.len())) {
            self.ask(desk, &map, shards, to).await?;
        }
        Ok(false)
    }

    /// Puts a shard to those that go to the node that is best for it.
    fn plan(
        &self,
        desk: &Desk<'_>,
        map: &ShardMap,
        shard: ShardId,
        planned: &mut Vec<(Vec<ShardId>, NodeId)>,
    ) -> Result<(), MoveError> {
        let Some(to) = self.best(desk, map, (shard, planned)) else {
            return Err(MoveError::Refused(format!("no node can take shard {shard}")));
        };
        let most = desk.context.config().batch_shards.max(1);
        let is_open = |(shards, node): &&mut (Vec<ShardId>, NodeId)| {
            *node == to && shards.len() < most && !shards.iter().any(|it| self.alone.contains(it))
        };
        match planned.iter_mut().find(is_open).filter(|_| !self.alone.contains(&shard)) {
            Some((shards, _)) => shards.push(shard),
            None => planned.push((vec![shard], to)),
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        desk: &mut Desk<'_>,
        map: &ShardMap,
        shards: Vec<ShardId>,
        to: NodeId,
    ) -> Result<(), MoveError> {
        let wanted = Wanted::Move { shards: shards.clone(), to };
        let catalog = &desk.context.catalog;
        match request_any(catalog, map, &wanted, Cause::Operator, now_unix_ms()).await {
            Ok(id) => {
                let text = format!("move {id}: {} to {}", named(&shards), map.node(to).name);
                self.asked.insert(id, (shards, to));
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
    fn best(
        &self,
        desk: &Desk<'_>,
        map: &ShardMap,
        (shard, planned): (ShardId, &[(Vec<ShardId>, NodeId)]),
    ) -> Option<NodeId> {
        let busy = desk.engine.counters.snapshot().shards;
        let busy = |id: ShardId| busy.get(id.index()).map_or(0.0, |it| seconds(it.busy_nanos));
        let all: f64 = map.shards().map(|(id, _)| busy(id)).sum();
        let mean = (all / count(map.shards().count().max(1))).max(1e-9);
        let weight = |id: ShardId| 1.0 + busy(id) / mean;
        let there = |node: NodeId| -> f64 {
            let on_node = map.shards().filter(|(_, it)| it.node == node).map(|(id, _)| weight(id));
            let asked = self.asked.values().chain(planned).filter(|(_, to)| *to == node);
            let coming = asked.flat_map(|(shards, _)| shards).map(|id| weight(*id));
            on_node.sum::<f64>() + coming.sum::<f64>()
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

/// Shards for people.
fn named(shards: &[ShardId]) -> String {
    let numbers: Vec<String> = shards.iter().map(ToString::to_string).collect();
    let what = if shards.len() == 1 { "shard" } else { "shards" };
    format!("{what} {}", numbers.join(", "))
}

#[expect(clippy::cast_precision_loss, reason = "a weight")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}
