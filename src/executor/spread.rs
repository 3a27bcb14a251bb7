//! A write over several nodes: each runs its fragment, all in one transaction.
//!
//! What may wait for row locks runs on one node after the other, always in the same order, so that
//! two such statements wait for each other instead of deadlocking.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::pump::{Verdict, pump};
use super::run::Cost;
use super::{Client, Fault, Session};
use crate::ids::NodeId;
use crate::wire::{ServerError, SqlState, command_count, command_tag};

/// The most bytes of RETURNING rows that are kept to be put in order.
const ROWS_BYTES_MAX: usize = 256 << 20;

/// A write for several nodes.
#[derive(Debug)]
pub struct Spread {
    /// What each node runs.
    pub parts: Vec<SpreadPart>,
    /// Whether the client gets the description of the columns.
    pub describe: bool,
    /// All nodes work at once: nothing in it waits for row locks.
    pub at_once: bool,
}

/// What one node runs.
#[derive(Debug)]
pub struct SpreadPart {
    /// The node.
    pub node: NodeId,
    /// What it costs there.
    pub cost: Cost,
    /// The messages, up to a `Query` or a `Sync`.
    pub messages: BytesMut,
    /// The client's rows that its rows of RETURNING stand for, in order; empty where rows are in no
    /// order.
    pub rows: Vec<usize>,
}

/// What a node has answered.
#[derive(Debug, Default)]
struct Answer {
    tag: String,
    error: Option<Bytes>,
    rows: Vec<Bytes>,
    bytes: usize,
}

impl Session {
    /// Runs a write on several nodes; the client gets the rows of all and one command tag with the
    /// sum of their counts. Leaves `ReadyForQuery` to the caller. Commits, unless the client has a
    /// transaction block. Nothing of it stays after an error.
    pub async fn run_spread(&mut self, spread: &Spread, client: &mut Client) -> Result<(), Fault> {
        let implicit = self.begin_implicit();
        let tag = match self.try_spread(spread, client).await {
            Ok(tag) => self.keep_after(spread).await.map(|()| tag),
            Err(fault) => Err(fault),
        };
        self.end_broadcast(implicit, tag, client).await
    }

    /// The same of a write behind EXPLAIN ANALYZE; gives the lines of each part's plan, and the client
    /// gets nothing.
    pub async fn run_analyzed(
        &mut self,
        spread: &Spread,
        client: &mut Client,
    ) -> Result<Vec<Vec<String>>, Fault> {
        let implicit = self.begin_implicit();
        let ran = match self.try_analyzed(spread).await {
            Ok(plans) => self.keep_after(spread).await.map(|()| plans),
            Err(fault) => Err(fault),
        };
        self.end_implicit(implicit, ran, client).await
    }

    async fn try_analyzed(&mut self, spread: &Spread) -> Result<Vec<Vec<String>>, Fault> {
        let mut plans = Vec::with_capacity(spread.parts.len());
        for part in &spread.parts {
            plans.push(self.lines_of(part.node, &part.messages).await?);
        }
        Ok(plans)
    }

    /// The lines of a plan that a node gives.
    pub async fn lines_of(&mut self, node: NodeId, messages: &[u8]) -> Result<Vec<String>, Fault> {
        let rows = self.rows_of(node, messages).await?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }

    /// What it has noted goes to the lookups.
    async fn keep_after(&mut self, spread: &Spread) -> Result<(), Fault> {
        let shards = spread.parts.iter().flat_map(|part| &part.cost.shards);
        if !self.may_owe(shards) {
            return Ok(());
        }
        let nodes: Vec<NodeId> = spread.parts.iter().map(|part| part.node).collect();
        self.keep_lookups(&nodes).await
    }

