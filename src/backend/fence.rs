//! Keeps a proxy that was replaced from its nodes, whatever it still believes.
//!
//! Each start of a proxy on a catalog has a *term*, one higher than the start before. A node's schema
//! `foreshard` has a row with the newest term that it was told, and a row for each session that the
//! proxy opened. The first connection of a newer term raises the row and ends all sessions of older
//! ones; a new session reads it before anything else, so that it costs a query nothing. The row is
//! locked against a raise while a session enters, so that none slips in between.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState as NodeState;

use super::{CommandError, ConnectError, Connection, NodeAddress};
use crate::sql::Literal;

/// How long the sessions of an older term may take to end, and the whole of a raise.
const END: Duration = Duration::from_secs(10);
/// SQLSTATEs of a node that was not told of this term: none of the schema, none of the function, or
/// an older term.
const NOT_RAISED: [&str; 3] = ["3F000", "42883", "FS002"];

const SET_UP: &str = "
    CREATE SCHEMA IF NOT EXISTS foreshard;
    GRANT USAGE ON SCHEMA foreshard TO PUBLIC;
    CREATE TABLE IF NOT EXISTS foreshard.fence (
        catalog text PRIMARY KEY, term bigint NOT NULL, epoch bigint NOT NULL DEFAULT 0);
    CREATE UNLOGGED TABLE IF NOT EXISTS foreshard.sessions (
        pid int PRIMARY KEY, started timestamptz NOT NULL, catalog text NOT NULL, term bigint NOT NULL);
    CREATE OR REPLACE FUNCTION foreshard.enter(wanted text, mine bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $foreshard$
    DECLARE newest bigint;
    BEGIN
        SELECT term INTO newest FROM foreshard.fence WHERE catalog = wanted FOR SHARE;
        IF newest IS NULL OR newest < mine THEN
            RAISE EXCEPTION 'the node was not told of this proxy' USING ERRCODE = 'FS002';
        ELSIF newest > mine THEN
            RAISE EXCEPTION 'this proxy was replaced by another one' USING ERRCODE = '57P03',
                HINT = 'Connect to the proxy that took over; nothing was executed here.';
        END IF;
        INSERT INTO foreshard.sessions
        SELECT pid, backend_start, wanted, mine FROM pg_stat_get_activity(pg_backend_pid())
        ON CONFLICT (pid) DO UPDATE SET
            started = excluded.started, catalog = excluded.catalog, term = excluded.term
            WHERE sessions.started <> excluded.started;
    END $foreshard$;
    CREATE OR REPLACE FUNCTION foreshard.pass(wanted text, mine bigint, next bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $foreshard$
    BEGIN
        UPDATE foreshard.fence SET epoch = greatest(epoch, next)
            WHERE catalog = wanted AND term = mine;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'this proxy was replaced by another one' USING ERRCODE = '57P03';
        END IF;
    END $foreshard$;
    REVOKE EXECUTE ON FUNCTION foreshard.pass FROM PUBLIC";

/// Who the proxy is to its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The name of its catalog.
    pub catalog: String,
    /// Which start on the catalog this is; grows.
    pub term: u64,
    /// The database whose sessions it guards.
    pub database: String,
}

impl Fence {
    /// What a new session runs first. Fails with 57P03 if the proxy was replaced.
    fn enter(&self) -> String {
        let Self { catalog, term, .. } = self;
        format!(
            "BEGIN READ WRITE; SET LOCAL synchronous_commit = off; \
             SELECT foreshard.enter({}, {term}); COMMIT",
            Literal(catalog)
        )
    }

    /// What a switch runs before its detachment, in the same transaction: stores the map's next
    /// epoch, and fails with 57P03 if the proxy was replaced.
    pub fn pass(&self, epoch: u64) -> String {
        format!("SELECT foreshard.pass({}, {}, {epoch})", Literal(&self.catalog), self.term)
    }

    /// Tells a node of this term, unless it knows a newer one, and ends the sessions of older ones.
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
        let sql = "SELECT to_regprocedure('foreshard.pass(text, bigint, bigint)') IS NULL";
        let set_up = client.query_one(sql, &[]).await?.get::<_, bool>(0);
        let set_up = if set_up { SET_UP } else { "SELECT" };
        let (catalog, term) = (Literal(&self.catalog), self.term);
        let sql = format!(
            "BEGIN READ WRITE; SELECT pg_advisory_xact_lock(hashtext('foreshard')); {set_up}; \
             INSERT INTO foreshard.fence (catalog, term) VALUES ({catalog}, {term}) \
             ON CONFLICT (catalog) DO UPDATE SET term = excluded.term \
             WHERE fence.term < excluded.term; \
             DELETE FROM foreshard.sessions s WHERE NOT EXISTS (SELECT FROM pg_stat_activity a \
             WHERE a.pid = s.pid AND a.backend_start = s.started); COMMIT"
        );
        client.batch_execute(&sql).await?;
        let sql = format!(
            "SELECT pg_terminate_backend(s.pid) FROM foreshard.sessions s JOIN pg_stat_activity a \
             ON a.pid = s.pid AND a.backend_start = s.started \
             WHERE s.catalog = {catalog} AND s.term < {term}"
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
    /// What the node says: 57P03 if the proxy was replaced.
    pub async fn enter(&self, client: &Client) -> Result<(), RaiseError> {
        let Some(fence) = &self.fence else { return Ok(()) };
        let Err(error) = client.batch_execute(&fence.enter()).await else { return Ok(()) };
        client.batch_execute("ROLLBACK").await?;
        if !error.code().is_some_and(|code| NOT_RAISED.contains(&code.code())) {
            return Err(error.into());
        }
        match fence.raise(self).await {
            Err(error) if error.is_refused() => {
                tracing::warn!(node = self.name, %error, "a replaced proxy could go on using this node");
                return Ok(());
            }
            raised => raised?,
        }
        Ok(client.batch_execute(&fence.enter()).await?)
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
        let entered = self.command(&fence.enter()).await;
        let Err(CommandError::Reported { code, .. }) = &entered else {
            return entered.map(drop).map_err(ConnectError::from);
        };
        if !NOT_RAISED.contains(&code.as_str()) {
            return entered.map(drop).map_err(ConnectError::from);
        }
        self.command("ROLLBACK").await?;
        match fence.raise(address).await {
            Err(error) if error.is_refused() => {
                tracing::warn!(node = address.name, %error, "a replaced proxy could go on using this node");
                return Ok(());
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let what = format!("{error}: {}", cause.unwrap_or_default());
                return Err(ConnectError::Login { node: address.name.clone(), what });
            }
            Ok(()) => {}
        }
        Ok(self.command(&fence.enter()).await.map(drop)?)
    }
}

impl From<CommandError> for ConnectError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Backend(error) => error.into(),
            CommandError::Reported { frame, message, .. } => Self::Refused(frame, message),
        }
    }
}
