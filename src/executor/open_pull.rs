//! A pull whose rows the client takes in portions: by a cursor, or by a portal with a limit.
//!
//! The rows stand in the merge session's tables; nothing of them is kept in the proxy.

use bytes::{Bytes, BytesMut};

use super::merge_session::MergeSession;
use super::pump::{Verdict, pump};
use super::{Client, Fault};
use crate::backend::CommandError;

/// An open pull. One that is dropped closes its connection.
#[derive(Debug)]
pub struct OpenPull(MergeSession);

/// How a portion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// There may be more.
    More,
    /// With a command tag.
    Done,
    /// With an error that the client was told.
    Failed,
}

impl OpenPull {
    pub(super) fn new(merge: MergeSession) -> Self {
        Self(merge)
    }

    /// Runs messages that end with a `Query` or a `Sync`, and relays the answer without its
    /// `ReadyForQuery`; with the description of columns if `describe`.
    pub async fn run(
        &mut self,
        messages: &[u8],
        describe: bool,
        client: &mut Client,
    ) -> Result<Portion, Fault> {
        self.0.guard.send(messages).await?;
        let mut portion = Portion::Done;
        pump(&mut self.0.guard, client, |tag, _| match tag {
            b'T' if describe => Verdict::Forward,
            b'D' | b'N' | b'C' | b'I' => Verdict::Forward,
            b's' => {
                portion = Portion::More;
                Verdict::Forward
            }
            b'E' => {
                portion = Portion::Failed;
                Verdict::Forward
            }
            b'Z' => Verdict::DropLast,
            _ => Verdict::Drop,
        })
        .await?;
        Ok(portion)
    }

    /// Runs messages that describe a statement or a portal; the frames that do, or an error.
    pub async fn describe(&mut self, messages: &[u8]) -> Result<Bytes, Fault> {
        self.0.guard.send(messages).await?;
        let (mut described, mut error) = (BytesMut::new(), None);
        loop {
            let (tag, frame) = self.0.guard.frame().await?;
            match tag {
                b't' | b'T' | b'n' => described.extend_from_slice(&frame),
                b'E' => error = error.or(Some(frame)),
                b'Z' => break,
                _ => {}
            }
        }
        error.map_or(Ok(described.freeze()), |frame| Err(Fault::Reported(frame)))
    }

    /// Ends it; its connection goes back to its pool.
    pub async fn end(self) -> Result<(), CommandError> {
        self.0.end().await
    }
}
