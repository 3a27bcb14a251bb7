//! A SELECT that locks rows of several nodes in an order: `… ORDER BY id LIMIT 10 FOR UPDATE SKIP
//! LOCKED`. Each node gives its rows through a portal, which locks a row as it is fetched, and they
//! are merged. Where only the first rows count, each is fetched behind a savepoint, to which a node
//! goes back whose last row was not wanted: so no other row stays locked.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::pull::PullRun;
use super::run::Cost;
use super::sorted::{Head, Order};
use super::sorting::{Sorted, opened};
use super::{Client, Fault, Session};
use crate::ids::NodeId;
use crate::load::Access;
use crate::merge::compare_rows;
use crate::wire::{ServerError, SqlState, put_frame, put_query};

/// The portal that a node's rows are fetched from.
const PORTAL: &[u8] = b"foreshard rows";
/// Rows of a fetch where all are wanted.
const ROWS_A_FETCH: i32 = 200;

/// A node's rows.
#[derive(Debug)]
struct Lane {
    node: NodeId,
    cost: Cost,
    /// The row that comes next.
    head: Option<Head>,
    /// Rows behind that.
    rows: VecDeque<Bytes>,
    /// All were fetched.
    ended: bool,
    /// It has a savepoint.
    saved: bool,
    bytes: u64,
}

impl Session {
    /// Locks rows and gives them to the client. Leaves `ReadyForQuery` to the caller. Nothing stays
    /// locked after an error.
    ///
    /// # Errors
    /// Its order is not one that can be merged here, or what a node said.
    pub async fn lock_sorted(
        &mut self,
        run: &PullRun<'_>,
        client: &mut Client,
    ) -> Result<(), Fault> {
        let sorted = match &run.pull.reduction {
            Some(reduction) => self.sorted(run, reduction).await?,
            None => None,
        };
        let Some(sorted) = sorted else { return Err(not_merged().into()) };
        let implicit = self.begin_implicit();
        let tag = self.lock_rows(run, &sorted, client).await;
        self.end_broadcast(implicit, tag, client).await
    }

    async fn lock_rows(
        &mut self,
        run: &PullRun<'_>,
        Sorted { sorting, order }: &Sorted,
        client: &mut Client,
    ) -> Result<String, Fault> {
        let started = Instant::now();
        let map = self.engine.live_map.snapshot();
        let groups = &run.pull.groups;
        let lane = |(node, _)| {
            let shards = groups.iter().flat_map(|group| map.shards_on(node, *group)).collect();
            let cost = Cost::of(shards, Access::Write);
            let (head, rows) = (None, VecDeque::new());
            Lane { node, cost, head, rows, ended: false, saved: false, bytes: 0 }
        };
        let lanes = map.nodes().map(lane).filter(|lane| !lane.cost.shards.is_empty());
        let mut lanes: Vec<Lane> = lanes.collect();
        // The same order for every statement, so that two of them wait for each other.
        lanes.sort_by_key(|lane| lane.node);
        let mut open = opened(sorting, run, PORTAL);
        put_frame(b'S', &mut open, |_| ());
        for lane in &mut lanes {
            self.exchange(lane, &open, 1, client).await?;
        }
        if run.describe {
            client.relay(&sorting.columns).await?;
        }
        let rows = self.take_in_order(&mut lanes, order, client).await?;
        for lane in &mut lanes {
            self.close(lane, client).await?;
            self.record(lane.node, &lane.cost, started.elapsed(), lane.bytes);
        }
        Ok(format!("SELECT {rows}"))
    }

    async fn take_in_order(
        &mut self,
        lanes: &mut [Lane],
        order: &Order,
        client: &mut Client,
    ) -> Result<u64, Fault> {
        let (mut skip, mut rows) = (order.skip, 0);
        while order.most.is_none_or(|most| rows < most) {
            for lane in lanes.iter_mut() {
                // Without an order the first nodes' rows may be enough.
                let enough = order.types.is_empty() && lane.head.is_some();
                self.next_head(lane, order, client).await?;
                if enough || order.types.is_empty() && lane.head.is_some() {
                    break;
                }
            }
            let Some(next) = first(lanes, order) else { break };
            let Some(head) = lanes[next].head.take() else { break };
            if skip > 0 {
                skip -= 1;
            } else {
                head.pass(order.width, client).await?;
                rows += 1;
            }
        }
        Ok(rows)
    }

