//! COPY … TO STDOUT of rows on several nodes: one stream with one header and one trailer.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::merge_session::{COPY_HEADER, COPY_TRAILER};
use super::run::{Cost, query_message};
use super::{Client, Fault, Session};
use crate::ids::NodeId;
use crate::router::CopyOut;
use crate::wire::{Reply, command_count, command_tag, put_frame};

impl Session {
    /// Runs a COPY on several nodes and passes all rows on. Leaves `ReadyForQuery` to the caller. An
    /// error of any node ends it; the rows before it have passed.
    pub async fn run_copy_out(
        &mut self,
        copy: &CopyOut,
        nodes: &[(NodeId, Cost)],
        client: &mut Client,
    ) -> Result<(), Fault> {
        for (node, _) in nodes {
            self.member(*node).await?;
        }
        let started = Instant::now();
        let message = query_message(&copy.text);
        for (node, _) in nodes {
            self.member(*node).await?.send(&message).await?;
        }
        let (mut rows, mut failure) = (0, None);
        for (index, (node, cost)) in nodes.iter().enumerate() {
            let member = self.member(*node).await?;
            let mut stream = Stream { copy, head: index == 0, first: true, bytes: 0 };
            loop {
                let (tag, frame) = member.guard.frame().await?;
                match tag {
                    b'H' if index == 0 => client.relay(&frame).await?,
                    b'd' if failure.is_none() => stream.pass(&frame, client).await?,
                    b'N' => client.relay(&frame).await?,
                    b'C' => rows += command_count(command_tag(&frame[5..])).unwrap_or_default(),
                    b'E' => failure = failure.or(Some(frame)),
                    b'Z' => break,
                    _ => {}
                }
            }
            let bytes = stream.bytes;
            self.record(*node, cost, started.elapsed(), bytes);
        }
        if let Some(frame) = failure {
            return Err(Fault::Reported(frame));
        }
        let mut end = BytesMut::new();
        if copy.binary {
            put_frame(b'd', &mut end, |out| out.extend_from_slice(&COPY_TRAILER));
        }
        put_frame(b'c', &mut end, |_| ());
        client.relay(&end).await?;
        client.put(Reply::CommandComplete(&format!("COPY {rows}")));
        if self.in_transaction() { Ok(()) } else { self.finish().await }
    }
}

/// One node's part of the stream.
struct Stream<'a> {
    copy: &'a CopyOut,
    /// The header is this node's.
    head: bool,
    /// Nothing has come yet.
    first: bool,
    bytes: u64,
}

impl Stream<'_> {
    async fn pass(&mut self, frame: &Bytes, client: &mut Client) -> Result<(), Fault> {
        self.bytes += frame.len() as u64;
        let first = std::mem::take(&mut self.first);
        if !self.copy.binary {
            // The header is a message of its own.
            if first && self.copy.header && !self.head {
                return Ok(());
            }
            return Ok(client.relay(frame).await?);
        }
        let mut data = frame.get(5..).unwrap_or_default();
        if first && !self.head {
            data = data.get(COPY_HEADER.len()..).unwrap_or_default();
        }
        // The trailer is a message of its own, unless there are no rows.
        let ends = data == COPY_TRAILER || first && data.len() == COPY_HEADER.len() + 2;
        if ends {
            data = data.strip_suffix(&COPY_TRAILER).unwrap_or(data);
        }
        if !data.is_empty() {
            let mut out = BytesMut::new();
            put_frame(b'd', &mut out, |out| out.extend_from_slice(data));
            client.relay(&out).await?;
        }
        Ok(())
    }
}
