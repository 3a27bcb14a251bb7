//! The connections of a pool that nobody has checked out, and its places.

use std::sync::Arc;
use std::time::Duration;

use super::limits::Slot;
use super::turns::Turns;
use super::{Config, Connection, Moment, Ticket, TicketId};

/// How long a connection that is too old is kept for a session that may ask `currval`.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// What a pool has.
#[derive(Debug)]
pub(super) struct Shelf {
    pub idle: Vec<Idle>,
    pub turns: Turns,
}

/// A connection that nobody has checked out.
#[derive(Debug)]
pub(super) struct Idle {
    pub connection: Box<Connection>,
    pub slot: Slot,
    /// Who used it last, and whether they would miss it: beside each other in memory for all that are
    /// idle, as each checkout looks through them.
    owner: Option<TicketId>,
    missed: bool,
    /// It has state of its owner's, so that only that session may have it; it has a place as if it were
    /// in use.
    pub reserved: bool,
}

/// What a checkout finds.
pub(super) enum Pick {
    Ready(Idle),
    /// Its owner would miss what it has left there: look first.
    Look(Idle, Arc<Ticket>),
    Open,
}

impl Shelf {
    /// With this many places.
    pub(super) fn new(size: u32) -> Self {
        Self { idle: Vec::new(), turns: Turns::new(size) }
    }

    /// The connection that the session had last, else the one that was used last and that nobody
    /// misses, else a new one, else the one that was missed longest.
    pub(super) fn pick(&mut self, ticket: &Arc<Ticket>) -> Pick {
        let Self { idle, turns } = self;
        let free = |idle: &Idle| !idle.reserved;
        let own = |idle: &Idle| free(idle) && idle.owner == Some(ticket.id());
        let unmissed = |idle: &Idle| free(idle) && !idle.missed;
        if let Some(at) = idle.iter().rposition(own).or_else(|| idle.iter().rposition(unmissed)) {
            return Pick::Ready(idle.remove(at));
        }
        let others = idle.iter().filter(|idle| free(idle)).count();
        // This checkout's own place is not free either.
        if others <= turns.free() as usize {
            return Pick::Open;
        }
        let Some(at) = idle.iter().position(free) else { return Pick::Open };
        let taken = idle.remove(at);
        match taken.connection.trace.owner.clone().filter(|_| taken.connection.trace.unknown) {
            Some(owner) => Pick::Look(taken, owner),
            None => Pick::Ready(taken),
        }
    }

    /// The connection that the session had last, else the one that was used last and that nobody
    /// misses; `None` where there is neither, or one is reserved for the session.
    pub(super) fn take_for(&mut self, ticket: &Arc<Ticket>) -> Option<Idle> {
        let (me, mut own, mut unmissed) = (Some(ticket.id()), None, None);
        for (at, idle) in self.idle.iter().enumerate() {
            match idle {
                Idle { owner, reserved: true, .. } if *owner == me => return None,
                Idle { reserved: true, .. } => {}
                Idle { owner, .. } if *owner == me => own = Some(at),
                Idle { missed: false, .. } => unmissed = Some(at),
                Idle { .. } => {}
            }
        }
        own.or(unmissed).map(|at| self.idle.remove(at))
    }

    /// The connection that is reserved for the session. Its place is the caller's.
    pub(super) fn take_reserved(&mut self, ticket: &Arc<Ticket>) -> Option<Idle> {
        let own = |idle: &Idle| idle.reserved && idle.owner == Some(ticket.id());
        self.idle.iter().position(own).map(|at| self.idle.remove(at))
    }

    /// The session has ended: nobody misses what it left, and what can't be told is closed. How many
    /// places that leaves to the caller.
    pub(super) fn forget(&mut self, ticket: &Arc<Ticket>) -> usize {
        let mut places = 0;
        self.idle.retain_mut(|idle| {
            let trace = &mut idle.connection.trace;
            if !trace.is_of(ticket) {
                return true;
            }
            trace.owner = None;
            trace.stale_sequences |= trace.sequences;
            (idle.owner, idle.missed) = (None, false);
            places += usize::from(idle.reserved);
            !idle.reserved && !trace.unknown
        });
        places
    }

    /// Takes out one connection that nobody misses, or that can be told what it was left with.
    pub(super) fn take_one(&mut self) -> Option<Idle> {
        let unmissed = |idle: &Idle| !idle.reserved && !idle.missed;
        let known = |idle: &Idle| !idle.reserved && !idle.connection.trace.unknown;
        let at = self.idle.iter().position(unmissed).or_else(|| self.idle.iter().position(known));
        at.map(|at| self.idle.remove(at))
    }
}

impl Idle {
    /// From now on.
    pub(super) fn new(mut connection: Box<Connection>, slot: Slot) -> Self {
        connection.idle_since = Moment::now();
        let (owner, missed) = (connection.trace.owner_id(), connection.trace.is_missed());
        Self { connection, slot, owner, missed, reserved: false }
    }
}

/// Whether an idle connection is to be closed: too old, idle for too long, or closed by the node. What
/// a session has left in it for certain goes with it only once it was idle for too long, or old and
/// idle for a while; what can't be told stays as long as its session.
pub(super) fn is_over(connection: &mut Connection, now: Moment, config: &Config) -> bool {
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
pub(super) fn is_fresh(connection: &Connection, now: Moment, config: &Config) -> bool {
    now.since(connection.idle_since) < config.check_after()
}