    /// Fetches a row unless one is there.
    async fn next_head(
        &mut self,
        lane: &mut Lane,
        order: &Order,
        client: &mut Client,
    ) -> Result<(), Fault> {
        if lane.head.is_some() {
            return Ok(());
        }
        if lane.rows.is_empty() && !lane.ended {
            let mut out = BytesMut::new();
            let one_by_one = order.most.is_some();
            if one_by_one {
                let released = if lane.saved { "RELEASE SAVEPOINT foreshard_row; " } else { "" };
                put_query(&format!("{released}SAVEPOINT foreshard_row"), &mut out);
                lane.saved = true;
            }
            put_frame(b'E', &mut out, |out| {
                out.extend_from_slice(PORTAL);
                out.extend_from_slice(b"\0");
                let rows = if one_by_one { 1 } else { ROWS_A_FETCH };
                out.extend_from_slice(&rows.to_be_bytes());
            });
            put_frame(b'S', &mut out, |_| ());
            self.exchange(lane, &out, 1 + usize::from(one_by_one), client).await?;
        }
        if let Some(frame) = lane.rows.pop_front() {
            let head = order.read(frame);
            lane.head = Some(head.ok_or_else(|| self.odd_row(lane.node))?);
        }
        Ok(())
    }

    /// Lets go of what was locked for nothing.
    async fn close(&mut self, lane: &mut Lane, client: &mut Client) -> Result<(), Fault> {
        let mut out = BytesMut::new();
        if lane.saved {
            let back =
                if lane.head.is_some() { "ROLLBACK TO SAVEPOINT foreshard_row; " } else { "" };
            put_query(&format!("{back}RELEASE SAVEPOINT foreshard_row"), &mut out);
        }
        put_frame(b'C', &mut out, |out| {
            out.extend_from_slice(b"P");
            out.extend_from_slice(PORTAL);
            out.extend_from_slice(b"\0");
        });
        put_frame(b'S', &mut out, |_| ());
        self.exchange(lane, &out, 1 + usize::from(lane.saved), client).await
    }

    /// Sends messages, and keeps the rows that come up to the last of so many `ReadyForQuery`.
    async fn exchange(
        &mut self,
        lane: &mut Lane,
        messages: &[u8],
        mut ends: usize,
        client: &mut Client,
    ) -> Result<(), Fault> {
        let member = self.member(lane.node).await?;
        member.send(messages).await?;
        let (mut error, mut suspended, mut complete) = (None, false, false);
        while ends > 0 {
            let (tag, frame) = member.guard.frame().await?;
            lane.bytes += frame.len() as u64;
            match tag {
                b'D' => lane.rows.push_back(frame),
                b's' => suspended = true,
                b'C' => complete = true,
                b'N' => client.relay(&frame).await?,
                b'E' => error = error.or(Some(frame)),
                b'Z' => ends -= 1,
                _ => {}
            }
        }
        lane.ended |= complete && !suspended;
        error.map_or(Ok(()), |frame| Err(Fault::Reported(frame)))
    }

    fn odd_row(&self, node: NodeId) -> ServerError {
        let name = &self.engine.nodes[node.index()].name;
        let message = format!("a row of node {name} is not of the form that was asked for");
        ServerError::new(SqlState::INTERNAL_ERROR, message)
    }
}

/// The lane whose row is the next; the first of equal ones.
fn first(lanes: &[Lane], order: &Order) -> Option<usize> {
    let heads = lanes.iter().enumerate().filter_map(|(at, lane)| Some((at, lane.head.as_ref()?)));
    let least =
        heads.min_by(|(_, a), (_, b)| compare_rows(&a.values, &b.values, order.directions()));
    least.map(|(at, _)| at)
}

fn not_merged() -> ServerError {
    ServerError::refused(
        "rows of several nodes can't be locked in this order",
        "Rows are locked in the order of numbers, dates, times, booleans, UUIDs, bytea, and texts \
         in COLLATE \"C\", with LIMIT and OFFSET as numbers or parameters.",
        "Order by such columns, or bind the shard key to constants.",
    )
}
