//! Who used a connection last, and what it left there: between two transactions another session
//! may take the connection, and must then neither see what is left nor lose it for its owner.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Settings;

/// One client session, to its connections.
#[derive(Debug, Default)]
pub struct Ticket {
    state: Mutex<State>,
    looked: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Another session looks at what this one has left on a connection.
    looking: bool,
    /// What it found: this session's settings.
    learned: Option<Arc<Settings>>,
}

/// Another session looks at what this one has left.
#[derive(Debug, Clone, Copy)]
pub struct StillLooking;

/// Which ticket it is, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TicketId(usize);

/// What was left on a connection.
#[derive(Debug, Default)]
pub struct Trace {
    /// The session that used it last.
    pub owner: Option<Arc<Ticket>>,
    /// Its owner may ask `currval` and `lastval` for what was left here.
    pub sequences: bool,
    /// Its owner called functions that may have left anything.
    pub unknown: bool,
    /// `currval` and `lastval` would answer with what was another session's.
    pub stale_sequences: bool,
}

impl Trace {
    /// Whether its owner would miss it.
    pub(super) fn is_missed(&self) -> bool {
        self.owner.is_some() && (self.sequences || self.unknown)
    }

    /// Whether `ticket`'s session used it last.
    pub(super) fn is_of(&self, ticket: &Arc<Ticket>) -> bool {
        self.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, ticket))
    }

    /// Which session used it last.
    pub(super) fn owner_id(&self) -> Option<TicketId> {
        self.owner.as_ref().map(Ticket::id)
    }

    /// The session of `ticket` takes over.
    pub(super) fn take_over(&mut self, ticket: &Arc<Ticket>) {
        if !self.is_of(ticket) {
            let stale_sequences = self.sequences || self.stale_sequences;
            *self = Self { owner: Some(Arc::clone(ticket)), stale_sequences, ..Self::default() };
        }
    }
}

/// While it lives, the owner of a connection waits for what another session finds there.
#[derive(Debug)]
pub(super) struct Look(Arc<Ticket>);

impl Look {
    pub(super) fn new(ticket: &Arc<Ticket>) -> Self {
        ticket.state.lock().looking = true;
        Self(Arc::clone(ticket))
    }

    /// These are the settings that were found.
    pub(super) fn learn(&self, settings: Arc<Settings>) {
        self.0.state.lock().learned = Some(settings);
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.0.state.lock().looking = false;
        self.0.looked.notify_waiters();
    }
}

impl Ticket {
    pub(super) fn id(self: &Arc<Self>) -> TicketId {
        TicketId(Arc::as_ptr(self).addr())
    }

    /// The settings that another session found on this one's last connection, if it took that.
    /// Cancel safe.
    pub async fn learned(&self) -> Option<Arc<Settings>> {
        if let Ok(learned) = self.look_done() {
            return learned;
        }
        loop {
            let looked = self.looked.notified();
            if let Ok(learned) = self.look_done() {
                return learned;
            }
            looked.await;
        }
    }

    /// The same, unless somebody is still looking.
    pub fn look_done(&self) -> Result<Option<Arc<Settings>>, StillLooking> {
        let mut state = self.state.lock();
        if state.looking { Err(StillLooking) } else { Ok(state.learned.take()) }
    }
}
