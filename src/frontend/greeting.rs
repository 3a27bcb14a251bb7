//! The start of a connection: TLS, requests to cancel, the parameters of a session.

use std::collections::BTreeMap;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::rules::Origin;
use super::tls::ServerTls;
use crate::backend::{Settings, Stream};
use crate::executor::{Client, ClientError};
use crate::wire::{
    ClientKey, FirstPacket, Malformed, NEWEST_MINOR, Reply, ServerError, SqlState, first_packet,
};

/// The first byte of a TLS handshake; no startup packet is long enough to begin with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client wants.
#[derive(Debug)]
pub(super) enum Greeting {
    /// A session.
    Session(Startup),
    /// To cancel another's statement.
    Cancel(ClientKey),
    /// It went away.
    Gone,
}

/// What a client starts its session with.
#[derive(Debug)]
pub(super) struct Startup {
    /// The minor version of protocol 3 that is spoken.
    pub minor: u16,
    pub user: String,
    pub database: String,
    pub settings: Settings,
}

/// A client that has said what it wants.
#[derive(Debug)]
pub(super) struct Greeted {
    pub client: Client,
    pub origin: Origin,
    /// An error is told to the client, and its connection ends.
    pub greeting: Result<Greeting, ServerError>,
}

/// Reads packets up to the one that says what the client wants, over TLS if it asks for it.
pub(super) async fn greet(
    stream: Stream,
    mut origin: Origin,
    tls: Option<&ServerTls>,
) -> Result<Greeted, ClientError> {
    let stream = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) if begins_with_tls(&stream).await? => {
            let (stream, by_tls) = tls.accept(stream, true).await?;
            origin.tls = Some(by_tls);
            stream
        }
        (stream, _) => stream,
    };
    let mut client = Client::new(stream);
    let (mut asked_tls, mut asked_gss) = (origin.tls.is_some(), false);
    loop {
        let packet = match first_packet(client.incoming()) {
            Ok(packet) => packet,
            Err(fault) => return Ok(Greeted { client, origin, greeting: Err(violation(fault)) }),
        };
        let Some((packet, len)) = packet else {
            if client.receive().await? {
                continue;
            }
            return Ok(Greeted { client, origin, greeting: Ok(Greeting::Gone) });
        };
        client.consume(len);
        match packet {
            FirstPacket::Tls if !asked_tls => {
                asked_tls = true;
                // What came before TLS must not be taken for what came under it.
                if !client.incoming().is_empty() {
                    let greeting = Err(injected());
                    return Ok(Greeted { client, origin, greeting });
                }
                client = match (client.into_stream(), tls) {
                    (Stream::Tcp(mut stream), Some(tls)) => {
                        stream.write_all(b"S").await?;
                        let (stream, by_tls) = tls.accept(stream, false).await?;
                        origin.tls = Some(by_tls);
                        Client::new(stream)
                    }
                    (mut stream, _) => {
                        stream.write_all(b"N").await?;
                        Client::new(stream)
                    }
                };
            }
            FirstPacket::Gss if !asked_gss && origin.tls.is_none() => {
                asked_gss = true;
                client.write_byte(b'N').await?;
            }
            FirstPacket::Tls | FirstPacket::Gss => {
                let fault = Malformed("the client asks for encryption a second time");
                return Ok(Greeted { client, origin, greeting: Err(violation(fault)) });
            }
            FirstPacket::Cancel(key) => {
                // As a server, it says nothing of a key that is none.
                let greeting = Ok(key.map_or(Greeting::Gone, Greeting::Cancel));
                return Ok(Greeted { client, origin, greeting });
            }
            FirstPacket::Startup { minor, parameters } => {
                let spoken = negotiate(minor, &parameters, &mut client);
                let greeting = startup(spoken, parameters).map(Greeting::Session);
                return Ok(Greeted { client, origin, greeting });
            }
        }
    }
}

