//! The states of a move, split or merge, and the table of transitions.
//!
//! | state       | action    | event → next state                                              |
//! |-------------|-----------|-----------------------------------------------------------------|
//! | keeping     | keep      | recalled → requested; lapsed → undoing                          |
//! | requested   | check     | checked → preparing; of a way back → building                   |
//! | preparing   | prepare   | prepared → copying                                              |
//! | copying     | copy      | copied → building                                               |
//! | building    | build     | built → catching_up                                             |
//! | catching_up | catch up  | caught up → verifying; → switching once the rows are verified   |
//! | verifying   | verify    | verified → switching                                            |
//! | switching   | switch    | switched → switched; postponed → catching_up                    |
//! | switched    | clean up  | cleaned → done                                                  |
//! | undoing     | undo      | undone → aborted; lapsed if nothing had failed                  |
//! | done        |           |                                                                 |
//! | aborted     |           |                                                                 |
//! | lapsed      |           |                                                                 |
//!
//! A move begins as *requested*; a way back, which the switch of a move makes, as *keeping*.
//! *failed* → undoing from each state above *switched*; from *switched* on there is no way back.
//! *troubled*, *counted* and *paused* note something and change no state.

use serde::{Deserialize, Serialize};

use super::record::{Cause, Lane, Move, Object, ObjectKind, Proof, Step};
use crate::ids::MoveId;

/// How far a move is. Stored before it is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The switch of another move made it, to go back: the old copies are kept current.
    Keeping,
    /// Written by whoever wants the move; nothing is done yet.
    Requested,
    /// What the move makes is recorded; publication and tables are being made.
    Preparing,
    /// Slot and snapshot; rows are being copied. Goes on with the segments that are left, if it can.
    Copying,
    /// Constraints and indexes of the new tables.
    Building,
    /// The stream of changes is being applied until the rest is small.
    CatchingUp,
    /// Both sides are compared at the same WAL position.
    Verifying,
    /// The gate is closed, or about to be; ownership changes hands.
    Switching,
    /// The catalog's map has the shard at the destination. Can only be finished.
    Switched,
    /// What the move made is being removed.
    Undoing,
    /// Finished: the destination owns the shard, and nothing of the move is left.
    Done,
    /// Finished: the source still owns the shard, and nothing of the move is left.
    Aborted,
    /// Finished: nobody went back, and the old copies are gone.
    Lapsed,
}

impl State {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Aborted | Self::Lapsed)
    }

    /// Whether the move can still be undone.
    pub fn can_undo(self) -> bool {
        self != Self::Switched && !self.is_final()
    }

    /// The word for logs, metrics and users.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keeping => "keeping",
            Self::Requested => "requested",
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::Building => "building",
            Self::CatchingUp => "catching_up",
            Self::Verifying => "verifying",
            Self::Switching => "switching",
            Self::Switched => "switched",
            Self::Undoing => "undoing",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Lapsed => "lapsed",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// What is to be done in a state. Each can be repeated after a crash anywhere inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Apply the stream to the old copies until somebody goes back, or nobody may any more.
    Keep,
    /// Look whether the move can work at all; changes nothing.
    Check,
    /// Make the publication, the replica identities and the empty tables.
    Prepare,
    /// Make slot and tables, copy the segments of the slot's snapshot; or what is left of them, in a
    /// newer one.
    Copy,
    /// Constraints, indexes, statistics.
    Build,
    /// Apply the stream until it is nearly at its end, and any back-off is over.
    CatchUp,
    /// Compare rows and checksums at one WAL position.
    Verify,
    /// Close the gate, drain, detach, apply the rest, attach, commit the map.
    Switch,
    /// Remove the old copy, unless it is kept, and all that the move made.
    CleanUp,
    /// Remove all that the move made.
    Undo,
    /// Nothing: it is finished.
    Rest,
}

