//! COPY … FROM STDIN of rows that the proxy itself has, into a table of one node.

use bytes::BytesMut;

use super::merge_session::{COPY_HEADER, COPY_TRAILER};
use super::run::query_message;
use super::{Fault, Session};
use crate::ids::NodeId;
use crate::wire::{Frame, command_count, command_tag, put_frame};

/// A COPY into a table of one node that is under way; it has to be ended.
#[derive(Debug)]
pub struct CopyRows {
    node: NodeId,
    binary: bool,
    /// What is sent together with what comes next.
    out: BytesMut,
}

impl Session {
    /// Begins to put rows into a table, whose name is SQL, in COPY's binary format or as text.
    ///
    /// # Errors
    /// The node's.
    pub async fn begin_copy(
        &mut self,
        (node, table): (NodeId, &str),
        binary: bool,
    ) -> Result<CopyRows, Fault> {
        let format = if binary { " (FORMAT binary)" } else { "" };
        let begin = query_message(&format!("COPY {table} FROM STDIN{format}"));
        let (member, mut error) = (self.ask(node, &begin).await?, None);
        loop {
            let (tag, frame) = member.guard.frame().await?;
            match (tag, error.take()) {
                (b'G', _) => break,
                (b'Z', Some(frame)) => return Err(Fault::Reported(frame)),
                (b'E', _) => error = Some(frame),
                (_, before) => error = before,
            }
        }
        let mut out = BytesMut::new();
        if binary {
            put_frame(b'd', &mut out, |out| out.extend_from_slice(&COPY_HEADER));
        }
        Ok(CopyRows { node, binary, out })
    }

    /// Sends rows; whether the node takes more: it has failed if not. A slow node presses back.
    pub async fn copy_more(&mut self, copy: &mut CopyRows, rows: &[u8]) -> Result<bool, Fault> {
        put_frame(b'd', &mut copy.out, |out| out.extend_from_slice(rows));
        let member = self.member(copy.node).await?;
        member.guard.send_and_receive(&copy.out).await?;
        copy.out.clear();
        Ok(!matches!(member.guard.peek()?, Some(Frame { tag: b'E', .. })))
    }

    /// Ends it; how many rows the table got. Where they could not all be sent, `all` is false, and it
    /// got none.
    ///
    /// # Errors
    /// The node's.
    pub async fn end_copy(&mut self, mut copy: CopyRows, all: bool) -> Result<u64, Fault> {
        if all {
            if copy.binary {
                put_frame(b'd', &mut copy.out, |out| out.extend_from_slice(&COPY_TRAILER));
            }
            put_frame(b'c', &mut copy.out, |_| ());
        } else {
            put_frame(b'f', &mut copy.out, |out| out.extend_from_slice(b"failed elsewhere\0"));
        }
        let member = self.member(copy.node).await?;
        member.guard.send_and_receive(&copy.out).await?;
        let (mut rows, mut error) = (0, None);
        loop {
            let (tag, frame) = member.guard.frame().await?;
            match tag {
                b'C' => rows = command_count(command_tag(&frame[5..])).unwrap_or_default(),
                b'E' => error = error.or(Some(frame)),
                b'Z' => return error.map_or(Ok(rows), |frame| Err(Fault::Reported(frame))),
                _ => {}
            }
        }
    }
}
