//! The connections of one worker to one node, for one user and database.
//!
//! A session gets the connection that it had last wherever it can, so that what a server session
//! remembers is still there; what another session would miss is taken last.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::task::Waker;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use super::limits::{NodeLimit, Slot};
use super::place::Place;
use super::shelf::{Idle, Pick, Shelf, is_fresh, is_over};
use super::ticket::Look;
use super::trip::Platform;
use super::{
    BackendError, Config, ConnectError, Connection, Credential, DefaultsOf, LiveConfig, Login,
    Moment, NodeAddress, Oids, PoolMode, Ticket,
};
use crate::ids::NodeId;
use crate::runtime::{Tasks, aside};

/// A bounded pool. Statements that find it empty wait in the order in which they came.
#[derive(Debug)]
pub struct Pool {
    of: PoolOf,
    login: ArcSwap<Login>,
    config: LiveConfig,
    pub(super) shelf: Mutex<Shelf>,
    pub(super) platform: Mutex<Platform>,
    /// How long checkouts waited for their turn.
    waited: metrics::Histogram,
    /// Reads that came along on a trip of another session.
    pub(super) shared_reads: metrics::Counter,
    pub(super) shared_reads_left: metrics::Counter,
    limit: Arc<NodeLimit>,
    /// The watch over those who wait.
    pub(super) watch: Tasks,
}

/// The node that a pool's connections lead to.
#[derive(Debug, Clone)]
pub struct PoolOf {
    /// Its id.
    pub node: NodeId,
    /// How to reach it.
    pub address: NodeAddress,
    /// Its object ids, where clients know others.
    pub oids: Option<Arc<Oids>>,
    /// Whose settings they have by default.
    pub defaults: DefaultsOf,
}

/// How a pool is filled, in connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filling {
    /// Sessions hold them.
    pub in_use: usize,
    /// Nobody holds them.
    pub idle: usize,
    /// Statements that wait for one.
    pub waiting: usize,
    /// How many there may be.
    pub size: usize,
}

/// A checked-out connection. Goes back when it is dropped clean; is closed otherwise.
#[derive(Debug)]
pub struct Guard {
    connection: Option<(Box<Connection>, Slot)>,
    pool: Arc<Pool>,
    /// The pool's mode when it was checked out.
    pub mode: PoolMode,
}

impl Pool {
    /// An empty pool of at most `size` connections.
    pub fn new(
        of: PoolOf,
        login: Login,
        config: LiveConfig,
        (size, limit): (u32, Arc<NodeLimit>),
    ) -> Arc<Self> {
        let shelf = Mutex::new(Shelf::new(size));
        let login = ArcSwap::from_pointee(login);
        let waited = metrics::histogram!("foreshard_backend_checkout_wait_seconds");
        let shared_reads = metrics::counter!("foreshard_backend_shared_reads_total");
        let shared_reads_left = metrics::counter!("foreshard_backend_shared_reads_left_total");
        let (platform, watch) = (Mutex::default(), Tasks::new());
        let pool = Arc::new(Self {
            of,
            login,
            config,
            shelf,
            platform,
            waited,
            shared_reads,
            shared_reads_left,
            limit,
            watch,
        });
        pool.limit.enter(&pool);
        pool
    }

    /// A description of parameters or columns by its node, with the object ids that clients know;
    /// `None` if it has those.
    pub async fn described(&self, frame: &[u8]) -> Result<Option<BytesMut>, BackendError> {
        match &self.of.oids {
            Some(oids) => oids.described(frame).await,
            None => Ok(None),
        }
    }

    /// Gives a description by its node the object ids that clients know; no, and nothing is done, if one of
    /// them is to be asked for: [`Pool::described`] does that.
    pub fn describe_at_once(&self, frame: &mut [u8]) -> bool {
        self.of.oids.as_ref().is_none_or(|oids| oids.describe_at_once(frame))
    }

    /// Whether clients know its node's object ids.
    pub fn has_known_ids(&self) -> bool {
        self.of.oids.as_ref().is_none_or(|oids| oids.are_known())
    }

    /// The ids that its node has for types that a client names; 0 for those that it lacks.
    pub async fn types(&self, named: &[u32]) -> Result<SmallVec<[u32; 8]>, BackendError> {
        match &self.of.oids {
            Some(oids) => oids.types(named).await,
            None => Ok(named.into()),
        }
    }

    /// The limits of its connections.
    pub fn config(&self) -> arc_swap::Guard<Arc<Config>> {
        self.config.load()
    }

    /// A connection for the session of `ticket` that is there and needs nothing, as most are. `None`
    /// says nothing: [`Pool::checkout`] knows what is to be done.
    pub fn try_checkout(self: &Arc<Self>, ticket: &Arc<Ticket>) -> Option<Guard> {
        let mut shelf = self.shelf.lock();
        if !shelf.turns.take() {
            return None;
        }
        self.take_ready(shelf, ticket, Place::taken(self)).ok()
    }

