//! An error or notice as a client sees it: severity, SQLSTATE, message, DETAIL and HINT.

use std::fmt;

/// A five-character SQLSTATE
/// (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    /// `08006`: the connection to a node failed.
    pub const CONNECTION_FAILURE: Self = Self("08006");
    /// `08P01`: the client or a node broke the protocol.
    pub const PROTOCOL_VIOLATION: Self = Self("08P01");
    /// `0A000`: right or refused: this is refused.
    pub const FEATURE_NOT_SUPPORTED: Self = Self("0A000");
    /// `22023`: a value that can't be here.
    pub const INVALID_PARAMETER_VALUE: Self = Self("22023");
    /// `22P02`: not a value of the type.
    pub const INVALID_TEXT_REPRESENTATION: Self = Self("22P02");
    /// `25P01`: it is for transaction blocks only.
    pub const NO_ACTIVE_SQL_TRANSACTION: Self = Self("25P01");
    /// `25P02`: the transaction is aborted.
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self("25P02");
    /// `26000`: no such prepared statement.
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self("26000");
    /// `28000`: this user may not connect in this way.
    pub const INVALID_AUTHORIZATION: Self = Self("28000");
    /// `28P01`: wrong password.
    pub const INVALID_PASSWORD: Self = Self("28P01");
    /// `34000`: no such cursor or portal.
    pub const INVALID_CURSOR_NAME: Self = Self("34000");
    /// `40P01`: transactions wait for each other.
    pub const DEADLOCK_DETECTED: Self = Self("40P01");
    /// `40001`: the client should run the transaction again.
    pub const SERIALIZATION_FAILURE: Self = Self("40001");
    /// `42501`: the user may not.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    /// `42601`: no such statement.
    pub const SYNTAX_ERROR: Self = Self("42601");
    /// `42P05`: a prepared statement of that name exists.
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self("42P05");
    /// `53400`: more than a configured limit.
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self("53400");
    /// `53300`: too many connections.
    pub const TOO_MANY_CONNECTIONS: Self = Self("53300");
    /// `55000`: an object is not in the state that this needs.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self("55000");
    /// `57014`: cancelled, also by a deadline.
    pub const QUERY_CANCELED: Self = Self("57014");
    /// `57P01`: the proxy is stopping.
    pub const ADMIN_SHUTDOWN: Self = Self("57P01");
    /// `57P03`: not ready yet.
    pub const CANNOT_CONNECT_NOW: Self = Self("57P03");
    /// `58000`: the system around the proxy failed.
    pub const SYSTEM_ERROR: Self = Self("58000");
    /// `08007`: it is not known whether a transaction was committed.
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self("08007");
    /// `XX000`: a fault of the proxy itself.
    pub const INTERNAL_ERROR: Self = Self("XX000");
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Nothing failed.
    Warning,
}

impl Severity {
    /// The word of the `S` and `V` fields.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
        }
    }
}

/// An error that the proxy itself reports to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ServerError {
    /// `ERROR` ends the statement, `FATAL` the connection.
    pub severity: Severity,
    /// What a driver decides by.
    pub code: SqlState,
    /// One sentence, lower case, no full stop, as PostgreSQL writes them.
    pub message: String,
    /// Why, where the message can't say it.
    pub detail: Option<String>,
    /// What would work.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl ServerError {
    /// An `ERROR` with a SQLSTATE and a message.
    pub fn new(code: SqlState, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, code, message, detail: None, hint: None, position: None }
    }

    /// A `FATAL` error: the connection ends after it.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, ..Self::new(code, message) }
    }

    /// SQLSTATE 0A000 with why (DETAIL) and what would work (HINT).
    pub fn refused(
        message: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(SqlState::FEATURE_NOT_SUPPORTED, message).with_detail(detail).with_hint(hint)
    }

    /// The same with a DETAIL.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with a HINT.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.0)?;
        if let Some(detail) = &self.detail {
            write!(f, ". {detail}")?;
        }
        Ok(())
    }
}
