//! What ends a statement, or a session.

use bytes::Bytes;

use super::ClientError;
use crate::backend::{BackendError, CommandError, ConnectError};
use crate::catalog::CatalogError;
use crate::wire::{ServerError, SqlState};

/// Why a statement did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The proxy's own error, for the client.
    #[error(transparent)]
    Refused(#[from] ServerError),
    /// A node's `ErrorResponse` to something that the proxy asked, for the client as it is.
    #[error("a node reported an error")]
    Reported(Bytes),
    /// A node's connection broke in the middle of a statement.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The client is gone or talks nonsense: the session ends.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Client(error.into())
    }
}

impl From<ConnectError> for Fault {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused(frame, _) => Self::Reported(frame),
            other => Self::Refused(ServerError::from(&other)),
        }
    }
}

impl From<CommandError> for Fault {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Backend(error) => Self::Backend(error),
            CommandError::Reported { frame, .. } => Self::Reported(frame),
        }
    }
}

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let (code, hint) = match error {
            CatalogError::Unknown => (
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "Whether it took place is decided once the catalog answers, on all nodes alike: look \
                 for its rows then.",
            ),
            CatalogError::Replaced => {
                (SqlState::CANNOT_CONNECT_NOW, "Connect to the proxy that took over.")
            }
            _ => (
                SqlState::SYSTEM_ERROR,
                "Look at the proxy's log, and at its catalog: the disk of its data folder, or etcd.",
            ),
        };
        Self::Refused(
            ServerError::new(code, error.to_string())
                .with_detail(cause.unwrap_or_default())
                .with_hint(hint),
        )
    }
}
