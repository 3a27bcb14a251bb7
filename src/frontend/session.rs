//! One client's session, from its startup packet to its end: reads frames, hands them on.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;

use super::batch::Batch;
use super::cancel::CancelEntry;
use super::greeting::Startup;
use super::statements::Prepared;
use super::templates::Templates;
use super::worker::Worker;
use crate::backend::{Credential, Login};
use crate::executor::{Client, ClientError, Fault, Session};
use crate::wire::{
    Frame, Malformed, Reply, ServerError, SqlState, TransactionStatus, frame_at, read_query,
};

/// One client's session.
#[derive(Debug)]
pub(super) struct ClientSession {
    pub worker: Arc<Worker>,
    pub client: Client,
    /// The nodes' side.
    pub session: Session,
    pub templates: Arc<Templates>,
    pub database: String,
    /// Prepared statements by the client's names.
    pub statements: HashMap<Vec<u8>, Arc<Prepared>>,
    /// The extended protocol's exchange under way.
    pub batch: Batch,
    _cancel: CancelEntry,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Frame(Frame),
    Gone,
    Stopping,
}

impl ClientSession {
    /// Opens the session of a client that was let in: logs in to the home node with the client's settings, so that the client hears of a wrong
    /// database or setting now; tells the client what a server tells. `Ok(None)` if it was refused.
    pub(super) async fn open(
        worker: Arc<Worker>,
        mut client: Client,
        startup: Startup,
        credential: Credential,
    ) -> Result<Option<Self>, ClientError> {
        let login = Login { user: startup.user, database: startup.database.clone(), credential };
        let pools = worker.pools.of(&login);
        let mut session = Session::new(Arc::clone(&worker.engine), pools, startup.settings);
        if let Err(fault) = greet(&mut session, &mut client).await {
            let told = match fault {
                Fault::Client(error) => return Err(error),
                Fault::Reported(frame) => client.relay(&frame).await,
                other => {
                    client.put_error(&fatal(&other));
                    Ok(())
                }
            };
            told?;
            client.flush().await?;
            return Ok(None);
        }
        let cancel = worker.cancels.enter(Arc::clone(&session.cancel));
        client.put(Reply::BackendKeyData(cancel.key));
        client.put(Reply::Ready(TransactionStatus::Idle));
        let templates = worker.templates.of(&startup.database, &session.search_path);
        Ok(Some(Self {
            worker,
            client,
            session,
            templates,
            database: startup.database,
            statements: HashMap::new(),
            batch: Batch::default(),
            _cancel: cancel,
        }))
    }

    /// Serves the client until it leaves or the proxy stops.
    pub(super) async fn serve(&mut self) -> Result<(), ClientError> {
        loop {
            let frame = match self.next().await? {
                Next::Frame(frame) => frame,
                Next::Gone => return Ok(()),
                Next::Stopping => {
                    let message = "terminating connection due to administrator command";
                    let error = ServerError::fatal(SqlState::ADMIN_SHUTDOWN, message);
                    self.client.put_error(&error);
                    return Ok(self.client.flush().await?);
                }
            };
            let message = self.client.take(frame.len);
            match frame.tag {
                b'X' => return Ok(()),
                b'Q' => self.query(&message).await?,
                // A COPY that has failed meanwhile: what the client still sends is dropped.
                b'd' | b'c' | b'f' => {}
                b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => self.extended(&message).await?,
                b'F' => self.refuse_function_call(),
                _ => {
                    let error = ServerError::fatal(
                        SqlState::PROTOCOL_VIOLATION,
                        format!("invalid frontend message type {}", frame.tag),
                    );
                    self.client.put_error(&error);
                    return Ok(self.client.flush().await?);
                }
            }
        }
    }

