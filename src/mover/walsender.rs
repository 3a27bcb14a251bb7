//! A replication connection: slots with exported snapshots, and the stream of a slot's changes.
//! <https://www.postgresql.org/docs/15/protocol-replication.html>

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::timeout;

use super::context::MoverContext;
use super::error::MoveError;
use super::names;
use super::session::application_name;
use crate::backend::BackendError;
use crate::backend::CommandError;
use crate::backend::ConnectError;
use crate::backend::{Connection, Login};
use crate::ids::{Lsn, NodeId};
use crate::shard_move::Move;
use crate::sql::Literal;
use crate::wire::{put_frame, put_query, read_error};

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest wait for a command that does not wait for others.
const QUICK: Duration = Duration::from_secs(30);

/// How much of the stream is received while something else is waited for, in bytes: about what one
/// transaction at the destination is made of. More of it waits at the source.
const READ_AHEAD: usize = 4 << 20;

/// A connection in replication mode.
pub(super) struct WalSender {
    connection: Connection,
    node: String,
}

/// A slot that was just made; its snapshot lives until the connection's next command.
pub(super) struct NewSlot {
    /// Commits before it are in the snapshot, those from it on are in the stream.
    pub(super) consistent: Lsn,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub(super) snapshot: String,
}

/// One message of the stream.
pub(super) enum Received {
    /// A message of the output plug-in.
    Data(Bytes),
    /// The server has sent everything before this position.
    KeepAlive {
        /// The position.
        end: Lsn,
        /// Whether it wants an answer now.
        wants_reply: bool,
    },
}

impl WalSender {
    /// Connects to `node` for `mv`, with settings that make text mean the same on every node.
    pub(super) async fn open(
        context: &MoverContext,
        mv: &Move,
        node: NodeId,
    ) -> Result<Self, MoveError> {
        let address = context.address(node)?;
        let login = Login {
            user: address.user.clone(),
            database: context.live_map.load().database().to_owned(),
            credential: address.password.clone().into(),
        };
        let name = application_name(mv);
        let extra = [
            ("replication", "database"),
            ("application_name", name.as_str()),
            // The names that regclass and its kin stand for come qualified.
            ("options", "-c search_path="),
            ("client_encoding", "UTF8"),
            ("datestyle", "ISO"),
            ("intervalstyle", "postgres"),
            ("extra_float_digits", "3"),
            ("timezone", "UTC"),
            ("bytea_output", "hex"),
            ("lc_monetary", "C"),
            ("statement_timeout", "0"),
            ("wal_sender_timeout", "60s"),
        ];
        let connection = Connection::open_with(node, address, &login, CONNECT, &extra)
            .await
            .map_err(|error| refused_login(&error, &address.name))?;
        Ok(Self { connection, node: address.name.clone() })
    }

    /// Makes a slot with an exported snapshot. Waits for every transaction that has written and is
    /// still open on the node, also prepared ones.
    pub(super) async fn create_slot(
        &mut self,
        name: &str,
        temporary: bool,
        deadline: Duration,
    ) -> Result<NewSlot, MoveError> {
        let doing = "making a replication slot (it waits for the transactions that run)";
        let temporary = if temporary { "TEMPORARY " } else { "" };
        let sql = format!(
            "CREATE_REPLICATION_SLOT {} {temporary}LOGICAL pgoutput (SNAPSHOT 'export')",
            names::quoted(name)
        );
        let command = timeout(deadline, self.connection.command(&sql));
        let command = command.await.map_err(|_| MoveError::Timeout(doing))?;
        let command = command.map_err(|error| self.failed(doing, error))?;
        let mut values = command.rows.into_iter().flatten().skip(1);
        let consistent = values.next().flatten().and_then(|text| text.parse().ok());
        let snapshot = values.next().flatten();
        match (consistent, snapshot) {
            (Some(consistent), Some(snapshot)) => Ok(NewSlot { consistent, snapshot }),
            _ => Err(MoveError::Stream("the node made a slot without a snapshot".to_owned())),
        }
    }

