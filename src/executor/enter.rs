//! A statement passes the gates of the shards that it needs, or learns that its route is stale.

use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use super::session::Member;
use super::transaction::Outset;
use super::{Fault, Session};
use crate::ids::{Epoch, ShardId};
use crate::wire::{ServerError, SqlState};

/// Tells how a transaction isolates itself, and makes its server see partitions that were attached
/// since it began. PostgreSQL hears of what others changed when it takes a lock that it does not
/// hold: a transaction that has used a partitioned table already takes none for the next statement
/// on it, and finds no row in a partition that is new. The size of a table is read under a lock that
/// is let go of at once, so that it is taken each time.
const LOOK_AGAIN: &str = "SELECT pg_catalog.current_setting('transaction_isolation') \
     WHERE pg_catalog.pg_relation_size('pg_catalog.pg_seclabel'::pg_catalog.regclass) >= 0";

/// What came of passing the gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// The route holds until the session's transaction ends.
    Ready,
    /// The map has changed since the route was made: route anew.
    Stale,
}

impl Session {
    /// Passes the gates of `shards`, which a route of `epoch` needs; waits while one is closed. The
    /// passes are kept until the transaction ends.
    pub async fn enter(&mut self, shards: &[ShardId], epoch: Epoch) -> Result<Entered, Fault> {
        let mut passes = SmallVec::<[_; 2]>::new();
        let elsewhere = (shards.is_empty() && self.transaction.elsewhere.is_none())
            .then(|| self.engine.gates.enter_elsewhere());
        for shard in shards {
            if self.transaction.passes.iter().any(|(held, _)| held == shard) {
                continue;
            }
            if let Some(pass) = self.engine.gates.try_enter(*shard) {
                passes.push((*shard, pass));
                continue;
            }
            // Holding the others' passes meanwhile could keep two switches waiting for each other.
            drop(passes);
            self.wait_at_gate(*shard).await?;
            return Ok(Entered::Stale);
        }
        if self.engine.live_map.load().epoch() != epoch {
            return Ok(Entered::Stale);
        }
        self.transaction.passes.extend(passes);
        if elsewhere.is_some() {
            self.transaction.elsewhere = elsewhere;
        }
        self.check_snapshot(shards).await?;
        Ok(Entered::Ready)
    }

    /// The same for one shard, where there is nothing to wait for and nothing to look at; `false`
    /// says nothing.
    pub fn enter_one(&mut self, shard: ShardId, epoch: Epoch) -> bool {
        let (engine, transaction) = (&self.engine, &mut self.transaction);
        if transaction.outset.as_ref().is_some_and(|then| then.map.epoch() != epoch) {
            return false;
        }
        if transaction.passes.iter().any(|(held, _)| *held == shard) {
            return engine.live_map.epoch() == epoch;
        }
        let Some(pass) = engine.gates.try_enter(shard) else { return false };
        // Looked at behind the gate: a switch puts its map in force before it opens the gate.
        let as_then = |then: &Outset| !engine.gates.reopened_since(shard, then.looked);
        let holds =
            engine.live_map.epoch() == epoch && transaction.outset.as_ref().is_none_or(as_then);
        if holds {
            transaction.passes.push((shard, pass));
        }
        holds
    }

    /// The transaction, if it becomes one, begins to look at its data now.
    pub fn note_outset(&mut self) {
        if self.transaction.outset.is_none() {
            self.transaction.outset = Some(self.outset());
        }
    }

    fn outset(&self) -> Outset {
        let reopened = self.engine.gates.reopened();
        Outset { map: self.engine.live_map.snapshot(), reopened, looked: reopened }
    }

    /// A statement that may define a table on its way to being sharded keeps the last step of that
    /// away until its transaction ends; waits while it is under way, and is to be routed anew then.
    ///
    /// # Errors
    /// 55000: it lasts too long.
    pub async fn keep_definitions(&mut self, epoch: Epoch) -> Result<Entered, Fault> {
        if self.transaction.ddl.is_none() {
            let lock = match self.transaction.reserved.take() {
                Some(reserved) => reserved,
                None => self.no_moves().await?,
            };
            if self.engine.live_map.load().epoch() != epoch {
                return Ok(Entered::Stale);
            }
            self.transaction.ddl = Some(lock);
        }
        Ok(Entered::Ready)
    }

    async fn wait_at_gate(&self, shard: ShardId) -> Result<(), ServerError> {
        let started = Instant::now();
        let limit = self.engine.config().gate_timeout();
        let entered = timeout(limit, self.engine.gates.enter(shard));
        let entered = self.cancel.unless_cancelled(entered).await?;
        metrics::histogram!("foreshard_executor_gate_wait_seconds")
            .record(started.elapsed().as_secs_f64());
        entered.map(drop).map_err(|_| {
            let message = format!("shard {shard} is being moved for longer than {limit:?}");
            ServerError::new(SqlState::CANNOT_CONNECT_NOW, message)
                .with_hint("Nothing was executed; it is safe to try again.")
        })
    }

    /// A transaction that keeps one snapshot began to look at the data before the shard changed
    /// hands: on the old node its rows are gone, on the new one they are newer than that snapshot.
    /// It has to start again. One that does not, looks again at which partitions there are; and so
    /// does each if a shard may have been taken from its node and given back, by a switch that failed
    /// half way.
    async fn check_snapshot(&mut self, shards: &[ShardId]) -> Result<(), Fault> {
        let Some(outset) = &self.transaction.outset else { return Ok(()) };
        let (gates, fresh) = (&self.engine.gates, self.outset());
        let now = &fresh.map;
        let node_then = |shard: ShardId| outset.map.shard(shard).map(|shard| shard.node);
        let joined_since = |shard: ShardId| {
            let since = now.shard(shard).and_then(|shard| now.joined(shard.group));
            since.is_some_and(|since| outset.map.epoch() < since)
        };
        let has_moved = |shard: &ShardId| {
            node_then(*shard) != Some(now.node_of(*shard))
                || joined_since(*shard)
                // It may have gone, and come back.
                || gates.reopened_since(*shard, outset.reopened)
        };
        let moved = outset.map.epoch() != now.epoch() && shards.iter().any(has_moved);
        if !moved && !shards.iter().any(|shard| gates.reopened_since(*shard, outset.looked)) {
            return Ok(());
        }
        let mut keeps_snapshot = false;
        // One whose BEGIN is not sent yet has no snapshot; one that owes an answer is between two Syncs.
        let begun = |member: &&mut Member| {
            (member.has_begun() || member.guard.status.is_none()) && member.preface.is_empty()
        };
        for member in self.members.iter_mut().filter(begun) {
            let level = member.guard.command_aside(LOOK_AGAIN).await?;
            let level = level.rows.into_iter().flatten().flatten().next();
            keeps_snapshot |= level.as_deref() != Some("read committed");
            if moved && keeps_snapshot {
                let message = "could not serialize access due to a concurrent move of a shard";
                return Err(ServerError::new(SqlState::SERIALIZATION_FAILURE, message)
                    .with_hint("Run the transaction again.")
                    .into());
            }
        }
        match &mut self.transaction.outset {
            Some(outset) if keeps_snapshot => outset.looked = fresh.looked,
            outset => *outset = Some(fresh),
        }
        Ok(())
    }
}
