//! How to reach a node.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio_postgres::config::SslMode;

use super::{Fence, NodeTls, TlsMode};

/// A password; its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, for logging in and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// How to reach a node, and whom the proxy itself logs in as: for its service connections (catalog
/// look-ups, DDL, moves). Clients' statements run under the clients' own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node's name in the shard map.
    pub name: String,
    /// A host name, an address, or the folder of a Unix socket (starts with `/`).
    pub host: String,
    /// The TCP port; for a Unix socket its suffix.
    pub port: u16,
    /// The role of the service connections: may create tables and slots.
    pub user: String,
    /// That role's password; `None` where the node trusts.
    pub password: Option<Password>,
    /// How far the connections to it are protected; a Unix socket needs no TLS.
    pub tls: NodeTls,
    /// Who the proxy is to the node; `None` before it has begun.
    pub fence: Option<Arc<Fence>>,
}

impl NodeAddress {
    /// The settings of a service connection to `database` on this node, for `tokio_postgres`;
    /// connect it with [`NodeAddress::tls`].
    pub fn service_config(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(database)
            .application_name("foreshard")
            .connect_timeout(std::time::Duration::from_secs(5));
        config.ssl_mode(match self.tls.mode() {
            _ if self.host.starts_with('/') => SslMode::Disable,
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        if let Some(password) = &self.password {
            config.password(password.reveal());
        }
        config
    }

    /// What `work` answers over a service connection of its own. Give it a deadline.
    ///
    /// # Errors
    /// The connection's, or the work's.
    pub async fn ask<T, E, F>(&self, database: &str, work: F) -> Result<T, E>
    where
        E: From<tokio_postgres::Error>,
        F: AsyncFnOnce(&tokio_postgres::Client) -> Result<T, E>,
    {
        let config = self.service_config(database);
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let (work, connection) = (pin!(work(&client)), pin!(connection));
        match select(work, connection).await {
            Either::Left((answer, _)) => answer,
            // It has ended; so does the work, with the reason.
            Either::Right((ended, work)) => match ended {
                Ok(()) => work.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}
