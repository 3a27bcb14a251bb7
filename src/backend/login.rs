//! Opening a connection: startup packet, authentication, until the node is ready.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use super::proof::Proof;
use super::{
    BackendError, ConnectError, Connection, Credential, Moment, NodeAddress, PreparedNumbers,
    Stream, Trace,
};
use crate::ids::NodeId;
use crate::wire::{CancelKey, Reader, put_startup, read_error};

/// Whom a connection logs in as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// With what it proves to be that role.
    pub credential: Credential,
}

impl Connection {
    /// Connects to a node and logs in, within the deadline.
    pub async fn open(
        node: NodeId,
        address: &NodeAddress,
        login: &Login,
        deadline: Duration,
    ) -> Result<Self, ConnectError> {
        Self::open_with(node, address, login, deadline, &[]).await
    }

    /// The same with further startup parameters, such as `replication`.
    pub async fn open_with(
        node: NodeId,
        address: &NodeAddress,
        login: &Login,
        deadline: Duration,
        extra: &[(&str, &str)],
    ) -> Result<Self, ConnectError> {
        let opened = timeout(deadline, async {
            let stream =
                Stream::connect(address).await.map_err(|source| ConnectError::Unreachable {
                    node: address.name.clone(),
                    address: format!("{}:{}", address.host, address.port),
                    source,
                })?;
            let mut connection = Self::new(node, &address.name, &login.user, stream);
            connection.log_in(login, extra).await?;
            connection.enter(address, &login.database).await?;
            Ok(connection)
        });
        let timeout_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        opened
            .await
            .map_err(|_| ConnectError::Timeout { node: address.name.clone(), timeout_ms })?
    }

    fn new(node: NodeId, node_name: &str, user: &str, stream: Stream) -> Self {
        Self {
            stream,
            incoming: BytesMut::new(),
            node_name: node_name.into(),
            user: user.into(),
            node,
            key: CancelKey { pid: 0, secret: 0 },
            status: None,
            parameters: Arc::default(),
            notifications: Vec::new(),
            reports: 0,
            rows: 0,
            settings: Arc::default(),
            prepared: PreparedNumbers::default(),
            trace: Trace::default(),
            own_commands: 0,
            shared: false,
            opened_at: Moment::now(),
            idle_since: Moment::now(),
        }
    }

    async fn log_in(&mut self, login: &Login, extra: &[(&str, &str)]) -> Result<(), ConnectError> {
        let mut out = BytesMut::new();
        let mut parameters =
            vec![("user", login.user.as_str()), ("database", login.database.as_str())];
        parameters.extend_from_slice(extra);
        put_startup(&parameters, &mut out);
        self.send(&out).await.map_err(|error| self.failed(&error))?;
        let mut proof = Proof::new(login, self.stream.end_point());
        loop {
            let (tag, frame) = self.frame().await.map_err(|error| self.failed(&error))?;
            let body = frame.get(5..).unwrap_or_default();
            match tag {
                b'R' => {
                    let answer = proof.answer(body).map_err(|what| self.failed(&what))?;
                    if let Some(answer) = answer {
                        self.send(&answer).await.map_err(|error| self.failed(&error))?;
                    }
                }
                b'K' => self.key = cancel_key(body),
                b'E' => return Err(ConnectError::Refused(frame.clone(), read_error(body).message)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    fn failed(&self, what: &dyn std::fmt::Display) -> ConnectError {
        ConnectError::Login { node: self.node_name.to_string(), what: what.to_string() }
    }
}

fn cancel_key(body: &[u8]) -> CancelKey {
    let mut reader = Reader::new(body);
    let (pid, secret) = (reader.i32(), reader.i32());
    CancelKey { pid: pid.unwrap_or_default(), secret: secret.unwrap_or_default() }
}

impl From<BackendError> for ConnectError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Broken { node, source } => Self::Login { node, what: source.to_string() },
            BackendError::Protocol { node, source } => {
                Self::Login { node, what: source.to_string() }
            }
            BackendError::NotBegun { node, message, .. } => Self::Login { node, what: message },
        }
    }
}
