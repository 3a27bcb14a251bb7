//! Reads lookup tables: which shard keys the rows with some values have.

use std::collections::BTreeMap;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::run::Cost;
use super::{Entered, Fault, Session};
use crate::backend::CommandError;
use crate::ids::{NodeId, ShardId};
use crate::load::Access;
use crate::planner::LookupSql;
use crate::router::LookUpRead;
use crate::shard_map::{KeyValue, LookupStanding, Table};

/// The most entries that are looked at; more are not worth it.
const ENTRIES_MAX: usize = 1_000;
/// What a node says of a table that was dropped, or that the role may not read.
const NOT_TO_BE_READ: [&str; 2] = ["42P01", "42501"];

/// An entry: the version's transaction and who may have ended it, the value, the key.
type Entry = Vec<Option<String>>;

/// What lookups say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookedUp {
    /// Of each read: the keys, column by column.
    pub keys: Vec<Vec<Vec<KeyValue>>>,
    /// The entries with what tells their versions, in order.
    seen: Vec<Entry>,
    /// Where was looked: the lookup, and the shards with their nodes.
    pub places: Vec<(String, Vec<(ShardId, NodeId)>)>,
}

impl LookedUp {
    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing has happened to these entries since they were `before`, and nothing is about
    /// to: no transaction has touched them that may be committed on another node already.
    pub fn is_still(&self, before: &Self) -> bool {
        let untouched = |entry: &Entry| entry[1].as_deref() == Some("0");
        self.seen == before.seen && self.seen.iter().all(untouched)
    }
}

impl Session {
    /// Reads entries of lookups, in the session's transaction. `None` if they can't be relied on
    /// here: the statement has to go without.
    pub async fn look_up(&mut self, reads: &[LookUpRead]) -> Result<Option<LookedUp>, Fault> {
        if reads.is_empty() {
            return Ok(None);
        }
        let mut found = Some(LookedUp::default());
        for read in reads {
            let Some(all) = &mut found else { break };
            if !self.look_up_one(read, all).await? {
                found = None;
            }
        }
        if !self.in_transaction() {
            self.finish().await?;
        }
        if let Some(found) = &mut found {
            found.seen.sort();
        }
        Ok(found)
    }

    async fn look_up_one(&mut self, read: &LookUpRead, all: &mut LookedUp) -> Result<bool, Fault> {
        loop {
            let map = self.engine.live_map.snapshot();
            let whole = map.lookup(&read.lookup).filter(|it| it.standing == LookupStanding::Whole);
            let Some(lookup) = whole else { return Ok(false) };
            let sql = LookupSql { map: &map, lookup };
            let mut nodes: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
            let mut shards = SmallVec::<[ShardId; 2]>::new();
            for value in read.values.iter().filter_map(KeyValue::text) {
                let Some(shard) = sql.shard_of(&value) else { return Ok(false) };
                nodes.entry(map.node_of(shard)).or_default().push(value);
                shards.push(shard);
            }
            shards.sort_unstable();
            shards.dedup();
            if self.enter(&shards, map.epoch()).await? == Entered::Stale {
                continue;
            }
            let mut keys = Vec::new();
            for (node, values) in nodes {
                let here = shards.iter().copied().filter(|shard| map.node_of(*shard) == node);
                let cost = Cost::of(here.collect(), Access::Read);
                let rows = self.entries_on(node, &sql.read(&values), &cost).await?;
                let read = rows.and_then(|rows| keys_of(&sql, rows, &mut all.seen));
                let Some(read) = read else { return Ok(false) };
                keys.extend(read);
            }
            let place = |shard: &ShardId| (*shard, map.node_of(*shard));
            all.places.push((lookup.name.name.clone(), shards.iter().map(place).collect()));
            all.keys.push(keys);
            return Ok(all.seen.len() <= ENTRIES_MAX);
        }
    }

    /// The entries that a node has; `None` if the table may not be read, or is gone.
    async fn entries_on(
        &mut self,
        node: NodeId,
        sql: &str,
        cost: &Cost,
    ) -> Result<Option<Vec<Entry>>, Fault> {
        let (started, alone) = (Instant::now(), !self.in_transaction());
        self.join_block(node).await?;
        match self.member(node).await?.guard.command(sql).await {
            Ok(answer) => {
                self.record(node, cost, started.elapsed(), 0);
                Ok(Some(answer.whole_rows()?))
            }
            Err(CommandError::Reported { code, .. })
                if alone && NOT_TO_BE_READ.contains(&code.as_str()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The keys of entries, which are seen now; `None` if one can't be read.
fn keys_of(
    sql: &LookupSql<'_>,
    rows: Vec<Entry>,
    seen: &mut Vec<Entry>,
) -> Option<Vec<Vec<KeyValue>>> {
    let group = sql.map.table(&sql.lookup.table).and_then(Table::group)?;
    let kinds = &sql.map.groups().get(group.index())?.key;
    let key = |row: &Entry| {
        let columns = row.iter().skip(3).zip(kinds).map(|(value, kind)| match value {
            None => Some(KeyValue::Null),
            Some(value) => kind.parse(value.as_bytes()).ok(),
        });
        columns.collect::<Option<Vec<_>>>()
    };
    let keys = rows.iter().map(key).collect::<Option<Vec<_>>>()?;
    seen.extend(rows);
    Some(keys)
}
