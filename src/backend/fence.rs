//! Keeps a proxy that was replaced from its nodes, whatever it still believes.
//!
//! Each start of a proxy on a catalog has a number, and each change of who may serve begins a *term*,
//! one higher than the one before. A node's schema `foreshard` has a row with the newest term that it
//! was told and the numbers that may enter in it, and a row for each session that a proxy opened. The
//! first connection of a newer term raises the row and ends all sessions of those who may not be there
//! any more; a new session reads it before anything else, so that it costs a query nothing. The row
//! is locked against a raise while a session enters, so that none slips in between.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState as NodeState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{CommandError, ConnectError, Connection, NodeAddress};
use crate::sql::Literal;
use crate::wire::{Reply, ServerError, SqlState};

/// How long the sessions of an older term may take to end, and the whole of a raise.
const END: Duration = Duration::from_secs(10);
/// SQLSTATEs of a node that has not been set up: no schema, no function.
const NOT_SET_UP: [&str; 2] = ["3F000", "42883"];
/// What whoever speaks for a replaced proxy hears.
const REPLACED: &str = "this proxy was replaced by another one";

const SET_UP: &str = "
    CREATE SCHEMA IF NOT EXISTS foreshard;
    GRANT USAGE ON SCHEMA foreshard TO PUBLIC;
    CREATE TABLE IF NOT EXISTS foreshard.fence (
        catalog text PRIMARY KEY, term bigint NOT NULL, epoch bigint NOT NULL DEFAULT 0);
    ALTER TABLE foreshard.fence ADD COLUMN IF NOT EXISTS proxies bigint[] NOT NULL DEFAULT '{}';
    CREATE UNLOGGED TABLE IF NOT EXISTS foreshard.sessions (
        pid int PRIMARY KEY, started timestamptz NOT NULL, catalog text NOT NULL, term bigint NOT NULL);
    DROP FUNCTION IF EXISTS foreshard.newest_term(text, bigint);
    -- In SQL, as a server that has loaded PL/pgSQL differs from one that has not.
    CREATE OR REPLACE FUNCTION foreshard.enter(wanted text, me bigint) RETURNS text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $foreshard$
        WITH fence AS MATERIALIZED (
            SELECT term, me = ANY (proxies) AS admitted
            FROM foreshard.fence WHERE catalog = wanted FOR SHARE
        ), entered AS (
            INSERT INTO foreshard.sessions
            SELECT pid, backend_start, wanted, me
            FROM fence, pg_stat_get_activity(pg_backend_pid()) WHERE admitted
            ON CONFLICT (pid) DO UPDATE SET
                started = excluded.started, catalog = excluded.catalog, term = excluded.term
                WHERE sessions.started <> excluded.started
        )
        SELECT CASE WHEN admitted THEN 'in ' ELSE 'out ' END || term FROM fence
    $foreshard$;
    DROP FUNCTION IF EXISTS foreshard.pass(text, bigint, bigint);
    CREATE OR REPLACE FUNCTION foreshard.pass(wanted text, mine bigint, known bigint, next bigint)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $foreshard$
    BEGIN
        UPDATE foreshard.fence SET epoch = greatest(epoch, next)
            WHERE catalog = wanted AND mine = ANY (proxies) AND term >= known;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'this proxy was replaced by another one' USING ERRCODE = '57P03';
        END IF;
    END $foreshard$;
    REVOKE EXECUTE ON FUNCTION foreshard.pass FROM PUBLIC";

/// What a node says to a session that wants to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// It is in.
    In,
    /// The node was not told of this term.
    Untold,
    /// The node knows a newer term.
    Replaced,
}

/// Who may enter, and since which change of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Grows with each change.
    pub number: u64,
    /// The numbers of the proxies that may enter.
    pub proxies: Vec<u64>,
}

/// Who the proxy is to its nodes.
#[derive(Debug)]
pub struct Fence {
    /// The name of its catalog.
    pub catalog: String,
    /// Which start on the catalog this is; no other has its number.
    pub proxy: u64,
    /// The database whose sessions it guards.
    pub database: String,
    /// The newest that this proxy knows.
    term: ArcSwap<Term>,
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        (&self.catalog, self.proxy) == (&other.catalog, other.proxy)
    }
}

impl Eq for Fence {}

