//! The connections of one worker to one node, for one user and database.
//!
//! A session gets the connection that it had last wherever it can, so that what a server session
//! remembers is still there; what another session would miss is taken last.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use super::limits::{NodeLimit, Slot, Waiting};
use super::ticket::Look;
use super::{
    BackendError, Config, ConnectError, Connection, Credential, DefaultsOf, LiveConfig, Login,
    Moment, NodeAddress, Oids, Permits, PoolMode, Ticket, TicketId,
};
use crate::ids::NodeId;
use crate::runtime::Tasks;

/// How long a connection that is too old is kept for a session that may ask `currval`.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// A bounded pool. Statements that find it empty wait in the order in which they came.
#[derive(Debug)]
pub struct Pool {
    of: PoolOf,
    login: ArcSwap<Login>,
    config: LiveConfig,
    idle: Mutex<Vec<Idle>>,
    permits: Permits,
    /// Checkouts that wait for one.
    waiting: AtomicUsize,
    /// How long those waited.
    waited: metrics::Histogram,
    limit: Arc<NodeLimit>,
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

/// A connection that nobody has checked out.
#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    slot: Slot,
    /// Who used it last, and whether they would miss it: beside each other in memory for all that are
    /// idle, as each checkout looks through them.
    owner: Option<TicketId>,
    missed: bool,
    /// It has state of its owner's, so that only that session may have it; it counts as in use.
    reserved: Option<OwnedSemaphorePermit>,
}

/// What a checkout finds.
enum Pick {
    Ready(Idle),
    /// Its owner would miss what it has left there: look first.
    Look(Idle, Arc<Ticket>),
    Open,
}

/// A checked-out connection. Goes back when it is dropped clean; is closed otherwise.
#[derive(Debug)]
pub struct Guard {
    connection: Option<(Box<Connection>, Slot)>,
    pool: Arc<Pool>,
    /// The pool's mode when it was checked out.
    pub mode: PoolMode,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// An empty pool of at most `size` connections.
    pub fn new(
        of: PoolOf,
        login: Login,
        config: LiveConfig,
        (size, limit): (u32, Arc<NodeLimit>),
    ) -> Arc<Self> {
        let permits = Permits::new(size);
        let idle = Mutex::default();
        let login = ArcSwap::from_pointee(login);
        let waiting = AtomicUsize::new(0);
        let waited = metrics::histogram!("foreshard_backend_checkout_wait_seconds");
        let pool = Arc::new(Self { of, login, config, idle, permits, waiting, waited, limit });
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
        let permit = self.permits.take()?;
        self.take_ready(ticket, permit).ok()
    }

    /// A connection for the session of `ticket`: the one that it had last, an idle one, or a new
    /// one; waits for its turn up to the deadline. Cancel safe.
    pub async fn checkout(self: &Arc<Self>, ticket: &Arc<Ticket>) -> Result<Guard, ConnectError> {
        if let Some((idle, permit)) = self.take_reserved(ticket) {
            return Ok(self.guard(idle.connection, idle.slot, permit, ticket));
        }
        let deadline = Instant::now() + self.config().checkout_timeout();
        let permit = self.permit(deadline).await?;
        match self.take_ready(ticket, permit) {
            Ok(guard) => Ok(guard),
            // The rare rest is large: who only waits for a turn, as many do, does not pay for it.
            Err(permit) => Box::pin(self.make_ready(ticket, permit, deadline)).await,
        }
    }