/// The outcome of an action, or something worth noting.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody wants to go back.
    Recalled,
    /// The old copies are not kept any longer.
    Lapsed {
        /// Why, for its user.
        reason: String,
    },
    /// The move can work; these are its tables, and all that it is going to make.
    Checked {
        /// The move's lanes, now with their bounds and tables.
        lanes: Vec<Lane>,
        /// Everything that will be created, on either node.
        objects: Vec<Object>,
        /// What the way back will need; none if there is to be none.
        objects_for_back: Vec<Object>,
    },
    /// Publication and tables are there.
    Prepared,
    /// All rows of the snapshot are at the destination.
    Copied {
        /// Of all tables together.
        rows: u64,
        /// As COPY wrote them.
        bytes: u64,
    },
    /// The new tables have all that ATTACH wants.
    Built,
    /// What is left of the stream is small, and the back-off is over.
    CaughtUp,
    /// Both sides were equal.
    Verified {
        /// One for each table.
        proofs: Vec<Proof>,
        /// The lanes of the way back, if there is to be one: what it needs is made. Or why there is
        /// none.
        back: Result<Vec<Lane>, String>,
    },
    /// The switch was given up without a trace; it is tried again later.
    Postponed {
        /// What was in the way.
        reason: String,
        /// Not before this time, in ms since 1970.
        retry_unix_ms: u64,
    },
    /// The map with the shard at the destination is part of the same commit.
    Switched {
        /// The move that keeps the old copies, which is part of it too; `None` if they have to go.
        way_back: Option<MoveId>,
    },
    /// The old copy, slot and publication are gone.
    Cleaned,
    /// All that the move made is gone.
    Undone,
    /// The move can't work, or was called off: undo it.
    Failed {
        /// Why, for its user.
        error: String,
    },
    /// The action failed and is being tried again.
    Troubled {
        /// Why, for its user.
        error: String,
    },
    /// Changes of the stream that were applied since the last count.
    Counted {
        /// Rows inserted, updated, deleted; truncates.
        changes: u64,
    },
    /// How long the gate was closed.
    Paused {
        /// From closed to open.
        pause_ms: f64,
    },
}

impl Event {
    fn word(&self) -> &'static str {
        match self {
            Self::Recalled => "recalled",
            Self::Lapsed { .. } => "left to lapse",
            Self::Checked { .. } => "checked",
            Self::Prepared => "prepared",
            Self::Copied { .. } => "copied",
            Self::Built => "built",
            Self::CaughtUp => "caught up",
            Self::Verified { .. } => "verified",
            Self::Postponed { .. } => "postponed",
            Self::Switched { .. } => "switched",
            Self::Cleaned => "cleaned",
            Self::Undone => "undone",
            Self::Failed { .. } => "failed",
            Self::Troubled { .. } => "troubled",
            Self::Counted { .. } => "counted",
            Self::Paused { .. } => "paused",
        }
    }
}

/// An event that can't happen in the move's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a move that is {state} can't be {event}")]
pub struct InvalidEvent {
    /// The state.
    pub state: State,
    /// The event's word.
    pub event: &'static str,
}

impl Move {
    /// What is to be done now.
    pub fn next_action(&self) -> Action {
        match self.state {
            State::Keeping => Action::Keep,
            State::Requested => Action::Check,
            State::Preparing => Action::Prepare,
            State::Copying => Action::Copy,
            State::Building => Action::Build,
            State::CatchingUp => Action::CatchUp,
            State::Verifying => Action::Verify,
            State::Switching => Action::Switch,
            State::Switched => Action::CleanUp,
            State::Undoing => Action::Undo,
            State::Done | State::Aborted | State::Lapsed => Action::Rest,
        }
    }

    /// The move after `event`, at `now_unix_ms`.
    pub fn on_event(mut self, event: Event, now_unix_ms: u64) -> Result<Self, InvalidEvent> {
        let next = self.next_state(&event)?;
        self.note(event, now_unix_ms);
        if next != self.state {
            self.state = next;
            self.history.push(Step { state: next, at_unix_ms: now_unix_ms });
        }
        Ok(self)
    }