    /// A connection for the session of `ticket`: the one that it had last, an idle one, or a new
    /// one; waits for its turn up to the deadline. Cancel safe.
    pub async fn checkout(self: &Arc<Self>, ticket: &Arc<Ticket>) -> Result<Guard, ConnectError> {
        let reserved = self.shelf.lock().take_reserved(ticket);
        if let Some(idle) = reserved {
            let place = Place::taken(self);
            return Ok(self.guard(idle.connection, idle.slot, place, ticket));
        }
        let deadline = Instant::now() + self.config().checkout_timeout();
        let place = self.place(deadline).await?;
        match self.take_ready(self.shelf.lock(), ticket, place) {
            Ok(guard) => Ok(guard),
            Err(place) => aside(|| self.make_ready(ticket, place, deadline)).await,
        }
    }

    /// A connection that needs nothing; gives the place back where there is none.
    fn take_ready<'a>(
        self: &Arc<Self>,
        mut shelf: MutexGuard<'_, Shelf>,
        ticket: &Arc<Ticket>,
        place: Place<'a>,
    ) -> Result<Guard, Place<'a>> {
        let taken = shelf.take_for(ticket);
        drop(shelf);
        let Some(mut taken) = taken else { return Err(place) };
        let (now, config) = (Moment::now(), self.config());
        if is_over(&mut taken.connection, now, &config) {
            return Err(place);
        }
        if !is_fresh(&taken.connection, now, &config) {
            self.shelf.lock().idle.push(taken);
            return Err(place);
        }
        Ok(self.guard_in(config.pool_mode, (taken.connection, taken.slot), place, ticket))
    }

    /// A connection that is looked at first, or a new one.
    async fn make_ready<'a>(
        self: &'a Arc<Self>,
        ticket: &Arc<Ticket>,
        mut place: Place<'a>,
        deadline: Instant,
    ) -> Result<Guard, ConnectError> {
        loop {
            match self.pick(ticket) {
                Pick::Ready(mut idle) => {
                    if !is_over(&mut idle.connection, Moment::now(), &self.config())
                        && self.answers(&mut idle.connection).await
                    {
                        return Ok(self.guard(idle.connection, idle.slot, place, ticket));
                    }
                }
                Pick::Look(mut idle, owner) => {
                    let look = Look::new(&owner);
                    let Ok(found) = idle.connection.look(&[].into()).await else { continue };
                    look.learn(found.settings);
                    if found.state.is_none() {
                        return Ok(self.guard(idle.connection, idle.slot, place, ticket));
                    }
                    idle.reserved = true;
                    self.shelf.lock().idle.push(idle);
                    place.keep();
                    place = self.place(deadline).await?;
                }
                Pick::Open => {
                    let slot = self.limit.slot(deadline).await.map_err(|()| self.exhausted())?;
                    let opened = Box::new(self.open().await?);
                    return Ok(self.guard(opened, slot, place, ticket));
                }
            }
        }
    }

    async fn open(&self) -> Result<Connection, ConnectError> {
        let PoolOf { node, address, defaults, .. } = &self.of;
        let parameters = match defaults {
            DefaultsOf::OfHome(defaults) => defaults.parameters(),
            DefaultsOf::Node | DefaultsOf::Home(_) => Vec::new(),
        };
        let parameters: Vec<_> = parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let (login, within) = (self.login.load_full(), self.config().connect_timeout());
        let mut opened = Connection::open_with(*node, address, &login, within, &parameters).await?;
        if let DefaultsOf::Home(defaults) = defaults {
            defaults.learn(&mut opened).await?;
        }
        Ok(opened)
    }

    fn guard(
        self: &Arc<Self>,
        connection: Box<Connection>,
        slot: Slot,
        place: Place<'_>,
        ticket: &Arc<Ticket>,
    ) -> Guard {
        self.guard_in(self.config().pool_mode, (connection, slot), place, ticket)
    }

    fn guard_in(
        self: &Arc<Self>,
        mode: PoolMode,
        (mut connection, slot): (Box<Connection>, Slot),
        place: Place<'_>,
        ticket: &Arc<Ticket>,
    ) -> Guard {
        connection.trace.take_over(ticket);
        // The guard gives it back.
        place.keep();
        Guard { connection: Some((connection, slot)), pool: Arc::clone(self), mode }
    }

    fn pick(&self, ticket: &Arc<Ticket>) -> Pick {
        self.shelf.lock().pick(ticket)
    }

    /// A place, in the order in which they are asked for.
    async fn place(self: &Arc<Self>, deadline: Instant) -> Result<Place<'_>, ConnectError> {
        if self.shelf.lock().turns.take() {
            return Ok(Place::taken(self));
        }
        let started = Instant::now();
        let place = Place::wait(self, deadline).await;
        self.waited.record(started.elapsed().as_secs_f64());
        place.ok_or_else(|| self.exhausted())
    }

    /// New connections log in with this credential. Nothing does not replace something.
    pub fn renew(&self, credential: &Credential) {
        let login = self.login.load();
        if *credential != Credential::Nothing && login.credential != *credential {
            let credential = credential.clone();
            self.login.store(Arc::new(Login { credential, ..Login::clone(&login) }));
        }
    }

    fn exhausted(&self) -> ConnectError {
        ConnectError::PoolExhausted {
            node: self.of.address.name.clone(),
            size: self.shelf.lock().turns.size(),
            timeout_ms: self.config().checkout_timeout_ms,
        }
    }

    /// Whether a connection that was idle for long still answers.
    async fn answers(&self, connection: &mut Connection) -> bool {
        if is_fresh(connection, Moment::now(), &self.config()) {
            return true;
        }
        matches!(timeout(self.config().connect_timeout(), connection.command("")).await, Ok(Ok(_)))
    }

    /// The session of `ticket` has ended: nobody misses what it left, and what can't be told is
    /// closed.
    pub fn forget(&self, ticket: &Arc<Ticket>) {
        let places = self.shelf.lock().forget(ticket);
        (0..places).for_each(|_| drop(Place::taken(self)));
    }

    /// How it is filled.
    pub fn filling(&self) -> Filling {
        let Shelf { idle, turns } = &*self.shelf.lock();
        let reserved = idle.iter().filter(|idle| idle.reserved).count();
        Filling {
            in_use: (turns.taken() as usize).saturating_sub(reserved),
            idle: idle.len(),
            waiting: turns.waiting(),
            size: turns.size() as usize,
        }
    }

    /// The node that it leads to, and who logs in there to which database.
    pub fn whose(&self) -> (String, String, String) {
        let login = self.login.load();
        (self.of.address.name.clone(), login.user.clone(), login.database.clone())
    }

    /// Closes what has been idle for too long, is too old, or was closed by the node.
    pub fn sweep(&self) {
        let (now, config) = (Moment::now(), self.config());
        let over = |idle: &mut Idle| !idle.reserved && is_over(&mut idle.connection, now, &config);
        self.shelf.lock().idle.retain_mut(|idle| !over(idle));
        // It may have become smaller.
        loop {
            let Filling { in_use, idle, size, .. } = self.filling();
            if in_use + idle <= size || !self.close_one() {
                return;
            }
        }
    }

    /// It may have this many connections from now on; where there are more, those go that come back.
    pub fn resize(&self, size: u32) {
        self.shelf.lock().turns.resize(size);
        loop {
            let granted = self.shelf.lock().turns.grant();
            let Some(waker) = granted else { return };
            waker.wake();
        }
    }

    /// Closes the connections that nobody has checked out.
    pub fn close_idle(&self) {
        self.shelf.lock().idle.retain(|idle| idle.reserved);
    }

    /// Closes one idle connection that nobody misses, so that another pool may open one.
    pub(super) fn close_one(&self) -> bool {
        let taken = self.shelf.lock().take_one();
        taken.is_some()
    }
}

