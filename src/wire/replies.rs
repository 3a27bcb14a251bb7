//! What a server sends: the replies that the proxy makes itself, and the few that it reads.
//!
//! The encoding is the message crate's; rows and everything else that is relayed never come here.

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, NoData, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use super::frame::{HEADER, put_frame};
use super::{ClientKey, Malformed, Reader, ServerError, Severity, TransactionStatus};

/// A reply that the proxy makes.
#[derive(Debug, Clone)]
pub enum Reply<'a> {
    /// The client is who it says.
    AuthenticationOk,
    /// The password is to be proved by an MD5 hash with this salt.
    Md5([u8; 4]),
    /// These SASL mechanisms may be used.
    Sasl(&'a [&'a str]),
    /// The server's first SCRAM message.
    SaslContinue(String),
    /// The server's last SCRAM message.
    SaslFinal(String),
    /// A setting's value.
    ParameterStatus(&'a str, &'a str),
    /// What a cancel request must name.
    BackendKeyData(&'a ClientKey),
    /// Protocol 3 is spoken with this minor version; these `_pq_.` options are unknown.
    NegotiateProtocol(u16, Vec<String>),
    /// A `Parse` is done.
    ParseComplete,
    /// A `Bind` is done.
    BindComplete,
    /// A `Close` is done.
    CloseComplete,
    /// A `Describe` of something without rows.
    NoData,
    /// A `Describe` of a statement without parameters.
    NoParameters,
    /// Columns of type `text`.
    TextColumns(&'a [&'a str]),
    /// A column of a type, given by its `pg_type.oid`.
    Column(&'a str, u32),
    /// A row of one column, as text.
    TextRow(&'a str),
    /// A row of columns of type `text`.
    TextValues(&'a [&'a str]),
    /// A statement is done; its command tag.
    CommandComplete(&'a str),
    /// There was no statement.
    EmptyQuery,
    /// An error, or a notice if its severity is a warning's.
    Error(&'a ServerError),
    /// The next statement may come.
    Ready(TransactionStatus),
}

impl Reply<'_> {
    /// Appends its frame.
    pub fn put(self, out: &mut BytesMut) {
        if let Self::NoParameters = self {
            return put_frame(b't', out, |out| out.put_u16(0));
        }
        if let Self::TextRow(value) = self {
            return data_row(&[value], out);
        }
        if let Self::TextValues(values) = self {
            return data_row(values, out);
        }
        // Encoding into memory fails only for messages past the frame limit, which these are not.
        let encoded = self.message().encode(out);
        debug_assert!(encoded.is_ok(), "{encoded:?}");
    }

    fn message(self) -> PgWireBackendMessage {
        use PgWireBackendMessage as M;
        match self {
            Self::AuthenticationOk => M::Authentication(Authentication::Ok),
            Self::Sasl(names) => {
                let names = names.iter().map(|name| (*name).to_owned()).collect();
                M::Authentication(Authentication::SASL(names))
            }
            Self::Md5(salt) => M::Authentication(Authentication::MD5Password(salt.to_vec())),
            Self::SaslContinue(text) => {
                M::Authentication(Authentication::SASLContinue(Bytes::from(text)))
            }
            Self::SaslFinal(text) => {
                M::Authentication(Authentication::SASLFinal(Bytes::from(text)))
            }
            Self::ParameterStatus(name, value) => {
                M::ParameterStatus(ParameterStatus::new(name.to_owned(), value.to_owned()))
            }
            Self::BackendKeyData(key) => {
                let secret = SecretKey::Bytes(key.secret.clone());
                M::BackendKeyData(BackendKeyData::new(key.pid, secret))
            }
            Self::NegotiateProtocol(minor, options) => {
                let version = 3 << 16 | i32::from(minor);
                M::NegotiateProtocolVersion(NegotiateProtocolVersion::new(version, options))
            }
            Self::ParseComplete => M::ParseComplete(ParseComplete::new()),
            Self::BindComplete => M::BindComplete(BindComplete::new()),
            Self::CloseComplete => M::CloseComplete(CloseComplete::new()),
            Self::NoData | Self::NoParameters | Self::TextRow(_) | Self::TextValues(_) => {
                M::NoData(NoData::new())
            }
            Self::TextColumns(names) => M::RowDescription(RowDescription::new(
                names.iter().map(|name| column(name, 25)).collect(),
            )),
            Self::Column(name, oid) => {
                M::RowDescription(RowDescription::new(vec![column(name, oid)]))
            }
            Self::CommandComplete(tag) => M::CommandComplete(CommandComplete::new(tag.to_owned())),
            Self::EmptyQuery => M::EmptyQueryResponse(EmptyQueryResponse::new()),
            Self::Error(error) if error.severity == Severity::Warning => {
                M::NoticeResponse(NoticeResponse::new(fields(error)))
            }
            Self::Error(error) => M::ErrorResponse(ErrorResponse::new(fields(error))),
            Self::Ready(status) => M::ReadyForQuery(ReadyForQuery::new(match status {
                TransactionStatus::Idle => pgwire::messages::response::TransactionStatus::Idle,
                TransactionStatus::Open => {
                    pgwire::messages::response::TransactionStatus::Transaction
                }
                TransactionStatus::Failed => pgwire::messages::response::TransactionStatus::Error,
            })),
        }
    }
}

/// A `RowDescription`'s entry for a computed column of type `text`.
fn column(name: &str, oid: u32) -> FieldDescription {
    FieldDescription::new(name.to_owned(), 0, 0, oid, -1, -1, 0)
}

fn fields(error: &ServerError) -> Vec<(u8, String)> {
    let word = error.severity.word().to_owned();
    let mut fields = vec![
        (b'S', word.clone()),
        (b'V', word),
        (b'C', error.code.0.to_owned()),
        (b'M', error.message.clone()),
    ];
    fields.extend(error.detail.clone().map(|detail| (b'D', detail)));
    fields.extend(error.hint.clone().map(|hint| (b'H', hint)));
    fields.extend(error.position.map(|position| (b'P', position.to_string())));
    fields
}

/// Appends a `DataRow` of text values.
pub fn data_row(values: &[&str], out: &mut BytesMut) {
    put_frame(b'D', out, |out| {
        out.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
        for value in values {
            out.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
            out.put_slice(value.as_bytes());
        }
    });
}

/// Name and value of a `ParameterStatus`'s body.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let pair = (reader.cstr()?, reader.cstr()?);
    reader.end()?;
    Ok(pair)
}