    /// The client's next frame. Between transactions a stop of the proxy ends the wait, and what a
    /// pinned connection says on its own reaches the client.
    async fn next(&mut self) -> Result<Next, ClientError> {
        loop {
            if let Some(frame) = frame_at(self.client.incoming())?
                && frame.len <= self.client.incoming().len()
            {
                return Ok(Next::Frame(frame));
            }
            self.client.flush().await?;
            let idle = !self.session.in_transaction() && self.batch.is_empty();
            let stopped = self.worker.tasks.token().clone();
            tokio::select! {
                more = self.client.receive() => {
                    if !more? {
                        return Ok(Next::Gone);
                    }
                }
                () = stopped.cancelled(), if idle => return Ok(Next::Stopping),
                spoke = unsolicited(&mut self.session), if idle => match spoke {
                    Some(bytes) => self.client.relay(&bytes).await?,
                    None => return Ok(Next::Gone),
                },
            }
        }
    }

    /// A simple `Query`.
    async fn query(&mut self, message: &BytesMut) -> Result<(), ClientError> {
        let text = match read_query(&message[5..]) {
            Ok(text) => text,
            Err(fault) => {
                self.malformed(fault);
                self.client.put(Reply::Ready(self.session.status()));
                return Ok(());
            }
        };
        if let Err(fault) = self.simple(text, message).await {
            self.tell(fault).await?;
            self.client.put(Reply::Ready(self.session.status()));
        }
        Ok(())
    }

    /// Tells the client of a fault, and lets go of what the statement held. The session goes on,
    /// unless it is the client itself that is at fault.
    pub(super) async fn tell(&mut self, fault: Fault) -> Result<(), ClientError> {
        match fault {
            Fault::Client(error) => return Err(error),
            Fault::Refused(error) => self.client.put_error(&error),
            Fault::Reported(frame) => self.client.relay(&frame).await?,
            Fault::Backend(error) => {
                tracing::warn!(%error, "a node's connection broke in the middle of a statement");
                self.client.put_error(&ServerError::from(&error));
            }
        }
        self.session.after_error();
        Ok(())
    }

    pub(super) fn malformed(&mut self, fault: Malformed) {
        let error = ServerError::new(SqlState::PROTOCOL_VIOLATION, fault.to_string());
        self.client.put_error(&error);
        self.session.after_error();
    }

    fn refuse_function_call(&mut self) {
        let error = ServerError::refused(
            "the function-call message is not supported",
            "It was superseded by the extended protocol in PostgreSQL 7.4.",
            "Call the function with SELECT.",
        );
        self.client.put_error(&error);
        self.session.after_error();
        self.client.put(Reply::Ready(self.session.status()));
    }

    /// The search path may be another one now: names mean other tables.
    pub(super) fn renew_templates(&mut self) {
        self.templates = self.worker.templates.of(&self.database, &self.session.search_path);
    }
}

/// Logs in to the home node and tells the client the values of the reported settings.
async fn greet(session: &mut Session, client: &mut Client) -> Result<(), Fault> {
    let home = session.engine.live_map.load().home();
    let member = session.member(home).await?;
    for (name, value) in &member.guard.parameters {
        client.put(Reply::ParameterStatus(name, value));
    }
    session.search_path = session.member(home).await?.guard.read_search_path().await?;
    session.finish().await
}

/// What a pinned connection says while nothing was asked of it: a notification, a notice, or its
/// end (`None`). Never returns if nothing is pinned. Cancel safe.
async fn unsolicited(session: &mut Session) -> Option<bytes::Bytes> {
    let Some(member) = session.pinned().next() else { return std::future::pending().await };
    let status = member.guard.status;
    let frame = member.guard.frame().await.ok();
    member.guard.status = status;
    frame.map(|(_, bytes)| bytes)
}

/// The error with which a login ends.
fn fatal(fault: &Fault) -> ServerError {
    let error = match fault {
        Fault::Refused(error) => error.clone(),
        Fault::Backend(error) => ServerError::from(error),
        other => ServerError::new(SqlState::INTERNAL_ERROR, other.to_string()),
    };
    ServerError { severity: crate::wire::Severity::Fatal, ..error }
}
