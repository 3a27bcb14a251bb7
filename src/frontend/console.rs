//! The console: operators connect to it with psql, as to a database of its own name.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::worker::Worker;
use crate::executor::{Client, ClientError};
use crate::wire::{
    ClientKey, Malformed, Reply, ServerError, SqlState, TransactionStatus, body, read_query,
};

/// The longest message that the console reads, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;

/// What answers the console's statements.
pub trait Console: Send + Sync {
    /// What one statement gives.
    fn answer<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Table, ServerError>>;
}

/// An answer of the console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The names of its columns; none if it has no rows by its nature.
    pub columns: Vec<String>,
    /// As many values each as there are columns.
    pub rows: Vec<Vec<String>>,
    /// The command tag.
    pub tag: String,
}

/// Where the console is found once it is there. Cheap to clone.
#[derive(Clone, Default)]
pub struct ConsoleSlot(Arc<OnceLock<Arc<dyn Console>>>);

impl fmt::Debug for ConsoleSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsoleSlot").field(&self.0.get().is_some()).finish()
    }
}

impl ConsoleSlot {
    /// Puts the console there; the first one stays.
    pub fn fill(&self, console: Arc<dyn Console>) {
        if self.0.set(console).is_err() {
            tracing::warn!("there is a console already");
        }
    }

    /// The console, if that is the database that a client wants.
    pub(super) fn for_database(&self, worker: &Worker, database: &str) -> Option<Arc<dyn Console>> {
        let name = &worker.admission.load().limits.console_database;
        let is_meant = !name.is_empty() && name == database;
        let shadowed = worker.engine.live_map.load().database() == database;
        self.0.get().filter(|_| is_meant && !shadowed).cloned()
    }
}

/// Whoever is not a superuser of the home node is not let in.
pub(super) fn denied() -> ServerError {
    let message = "the console is for superusers of the home node";
    ServerError::fatal(SqlState::INSUFFICIENT_PRIVILEGE, message)
        .with_hint("Connect as one, or use the database that foreshard serves.")
}

/// Serves a client of the console until it leaves or the proxy stops.
pub(super) async fn serve(
    mut client: Client,
    console: &dyn Console,
    stop: &CancellationToken,
) -> Result<(), ClientError> {
    let version = concat!("15.0 (foreshard ", env!("CARGO_PKG_VERSION"), ")");
    for (name, value) in [
        ("server_version", version),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        client.put(Reply::ParameterStatus(name, value));
    }
    client.put(Reply::BackendKeyData(&ClientKey::new(0, 0, &rand::random())));
    client.put(Reply::Ready(TransactionStatus::Idle));
    let mut skipping = false;
    loop {
        client.flush().await?;
        let frame = tokio::select! {
            frame = client.frame_within(MESSAGE_MAX) => frame?,
            () = stop.cancelled() => None,
        };
        let Some(frame) = frame else { return Ok(()) };
        let message = client.take(frame.len);
        match frame.tag {
            b'X' => return Ok(()),
            b'Q' => {
                run(&mut client, console, body(&message)).await?;
                client.put(Reply::Ready(TransactionStatus::Idle));
            }
            b'S' => {
                skipping = false;
                client.put(Reply::Ready(TransactionStatus::Idle));
            }
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'F' if !skipping => {
                skipping = true;
                client.put_error(
                    &ServerError::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "the console speaks the simple protocol only",
                    )
                    .with_hint("Use psql, or the simple query mode of your driver."),
                );
            }
            _ if skipping => {}
            _ => return Err(Malformed("a message that the console does not know").into()),
        }
    }
}

/// Runs the statements of one text, up to the first that fails.
async fn run(client: &mut Client, console: &dyn Console, body: &[u8]) -> Result<(), ClientError> {
    let text = std::str::from_utf8(read_query(body)?).unwrap_or_default();
    let statements: Vec<&str> = statements(text).collect();
    if statements.is_empty() {
        client.put(Reply::EmptyQuery);
    }
    for statement in statements {
        let table = match console.answer(statement).await {
            Ok(table) => table,
            Err(error) => {
                client.put_error(&error);
                return Ok(());
            }
        };
        if !table.columns.is_empty() {
            let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
            client.put(Reply::TextColumns(&columns));
        }
        for row in &table.rows {
            let values: Vec<&str> = row.iter().map(String::as_str).collect();
            client.put(Reply::TextValues(&values));
        }
        client.put(Reply::CommandComplete(&table.tag));
    }
    Ok(())
}

/// The statements of a text; a semicolon between quotes ends none.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let parts = text.split(move |c| {
        quoted ^= c == '\'';
        c == ';' && !quoted
    });
    parts.map(str::trim).filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_may_have_several_statements() {
        let found: Vec<_> = super::statements("SHOW NODES; ; SPLIT 1 AT 'a;b';\n").collect();
        assert_eq!(found, ["SHOW NODES", "SPLIT 1 AT 'a;b'"]);
    }
}
