//! The proxy's own statements on a client's connection: BEGIN, PREPARE TRANSACTION, settings.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::{BackendError, Connection, Settings};
use crate::wire::{
    Reader, ServerError, SqlState, put_command_as, put_frame, put_query, read_error,
};

/// Most rows that the answer to one of the proxy's own statements may have.
const ROWS_MAX: usize = 10_000;

/// A statement and a portal of the proxy's own on a server.
const ASIDE: &[u8] = b"foreshard_aside";

/// So often a statement is repeated that was cancelled though nobody has meant it.
const ATTEMPTS: usize = 8;

/// How long a server may take for what takes it no time.
const QUICK: Duration = Duration::from_secs(10);

/// The answer to one of the proxy's own statements.
#[derive(Debug, Default)]
pub struct Command {
    /// The rows' values as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// A value was no UTF-8, so that it is not whole here.
    garbled: bool,
}

impl Command {
    /// The rows, for statements that get their values.
    ///
    /// # Errors
    /// 22021: a value is not UTF-8.
    pub fn whole_rows(self) -> Result<Vec<Vec<Option<String>>>, ServerError> {
        if !self.garbled {
            return Ok(self.rows);
        }
        let message = "a value that the statement needs is not valid in the encoding \"UTF8\"";
        Err(ServerError::new(SqlState("22021"), message)
            .with_hint("Mend the value, or bind the shard key, so that one node does the whole."))
    }
}

/// Why one of the proxy's own statements failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The connection broke.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The node said no; its `ErrorResponse` frame, for the client.
    #[error("{code}: {message}")]
    Reported {
        /// The whole frame.
        frame: Bytes,
        /// Its SQLSTATE.
        code: String,
        /// Its message.
        message: String,
    },
}

impl CommandError {
    /// Whether it was cancelled, by a request or a timeout.
    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Reported { code, .. } if *code == SqlState::QUERY_CANCELED.0)
    }
}

impl Connection {
    /// Runs `sql` by the simple protocol and keeps its few rows. Not cancel safe: a connection that
    /// was cut off here must be dropped, and is, as its status is unknown.
    pub async fn command(&mut self, sql: &str) -> Result<Command, CommandError> {
        let mut out = BytesMut::new();
        put_query(sql, &mut out);
        self.send(&out).await?;
        self.finish_command().await
    }

    /// The same for what takes a server no time: one that does not answer counts as broken.
    pub(super) async fn quick_command(&mut self, sql: &str) -> Result<Command, CommandError> {
        match timeout(QUICK, self.command(sql)).await {
            Ok(done) => done,
            Err(_) => Err(self.broken(io::ErrorKind::TimedOut.into()).into()),
        }
    }

    /// The same outside of a transaction for what the client does not know of: a cancel request that
    /// comes late does not hit it, nor does a `statement_timeout` that is very short.
    pub(super) async fn quick_command_anyway(
        &mut self,
        sql: &str,
    ) -> Result<Command, CommandError> {
        for _ in 1..ATTEMPTS {
            match self.quick_command(sql).await {
                Err(error) if error.is_cancelled() => {}
                done => return done,
            }
        }
        self.quick_command(sql).await
    }

    /// The same between a client's messages of the extended protocol, should some have been sent
    /// without a `Sync` behind them: their transaction goes on, and the unnamed statement and portal
    /// stay. All that they are answered with must have been taken.
    pub async fn command_aside(&mut self, sql: &str) -> Result<Command, CommandError> {
        let within = self.status.is_none();
        let mut out = BytesMut::new();
        put_command_as(ASIDE, sql, &mut out);
        for what in [b"P", b"S"] {
            put_frame(b'C', &mut out, |out| out.extend_from_slice(&[what, ASIDE, b"\0"].concat()));
        }
        put_frame(if within { b'H' } else { b'S' }, &mut out, |_| ());
        self.send(&out).await?;
        let mut closed = 0;
        self.finish(|tag| {
            closed += u32::from(tag == b'3');
            // After an error the server waits for a Sync, which is the client's.
            tag == b'Z' || within && (tag == b'E' || closed == 2)
        })
        .await
    }

    /// Reads the answer to a statement that was sent.
    pub async fn finish_command(&mut self) -> Result<Command, CommandError> {
        self.finish(|tag| tag == b'Z').await
    }

    async fn finish(
        &mut self,
        mut is_last: impl FnMut(u8) -> bool,
    ) -> Result<Command, CommandError> {
        let (mut command, mut reported) = (Command::default(), None);
        loop {
            let (tag, frame) = self.frame().await?;
            match tag {
                b'D' if command.rows.len() < ROWS_MAX => {
                    command.rows.push(text_row(&frame[5..], &mut command.garbled));
                }
                b'A' => self.notifications.push(frame),
                b'E' => reported = reported.or(Some(frame)),
                _ => {}
            }
            if is_last(tag) {
                break;
            }
        }
        match reported {
            None => Ok(command),
            Some(frame) => {
                let error = read_error(&frame[5..]);
                Err(CommandError::Reported { frame, code: error.code, message: error.message })
            }
        }
    }

    /// Gives it a session's settings, if it has others. The client must not see what the server
    /// says meanwhile: it knows these values already.
    pub async fn adopt(&mut self, settings: &Arc<Settings>) -> Result<(), CommandError> {
        if Arc::ptr_eq(&self.settings, settings) {
            return Ok(());
        }
        if *self.settings != **settings {
            for sql in settings.adopt_from(&self.settings) {
                self.quick_command_anyway(&sql).await?;
                // Between two texts it has none.
                self.settings = Arc::default();
            }
        }
        self.settings = Arc::clone(settings);
        Ok(())
    }
}

/// The values of a `DataRow`'s body; it comes from the proxy's own statement, in text.
fn text_row(body: &[u8], garbled: &mut bool) -> Vec<Option<String>> {
    let mut reader = Reader::new(body);
    let count = reader.count(4).unwrap_or_default();
    (0..count)
        .map_while(|_| reader.value().ok())
        .map(|value| {
            let text = String::from_utf8_lossy(value?);
            *garbled |= matches!(text, Cow::Owned(_));
            Some(text.into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Command, text_row};
    use crate::wire::SqlState;

    #[test]
    fn a_value_that_is_not_utf8_is_not_taken_for_another() {
        let body = b"\0\x02\0\0\0\x04caf\xc3\0\0\0\x01x";
        let mut command = Command::default();
        command.rows.push(text_row(body, &mut command.garbled));
        assert_eq!(command.rows[0][1].as_deref(), Some("x"));
        assert_eq!(command.whole_rows().unwrap_err().code, SqlState("22021"));
    }
}
