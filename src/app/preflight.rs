//! A look at each node before anything is started: a clear error or warning for each.

use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::terminal::story;
use crate::backend::NodeAddress;

/// How long a node may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

const LOOK: &str = "\
    SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
    current_setting('wal_level'), current_setting('max_prepared_transactions')::int, \
    current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int, \
    (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)";

/// What is wrong with the nodes: one line for each that can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) struct NodesDown(Vec<String>);

impl fmt::Display for NodesDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Which nodes must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// Each: something is to be made there.
    All,
    /// One that does not answer is used once it does.
    WhoAnswers,
}

/// What is wrong with a node.
enum NodeFault {
    /// Nobody answers: it may come back.
    Away(String),
    /// It can't be used as it is.
    Useless(String),
}

/// Looks at all nodes at the same time. Why some can't be used; else what they can't do.
pub(super) async fn check_nodes(
    nodes: &[NodeAddress],
    database: &str,
    needed: Needed,
) -> Result<Vec<String>, NodesDown> {
    let looks = nodes.iter().map(|node| async move {
        let look = timeout(DEADLINE, check_node(node, database));
        let slow = || format!("does not answer within {} s", DEADLINE.as_secs());
        let found = look.await.unwrap_or_else(|_| Err(NodeFault::Away(slow())));
        let place = format!("node {} ({}:{})", node.name, node.host, node.port);
        match found {
            Ok(warnings) => Ok(warnings.iter().map(|w| format!("{place}: {w}")).collect()),
            Err(NodeFault::Away(error)) if needed == Needed::WhoAnswers => {
                Ok(vec![format!("{place}: is away, and used once it answers: {error}")])
            }
            Err(NodeFault::Away(error) | NodeFault::Useless(error)) => {
                Err(format!("{place}: {error}"))
            }
        }
    });
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    for found in join_all(looks).await {
        match found {
            Ok(some) => warnings.extend::<Vec<String>>(some),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(warnings) } else { Err(NodesDown(errors)) }
}

async fn check_node(node: &NodeAddress, database: &str) -> Result<Vec<String>, NodeFault> {
    let connected = node.service_config(database).connect(node.tls.clone()).await;
    let (client, connection) = connected.map_err(|error| cannot_connect(&error, database))?;
    let look = async { client.query_one(LOOK, &[]).await };
    let row = tokio::select! {
        row = look => row.map_err(|error| NodeFault::Useless(story(&error)))?,
        _ = connection => return Err(NodeFault::Away("closed the connection".to_owned())),
    };
    let (version, standby): (i32, bool) = (row.get(0), row.get(1));
    if version < 150_000 {
        let error = format!("runs PostgreSQL {}, but 15 or newer is needed", version / 10_000);
        return Err(NodeFault::Useless(error));
    }
    if standby {
        return Err(NodeFault::Useless("is a standby; name its primary".to_owned()));
    }
    Ok(warnings(&row))
}

/// What the node can't do as it is set up.
fn warnings(row: &tokio_postgres::Row) -> Vec<String> {
    let (wal_level, prepared): (String, i32) = (row.get(2), row.get(3));
    let (slots, senders): (i32, i32) = (row.get(4), row.get(5));
    let replication: Option<bool> = row.get(6);
    let mut warnings = Vec::new();
    let mut cannot = |what: &str, why: String| warnings.push(format!("{what}, since {why}"));
    let no_moves = "shards can't be moved from it";
    if wal_level != "logical" {
        cannot(no_moves, format!("its wal_level is {wal_level}; set it to logical and restart it"));
    }
    if slots == 0 || senders == 0 {
        cannot(no_moves, "its max_replication_slots or max_wal_senders is 0".to_owned());
    }
    if replication != Some(true) {
        cannot(no_moves, "the proxy's role there lacks REPLICATION".to_owned());
    }
    if prepared == 0 {
        let what = "DDL and other changes of several nodes will fail";
        cannot(what, "its max_prepared_transactions is 0; raise it and restart it".to_owned());
    }
    warnings
}

fn cannot_connect(error: &tokio_postgres::Error, database: &str) -> NodeFault {
    match error.code() {
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => NodeFault::Useless(format!(
            "has no database {database:?}; create it there: CREATE DATABASE \"{database}\""
        )),
        // It is starting or stopping, or there is nobody.
        Some(code) if *code == SqlState::CANNOT_CONNECT_NOW => NodeFault::Away(story(error)),
        Some(_) => NodeFault::Useless(story(error)),
        None => NodeFault::Away(story(error)),
    }
}
