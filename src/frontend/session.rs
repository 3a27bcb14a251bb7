//! One client's session, from its startup packet to its end: reads frames, hands them on.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use foldhash::HashMap;
use tokio::time::Instant;

use super::batch::{Batch, Name};
use super::cancel::{CancelEntry, Who};
use super::cursors::Cursors;
use super::greeting::Startup;
use super::simple::utf8;
use super::statements::Prepared;
use super::templates::Templates;
use super::worker::Worker;
use crate::backend::{Credential, Login};
use crate::executor::{Client, ClientError, Cost, Fault, Session};
use crate::ids::NodeId;
use crate::load::{Access, Sieve};
use crate::router::{Leaves, TextShape};
use crate::runtime::{Stopped, apart, aside};
use crate::wire::{
    FIRST_USER_OID, Frame, Malformed, Reader, Reply, ServerError, SqlState, TransactionStatus,
    as_fatal, read_query,
};

/// One client's session.
#[derive(Debug)]
pub(super) struct ClientSession {
    pub worker: Arc<Worker>,
    pub client: Client,
    /// The nodes' side.
    pub session: Session,
    pub templates: Arc<Templates>,
    /// Of the text that was read last.
    pub shape: TextShape,
    /// Who has logged in.
    pub user: Arc<str>,
    pub database: String,
    /// Prepared statements by the client's names.
    pub statements: HashMap<Name, Arc<Prepared>>,
    /// The extended protocol's exchange under way.
    pub batch: Batch,
    /// Cursors, and portals that are read in portions.
    pub cursors: Cursors,
    /// Which of its statements are looked at more closely.
    pub sieve: Sieve,
    /// Nothing has touched the exchange under way or cursors since there was none: told by one byte, as
    /// each statement asks.
    alone: bool,
    /// How many statements run around the one that runs.
    pub steps_deep: usize,
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
        (credential, address): (Credential, Option<IpAddr>),
    ) -> Result<Option<Self>, ClientError> {
        let user: Arc<str> = startup.user.as_str().into();
        let login = Login { user: startup.user, database: startup.database.clone(), credential };
        let pools = worker.pools.of(&login);
        let mut session = Session::new(Arc::clone(&worker.engine), pools, startup.settings);
        if let Err(fault) = greet(&mut session, &mut client).await {
            let told = match fault {
                Fault::Client(error) => return Err(error),
                Fault::Reported(frame) => client.relay(&as_fatal(&frame)).await,
                other => {
                    client.put_error(&fatal(&other));
                    Ok(())
                }
            };
            told?;
            client.flush().await?;
            return Ok(None);
        }
        client.belongs_to(&session.cancel, &worker.engine);
        let (of, database) = (Arc::clone(&user), startup.database.clone());
        let who = Who { user: of, database, address, since: Instant::now() };
        let cancel = worker.cancels.enter(startup.minor, Arc::clone(&session.cancel), who);
        client.put(Reply::BackendKeyData(&cancel.key));
        client.put(Reply::Ready(TransactionStatus::Idle));
        let (path, strings) = (&session.search_path, session.strings());
        let templates = worker.templates.of(&startup.database, path, strings);
        Ok(Some(Self {
            worker,
            client,
            session,
            templates,
            shape: TextShape::default(),
            user,
            database: startup.database,
            statements: HashMap::default(),
            batch: Batch::default(),
            cursors: Cursors::default(),
            sieve: Sieve::new(rand::random()),
            alone: false,
            steps_deep: 0,
            _cancel: cancel,
        }))
    }

    /// Serves the client until it leaves or the proxy stops.
    pub(super) async fn serve(&mut self) -> Result<(), ClientError> {
        let mut stopped = Stopped::new(self.worker.tasks.token().clone());
        loop {
            if let Err(error) = self.session.check_not_lost() {
                self.client.put_error(&error);
                return Ok(self.client.flush().await?);
            }
            let next = match self.client.whole_frame()? {
                Some(frame) => Next::Frame(frame),
                None => self.next(&mut stopped).await?,
            };
            let frame = match next {
                Next::Frame(frame) => frame,
                Next::Gone => return Ok(()),
                Next::Stopping => {
                    let message = "terminating connection due to administrator command";
                    let error = ServerError::fatal(SqlState::ADMIN_SHUTDOWN, message);
                    self.client.put_error(&error);
                    return Ok(self.client.flush().await?);
                }
            };
            self.session.cancel.forget_request();
            if self.is_alone() && self.short_way(frame).await? {
                continue;
            }
            self.alone = false;
            if matches!(frame.tag, b'd' | b'c' | b'f') && self.starts_copy() {
                // The COPY that it belongs to is still to be sent.
                if let Err(fault) = aside(|| self.on_flush()).await {
                    aside(|| self.fail_batch(fault)).await?;
                }
                continue;
            }
            let message = self.client.take(frame.len);
            match frame.tag {
                b'X' => return Ok(()),
                // After an error everything up to `Sync` is skipped, whatever it is.
                b'Q' | b'F' if self.batch.skipping => {}
                b'Q' => apart(self.query(&message)).await?,
                // A COPY that has failed meanwhile: what the client still sends is dropped.
                b'd' | b'c' | b'f' => {}
                b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => {
                    apart(self.extended(&message)).await?;
                }
                b'F' => aside(|| self.function_call(&message)).await?,
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

    /// Whether nothing is under way in the extended protocol, and there are no cursors.
    fn is_alone(&mut self) -> bool {
        if !self.alone {
            let free = self.batch.is_empty() && !self.batch.skipping;
            self.alone = free && self.cursors.is_empty();
        }
        self.alone
    }

    /// Does what begins with this frame, where nothing else is under way, if it is one statement of one key:
    /// most are. If not, nothing has happened.
    async fn short_way(&mut self, frame: Frame) -> Result<bool, ClientError> {
        match frame.tag {
            b'Q' => {
                let message = self.client.take(frame.len);
                let Some((node, cost)) = self.point_query(&message) else {
                    self.client.give_back(message);
                    return Ok(false);
                };
                if let Some(ride) = self.board(node, &message, &cost)
                    && let Err(fault) = self.session.ride(node, ride).await
                {
                    aside(|| self.tell_ready(fault)).await?;
                    return Ok(true);
                }
                let run = self.session.run_query(node, &message, &mut self.client, &cost);
                if let Err(fault) = run.await {
                    aside(|| self.tell_ready(fault)).await?;
                }
                Ok(true)
            }
            b'P' | b'B' => match self.whole_exchange() {
                Some(exchange) => self.exchange(exchange).await,
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// The client's next frame. Between transactions a stop of the proxy ends the wait, and what a
    /// pinned connection says on its own reaches the client.
    async fn next(&mut self, stopped: &mut Stopped) -> Result<Next, ClientError> {
        loop {
            if let Some(frame) = self.client.whole_frame()? {
                return Ok(Next::Frame(frame));
            }
            let idle = !self.session.in_transaction() && (self.alone || self.batch.is_empty());
            if idle && self.session.holds_any() {
                aside(|| self.relay_notifications()).await?;
            }
            if !self.client.flush_at_once()? {
                aside(|| self.client.flush()).await?;
            }
            if idle && self.session.holds_any() {
                if let Some(ended) = aside(|| self.hear(stopped)).await? {
                    return Ok(ended);
                }
                continue;
            }
            let client = &mut self.client;
            let more = poll_fn(|context| {
                if idle && stopped.poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                client.poll_receive(context).map(Some)
            });
            match more.await {
                None => return Ok(Next::Stopping),
                Some(more) => {
                    if !more? {
                        return Ok(Next::Gone);
                    }
                }
            }
        }
    }

    /// Hears what a client says that holds a connection between transactions, and what its node says on
    /// its own.
    async fn hear(&mut self, stopped: &mut Stopped) -> Result<Option<Next>, ClientError> {
        tokio::select! {
            biased;
            () = stopped.wait() => return Ok(Some(Next::Stopping)),
            more = self.client.receive() => {
                if !more? {
                    return Ok(Some(Next::Gone));
                }
            }
            spoke = unsolicited(&mut self.session) => match spoke {
                Some(bytes) => self.client.relay(&bytes).await?,
                None => return Ok(Some(Next::Gone)),
            },
        }
        Ok(None)
    }

    /// Passes on what came beside answers to statements of the proxy's own.
    async fn relay_notifications(&mut self) -> Result<(), ClientError> {
        let waiting = self.session.pinned().flat_map(|m| m.guard.notifications.drain(..));
        for frame in waiting {
            self.client.relay(&frame).await?;
        }
        Ok(())
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
        if !self.batch.is_empty() {
            match self.query_in_batch().await {
                Err(fault) => return self.fail_batch(fault).await,
                Ok(_) if self.batch.skipping => return Ok(()),
                Ok(Some(node)) => return self.query_at(node, text, message).await,
                Ok(None) => {}
            }
        }
        if let Err(fault) = self.simple(text, message).await {
            self.tell_ready(fault).await?;
        }
        if self.cursors.may_end() {
            self.end_cursors().await;
        }
        Ok(())
    }

    /// A `Query` that ends an exchange with `node`.
    async fn query_at(
        &mut self,
        node: NodeId,
        text: &[u8],
        message: &BytesMut,
    ) -> Result<(), ClientError> {
        let run = async {
            let template = self.template(utf8(text)?);
            self.prepare_node(&template, node).await?;
            self.note_control(&template);
            let cost = Cost::none(Access::Write);
            self.session.run_query(node, message, &mut self.client, &cost).await?;
            self.after_statement(&template).await
        };
        if let Err(fault) = run.await {
            self.tell_ready(fault).await?;
        }
        Ok(())
    }

    /// Tells the client of a fault, and lets go of what the statement held. The session goes on,
    /// unless it is the client itself that is at fault.
    pub(super) async fn tell(&mut self, fault: Fault) -> Result<(), ClientError> {
        match fault {
            Fault::Client(error) => return Err(error),
            Fault::Refused(error) => self.client.put_error(&error),
            Fault::Reported(frame) => self.client.relay_error(&frame).await?,
            Fault::Backend(error) => {
                tracing::warn!(%error, "a node's connection broke in the middle of a statement");
                self.client.put_error(&ServerError::from(&error));
            }
        }
        self.session.after_error();
        Ok(())
    }

    /// The same, and that the session goes on.
    pub(super) async fn tell_ready(&mut self, fault: Fault) -> Result<(), ClientError> {
        self.tell(fault).await?;
        self.ready();
        Ok(())
    }

    /// All that was sent is done; the client hears of settings that have changed.
    pub(super) fn ready(&mut self) {
        self.session.tell_reports(&mut self.client);
        self.client.put(Reply::Ready(self.session.status()));
    }

    pub(super) fn malformed(&mut self, fault: Malformed) {
        let error = ServerError::new(SqlState::PROTOCOL_VIOLATION, fault.to_string());
        self.client.put_error(&error);
        self.session.after_error();
    }

    /// The function-call message, by which libpq works on large objects: they are on the home node.
    async fn function_call(&mut self, message: &BytesMut) -> Result<(), ClientError> {
        let called = async {
            let map = self.worker.engine.live_map.snapshot();
            let own = Reader::new(&message[5..]).u32().is_ok_and(|oid| oid < FIRST_USER_OID);
            if !own && !self.is_plain() {
                return Err(ServerError::refused(
                    "the function-call message is not supported for functions of the user's",
                    "They may name sharded tables.",
                    "Call the function with SELECT.",
                )
                .into());
            }
            self.session.check_not_failed()?;
            let home = map.home();
            self.session.member(home).await?;
            self.session.will_leave(home, Leaves::Unknown, &[]);
            let cost = Cost::none(Access::Write);
            self.session.run_query(home, message, &mut self.client, &cost).await
        };
        if let Err(fault) = called.await {
            self.tell_ready(fault).await?;
        }
        Ok(())
    }

    /// Whether COPY data would belong to a statement that no node has got yet.
    fn starts_copy(&self) -> bool {
        !self.batch.skipping && !self.batch.out.is_empty()
    }

    /// Whether no table that the session can name is sharded or a reference table.
    pub(super) fn is_plain(&self) -> bool {
        let map = self.worker.engine.live_map.load();
        map.tables().is_empty() || self.database != map.database()
    }

    /// Refuses what the proxy would read in another way than the server: text beyond ASCII in an
    /// encoding that is not UTF-8, where a key may be in it.
    pub(super) fn check_encoding(&self, bytes: &[u8]) -> Result<(), ServerError> {
        if bytes.is_ascii() || self.is_plain() {
            return Ok(());
        }
        self.check_utf8_session()
    }

    /// Refuses a session whose `client_encoding` is not UTF8.
    pub(super) fn check_utf8_session(&self) -> Result<(), ServerError> {
        match self.session.reported.get("client_encoding").map(String::as_str) {
            None | Some("UTF8" | "SQL_ASCII") => Ok(()),
            Some(other) => Err(ServerError::refused(
                format!("text beyond ASCII in the encoding {other} is not supported"),
                "The proxy reads shard keys in UTF-8.",
                "Set client_encoding to UTF8.",
            )),
        }
    }

    /// The search path may be another one now: names mean other tables.
    pub(super) fn renew_templates(&mut self) {
        let (path, strings) = (&self.session.search_path, self.session.strings());
        self.templates = self.worker.templates.of(&self.database, path, strings);
    }
}

/// Logs in to the home node and tells the client the values of the reported settings.
async fn greet(session: &mut Session, client: &mut Client) -> Result<(), Fault> {
    let home = session.engine.live_map.load().home();
    session.member(home).await?;
    session.tell_reports(client);
    client.put_reports();
    session.expect_settings_change();
    session.finish().await?;
    Ok(session.check_not_lost()?)
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
