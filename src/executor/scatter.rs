//! A SELECT over several nodes whose results are concatenated: all nodes work at once, their rows
//! pass one node after the other.

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::pump::{Verdict, pump};
use super::run::Cost;
use super::{Client, Fault, Session};
use crate::ids::NodeId;
use crate::wire::{Reply, command_count, command_tag};

/// One SELECT for several nodes.
#[derive(Debug)]
pub struct Scatter<'a> {
    /// The nodes, each with what it costs there.
    pub nodes: &'a [(NodeId, Cost)],
    /// The messages that run it on a node, up to a `Query` or a `Sync`.
    pub messages: &'a [u8],
    /// Whether the client gets the description of the columns.
    pub describe: bool,
}

impl Session {
    /// Runs a SELECT on several nodes and passes all rows on, then one command tag. Leaves
    /// `ReadyForQuery` to the caller. An error of any node ends it; the rows before it have passed.
    pub async fn scatter(
        &mut self,
        scatter: &Scatter<'_>,
        client: &mut Client,
    ) -> Result<(), Fault> {
        let nodes: SmallVec<[NodeId; 4]> = scatter.nodes.iter().map(|(node, _)| *node).collect();
        for node in &nodes {
            self.member(*node).await?;
        }
        let started = Instant::now();
        for node in &nodes {
            self.member(*node).await?.send(scatter.messages).await?;
        }
        let (mut rows, mut failed) = (0, false);
        for (index, (node, cost)) in scatter.nodes.iter().enumerate() {
            let member = self.member(*node).await?;
            member.skip_own_answers().await?;
            let describe = scatter.describe && index == 0;
            let bytes = pump(&mut member.guard, client, |tag, frame| match tag {
                b'T' if describe => Verdict::Forward,
                b'D' | b'N' if !failed => Verdict::Forward,
                b'C' => {
                    rows += command_count(command_tag(&frame[5..])).unwrap_or_default();
                    Verdict::Drop
                }
                b'E' if !failed => {
                    failed = true;
                    Verdict::Forward
                }
                b'Z' => Verdict::DropLast,
                _ => Verdict::Drop,
            });
            let bytes = bytes.await?;
            self.record(*node, cost, started.elapsed(), bytes);
        }
        if failed {
            self.fail();
        } else {
            client.put(Reply::CommandComplete(&format!("SELECT {rows}")));
        }
        if self.in_transaction() { Ok(()) } else { self.finish().await }
    }

    /// Sends the same messages to a node and drops the answer up to `ReadyForQuery`; the first
    /// error in it, as a frame.
    pub async fn run_unseen(
        &mut self,
        node: NodeId,
        messages: &[u8],
    ) -> Result<Option<BytesMut>, Fault> {
        let member = self.ask(node, messages).await?;
        let mut error = None;
        loop {
            let (tag, frame) = member.guard.frame().await?;
            match tag {
                b'E' if error.is_none() => error = Some(BytesMut::from(&frame[..])),
                b'Z' => return Ok(error),
                _ => {}
            }
        }
    }
}