/// The minor version that is spoken; the client hears of it, and of options that nobody knows, where that
/// is not what it asked for.
fn negotiate(minor: u16, parameters: &[(String, String)], client: &mut Client) -> u16 {
    let names = parameters.iter().map(|(name, _)| name);
    let unknown: Vec<_> = names.filter(|name| name.starts_with("_pq_.")).cloned().collect();
    let spoken = minor.min(NEWEST_MINOR);
    if minor > spoken || !unknown.is_empty() {
        client.put(Reply::NegotiateProtocol(spoken, unknown));
    }
    spoken
}

/// Whether the client's first byte is that of a TLS handshake.
async fn begins_with_tls(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE)
}

fn violation(fault: Malformed) -> ServerError {
    ServerError::fatal(SqlState::PROTOCOL_VIOLATION, fault.to_string())
}

fn injected() -> ServerError {
    let message = "received unencrypted data after SSL request";
    ServerError::fatal(SqlState::PROTOCOL_VIOLATION, message).with_detail(
        "This could be either a client-software bug or evidence of an attempted \
         man-in-the-middle attack.",
    )
}

fn startup(minor: u16, parameters: Vec<(String, String)>) -> Result<Startup, ServerError> {
    let (mut user, mut database, mut settings) = (None, None, BTreeMap::new());
    for (name, value) in parameters {
        match name.as_str() {
            "user" => user = Some(value),
            "database" => database = Some(value),
            "options" => read_options(&value, &mut settings)?,
            "replication" => refuse_replication(&value)?,
            _ if name.starts_with("_pq_.") => {}
            _ => {
                settings.insert(name.to_lowercase(), value);
            }
        }
    }
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(ServerError::fatal(SqlState::INVALID_AUTHORIZATION, message));
    };
    let database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
    Ok(Startup { minor, user, database, settings: Settings(settings) })
}

/// Reads `-c name=value` and `--name=value`, with backslashes before blanks.
fn read_options(text: &str, settings: &mut BTreeMap<String, String>) -> Result<(), ServerError> {
    let words = words(text);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("-c") {
            Some("") => words.next().map(String::as_str),
            Some(pair) => Some(pair),
            None => word.strip_prefix("--"),
        };
        let Some((name, value)) = pair.and_then(|pair| pair.split_once('=')) else {
            let message = format!("invalid command-line argument for server process: {word}");
            return Err(ServerError::fatal(SqlState("42601"), message)
                .with_hint("The startup options may hold -c name=value and --name=value."));
        };
        settings.insert(name.replace('-', "_").to_lowercase(), value.to_owned());
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut chars) = (Vec::new(), String::new(), text.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' => word.extend(chars.next()),
            char if char.is_ascii_whitespace() => words.push(std::mem::take(&mut word)),
            char => word.push(char),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn refuse_replication(value: &str) -> Result<(), ServerError> {
    if matches!(value, "false" | "off" | "no" | "0") {
        return Ok(());
    }
    let message = "replication connections do not pass the proxy";
    Err(ServerError::fatal(SqlState::FEATURE_NOT_SUPPORTED, message)
        .with_hint("Connect to the node itself."))
}

#[cfg(test)]
mod tests {
    use super::startup;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn options_become_settings() {
        let options = pair("options", r"-c work_mem=1MB --search-path=a\ b -cx.y=1");
        let startup = startup(0, vec![pair("user", "u"), options]).unwrap();
        assert_eq!(startup.database, "u");
        let settings: Vec<_> = startup.settings.0.into_iter().collect();
        let expected = [pair("search_path", "a b"), pair("work_mem", "1MB"), pair("x.y", "1")];
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_start_without_user_or_for_replication_is_refused() {
        assert_eq!(startup(0, vec![]).unwrap_err().code.0, "28000");
        let replication = vec![pair("user", "u"), pair("replication", "database")];
        assert_eq!(startup(0, replication).unwrap_err().code.0, "0A000");
    }
}
