//! Verification on demand: whether the nodes hold what the map says, and nothing else of ours.
//!
//! Traffic, moves and DDL go on meanwhile. What looks wrong is looked at again, with the map of then,
//! before it is told: a switch is on its way for milliseconds.

mod layout;
mod leftovers;
mod lookups;
mod references;
mod rows;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::context::MoverContext;
use super::error::MoveError;
use super::jobs::{Desk, unless};
use super::session::Session;
use crate::ids::{NodeId, ShardId};
use crate::shard_map::ShardMap;
use crate::shard_move::{Finding, FindingKind, Report};

/// How often, and how long apart, something is looked at before it counts as wrong.
const LOOKS: u32 = 4;
const APART: Duration = Duration::from_millis(400);
/// How often the report is stored while it grows.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// Looks at some shards, or at everything.
pub(super) async fn audit(desk: &mut Desk<'_>, shards: &[ShardId]) -> Result<(), MoveError> {
    let context = desk.context;
    let auditor = Auditor { context, name: desk.session_name() };
    let mut report = Report::default();
    report.findings.extend(auditor.lasting(|| layout::look(&auditor, shards)).await?);
    let mut stored_at = Instant::now();
    for shard in auditor.in_order(shards).await? {
        unless(&desk.called_off, rows::look(&auditor, shard, &mut report)).await?;
        if stored_at.elapsed() > STORE_EVERY {
            store(desk, &report).await?;
            stored_at = Instant::now();
        }
    }
    if shards.is_empty() {
        references::look(&auditor, &mut report).await?;
        report.findings.extend(auditor.lasting(|| lookups::look(&auditor)).await?);
        report.findings.extend(auditor.lasting(|| leftovers::look(&auditor)).await?);
    }
    report.findings.sort();
    report.findings.dedup();
    store(desk, &report).await
}

async fn store(desk: &mut Desk<'_>, report: &Report) -> Result<(), MoveError> {
    let mut job = desk.job.record.clone();
    job.report = Some(report.clone());
    desk.store(job).await
}

/// What the parts of a verification share.
struct Auditor<'a> {
    context: &'a MoverContext,
    name: String,
}

impl Auditor<'_> {
    fn map(&self) -> std::sync::Arc<ShardMap> {
        self.context.live_map.snapshot()
    }

    async fn session(&self, node: NodeId) -> Result<Session, MoveError> {
        let session = Session::open_as(self.context, self.name.clone(), node).await?;
        // What is asked is whether the rows satisfy a constraint that the planner could rely on.
        session.run("opening a session", "SET constraint_exclusion = off").await?;
        Ok(session)
    }

    /// What all of several looks have found.
    async fn lasting<F>(&self, look: impl Fn() -> F) -> Result<Vec<Finding>, MoveError>
    where
        F: Future<Output = Result<Vec<Finding>, MoveError>>,
    {
        let mut lasting = look().await?;
        for _ in 1..LOOKS {
            if lasting.is_empty() {
                break;
            }
            sleep(APART).await;
            let again = look().await?;
            lasting.retain(|finding| again.contains(finding));
        }
        Ok(lasting)
    }

    /// The shards that are asked for, or all; those that are being moved come last.
    async fn in_order(&self, shards: &[ShardId]) -> Result<Vec<ShardId>, MoveError> {
        let moves = self.unfinished().await?;
        let mut all: Vec<ShardId> = if shards.is_empty() {
            self.map().shards().map(|(id, _)| id).collect()
        } else {
            shards.to_vec()
        };
        all.sort_by_key(|shard| (moves.iter().any(|mv| mv.touches(*shard)), *shard));
        all.dedup();
        Ok(all)
    }

    async fn unfinished(&self) -> Result<Vec<crate::shard_move::Move>, MoveError> {
        let moves = self.context.catalog.list::<crate::shard_move::Move>().await?;
        Ok(moves.into_iter().map(|mv| mv.record).filter(|mv| !mv.is_finished()).collect())
    }
}

/// A finding on a node.
fn finding(kind: FindingKind, node: &str, what: String) -> Finding {
    Finding { kind, node: node.to_owned(), what, rows: Vec::new() }
}

/// A node that could not be asked.
fn unknown(map: &ShardMap, node: NodeId, error: &MoveError) -> Finding {
    finding(FindingKind::Unknown, &map.node(node).name, error.story())
}
