//! PostgreSQL's wire protocol, version 3: frames, the messages that the proxy reads or makes itself.
//!
//! The only room that knows the message crate. Works on bytes, never on sockets.

mod copy_text;
mod error;
mod frame;
mod md5;
mod oids;
mod reader;
mod replies;
mod requests;
mod scram;
mod startup;

pub use copy_text::{put_copy_text, put_with_backslashes};
pub use error::{ServerError, Severity, SqlState};
pub use frame::{FRAME_MAX, Frame, HEADER, frame_at, put_frame};
pub use md5::{is_md5_verifier, md5_answer, md5_verifier};
pub use oids::{FIRST_USER_OID, OidKind, OidPlace, user_oids};
pub use reader::{Malformed, Reader};
pub use replies::{
    Reply, ReportedError, as_fatal, command_count, command_tag, data_row, parameter_status,
    read_error,
};
pub use requests::{
    Bind, Parse, Target, body, put_command, put_command_as, put_parse, put_query, read_query,
    read_target, with_statement,
};
pub use scram::{
    SCRAM, SCRAM_PLUS, ScramClient, ScramDenied, ScramKeys, ScramSecret, ScramServer, ScramVerifier,
};
pub use startup::{
    CancelKey, ClientKey, FirstPacket, NEWEST_MINOR, TLS_REQUEST, first_packet, put_startup,
};

/// What a session's last `ReadyForQuery` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside a transaction.
    Idle,
    /// Inside a transaction.
    Open,
    /// Inside a transaction that can only be rolled back.
    Failed,
}

impl TransactionStatus {
    /// From the byte of a `ReadyForQuery`; anything unknown counts as failed.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            b'I' => Self::Idle,
            b'T' => Self::Open,
            _ => Self::Failed,
        }
    }

    /// The byte of a `ReadyForQuery`.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}
