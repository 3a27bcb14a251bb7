//! Keeps lookup tables: what a statement has noted of looked-up values goes to the lookup's shards, in
//! the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::columns::{ColumnsError, ask};
use super::commit::on_all;
use super::run::Cost;
use super::{Engine, Entered, Fault, Session};
use crate::backend::Command;
use crate::ids::{NodeId, ShardId};
use crate::load::Access;
use crate::planner::{
    LOOKUP_IS_SET_UP, LOOKUP_SET_UP, LookupChange, LookupSql, MADE_LOOKUPS, TAKE_LOOKUPS,
};
use crate::shard_map::{Lookup, LookupStanding, ShardMap, leaf_name};
use crate::sql::TableName;
use crate::wire::{ServerError, SqlState};

/// Entries of one statement.
const ENTRIES_A_STATEMENT: usize = 1_000;

/// What transactions have noted: by lookup, how many rows came and went for a value and a key.
#[derive(Debug, Default)]
struct Notes {
    changes: BTreeMap<String, BTreeMap<Vec<Option<String>>, i64>>,
    /// Lookups whose table was emptied.
    emptied: BTreeSet<String>,
}

impl Notes {
    /// Adds what one node has noted.
    fn add(&mut self, command: Command) -> Result<(), ServerError> {
        for row in command.whole_rows()? {
            let [Some(lookup), entries] = row.as_slice() else { return Err(unreadable()) };
            self.add_entries(lookup, entries.as_deref())?;
        }
        Ok(())
    }

    fn add_entries(&mut self, lookup: &str, entries: Option<&str>) -> Result<(), ServerError> {
        let entries: Vec<(i64, Vec<Option<String>>)> = match entries {
            None => Vec::new(),
            Some(entries) => serde_json::from_str(entries).map_err(|_| unreadable())?,
        };
        for (change, entry) in entries {
            if entry.is_empty() {
                self.emptied.insert(lookup.to_owned());
                continue;
            }
            *self.changes.entry(lookup.to_owned()).or_default().entry(entry).or_default() += change;
        }
        Ok(())
    }
}

impl Engine {
    /// Gives every node what it needs to have a lookup.
    async fn set_up_lookups(&self) -> Result<(), ColumnsError> {
        let map = self.live_map.snapshot();
        let set_up = async |client: &Client| {
            if !client.query_one(LOOKUP_IS_SET_UP, &[]).await?.get::<_, bool>(0) {
                let sql = format!("BEGIN READ WRITE; {LOOKUP_SET_UP}; COMMIT");
                client.batch_execute(&sql).await?;
            }
            Ok(())
        };
        for (node, _) in map.members() {
            ask(&self.nodes[node.index()], &map, set_up).await?;
        }
        Ok(())
    }

    /// From here on what is written to the looked-up table is looked at.
    async fn keep_lookup(&self, name: &TableName) -> Result<(), ColumnsError> {
        self.change_map(|stored| {
            let standing = |lookup: &Lookup| {
                if lookup.name == *name {
                    lookup.standing.max(LookupStanding::Kept)
                } else {
                    lookup.standing
                }
            };
            changed(stored, standing)
        })
        .await
    }

    /// Reads which lookups there are from the home node; stores and publishes the map if they differ
    /// from what it says.
    pub async fn refresh_lookups(&self) -> Result<(), ColumnsError> {
        let map = self.live_map.snapshot();
        if map.declared().lookups.is_empty() {
            return Ok(());
        }
        let look = async |client: &Client| client.query(MADE_LOOKUPS, &[]).await;
        let rows = ask(&self.nodes[map.home().index()], &map, look).await?;
        let made: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        self.change_map(|stored| {
            changed(stored, |lookup| {
                let is_made = made.contains(&lookup.name.to_string());
                let kept = || lookup.standing.min(LookupStanding::Kept);
                if is_made { LookupStanding::Whole } else { kept() }
            })
        })
        .await
    }
}

/// The map with these standings; `None` if it has them.
fn changed(map: &ShardMap, standing: impl Fn(&Lookup) -> LookupStanding) -> Option<ShardMap> {
    let differs = map.declared().lookups.iter().any(|lookup| standing(lookup) != lookup.standing);
    differs.then(|| map.with_standings(standing))
}