/// The command tag of a `CommandComplete`'s body.
pub fn command_tag(body: &[u8]) -> &str {
    let end = memchr::memchr(0, body).unwrap_or(body.len());
    std::str::from_utf8(&body[..end]).unwrap_or_default()
}

/// The count of rows that ends a command tag.
pub fn command_count(tag: &str) -> Option<u64> {
    tag.rsplit(' ').next()?.parse().ok()
}

/// What an `ErrorResponse` says, as far as the proxy cares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportedError {
    /// `FATAL` and `PANIC` end the connection.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
}

/// Reads the body of an `ErrorResponse`; what it lacks stays empty.
pub fn read_error(body: &[u8]) -> ReportedError {
    let mut error = ReportedError::default();
    let mut reader = Reader::new(body);
    while let Ok(kind) = reader.u8() {
        let Ok(text) = reader.cstr() else { break };
        let text = || String::from_utf8_lossy(text).into_owned();
        match kind {
            b'V' => error.severity = text(),
            b'C' => error.code = text(),
            b'M' => error.message = text(),
            _ => {}
        }
    }
    error
}

/// An `ErrorResponse` frame with the severity FATAL in place of its own: it ends a login.
pub fn as_fatal(frame: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(b'E', &mut out, |out| {
        let mut reader = Reader::new(frame.get(HEADER..).unwrap_or_default());
        while let Ok(kind @ 1..) = reader.u8() {
            let Ok(text) = reader.cstr() else { break };
            out.put_u8(kind);
            out.put_slice(if matches!(kind, b'S' | b'V') { b"FATAL" } else { text });
            out.put_u8(0);
        }
        out.put_u8(0);
    });
    out
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{Reply, command_count, command_tag, read_error};
    use crate::wire::{ServerError, SqlState, frame_at};

    #[test]
    fn an_error_carries_its_code_and_message() {
        let error = ServerError::refused("no", "because", "do this");
        let mut out = BytesMut::new();
        Reply::Error(&error).put(&mut out);
        assert_eq!(frame_at(&out).unwrap().unwrap().len, out.len());
        let read = read_error(&out[5..]);
        assert_eq!(read.code, SqlState::FEATURE_NOT_SUPPORTED.0);
        assert_eq!((read.severity.as_str(), read.message.as_str()), ("ERROR", "no"));
    }

    #[test]
    fn a_command_tag_ends_in_its_row_count() {
        assert_eq!(command_count(command_tag(b"INSERT 0 12\0")), Some(12));
        assert_eq!(command_count(command_tag(b"SELECT 3\0")), Some(3));
        assert_eq!(command_count(command_tag(b"CREATE TABLE\0")), None);
    }
}
