//! The start of a connection: TLS declined, cancel passed on, parameters read.

use std::collections::BTreeMap;

use crate::backend::Settings;
use crate::executor::{Client, ClientError};
use crate::wire::{CancelKey, FirstPacket, Reply, ServerError, SqlState, first_packet};

/// What a client wants.
#[derive(Debug)]
pub(super) enum Greeting {
    /// A session.
    Session(Startup),
    /// To cancel another's statement.
    Cancel(CancelKey),
    /// It went away.
    Gone,
}

/// What a client starts its session with.
#[derive(Debug)]
pub(super) struct Startup {
    pub user: String,
    pub database: String,
    pub settings: Settings,
}

/// Reads packets up to the one that says what the client wants. An `Ok(Err(_))` is told to the
/// client, and its connection ends.
pub(super) async fn greet(
    client: &mut Client,
) -> Result<Result<Greeting, ServerError>, ClientError> {
    loop {
        let Some((packet, len)) = first_packet(client.incoming())? else {
            if client.receive().await? {
                continue;
            }
            return Ok(Ok(Greeting::Gone));
        };
        client.consume(len);
        match packet {
            FirstPacket::Tls | FirstPacket::Gss => client.write_byte(b'N').await?,
            FirstPacket::Cancel(key) => return Ok(Ok(Greeting::Cancel(key))),
            FirstPacket::Startup { minor, parameters } => {
                let unknown: Vec<_> = parameters
                    .iter()
                    .filter(|(name, _)| name.starts_with("_pq_."))
                    .map(|(name, _)| name.clone())
                    .collect();
                if minor > 0 || !unknown.is_empty() {
                    client.put(Reply::NegotiateProtocol(unknown));
                }
                return Ok(startup(parameters).map(Greeting::Session));
            }
        }
    }
}

fn startup(parameters: Vec<(String, String)>) -> Result<Startup, ServerError> {
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
    Ok(Startup { user, database, settings: Settings(settings) })
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
        let startup = startup(vec![pair("user", "u"), options]).unwrap();
        assert_eq!(startup.database, "u");
        let settings: Vec<_> = startup.settings.0.into_iter().collect();
        let expected = [pair("search_path", "a b"), pair("work_mem", "1MB"), pair("x.y", "1")];
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_start_without_user_or_for_replication_is_refused() {
        assert_eq!(startup(vec![]).unwrap_err().code.0, "28000");
        let replication = vec![pair("user", "u"), pair("replication", "database")];
        assert_eq!(startup(replication).unwrap_err().code.0, "0A000");
    }
}
