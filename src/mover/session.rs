//! A service connection of one move to one node.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use super::context::MoverContext;
use super::error::MoveError;
use crate::backend::RaiseError;
use crate::ids::{Lsn, NodeId};
use crate::shard_move::Move;

/// Settings that make text mean the same on every node, every name qualified, and nothing hidden
/// or cut off behind the mover's back.
const OPTIONS: &str = "-c search_path= -c datestyle=ISO -c intervalstyle=postgres \
     -c extra_float_digits=3 -c timezone=UTC -c bytea_output=hex -c row_security=off \
     -c lc_monetary=C -c array_nulls=on -c xmloption=content -c quote_all_identifiers=off \
     -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
     -c synchronous_commit=on -c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed";

/// The longest wait for a statement that has no rows to work through.
pub(super) const QUICK: Duration = Duration::from_secs(30);

/// A connection with the mover's settings. Its server session ends when it is dropped.
pub(super) struct Session {
    /// The connection.
    pub(super) client: Client,
    /// The node's name.
    pub(super) node: String,
}

impl Session {
    /// Connects to `node` for `mv`.
    pub(super) async fn open(
        context: &MoverContext,
        mv: &Move,
        node: NodeId,
    ) -> Result<Self, MoveError> {
        Self::open_as(context, application_name(mv), node).await
    }

    /// Connects to `node` under a name that `pg_stat_activity` shows.
    pub(super) async fn open_as(
        context: &MoverContext,
        name: String,
        node: NodeId,
    ) -> Result<Self, MoveError> {
        let address = context.address(node)?;
        let mut config = address.service_config(context.live_map.load().database());
        config.application_name(name).options(OPTIONS);
        config.keepalives_idle(Duration::from_secs(30));
        let node = address.name.clone();
        let failed = |source| MoveError::Node { doing: "connecting", node: node.clone(), source };
        let (client, connection) = timeout(QUICK, config.connect(address.tls.clone()))
            .await
            .map_err(|_| MoveError::Timeout("connecting to a node"))?
            .map_err(failed)?;
        let name = node.clone();
        context.connections.spawn("mover connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(node = name, error = %error, "mover connection ended");
            }
        });
        match timeout(QUICK, address.enter(&client)).await {
            Err(_) => Err(MoveError::Timeout("connecting to a node")),
            Ok(Err(RaiseError::Node(source))) => {
                Err(MoveError::Node { doing: "entering", node, source })
            }
            Ok(Err(error)) => Err(MoveError::Busy(error.to_string())),
            Ok(Ok(())) => Ok(Self { client, node }),
        }
    }

    /// Wraps what the driver says.
    pub(super) fn failed(
        &self,
        doing: &'static str,
    ) -> impl FnOnce(tokio_postgres::Error) -> MoveError {
        let node = self.node.clone();
        move |source| MoveError::Node { doing, node, source }
    }

    /// Runs statements whose results don't matter, within the short deadline.
    pub(super) async fn run(&self, doing: &'static str, sql: &str) -> Result<(), MoveError> {
        let result = timeout(QUICK, self.client.batch_execute(sql)).await;
        result.map_err(|_| MoveError::Timeout(doing))?.map_err(self.failed(doing))
    }

    /// Runs statements that work through the rows of a shard: no deadline.
    pub(super) async fn run_long(&self, doing: &'static str, sql: &str) -> Result<(), MoveError> {
        self.client.batch_execute(sql).await.map_err(self.failed(doing))
    }

    /// The rows of a statement, within the short deadline.
    pub(super) async fn rows(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, MoveError> {
        let result = timeout(QUICK, self.client.query(sql, parameters)).await;
        result.map_err(|_| MoveError::Timeout(doing))?.map_err(self.failed(doing))
    }

    /// Runs `sql` in a transaction that gives up when it waits `lock_timeout_ms` for a lock, and
    /// tries again `tries` times.
    pub(super) async fn run_with_locks(
        &self,
        doing: &'static str,
        sql: &str,
        (lock_timeout_ms, tries): (u64, u32),
    ) -> Result<(), MoveError> {
        let sql = format!("BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms}; {sql}; COMMIT");
        let mut done = 0;
        loop {
            let result = self.run(doing, &sql).await;
            done += 1;
            match result {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.run("rolling back", "ROLLBACK").await?;
                    if !error.is_lock_timeout() || done >= tries {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(jitter(Duration::from_millis(lock_timeout_ms * 3))).await;
        }
    }

    /// The end of this node's WAL.
    pub(super) async fn wal_end(&self) -> Result<Lsn, MoveError> {
        let (doing, sql) = ("reading the WAL position", "SELECT pg_current_wal_lsn()");
        let said = timeout(QUICK, self.client.simple_query(sql)).await;
        let said = said.map_err(|_| MoveError::Timeout(doing))?.map_err(self.failed(doing))?;
        let text = said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let text = text.unwrap_or_default();
        text.parse().map_err(|_| MoveError::Stream(format!("{text:?} is no WAL position")))
    }

    /// Ends every other session of this move on this node, and waits until they are gone: what an
    /// earlier process left may still hold locks, the slot, or a commit under way.
    pub(super) async fn end_earlier_sessions(&self, mv: &Move) -> Result<(), MoveError> {
        self.end_others(&application_name(mv)).await
    }

    /// The same of every other session of this name.
    pub(super) async fn end_others(&self, name: &str) -> Result<(), MoveError> {
        let doing = "ending earlier sessions";
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = $1 AND datname = current_database() \
             AND pid <> pg_backend_pid()";
        for _ in 0..100 {
            if self.rows(doing, sql, &[&name]).await?.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(MoveError::Timeout(doing))
    }
}

/// The `application_name` of all sessions of a move.
pub(super) fn application_name(mv: &Move) -> String {
    match mv.job {
        Some(job) => format!("foreshard job {job} {}", mv.requested_unix_ms),
        None => format!("foreshard move {} {}", mv.id, mv.requested_unix_ms),
    }
}

/// A wait between half and the whole of `longest`, so that tries don't march in step.
pub(super) fn jitter(longest: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    longest.mul_f64(0.5 + f64::from(nanos % 1000) / 2000.0)
}
