//! A SELECT in an order over several nodes: each gives its rows in the order, with the values that
//! they are ordered by behind them, and they are merged as they come. Nothing is kept but a row of
//! each node.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::scatter::{Passed, Watch};
use super::{Client, Fault, Scatter, Session};
use crate::ids::NodeId;
use crate::merge::{SortType, SortValue, compare_rows};
use crate::planner::Direction;
use crate::wire::{ServerError, SqlState};

/// The first byte of a row's values.
const ROW_HEADER: usize = 7;

/// How rows are merged.
#[derive(Debug)]
pub struct Order {
    /// Of the values behind each row.
    pub types: Vec<SortType>,
    /// Of the same.
    pub directions: Vec<Direction>,
    /// How many columns the client gets.
    pub width: usize,
    /// How many rows it does not get first.
    pub skip: u64,
    /// How many it gets after those.
    pub most: Option<u64>,
}

/// The row of a node that comes next.
#[derive(Debug)]
pub(super) struct Head {
    frame: Bytes,
    /// Where the client's columns end in it.
    end: usize,
    pub(super) values: Vec<SortValue>,
}

/// A node's rows.
#[derive(Debug)]
struct Lane {
    node: NodeId,
    head: Option<Head>,
    /// It has told how it ended.
    done: bool,
    bytes: u64,
}

impl Order {
    pub(super) fn directions(&self) -> impl Iterator<Item = (bool, bool)> {
        self.directions.iter().map(|it| (it.descending, it.nulls_first))
    }

    /// Reads a `DataRow`; `None` if it is not of this form.
    pub(super) fn read(&self, frame: Bytes) -> Option<Head> {
        let (mut at, mut end) = (ROW_HEADER, ROW_HEADER);
        let mut values = Vec::with_capacity(self.types.len());
        for column in 0..self.width + self.types.len() {
            let length = i32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?);
            at += 4;
            let value = match usize::try_from(length) {
                Ok(length) => {
                    at += length;
                    Some(frame.get(at - length..at)?)
                }
                Err(_) => None,
            };
            match column.checked_sub(self.width) {
                Some(key) => values.push(self.types.get(key)?.read(value)?),
                None => end = at,
            }
        }
        Some(Head { frame, end, values })
    }

    /// The lane whose row is the next; the first of equal ones.
    fn next(&self, lanes: &[Lane]) -> Option<usize> {
        let mut least: Option<(usize, &Head)> = None;
        for (at, lane) in lanes.iter().enumerate() {
            let Some(head) = &lane.head else { continue };
            let is_less =
                |least: &Head| compare_rows(&head.values, &least.values, self.directions()).is_lt();
            if least.is_none_or(|(_, least)| is_less(least)) {
                least = Some((at, head));
            }
        }
        least.map(|(at, _)| at)
    }
}

impl Head {
    /// Gives the client its columns.
    pub(super) async fn pass(&self, width: usize, client: &mut Client) -> Result<(), Fault> {
        let length = u32::try_from(self.end - 1).unwrap_or(u32::MAX);
        let mut header = BytesMut::with_capacity(ROW_HEADER);
        header.put_u8(b'D');
        header.put_u32(length);
        header.put_u16(u16::try_from(width).unwrap_or(u16::MAX));
        client.relay(&header).await?;
        Ok(client.relay(self.frame.get(ROW_HEADER..self.end).unwrap_or_default()).await?)
    }
}

impl Session {
    /// Passes the rows of all nodes on in their order.
    pub(super) async fn pass_sorted(
        &mut self,
        (scatter, order): (&Scatter<'_>, &Order),
        nodes: &[NodeId],
        (mut watch, client): (Watch, &mut Client),
    ) -> Result<Passed, Fault> {
        let started = Instant::now();
        let lane = |node: &NodeId| Lane { node: *node, head: None, done: false, bytes: 0 };
        let mut lanes: Vec<Lane> = nodes.iter().map(lane).collect();
        for node in nodes {
            self.member(*node).await?.send(scatter.messages).await?;
        }
        let mut merging = Merging { order, watch: &mut watch, failed: false };
        let merged = self.merge_lanes(&mut lanes, &mut merging, client).await;
        let failed = merging.failed;
        for (lane, (_, cost)) in lanes.iter().zip(scatter.nodes) {
            self.record(lane.node, cost, started.elapsed(), lane.bytes);
        }
        if let Some(error) = watch.over.take() {
            nodes.iter().for_each(|node| self.lose(*node));
            return Err(error.into());
        }
        if matches!(merged, Err(Fault::Refused(_))) {
            nodes.iter().for_each(|node| self.lose(*node));
        }
        Ok(Passed { rows: merged?, failed })
    }

    async fn merge_lanes(
        &mut self,
        lanes: &mut [Lane],
        merging: &mut Merging<'_>,
        client: &mut Client,
    ) -> Result<u64, Fault> {
        for lane in lanes.iter_mut() {
            self.next_row(lane, merging, client).await?;
        }
        let (mut skip, mut rows) = (merging.order.skip, 0);
        while !merging.stops(rows)
            && let Some(next) = merging.order.next(lanes)
        {
            let lane = &mut lanes[next];
            if let Some(head) = lane.head.take() {
                if skip > 0 {
                    skip -= 1;
                } else if merging.watch.allows(&head.frame) {
                    head.pass(merging.order.width, client).await?;
                    rows += 1;
                } else {
                    return Ok(rows);
                }
                self.next_row(lane, merging, client).await?;
                let falls = |new: &Head| {
                    let directions = merging.order.directions();
                    compare_rows(&new.values, &head.values, directions).is_lt()
                };
                if lane.head.as_ref().is_some_and(falls) {
                    return Err(self.out_of_order(lane.node).into());
                }
            }
        }
        for lane in lanes {
            while !lane.done {
                self.next_row(lane, merging, client).await?;
            }
        }
        Ok(rows)
    }

    /// Takes a node's next row, and what comes before it; none at the end.
    async fn next_row(
        &mut self,
        lane: &mut Lane,
        merging: &mut Merging<'_>,
        client: &mut Client,
    ) -> Result<(), Fault> {
        lane.head = None;
        while !lane.done {
            let member = self.member(lane.node).await?;
            let (tag, frame) = member.guard.frame().await?;
            lane.bytes += frame.len() as u64;
            match tag {
                b'D' => {
                    lane.head = merging.order.read(frame);
                    if lane.head.is_none() {
                        return Err(self.out_of_order(lane.node).into());
                    }
                    return Ok(());
                }
                b'N' if !merging.failed => client.relay(&frame).await?,
                b'E' if merging.watch.is_late() => {}
                b'E' if !merging.failed => {
                    merging.failed = true;
                    client.relay_error(&frame).await?;
                }
                b'Z' => lane.done = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn out_of_order(&self, node: NodeId) -> ServerError {
        let name = &self.engine.nodes[node.index()].name;
        let message = format!("rows of node {name} do not come in the order that was asked for");
        ServerError::new(SqlState::INTERNAL_ERROR, message)
            .with_hint("Compare the collations of the nodes' databases (pg_database.datcollate).")
    }
}

/// What a merge goes by.
struct Merging<'a> {
    order: &'a Order,
    watch: &'a mut Watch,
    /// The client was told of an error.
    failed: bool,
}

impl Merging<'_> {
    /// Whether no more rows are passed on.
    fn stops(&self, rows: u64) -> bool {
        self.failed || self.watch.over.is_some() || self.order.most.is_some_and(|most| rows >= most)
    }
}
