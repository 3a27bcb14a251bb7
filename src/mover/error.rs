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
    #[error("it starts anew: {0}")]
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
    /// A person does not want it any more.
    #[error("it was called off")]
    CalledOff,
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
            Self::Refused(_)
            | Self::Differs { .. }
            | Self::Stream(_)
            | Self::InvalidEvent(_)
            | Self::CalledOff => false,
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
            _ => self.told(true),
        }
    }

    /// The whole story in one line, without values of rows.
    pub(super) fn story(&self) -> String {
        self.told(false)
    }

    fn told(&self, with_values: bool) -> String {
        let mut parts = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            parts.push(match error.downcast_ref::<tokio_postgres::error::DbError>() {
                Some(db) => said(db.code().code(), (db.message(), db.detail()), with_values),
                None => error.to_string(),
            });
            cause = error.source();
        }
        parts.join(": ")
    }
}

/// What a node says: the message of a data exception (22, but for parameters of statements) and the DETAIL
/// of a violated constraint (23) have values of rows in them.
fn said(code: &str, (message, detail): (&str, Option<&str>), with_values: bool) -> String {
    if code.starts_with("22") && code != "22023" && !with_values {
        return format!("a value was refused ({code})");
    }
    let detail = detail.filter(|_| with_values || !code.starts_with("23"));
    let detail = detail.map(|detail| format!(". {detail}"));
    format!("{message} ({code}){}", detail.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn values_of_rows_are_told_to_the_record_and_not_to_logs() {
        let (message, detail) = ("duplicate key value", Some("Key (email)=(a@b) already exists."));
        assert_eq!(said("23505", (message, detail), false), "duplicate key value (23505)");
        let all = "duplicate key value (23505). Key (email)=(a@b) already exists.";
        assert_eq!(said("23505", (message, detail), true), all);
        let (message, detail) = ("invalid input syntax for type bigint: \"secret\"", None);
        assert_eq!(said("22P02", (message, detail), false), "a value was refused (22P02)");
        assert!(said("22P02", (message, detail), true).contains("secret"));
        let detail = Some("Process 1 waits for ShareLock");
        let all = "deadlock detected (40P01). Process 1 waits for ShareLock";
        assert_eq!(said("40P01", ("deadlock detected", detail), false), all);
    }
}