    /// A connection that needs nothing; gives the permit back where there is none.
    fn take_ready(
        self: &Arc<Self>,
        ticket: &Arc<Ticket>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Guard, OwnedSemaphorePermit> {
        let taken = {
            let mut idle = self.idle.lock();
            place_for(&idle, ticket).map(|at| idle.remove(at))
        };
        let Some(mut taken) = taken else { return Err(permit) };
        let (now, config) = (Moment::now(), self.config());
        if is_over(&mut taken.connection, now, &config) {
            return Err(permit);
        }
        if !is_fresh(&taken.connection, now, &config) {
            self.idle.lock().push(taken);
            return Err(permit);
        }
        Ok(self.guard_in(config.pool_mode, (taken.connection, taken.slot), permit, ticket))
    }

    /// A connection that is looked at first, or a new one.
    async fn make_ready(
        self: &Arc<Self>,
        ticket: &Arc<Ticket>,
        mut permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Guard, ConnectError> {
        loop {
            match self.pick(ticket) {
                Pick::Ready(mut idle) => {
                    if !is_over(&mut idle.connection, Moment::now(), &self.config())
                        && self.answers(&mut idle.connection).await
                    {
                        return Ok(self.guard(idle.connection, idle.slot, permit, ticket));
                    }
                }
                Pick::Look(mut idle, owner) => {
                    let look = Look::new(&owner);
                    let Ok(found) = idle.connection.look(&[].into()).await else { continue };
                    look.learn(found.settings);
                    if found.state.is_none() {
                        return Ok(self.guard(idle.connection, idle.slot, permit, ticket));
                    }
                    idle.reserved = Some(permit);
                    self.idle.lock().push(idle);
                    permit = self.permit(deadline).await?;
                }
                Pick::Open => {
                    let slot = self.limit.slot(deadline).await.map_err(|()| self.exhausted())?;
                    let opened = Box::new(self.open().await?);
                    return Ok(self.guard(opened, slot, permit, ticket));
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
        permit: OwnedSemaphorePermit,
        ticket: &Arc<Ticket>,
    ) -> Guard {
        self.guard_in(self.config().pool_mode, (connection, slot), permit, ticket)
    }

    fn guard_in(
        self: &Arc<Self>,
        mode: PoolMode,
        (mut connection, slot): (Box<Connection>, Slot),
        permit: OwnedSemaphorePermit,
        ticket: &Arc<Ticket>,
    ) -> Guard {
        connection.trace.take_over(ticket);
        let connection = Some((connection, slot));
        Guard { connection, pool: Arc::clone(self), mode, _permit: permit }
    }

    fn take_reserved(&self, ticket: &Arc<Ticket>) -> Option<(Idle, OwnedSemaphorePermit)> {
        let mut idle = self.idle.lock();
        let own = |idle: &Idle| idle.reserved.is_some() && idle.owner == Some(ticket.id());
        let mut taken = idle.iter().position(own).map(|at| idle.remove(at))?;
        let permit = taken.reserved.take()?;
        Some((taken, permit))
    }

    /// New connections log in with this credential. Nothing does not replace something.
    pub fn renew(&self, credential: &Credential) {
        let login = self.login.load();
        if *credential != Credential::Nothing && login.credential != *credential {
            let credential = credential.clone();
            self.login.store(Arc::new(Login { credential, ..Login::clone(&login) }));
        }
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ConnectError> {
        if let Some(permit) = self.permits.take() {
            return Ok(permit);
        }
        let started = Instant::now();
        let _waiting = Waiting::new(&self.waiting);
        let permit = timeout_at(deadline, self.permits.wait()).await;
        self.waited.record(started.elapsed().as_secs_f64());
        permit.map_err(|_| self.exhausted())?.map_err(|_| self.exhausted())
    }

    fn exhausted(&self) -> ConnectError {
        ConnectError::PoolExhausted {
            node: self.of.address.name.clone(),
            size: self.permits.size(),
            timeout_ms: self.config().checkout_timeout_ms,
        }
    }

    /// The connection that the session had last, else the one that was used last and that nobody
    /// misses, else a new one, else the one that was missed longest.
    fn pick(&self, ticket: &Arc<Ticket>) -> Pick {
        let mut idle = self.idle.lock();
        let free = |idle: &Idle| idle.reserved.is_none();
        let own = |idle: &Idle| free(idle) && idle.owner == Some(ticket.id());
        let unmissed = |idle: &Idle| free(idle) && !idle.missed;
        if let Some(at) = idle.iter().rposition(own).or_else(|| idle.iter().rposition(unmissed)) {
            return Pick::Ready(idle.remove(at));
        }
        let others = idle.iter().filter(|idle| free(idle)).count();
        // This checkout's own permit is not available either.
        if others <= self.permits.free() {
            return Pick::Open;
        }
        let Some(at) = idle.iter().position(free) else { return Pick::Open };
        let taken = idle.remove(at);
        match taken.connection.trace.owner.clone().filter(|_| taken.connection.trace.unknown) {
            Some(owner) => Pick::Look(taken, owner),
            None => Pick::Ready(taken),
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
        self.idle.lock().retain_mut(|idle| {
            let trace = &mut idle.connection.trace;
            if !trace.is_of(ticket) {
                return true;
            }
            trace.owner = None;
            trace.stale_sequences |= trace.sequences;
            (idle.owner, idle.missed) = (None, false);
            idle.reserved.is_none() && !trace.unknown
        });
    }

    /// Connections that sessions hold, those that nobody holds, and how many there may be.
    pub fn filling(&self) -> (usize, usize, usize) {
        let size = self.permits.size() as usize;
        let idle = self.idle.lock();
        let reserved = idle.iter().filter(|idle| idle.reserved.is_some()).count();
        let taken = size.saturating_sub(self.permits.free());
        (taken.saturating_sub(reserved), idle.len(), size)
    }

    /// Statements that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The node that it leads to, and who logs in there to which database.
    pub fn whose(&self) -> (String, String, String) {
        let login = self.login.load();
        (self.of.address.name.clone(), login.user.clone(), login.database.clone())
    }

    /// Closes what has been idle for too long, is too old, or was closed by the node.
    pub fn sweep(&self) {
        let (now, config) = (Moment::now(), self.config());
        let over = |idle: &mut Idle| {
            idle.reserved.is_none() && is_over(&mut idle.connection, now, &config)
        };
        self.idle.lock().retain_mut(|idle| !over(idle));
        // It may have become smaller.
        loop {
            let (in_use, idle, size) = self.filling();
            if in_use + idle <= size || !self.close_one() {
                return;
            }
        }
    }

    /// It may have this many connections from now on; where there are more, those go that come back.
    pub fn resize(&self, size: u32, tasks: &Tasks) {
        self.permits.resize(size, tasks, || {});
    }

    /// Closes the connections that nobody has checked out.
    pub fn close_idle(&self) {
        self.idle.lock().retain(|idle| idle.reserved.is_some());
    }

    /// Closes one idle connection that nobody misses, so that another pool may open one.
    pub(super) fn close_one(&self) -> bool {
        let mut idle = self.idle.lock();
        let unmissed = |idle: &Idle| idle.reserved.is_none() && !idle.missed;
        let known = |idle: &Idle| idle.reserved.is_none() && !idle.connection.trace.unknown;
        let at = idle.iter().position(unmissed).or_else(|| idle.iter().position(known));
        at.map(|at| idle.remove(at)).is_some()
    }
}

/// Whether an idle connection is to be closed: too old, idle for too long, or closed by the node. What
/// a session has left in it for certain goes with it only once it was idle for too long, or old and
/// idle for a while; what can't be told stays as long as its session.
fn is_over(connection: &mut Connection, now: Moment, config: &Config) -> bool {
    if connection.is_stale() {
        return true;
    }
    let trace = &connection.trace;
    if trace.is_missed() && trace.unknown {
        return false;
    }
    let idle = now.since(connection.idle_since);
    let is_old = config.lifetime().is_some_and(|it| now.since(connection.opened_at) > it);
    idle > config.idle_timeout() || is_old && (!trace.is_missed() || idle > KEPT_FOR)
}

/// Whether it was not idle for so long that it has to show that it answers.
fn is_fresh(connection: &Connection, now: Moment, config: &Config) -> bool {
    now.since(connection.idle_since) < config.check_after()
}

/// The connection that the session had last, else the one that was used last and that nobody misses;
/// `None` where there is neither, or one is reserved for the session.
fn place_for(idle: &[Idle], ticket: &Arc<Ticket>) -> Option<usize> {
    let (me, mut own, mut unmissed) = (Some(ticket.id()), None, None);
    for (at, idle) in idle.iter().enumerate() {
        match idle {
            Idle { owner, reserved: Some(_), .. } if *owner == me => return None,
            Idle { reserved: Some(_), .. } => {}
            Idle { owner, .. } if *owner == me => own = Some(at),
            Idle { missed: false, .. } => unmissed = Some(at),
            Idle { .. } => {}
        }
    }
    own.or(unmissed)
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
        if let Some((mut connection, slot)) = self.connection.take()
            && connection.is_clean()
            && !self.pool.limit.is_wanted()
        {
            connection.idle_since = Moment::now();
            let (owner, missed) = (connection.trace.owner_id(), connection.trace.is_missed());
            self.pool.idle.lock().push(Idle { connection, slot, owner, missed, reserved: None });
        }
    }
}
