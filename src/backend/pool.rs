//! The connections of one worker to one node, for one user and database.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::{Config, ConnectError, Connection, Credential, Login, NodeAddress};
use crate::ids::NodeId;

/// A bounded pool. Statements that find it empty wait in the order in which they came.
#[derive(Debug)]
pub struct Pool {
    node: NodeId,
    address: NodeAddress,
    login: ArcSwap<Login>,
    config: Config,
    size: u32,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// A checked-out connection. Goes back when it is dropped clean; is closed otherwise.
#[derive(Debug)]
pub struct Guard {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// An empty pool of at most `size` connections.
    pub fn new(
        node: NodeId,
        address: NodeAddress,
        login: Login,
        config: Config,
        size: u32,
    ) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(size.max(1) as usize));
        let login = ArcSwap::from_pointee(login);
        Arc::new(Self { node, address, login, config, size, idle: Mutex::default(), permits })
    }

    /// A connection that is idle, or a new one; waits for its turn up to the deadline. Cancel safe.
    pub async fn checkout(self: &Arc<Self>) -> Result<Guard, ConnectError> {
        let permit = self.permit().await?;
        let connection = if let Some(connection) = self.take_idle() {
            connection
        } else {
            let deadline = self.config.connect_timeout();
            Connection::open(self.node, &self.address, &self.login.load_full(), deadline).await?
        };
        Ok(Guard { connection: Some(connection), pool: Arc::clone(self), _permit: permit })
    }

    /// New connections log in with this credential. Nothing does not replace something.
    pub fn renew(&self, credential: &Credential) {
        let login = self.login.load();
        if *credential != Credential::Nothing && login.credential != *credential {
            let credential = credential.clone();
            self.login.store(Arc::new(Login { credential, ..Login::clone(&login) }));
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, ConnectError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let exhausted = || ConnectError::PoolExhausted {
            node: self.address.name.clone(),
            size: self.size,
            timeout_ms: self.config.checkout_timeout_ms,
        };
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = timeout(self.config.checkout_timeout(), permit).await;
        permit.map_err(|_| exhausted())?.map_err(|_| exhausted())
    }

    /// The connection that was used last and is still good; closes those that are not.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(mut connection) = idle.pop() {
            let too_old = connection.idle_since.elapsed() > self.config.idle_timeout();
            if !too_old && !connection.is_stale() {
                return Some(connection);
            }
        }
        None
    }

    /// Closes the connections that nobody has checked out.
    pub fn close_idle(&self) {
        self.idle.lock().clear();
    }
}

impl Guard {
    /// Closes the connection now, whatever its state.
    pub fn close(mut self) {
        self.connection = None;
    }
}

impl Deref for Guard {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        #[expect(
            clippy::expect_used,
            reason = "only `close` and `drop` take it, and end the guard"
        )]
        self.connection.as_ref().expect("a live guard has its connection")
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Connection {
        #[expect(
            clippy::expect_used,
            reason = "only `close` and `drop` take it, and end the guard"
        )]
        self.connection.as_mut().expect("a live guard has its connection")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_clean()
        {
            connection.idle_since = Instant::now();
            self.pool.idle.lock().push(connection);
        }
    }
}