    /// The table of transitions.
    #[expect(clippy::match_same_arms, reason = "a row of the table an arm")]
    fn next_state(&self, event: &Event) -> Result<State, InvalidEvent> {
        let verified = self.verified_unix_ms.is_some();
        let next = match (self.state, event) {
            (State::Keeping, Event::Recalled) => State::Requested,
            (State::Keeping, Event::Lapsed { .. }) => State::Undoing,
            (State::Requested, Event::Checked { .. }) if self.reverses.is_some() => State::Building,
            (State::Requested, Event::Checked { .. }) => State::Preparing,
            (State::Preparing, Event::Prepared) => State::Copying,
            (State::Copying, Event::Copied { .. }) => State::Building,
            (State::Building, Event::Built) => State::CatchingUp,
            (State::CatchingUp, Event::CaughtUp) if verified => State::Switching,
            (State::CatchingUp, Event::CaughtUp) => State::Verifying,
            (State::Verifying, Event::Verified { .. }) => State::Switching,
            (State::Switching, Event::Postponed { .. }) => State::CatchingUp,
            (State::Switching, Event::Switched { .. }) => State::Switched,
            (State::Switched, Event::Cleaned) => State::Done,
            (State::Undoing, Event::Undone) if self.error.is_none() => State::Lapsed,
            (State::Undoing, Event::Undone) => State::Aborted,
            (state, Event::Failed { .. }) if state.can_undo() => State::Undoing,
            (State::Switched | State::Done, Event::Paused { .. }) => self.state,
            (state, Event::Troubled { .. } | Event::Counted { .. }) if !state.is_final() => state,
            (state, event) => return Err(InvalidEvent { state, event: event.word() }),
        };
        Ok(next)
    }

    /// Keeps what `event` brings.
    fn note(&mut self, event: Event, now_unix_ms: u64) {
        match event {
            Event::Checked { lanes, objects, objects_for_back } => {
                self.lanes = lanes;
                self.objects = objects;
                self.objects_for_back = objects_for_back;
            }
            Event::Copied { rows, bytes } => {
                self.rows_copied = rows;
                self.bytes_copied = bytes;
            }
            Event::Recalled => self.cause = Cause::Operator,
            Event::Lapsed { reason } => self.trouble = Some(reason),
            Event::Verified { proofs, back } => {
                self.proofs = proofs;
                (self.back, self.irreversible) = match back {
                    Ok(lanes) => (lanes, None),
                    Err(why) => (Vec::new(), Some(why)),
                };
                self.verified_unix_ms = Some(now_unix_ms);
            }
            Event::Postponed { reason, retry_unix_ms } => {
                self.postponed += 1;
                self.trouble = Some(reason);
                self.not_before_unix_ms = retry_unix_ms;
            }
            Event::Switched { way_back } => {
                self.switched_unix_ms = Some(now_unix_ms);
                self.trouble = None;
                self.way_back = way_back;
                self.hand_over();
            }
            Event::Cleaned | Event::Undone => {
                self.objects.clear();
                self.objects_for_back.clear();
                self.back.clear();
            }
            Event::Failed { error } => {
                self.error.get_or_insert(error);
            }
            Event::Troubled { error } => self.trouble = Some(error),
            Event::Counted { changes } => self.changes_applied += changes,
            Event::Paused { pause_ms } => self.pause_ms = Some(pause_ms),
            Event::Prepared | Event::Built | Event::CaughtUp => self.trouble = None,
        }
    }

    /// The new tables are the shard now. The old ones are what has to go; or the way back has them,
    /// and what it needs.
    fn hand_over(&mut self) {
        let kept = self.way_back.is_some();
        self.objects.retain(|object| match &object.kind {
            ObjectKind::Leaf(_) => false,
            ObjectKind::HelperCheck { .. } | ObjectKind::Freeze(_) => kept,
            _ => true,
        });
        let for_back = std::mem::take(&mut self.objects_for_back);
        if kept {
            return;
        }
        self.objects.extend(for_back);
        let mut old = Vec::new();
        for source in self.sources() {
            for table in self.leaves_of(source.shard) {
                let kind = ObjectKind::Leaf(table.leaf.clone());
                old.push(Object { node: source.node, kind });
            }
        }
        self.objects.extend(old);
    }
}
