//! COPY FROM STDIN into a sharded table, split by the key, or into a reference table, for every
//! node: all nodes take their rows in one transaction.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::run::{Cost, query_message};
use super::{Client, ClientError, Fault, Session};
use crate::ids::{NodeId, ShardId};
use crate::load::Access;
use crate::planner::{CopyInPlan, Splitter};
use crate::shard_map::ShardMap;
use crate::wire::{ServerError, SqlState, command_count, command_tag, put_frame};

/// Rows for a node are sent once they are this many bytes.
const ROWS_BYTES: usize = 64 * 1024;

/// What one node takes part in a COPY with.
#[derive(Debug)]
struct Lane {
    node: NodeId,
    /// Of a sharded table: the shards that it owns.
    shards: SmallVec<[ShardId; 2]>,
    /// Rows that wait to be sent.
    rows: BytesMut,
    bytes: u64,
    busy: Duration,
}

impl Session {
    /// Runs a COPY over all nodes that take rows. Leaves `ReadyForQuery` to the caller. Commits,
    /// unless the client has a transaction block. After an error the client may still be sending:
    /// its frames are dropped as outside of any COPY.
    pub async fn run_copy_in(
        &mut self,
        plan: &CopyInPlan,
        client: &mut Client,
    ) -> Result<(), Fault> {
        if plan.split.is_none() {
            self.write_references().await?;
        }
        let map = self.engine.live_map.snapshot();
        let mut lanes = self.lanes(plan, &map);
        let implicit = self.begin_implicit();
        let started = self.start_lanes(&lanes, &plan.text, client).await;
        let copied = match started {
            Ok(()) => self.copy_rows(plan, &map, &mut lanes, client).await,
            Err(fault) => Err(fault),
        };
        let tag = match copied {
            Ok(()) => self.finish_lanes(&mut lanes, plan.split.is_some()).await,
            Err(fault) => Err(fault),
        };
        if tag.is_err() {
            self.abort_lanes(&lanes).await;
        }
        let tag = match tag {
            Ok(tag)
                if plan.split.is_some()
                    && self.may_owe(lanes.iter().flat_map(|lane| &lane.shards)) =>
            {
                let nodes: Vec<NodeId> = lanes.iter().map(|lane| lane.node).collect();
                self.keep_lookups(&nodes).await.map(|()| tag)
            }
            tag => tag,
        };
        self.end_broadcast(implicit, tag, client).await
    }

    /// A lane for every node that can get rows, the home node last.
    fn lanes(&self, plan: &CopyInPlan, map: &ShardMap) -> Vec<Lane> {
        let group = plan.split.as_ref().map(|split| split.group);
        let lanes = self.nodes_home_last().into_iter().map(|node| Lane {
            node,
            shards: group.map(|group| map.shards_on(node, group).collect()).unwrap_or_default(),
            rows: BytesMut::new(),
            bytes: 0,
            busy: Duration::ZERO,
        });
        lanes.filter(|lane| group.is_none() || !lane.shards.is_empty()).collect()
    }

    /// Starts the COPY on every node; the client is asked for rows once all are ready.
    async fn start_lanes(
        &mut self,
        lanes: &[Lane],
        text: &str,
        client: &mut Client,
    ) -> Result<(), Fault> {
        let mut ready = Bytes::new();
        for lane in lanes {
            let member = self.member(lane.node).await?;
            member.send(&query_message(text)).await?;
            let mut error = None;
            loop {
                let (tag, frame) = member.guard.frame().await?;
                match tag {
                    b'G' => ready = frame,
                    b'E' => error = Some(frame),
                    b'Z' => {}
                    _ => continue,
                }
                if tag == b'G' || tag == b'Z' {
                    break;
                }
            }
            if let Some(frame) = error {
                return Err(Fault::Reported(frame));
            }
        }
        client.relay(&ready).await?;
        Ok(client.flush().await?)
    }

