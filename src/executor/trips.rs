//! Reads that share a round trip with those of other sessions.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use super::cancel::CancelTarget;
use super::session::{Member, Pin};
use super::{Fault, Session};
use crate::backend::{Ride, Trip};
use crate::ids::NodeId;
use crate::wire::TransactionStatus;

/// How long a session waits for its turn on a trip before it runs its statement by itself.
const PATIENCE: Duration = Duration::from_millis(20);

impl Session {
    /// The trip to `node` that the session's next statement may come along on.
    pub fn boarding(&mut self, node: NodeId) -> Option<Arc<Trip>> {
        // What its functions have left is where it was last.
        if !self.members.is_empty() || self.left_unknown || !self.is_single() {
            return None;
        }
        let pool = &self.pools[node.index()];
        if let Some(learned) = self.ticket.look_done().ok()? {
            self.settings = learned;
        }
        pool.boarding(&mut self.settings)
    }

    /// Waits for its turn; whether the connection is the session's then, with the statement sent. If not,
    /// nothing has happened.
    ///
    /// # Errors
    /// 57014: it was cancelled.
    pub async fn ride(&mut self, node: NodeId, ride: Ride) -> Result<bool, Fault> {
        let turn = timeout(PATIENCE, poll_fn(|context| ride.poll_turn(context)));
        match self.cancel.unless_cancelled(turn).await? {
            Ok(Some(guard)) => {
                let at = self.add(node, guard);
                self.members[at].ride = Some(ride);
                self.cancel.check()?;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(_) => {
                self.pools[node.index()].rest_from_trips();
                Ok(false)
            }
        }
    }

    /// The place of a connection to `node` on which the session's statement was sent with those of others.
    pub(super) fn ridden(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.node == node && member.ride.is_some())
    }

    /// Lets reads of other sessions come along that are ready to be sent now: what the connection at this
    /// place is to be sent for all. `None` if it is alone.
    pub(super) async fn gather_riders(&mut self, at: usize, own: &[u8]) -> Option<BytesMut> {
        let member = &mut self.members[at];
        let free = member.pin == Pin::No && !member.has_begun() && member.preface.is_empty();
        if !free || !self.is_single() {
            return None;
        }
        let guard = &mut self.members[at].guard;
        let pool = Arc::clone(guard.pool());
        let ride = pool.open_trip(guard)?;
        self.members[at].ride = Some(ride);
        // Behind all that is ready: without others it costs no more than to be polled again.
        let mut polled = false;
        poll_fn(|context| {
            if polled {
                return Poll::Ready(());
            }
            polled = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        let member = &mut self.members[at];
        let messages = member.ride.as_mut()?.depart(&mut member.guard, own);
        if messages.is_none() {
            member.ride = None;
        }
        messages
    }

    /// Whether the statement under way is a transaction of its own, behind which there is nothing to look
    /// at.
    fn is_single(&self) -> bool {
        let in_block = self.transaction.begin.is_some() || self.transaction.begun_unseen;
        !in_block && !self.engine.doubts.any() && !self.may_have_left_something()
    }
}

/// Returns a connection to its pool, or to who comes next on its trip; closes it if a cancel request may still be on its way to it.
pub(super) fn hand_back(cancel: &CancelTarget, mut member: Member) {
    member.pin_for(Pin::No);
    let hit = cancel.remove(member.node, member.guard.key);
    let idle = member.guard.status == Some(TransactionStatus::Idle);
    match member.ride {
        _ if hit => member.guard.close(),
        Some(ride) if idle => ride.pass_on(member.guard),
        _ => {}
    }
}
