//! What can go wrong between the proxy and a node, and what a client hears of it.

use std::io;

use bytes::Bytes;

use crate::wire::{Malformed, ServerError, SqlState};

/// A connection that broke while it was in use.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The socket failed, or the node closed it.
    #[error("the connection to node {node} broke")]
    Broken {
        /// The node's name.
        node: String,
        /// The socket's error.
        #[source]
        source: io::Error,
    },
    /// The node sent what PostgreSQL does not send.
    #[error("node {node} broke the protocol")]
    Protocol {
        /// The node's name.
        node: String,
        /// What was wrong.
        #[source]
        source: Malformed,
    },
    /// What had to come before the client's statement failed, so that nothing of that ran.
    #[error("the transaction could not begin on node {node}: {message}")]
    NotBegun {
        /// The node's name.
        node: String,
        /// The SQLSTATE that it gave.
        code: String,
        /// Its message.
        message: String,
    },
}

impl From<&BackendError> for ServerError {
    fn from(error: &BackendError) -> Self {
        if let BackendError::NotBegun { code, .. } = error {
            let cancelled = SqlState::QUERY_CANCELED;
            let code = if *code == cancelled.0 { cancelled } else { SqlState("25000") };
            return Self::new(code, error.to_string())
                .with_hint("Nothing of the statement was executed. Roll back, and begin again.");
        }
        let detail = std::error::Error::source(error).map(ToString::to_string);
        Self::new(SqlState::CONNECTION_FAILURE, error.to_string())
            .with_detail(detail.unwrap_or_default())
            .with_hint(
                "Whether the statement took effect is not known; check before you repeat it.",
            )
    }
}

/// A connection that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The node refused the login; its own `ErrorResponse` frame, for the client.
    #[error("the node refused the login: {1}")]
    Refused(Bytes, String),
    /// Nobody answers there.
    #[error("node {node} at {address} can't be reached")]
    Unreachable {
        /// The node's name.
        node: String,
        /// Host and port.
        address: String,
        /// The socket's error.
        #[source]
        source: io::Error,
    },
    /// It took longer than the deadline.
    #[error("node {node} did not answer within {timeout_ms} ms")]
    Timeout {
        /// The node's name.
        node: String,
        /// The deadline.
        timeout_ms: u64,
    },
    /// The login went wrong in a way that is not the user's fault.
    #[error("logging in to node {node} failed: {what}")]
    Login {
        /// The node's name.
        node: String,
        /// What went wrong.
        what: String,
    },
    /// All connections of the pool were busy for too long.
    #[error("all {size} connections to node {node} were busy for {timeout_ms} ms")]
    PoolExhausted {
        /// The node's name.
        node: String,
        /// The pool's size.
        size: u32,
        /// How long the statement waited.
        timeout_ms: u64,
    },
}

impl From<&ConnectError> for ServerError {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::PoolExhausted { .. } => {
                Self::new(SqlState::TOO_MANY_CONNECTIONS, error.to_string()).with_hint(
                    "Raise pool_size if the node has connections to spare, or run fewer \
                     transactions at a time.",
                )
            }
            _ => Self::new(SqlState::CONNECTION_FAILURE, error.to_string())
                .with_detail(
                    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default(),
                )
                .with_hint("Nothing was executed; it is safe to try again."),
        }
    }
}
