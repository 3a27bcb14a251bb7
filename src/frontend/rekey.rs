//! UPDATE of the shard key: rows that get another key are deleted and inserted in the same
//! transaction, the others are updated where they are.

use bytes::BytesMut;

use super::capture::Answer;
use super::select::described_as_text;
use super::session::ClientSession;
use super::writes::{part, whole};
use crate::executor::{Bound, Cost, Fault, Spread};
use crate::ids::NodeId;
use crate::load::Access;
use crate::planner::{self, RekeySteps};
use crate::router::Rekey;
use crate::wire::ServerError;

/// Moved rows of one INSERT.
const ROWS_A_STATEMENT: usize = 1_000;

impl ClientSession {
    /// Runs an UPDATE that may move rows; leaves `ReadyForQuery` to the caller.
    pub(super) async fn rekey(
        &mut self,
        rekey: &Rekey,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<(), Fault> {
        let types = self.types_in(&rekey.text, bound).await?;
        let typed = bound.map(|bound| Bound { types: &types, bind: bound.bind });
        let work = async |session: &mut Self| session.try_rekey(rekey, typed.as_ref()).await;
        self.in_one_block("UPDATE", work).await
    }

    async fn try_rekey(
        &mut self,
        rekey: &Rekey,
        bound: Option<&Bound<'_, '_>>,
    ) -> Result<u64, Fault> {
        let steps = planner::rekey(rekey);
        let map = self.worker.engine.live_map.snapshot();
        let owns = |node: &NodeId| map.shards_on(*node, rekey.group).next().is_some();
        let nodes: Vec<NodeId> = map.nodes().map(|(node, _)| node).filter(owns).collect();
        let cost = |node| Cost::of(map.shards_on(node, rekey.group).collect(), Access::Write);
        let spread = |messages: &BytesMut| {
            let part = |node: &NodeId| part(*node, cost(*node), messages.clone());
            let parts = nodes.iter().map(part).collect();
            Spread { parts, describe: true, at_once: false }
        };
        if let Some(lock) = &steps.lock {
            self.captured(&spread(&whole(lock, bound))).await?;
        }
        // Before anything is deleted: a foreign key or a trigger would speak of a DELETE.
        if let Some(refusal) = self.obstacle(&steps, nodes[0]).await? {
            let changes = self.captured(&spread(&whole(&steps.changes, bound))).await?;
            if !changes.rows.is_empty() {
                return Err(refusal.into());
            }
        }
        let take = spread(&described_as_text(&steps.take, bound)?);
        let taken = self.captured(&take).await?;
        let mut update = spread(&whole(&steps.update, bound));
        update.describe = bound.is_none();
        let updated = self.captured(&update).await?;
        if let Some(columns) = &updated.columns {
            self.client.relay(columns).await?;
        }
        for row in &updated.rows {
            self.client.relay(row).await?;
        }
        let rows = self.literals(&taken, Some(&steps.untyped)).await?;
        let mut count = updated.count();
        for rows in rows.chunks(ROWS_A_STATEMENT) {
            let text =
                format!("{}VALUES {}{}", steps.insert_head, rows.join(", "), steps.insert_tail);
            let inserted =
                self.capture(async |session| session.rewritten(&text, bound).await).await?;
            count += inserted.count();
            for row in &inserted.rows {
                self.client.relay(row).await?;
            }
        }
        Ok(count)
    }

    pub(super) async fn captured(&mut self, spread: &Spread) -> Result<Answer, Fault> {
        let run = async |session: &mut Self| {
            session.session.run_spread(spread, &mut session.client).await
        };
        self.capture(run).await
    }

    /// Why rows that get another key would go by another way than an UPDATE does.
    async fn obstacle(
        &mut self,
        steps: &RekeySteps,
        node: NodeId,
    ) -> Result<Option<ServerError>, Fault> {
        let ask = async |session: &mut Self| {
            session.session.run_text(node, &steps.obstacles, &mut session.client).await
        };
        let found = self.capture(ask).await?;
        let Some(row) = found.rows.first() else { return Ok(None) };
        let what = super::select::values(row)?.into_iter().flatten().next().unwrap_or_default();
        Ok(Some(ServerError::refused(
            "rows can't get another shard key here",
            format!("They move by DELETE and INSERT, and the table has {what}."),
            "In one transaction, insert the rows with the new key, then their dependents, and delete the \
             old ones, dependents first.",
        )))
    }
}