impl Fence {
    /// Of a proxy with this number, which is one of the term's.
    pub fn new(catalog: String, proxy: u64, database: String, term: Term) -> Self {
        Self { catalog, proxy, database, term: ArcSwap::from_pointee(term) }
    }

    /// Who may enter now, as far as this proxy knows.
    pub fn term(&self) -> Arc<Term> {
        self.term.load_full()
    }

    /// Takes note of a newer term.
    pub fn learn(&self, term: Term) {
        let term = Arc::new(term);
        self.term.rcu(|known| {
            if known.number < term.number { Arc::clone(&term) } else { Arc::clone(known) }
        });
    }

    /// What a new session runs first: it says whether it is in, and the node's term.
    fn enter(&self) -> String {
        let Self { catalog, proxy, .. } = self;
        format!(
            "BEGIN READ WRITE; SET LOCAL synchronous_commit = off; \
             SELECT foreshard.enter({}, {proxy}); COMMIT",
            Literal(catalog)
        )
    }

    fn entry(&self, said: Option<&str>) -> Entry {
        let said = said.and_then(|said| said.split_once(' '));
        let term = said.and_then(|(_, term)| term.parse::<u64>().ok());
        let (Some((entry, _)), Some(term)) = (said, term) else { return Entry::Untold };
        match entry {
            // Of an older term there may still be who may not be there any more.
            _ if term < self.term.load().number => Entry::Untold,
            "in" => Entry::In,
            _ => Entry::Replaced,
        }
    }

    /// What a switch runs before its detachment, in the same transaction: stores the map's next
    /// epoch, and fails with 57P03 if the proxy was replaced, or the node was not told yet of the newest
    /// term: somebody may still be there who may not.
    pub fn pass(&self, epoch: u64) -> String {
        let Self { catalog, proxy, .. } = self;
        let known = self.term.load().number;
        format!("SELECT foreshard.pass({}, {proxy}, {known}, {epoch})", Literal(catalog))
    }

    /// Tells a node of this term, unless it knows a newer one, and ends the sessions of all who may not
    /// be there in it.
    ///
    /// # Errors
    /// What the node says; 57014 if a session did not end in time.
    pub async fn raise(&self, address: &NodeAddress) -> Result<(), RaiseError> {
        let work = async {
            let config = address.service_config(&self.database);
            let (client, connection) = config.connect(address.tls.clone()).await?;
            tokio::select! {
                raised = self.raise_by(&client) => raised,
                ended = connection => Err(ended.err().map_or(RaiseError::Slow, RaiseError::Node)),
            }
        };
        timeout(END, work).await.unwrap_or(Err(RaiseError::Slow))
    }