    /// Passes the client's rows on until it ends the COPY.
    async fn copy_rows(
        &mut self,
        plan: &CopyInPlan,
        map: &ShardMap,
        lanes: &mut [Lane],
        client: &mut Client,
    ) -> Result<(), Fault> {
        let mut splitter = plan.split.clone().map(Splitter::new);
        let lane_of = lanes_by_shard(lanes, map);
        let prologue = splitter.as_ref().map(Splitter::prologue).unwrap_or_default();
        lanes.iter_mut().for_each(|lane| lane.rows.extend_from_slice(prologue));
        loop {
            let Some(frame) = client.frame().await? else {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            };
            let message = client.take(frame.len);
            let body = &message[5..];
            match (frame.tag, &mut splitter) {
                (b'd', Some(splitter)) => {
                    splitter.feed(body, &mut |shard, row| put_row(lanes, &lane_of, shard, row))?;
                }
                (b'd', None) => {
                    lanes.iter_mut().for_each(|lane| lane.rows.extend_from_slice(body));
                }
                (b'c', Some(splitter)) => {
                    splitter.finish(&mut |shard, row| put_row(lanes, &lane_of, shard, row))?;
                    let epilogue = splitter.epilogue();
                    lanes.iter_mut().for_each(|lane| lane.rows.extend_from_slice(epilogue));
                    return Ok(());
                }
                (b'c', None) => return Ok(()),
                (b'f', _) => return Err(copy_failed(body).into()),
                // The protocol lets a client send these without knowing that a COPY has begun.
                (b'H' | b'S', _) => {}
                (tag, _) => return Err(unexpected(tag).into()),
            }
            for lane in lanes.iter_mut().filter(|lane| lane.rows.len() >= ROWS_BYTES) {
                self.send_rows(lane).await?;
            }
        }
    }

    /// Sends what waits in a lane. This is where a slow node presses back.
    async fn send_rows(&mut self, lane: &mut Lane) -> Result<(), Fault> {
        if lane.rows.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mut message = BytesMut::with_capacity(lane.rows.len() + 5);
        put_frame(b'd', &mut message, |out| out.extend_from_slice(&lane.rows));
        lane.bytes += message.len() as u64;
        lane.rows.clear();
        self.member(lane.node).await?.guard.send_more(&message).await?;
        lane.busy += started.elapsed();
        Ok(())
    }

    /// Ends the COPY on every node; the command tag with the rows of all, or of one for a reference
    /// table.
    async fn finish_lanes(&mut self, lanes: &mut [Lane], split: bool) -> Result<String, Fault> {
        let (mut rows, mut failure) = (0, None);
        for lane in &mut *lanes {
            self.send_rows(lane).await?;
            let mut done = BytesMut::new();
            put_frame(b'c', &mut done, |_| ());
            self.member(lane.node).await?.guard.send_more(&done).await?;
        }
        for lane in lanes {
            let started = Instant::now();
            let member = self.member(lane.node).await?;
            loop {
                let (tag, frame) = member.guard.frame().await?;
                match tag {
                    b'C' if split => rows += copied(&frame),
                    b'C' => rows = copied(&frame),
                    b'E' => failure = failure.or(Some(frame)),
                    b'Z' => break,
                    _ => {}
                }
            }
            let cost = Cost::of(lane.shards.clone(), Access::Write);
            self.record(lane.node, &cost, lane.busy + started.elapsed(), lane.bytes);
        }
        match failure {
            Some(frame) => Err(Fault::Reported(frame)),
            None => Ok(format!("COPY {rows}")),
        }
    }

    /// Ends what is still under way on nodes whose COPY has to fail, so that they can roll back.
    async fn abort_lanes(&mut self, lanes: &[Lane]) {
        let mut fail = BytesMut::new();
        put_frame(b'f', &mut fail, |out| out.extend_from_slice(b"failed elsewhere\0"));
        for lane in lanes {
            let Some(member) = self.held(lane.node).filter(|m| m.guard.status.is_none()) else {
                continue;
            };
            let aborted = async {
                member.guard.send_more(&fail).await?;
                while member.guard.frame().await?.0 != b'Z' {}
                Ok::<_, crate::backend::BackendError>(())
            };
            if let Err(error) = aborted.await {
                tracing::warn!(%error, "a COPY was ended by closing its connection");
                self.lose(lane.node);
            }
        }
    }
}

/// The rows that a node says it took.
fn copied(complete: &[u8]) -> u64 {
    command_count(command_tag(&complete[5..])).unwrap_or_default()
}

/// The lane of each shard, by its index.
fn lanes_by_shard(lanes: &[Lane], map: &ShardMap) -> Vec<usize> {
    let mut by_shard = vec![0; map.shard_count()];
    for (index, lane) in lanes.iter().enumerate() {
        for shard in &lane.shards {
            by_shard[shard.index()] = index;
        }
    }
    by_shard
}

fn put_row(lanes: &mut [Lane], lane_of: &[usize], shard: ShardId, row: &[u8]) {
    lanes[lane_of[shard.index()]].rows.extend_from_slice(row);
}

fn copy_failed(body: &[u8]) -> ServerError {
    let end = memchr::memchr(0, body).unwrap_or(body.len());
    let reason = String::from_utf8_lossy(&body[..end]);
    ServerError::new(SqlState::QUERY_CANCELED, format!("COPY from stdin failed: {reason}"))
}

fn unexpected(tag: u8) -> ClientError {
    tracing::info!(tag, "a client sent something else in the middle of a COPY");
    ClientError::Malformed(crate::wire::Malformed("it does not belong into a COPY"))
}
