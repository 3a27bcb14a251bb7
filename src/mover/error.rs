//! Why an action of a move failed, and whether another try may work.

use std::error::Error;

use crate::catalog::CatalogError;
use crate::runtime::Reached;
use crate::shard_move::InvalidEvent;

/// Why an action of a move failed.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The move can't work: a person has to change something first.
    #[error("{0}")]
    Refused(String),
    /// Both sides of a move have other rows.
    #[error("{text}")]
    Differs {
        /// Which table, and by how much.
        text: String,
        /// Some of the rows, by their keys: for the record, not for logs.
        rows: Vec<String>,
    },
    /// A node refused or broke off a statement.
    #[error("{doing} on node {node} failed")]
    Node {
        /// What was tried.
        doing: &'static str,
        /// The node's name.
        node: String,
        /// What the node or the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A node's walsender refused a command.
    #[error("{doing} on node {node} failed: {message} ({code})")]
    WalSender {
        /// What was tried.
        doing: &'static str,
        /// The node's name.
        node: String,
        /// The SQLSTATE.
        code: String,
        /// What the node said.
        message: String,
    },
    /// The replication connection broke.
    #[error("{doing} on node {node} failed")]
    Transport {
        /// What was tried.
        doing: &'static str,
        /// The node's name.
        node: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The stream of changes is not what the move can apply.
    #[error("the stream of changes can't be applied: {0}")]
    Stream(String),
    /// The copy can't go on from where it was cut off.
    #[error("the copy starts anew: {0}")]
    Anew(String),
    /// It took too long.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// Something is in the way that passes.
    #[error("{0}")]
    Busy(String),
    /// The catalog did not do it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The state machine and its driver disagree.
    #[error(transparent)]
    InvalidEvent(#[from] InvalidEvent),
    /// The proxy is stopping; the stored state is where the next start goes on.
    #[error("stopped")]
    Stopped,
    /// A test wanted it to end here.
    #[error(transparent)]
    Failpoint(#[from] Reached),
}

/// Classes of SQLSTATE and single ones that pass by themselves.
const PASSING: [&str; 8] = ["08", "40", "53", "57", "58", "55P03", "55006", "25P03"];

impl MoveError {
    /// Whether the same action may work at another time.
    pub(super) fn is_passing(&self) -> bool {
        let passing = |code: &str| PASSING.iter().any(|class| code.starts_with(class));
        match self {
            Self::Refused(_) | Self::Differs { .. } | Self::Stream(_) | Self::InvalidEvent(_) => {
                false
            }
            Self::Node { source, .. } => source.code().is_none_or(|code| passing(code.code())),
            Self::WalSender { code, .. } => passing(code),
            Self::Transport { .. }
            | Self::Timeout(_)
            | Self::Busy(_)
            | Self::Anew(_)
            | Self::Catalog(_)
            | Self::Stopped
            | Self::Failpoint(_) => true,
        }
    }

    /// Whether a lock was not to be had in time.
    pub(super) fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Node { source, .. }
            if source.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE))
    }

    /// Whether the driver has to end without another try.
    pub(super) fn ends_the_driver(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failpoint(_))
    }

    /// The whole story for the record and its user: with the keys of rows, which logs don't get.
    pub(super) fn confidential_story(&self) -> String {
        match self {
            Self::Differs { text, rows } if !rows.is_empty() => {
                format!("{text}: {}", rows.join(", "))
            }
            _ => self.story(),
        }
    }

    /// The whole story in one line.
    pub(super) fn story(&self) -> String {
        let mut parts = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            parts.push(match error.downcast_ref::<tokio_postgres::error::DbError>() {
                Some(db) => {
                    let detail = db.detail().map(|detail| format!(". {detail}"));
                    let code = db.code().code();
                    format!("{} ({code}){}", db.message(), detail.unwrap_or_default())
                }
                None => error.to_string(),
            });
            cause = error.source();
        }
        parts.join(": ")
    }
}