    async fn raise_by(&self, client: &Client) -> Result<(), RaiseError> {
        let sql = "SELECT to_regprocedure('foreshard.pass(text, bigint, bigint, bigint)') IS NULL";
        let set_up = client.query_one(sql, &[]).await?.get::<_, bool>(0);
        let set_up = if set_up { SET_UP } else { "SELECT" };
        let (catalog, term) = (Literal(&self.catalog), self.term());
        let proxies: Vec<String> = term.proxies.iter().map(ToString::to_string).collect();
        let (term, proxies) = (term.number, format!("'{{{}}}'::bigint[]", proxies.join(",")));
        let sql = format!(
            "BEGIN READ WRITE; SELECT pg_advisory_xact_lock(hashtext('foreshard')); {set_up}; \
             INSERT INTO foreshard.fence (catalog, term, proxies) \
             VALUES ({catalog}, {term}, {proxies}) \
             ON CONFLICT (catalog) DO UPDATE SET term = excluded.term, proxies = excluded.proxies \
             WHERE fence.term < excluded.term; \
             DELETE FROM foreshard.sessions s WHERE NOT EXISTS (SELECT FROM pg_stat_activity a \
             WHERE a.pid = s.pid AND a.backend_start = s.started); COMMIT"
        );
        client.batch_execute(&sql).await?;
        let sql = format!(
            "SELECT pg_terminate_backend(s.pid) FROM foreshard.sessions s JOIN pg_stat_activity a \
             ON a.pid = s.pid AND a.backend_start = s.started \
             JOIN foreshard.fence f ON f.catalog = s.catalog AND f.term = {term} \
             WHERE s.catalog = {catalog} AND s.term <> ALL (f.proxies)"
        );
        while !client.query(&sql, &[]).await?.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Why a node was not told of a term.
#[derive(Debug, thiserror::Error)]
pub enum RaiseError {
    /// The node said no, or did not answer.
    #[error(transparent)]
    Node(#[from] tokio_postgres::Error),
    /// A session of an older term does not end.
    #[error("sessions of the proxy that was replaced do not end")]
    Slow,
    /// The node knows a newer term.
    #[error("{REPLACED}")]
    Replaced,
}

impl RaiseError {
    /// Whether the proxy's role may not do it: the node goes without a fence then.
    fn is_refused(&self) -> bool {
        let refused = Some(&NodeState::INSUFFICIENT_PRIVILEGE);
        matches!(self, Self::Node(error) if error.code() == refused)
    }
}

impl NodeAddress {
    /// Enters with a service connection, whose other half somebody drives.
    ///
    /// # Errors
    /// What the node says, or that the proxy was replaced.
    pub async fn enter(&self, client: &Client) -> Result<(), RaiseError> {
        let Some(fence) = &self.fence else { return Ok(()) };
        let mut entry = entry_of(client, fence).await?;
        if entry == Entry::Untold {
            if !self.is_raised(fence).await? {
                return Ok(());
            }
            entry = entry_of(client, fence).await?;
        }
        if entry == Entry::In { Ok(()) } else { Err(RaiseError::Replaced) }
    }

    /// Tells the node of the proxy's term; whether it may be told.
    async fn is_raised(&self, fence: &Fence) -> Result<bool, RaiseError> {
        match fence.raise(self).await {
            Err(error) if error.is_refused() => {
                tracing::warn!(node = self.name, %error, "a replaced proxy could go on using this node");
                Ok(false)
            }
            raised => raised.map(|()| true),
        }
    }
}

/// What the node says to a service connection.
async fn entry_of(client: &Client, fence: &Fence) -> Result<Entry, RaiseError> {
    match client.simple_query(&fence.enter()).await {
        Ok(messages) => {
            let newest = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            Ok(fence.entry(newest))
        }
        Err(error) if error.code().is_some_and(|code| NOT_SET_UP.contains(&code.code())) => {
            client.batch_execute("ROLLBACK").await?;
            Ok(Entry::Untold)
        }
        Err(error) => Err(error.into()),
    }
}

impl Connection {
    /// Enters with a connection that was just opened.
    pub(super) async fn enter(
        &mut self,
        address: &NodeAddress,
        database: &str,
    ) -> Result<(), ConnectError> {
        let Some(fence) = address.fence.as_ref().filter(|fence| fence.database == database) else {
            return Ok(());
        };
        let mut entry = self.entry(fence).await?;
        if entry == Entry::Untold {
            let raised = address.is_raised(fence).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let what = format!("{error}: {}", cause.unwrap_or_default());
                ConnectError::Login { node: address.name.clone(), what }
            });
            if !raised? {
                return Ok(());
            }
            entry = self.entry(fence).await?;
        }
        if entry == Entry::In { Ok(()) } else { Err(replaced()) }
    }

    /// What the node says to a session of a client.
    async fn entry(&mut self, fence: &Fence) -> Result<Entry, ConnectError> {
        match self.command(&fence.enter()).await {
            Ok(command) => {
                let newest = command.rows.into_iter().flatten().flatten().next();
                Ok(fence.entry(newest.as_deref()))
            }
            Err(CommandError::Reported { code, .. }) if NOT_SET_UP.contains(&code.as_str()) => {
                self.command("ROLLBACK").await?;
                Ok(Entry::Untold)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What clients of a replaced proxy are told.
fn replaced() -> ConnectError {
    let error = ServerError::fatal(SqlState::CANNOT_CONNECT_NOW, REPLACED)
        .with_hint("Connect to the proxy that took over; nothing was executed here.");
    let mut frame = BytesMut::new();
    Reply::Error(&error).put(&mut frame);
    ConnectError::Refused(frame.freeze(), REPLACED.to_owned())
}

impl From<CommandError> for ConnectError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Backend(error) => error.into(),
            CommandError::Reported { frame, message, .. } => Self::Refused(frame, message),
        }
    }
}