impl Session {
    /// Whether what is written to one of these shards may have to be brought to a lookup. A write
    /// of no shard, led to a node by a lookup without an entry, may meet a row that came meanwhile.
    pub(super) fn may_owe<'a>(&self, shards: impl IntoIterator<Item = &'a ShardId>) -> bool {
        let map = self.engine.live_map.load();
        let group = |shard: &ShardId| map.shard(*shard).map(|shard| shard.group);
        if map.declared().lookups.is_empty() {
            return false;
        }
        let mut groups: Vec<_> = shards.into_iter().filter_map(group).collect();
        groups.dedup();
        groups.is_empty() || groups.into_iter().any(|group| map.keeps_lookups(group))
    }

    /// Brings what the transaction has noted on these nodes, on which it has begun, to the lookups.
    ///
    /// # Errors
    /// 23505: a value is there already, in whatever shard. The statement has failed then.
    pub(super) async fn keep_lookups(&mut self, nodes: &[NodeId]) -> Result<(), Fault> {
        let noting = self.members.iter_mut().filter(|member| nodes.contains(&member.node));
        let mut notes = Notes::default();
        for (_, taken) in on_all(noting, TAKE_LOOKUPS).await {
            notes.add(taken?)?;
        }
        self.bring(notes).await
    }

    /// What has to be before a lookup is made.
    pub(super) async fn prepare_lookup(&mut self, name: &TableName) -> Result<(), Fault> {
        let map = self.engine.live_map.snapshot();
        let Some(lookup) = map.lookup(name) else { return Ok(()) };
        let obstacles = LookupSql { map: &map, lookup }.obstacles();
        let look = async |client: &Client| client.query(&obstacles, &[]).await;
        let found = ask(&self.engine.nodes[map.home().index()], &map, look).await;
        if let Some(row) = found.map_err(|error| not_ready(&error))?.first() {
            let collation: &str = row.get(0);
            return Err(ServerError::refused(
                format!("{} can't be looked up by \"{}\"", lookup.table, lookup.column),
                format!("Its collation {collation} takes different texts for equal."),
                "Look another column up, with a deterministic collation.",
            )
            .into());
        }
        self.engine.set_up_lookups().await.map_err(|error| not_ready(&error))?;
        Ok(self.engine.keep_lookup(name).await.map_err(|error| not_ready(&error))?)
    }

    /// Fills a lookup that was just made from the rows that there are; writers wait meanwhile.
    pub(super) async fn fill_lookup(&mut self, name: &TableName) -> Result<(), Fault> {
        let map = self.engine.live_map.snapshot();
        let Some(lookup) = map.lookup(name) else { return Ok(()) };
        let Some(group) = map.table(&lookup.table).and_then(crate::shard_map::Table::group) else {
            return Ok(());
        };
        let (own, sql) = (lookup.name.to_string(), LookupSql { map: &map, lookup });
        for (node, _) in map.members() {
            for shard in map.shards_on(node, group) {
                let text = sql.existing(&leaf_name(&lookup.table, shard));
                let answer = self.lookup_command(node, &text).await?;
                let entries = answer.whole_rows()?.into_iter().flatten().flatten().next();
                let mut notes = Notes::default();
                notes.add_entries(&own, entries.as_deref())?;
                self.bring(notes).await?;
            }
        }
        Ok(())
    }

    /// Runs a statement of the proxy's own on a node, in the transaction block.
    pub(super) async fn lookup_command(
        &mut self,
        node: NodeId,
        sql: &str,
    ) -> Result<Command, Fault> {
        self.join_block(node).await?;
        Ok(self.member(node).await?.guard.command(sql).await?)
    }

    async fn bring(&mut self, notes: Notes) -> Result<(), Fault> {
        for lookup in &notes.emptied {
            for node in self.nodes_home_last() {
                self.lookup_command(node, &format!("TRUNCATE {lookup}")).await?;
            }
        }
        for (name, changes) in notes.changes {
            let changes: Vec<LookupChange> = changes
                .into_iter()
                .filter(|(_, change)| *change != 0)
                .map(|(entry, change)| LookupChange { change, entry })
                .collect();
            self.bring_to(&name, &changes).await?;
        }
        Ok(())
    }

    async fn bring_to(&mut self, name: &str, changes: &[LookupChange]) -> Result<(), Fault> {
        loop {
            let map = self.engine.live_map.snapshot();
            let named = |lookup: &&Lookup| lookup.name.to_string() == name;
            let Some(lookup) = map.declared().lookups.iter().find(named) else {
                return Err(unknown(name).into());
            };
            let sql = LookupSql { map: &map, lookup };
            let parts = parts(&sql, changes)?;
            let shards: SmallVec<[ShardId; 2]> =
                parts.values().flat_map(|(shards, _)| shards.iter().copied()).collect();
            if self.enter(&shards, map.epoch()).await? == Entered::Stale {
                continue;
            }
            for (node, (shards, changes)) in parts {
                let started = Instant::now();
                let texts = changes.chunks(ENTRIES_A_STATEMENT).flat_map(|it| sql.write(it));
                for text in texts {
                    self.lookup_command(node, &text).await?;
                }
                let shards = shards.into_iter().collect();
                let cost = Cost::of(shards, Access::Write);
                self.record(node, &cost, started.elapsed(), 0);
            }
            return Ok(());
        }
    }
}

type Part<'a> = (BTreeSet<ShardId>, Vec<&'a LookupChange>);

/// The changes of each node, with their shards.
fn parts<'a>(
    sql: &LookupSql<'_>,
    changes: &'a [LookupChange],
) -> Result<BTreeMap<NodeId, Part<'a>>, ServerError> {
    let mut parts: BTreeMap<NodeId, Part<'a>> = BTreeMap::new();
    for change in changes {
        let value = change.entry.first().and_then(Option::as_deref).unwrap_or_default();
        let Some(shard) = sql.shard_of(value) else {
            return Err(ServerError::refused(
                format!("this value of \"{}\" can't be looked up", sql.lookup.column),
                "Its form is not one that the proxy reads.",
                "Store another value, or drop the lookup table.",
            ));
        };
        let (shards, list) = parts.entry(sql.map.node_of(shard)).or_default();
        shards.insert(shard);
        list.push(change);
    }
    // What comes must find gone what goes, over all portions.
    for (_, list) in parts.values_mut() {
        list.sort_by_key(|change| change.change > 0);
    }
    Ok(parts)
}

fn not_ready(error: &ColumnsError) -> ServerError {
    let message = format!("the nodes can't be made ready for a lookup table: {error}");
    ServerError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .with_hint("All nodes must be there. Nothing was changed; try again.")
}

fn unreadable() -> ServerError {
    ServerError::new(SqlState::INTERNAL_ERROR, "what a node noted for a lookup can't be read")
}

fn unknown(name: &str) -> ServerError {
    let message = format!("the policy does not know the lookup table {name}");
    ServerError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .with_hint("Name it in the policy, or drop its triggers on the nodes.")
}