    pub(super) async fn try_spread(
        &mut self,
        spread: &Spread,
        client: &mut Client,
    ) -> Result<String, Fault> {
        let keep = spread.parts.iter().any(|part| !part.rows.is_empty());
        if spread.at_once {
            for part in &spread.parts {
                self.member(part.node).await?;
            }
            for part in &spread.parts {
                self.member(part.node).await?.send(&part.messages).await?;
            }
        }
        let (mut answers, mut failure, mut kept) = (Vec::new(), None, 0);
        for (index, part) in spread.parts.iter().enumerate() {
            let started = Instant::now();
            if !spread.at_once {
                self.member(part.node).await?.send(&part.messages).await?;
            }
            let describe = spread.describe && index == 0;
            let (answer, bytes) = self.answer(part.node, describe, keep, client).await?;
            self.record(part.node, &part.cost, started.elapsed(), bytes);
            kept += answer.bytes;
            failure = failure.or_else(|| answer.error.clone().map(Fault::Reported));
            if kept > ROWS_BYTES_MAX {
                failure = failure.or_else(|| Some(too_much().into()));
            }
            if failure.is_some() && !spread.at_once {
                break;
            }
            answers.push(answer);
        }
        if let Some(fault) = failure {
            return Err(fault);
        }
        if keep {
            for row in in_order(&spread.parts, &answers) {
                client.relay(row).await?;
            }
        }
        Ok(sum(&answers))
    }

    /// Reads one node's answer; its rows pass, or are kept.
    async fn answer(
        &mut self,
        node: NodeId,
        describe: bool,
        keep: bool,
        client: &mut Client,
    ) -> Result<(Answer, u64), Fault> {
        let member = self.member(node).await?;
        let mut answer = Answer::default();
        if keep {
            let bytes = keep_rows(member, describe, &mut answer, client).await?;
            return Ok((answer, bytes));
        }
        let bytes = pump(&mut member.guard, client, |kind, frame| match kind {
            b'T' if describe => Verdict::Forward,
            b'D' | b'N' => Verdict::Forward,
            b'Z' => Verdict::DropLast,
            _ => {
                answer.note(kind, frame);
                Verdict::Drop
            }
        });
        let bytes = bytes.await?;
        Ok((answer, bytes))
    }
}

impl Answer {
    fn note(&mut self, kind: u8, frame: &[u8]) {
        match kind {
            b'C' => command_tag(&frame[5..]).clone_into(&mut self.tag),
            b'E' if self.error.is_none() => self.error = Some(Bytes::copy_from_slice(frame)),
            _ => {}
        }
    }
}

/// Reads an answer whose rows are to be put in order.
async fn keep_rows(
    member: &mut super::session::Member,
    describe: bool,
    answer: &mut Answer,
    client: &mut Client,
) -> Result<u64, Fault> {
    let mut bytes = 0;
    loop {
        let (kind, frame) = member.guard.frame().await?;
        bytes += frame.len() as u64;
        match kind {
            b'T' if describe => {
                let described = member.guard.pool().described(&frame).await?;
                client.relay(described.as_deref().unwrap_or(&frame)).await?;
            }
            b'N' => client.relay(&frame).await?,
            b'D' if answer.bytes <= ROWS_BYTES_MAX => {
                answer.bytes += frame.len();
                answer.rows.push(frame);
            }
            b'Z' => return Ok(bytes),
            _ => answer.note(kind, &frame),
        }
    }
}

/// The rows of RETURNING in the order of the client's rows, where each has given one.
fn in_order<'a>(parts: &[SpreadPart], answers: &'a [Answer]) -> Vec<&'a Bytes> {
    let each = parts.iter().zip(answers).all(|(part, answer)| part.rows.len() == answer.rows.len());
    let rows = parts.iter().zip(answers).flat_map(|(part, answer)| {
        let places = part.rows.iter().copied().chain(std::iter::repeat(usize::MAX));
        places.zip(&answer.rows)
    });
    let mut rows: Vec<_> = rows.collect();
    if each {
        rows.sort_by_key(|(place, _)| *place);
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// One tag with the sum of the counts.
fn sum(answers: &[Answer]) -> String {
    let count: u64 = answers.iter().filter_map(|answer| command_count(&answer.tag)).sum();
    let Some(first) = answers.first() else { return String::new() };
    match first.tag.rsplit_once(' ') {
        Some((words, _)) => format!("{words} {count}"),
        None => first.tag.clone(),
    }
}

fn too_much() -> ServerError {
    ServerError::new(
        SqlState("54000"),
        format!("RETURNING gives more than {} MB over several nodes", ROWS_BYTES_MAX >> 20),
    )
    .with_detail("Nothing was changed.")
    .with_hint("Insert fewer rows a statement, or return fewer columns.")
}