impl Guard {
    /// Closes the connection now, whatever its state.
    pub fn close(mut self) {
        self.connection = None;
    }

    /// The connection beside the pool that it goes back to.
    pub fn parts(&mut self) -> (&mut Connection, &Pool) {
        #[expect(
            clippy::expect_used,
            reason = "only `close` and `drop` take it, and end the guard"
        )]
        let (connection, _) = self.connection.as_mut().expect("a live guard has its connection");
        (connection, &self.pool)
    }

    /// The pool that it goes back to.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Deref for Guard {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        #[expect(
            clippy::expect_used,
            reason = "only `close` and `drop` take it, and end the guard"
        )]
        &self.connection.as_ref().expect("a live guard has its connection").0
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Connection {
        #[expect(
            clippy::expect_used,
            reason = "only `close` and `drop` take it, and end the guard"
        )]
        &mut self.connection.as_mut().expect("a live guard has its connection").0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let back = self.connection.take().filter(|(connection, _)| {
            // Another one is closed before its place is free.
            connection.is_clean() && !self.pool.limit.is_wanted()
        });
        let back = back.map(|(connection, slot)| Idle::new(connection, slot));
        let next = {
            let Shelf { idle, turns } = &mut *self.pool.shelf.lock();
            idle.extend(back);
            turns.leave()
        };
        next.into_iter().for_each(Waker::wake);
    }
}