    /// Starts the stream of a slot, from `position` or where the slot stands if that is later.
    pub(super) async fn start(
        &mut self,
        slot: &str,
        position: Lsn,
        publication: &str,
    ) -> Result<(), MoveError> {
        let doing = "starting the stream of changes";
        let publication = names::quoted(publication);
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {position} \
             (proto_version '1', messages 'true', publication_names {})",
            names::quoted(slot),
            Literal(&publication)
        );
        let mut out = BytesMut::new();
        put_query(&sql, &mut out);
        let started = timeout(QUICK, async {
            self.connection.send(&out).await?;
            loop {
                let (tag, frame) = self.connection.frame().await?;
                match tag {
                    b'W' => return Ok(()),
                    b'E' => return Err(reported(frame)),
                    _ => {}
                }
            }
        });
        let started = started.await.map_err(|_| MoveError::Timeout(doing))?;
        started.map_err(|error| self.failed(doing, error))
    }

    /// The next message of the stream. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<Received, MoveError> {
        let doing = "receiving the stream of changes";
        loop {
            let received = self.connection.frame().await;
            let (tag, mut frame) = received.map_err(|error| self.failed(doing, error.into()))?;
            match tag {
                b'd' => {
                    frame.advance(5);
                    if let Some(received) = received_in(frame)? {
                        return Ok(received);
                    }
                }
                b'E' => return Err(self.failed(doing, reported(frame))),
                b'c' => return Err(MoveError::Busy("the node ended the stream".to_owned())),
                _ => {}
            }
        }
    }

    /// Does something else and receives meanwhile what the source sends, so that it need not wait, either.
    /// Should the connection break, whoever wants the next message hears of it.
    pub(super) async fn receive_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        while self.connection.incoming().len() < READ_AHEAD {
            tokio::select! {
                biased;
                done = &mut work => return done,
                received = self.connection.receive() => if received.is_err() { break },
            }
        }
        work.await
    }

    /// Whether a whole message is there already.
    pub(super) fn has_message(&mut self) -> bool {
        let len = self.connection.peek().ok().flatten().map(|frame| frame.len);
        len.is_some_and(|len| len <= self.connection.incoming().len())
    }

    /// Tells the node that everything before `position` is safe at the destination.
    pub(super) async fn report(
        &mut self,
        position: Lsn,
        wants_reply: bool,
    ) -> Result<(), MoveError> {
        let mut out = BytesMut::with_capacity(48);
        put_frame(b'd', &mut out, |out| {
            out.put_u8(b'r');
            for _ in ["written", "flushed", "applied"] {
                out.put_u64(position.0);
            }
            out.put_i64(0);
            out.put_u8(u8::from(wants_reply));
        });
        let doing = "reporting the applied position";
        let sent = timeout(QUICK, self.connection.send_more(&out)).await;
        let sent = sent.map_err(|_| MoveError::Timeout(doing))?;
        sent.map_err(|error| self.failed(doing, error.into()))
    }

    fn failed(&self, doing: &'static str, error: CommandError) -> MoveError {
        let node = self.node.clone();
        match error {
            CommandError::Reported { code, message, .. } => {
                MoveError::WalSender { doing, node, code, message }
            }
            CommandError::Backend(BackendError::Broken { source, .. }) => {
                MoveError::Transport { doing, node, source }
            }
            CommandError::Backend(error) => MoveError::Busy(format!("{doing}: {error}")),
        }
    }
}

/// A login that failed: a refusal stays one, the rest passes.
fn refused_login(error: &ConnectError, node: &str) -> MoveError {
    match error {
        ConnectError::Refused(frame, _) => {
            let error = read_error(frame.get(5..).unwrap_or_default());
            MoveError::WalSender {
                doing: "opening a replication connection",
                node: node.to_owned(),
                code: error.code,
                message: error.message,
            }
        }
        error => MoveError::Busy(error.to_string()),
    }
}

fn reported(frame: Bytes) -> CommandError {
    let error = read_error(frame.get(5..).unwrap_or_default());
    CommandError::Reported { frame, code: error.code, message: error.message }
}

/// What a CopyData message holds; `None` for a kind that is not known.
fn received_in(mut body: Bytes) -> Result<Option<Received>, MoveError> {
    let short = || MoveError::Stream("a message ends too early".to_owned());
    match body.first() {
        Some(b'w') if body.len() >= 25 => {
            body.advance(25);
            Ok(Some(Received::Data(body)))
        }
        Some(b'k') if body.len() >= 18 => {
            body.advance(1);
            let end = Lsn(body.get_u64());
            body.advance(8);
            Ok(Some(Received::KeepAlive { end, wants_reply: body.get_u8() == 1 }))
        }
        Some(b'w' | b'k') | None => Err(short()),
        Some(_) => Ok(None),
    }
}
