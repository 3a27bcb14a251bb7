//! A commit that is applied once or not at all, and whose outcome is known, whatever is lost on the way.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::gateway::{Failure, decoded, encoded, number};
use super::{DEADLINE, EtcdKv, PAUSE, SLOTS, State, store};
use crate::catalog::kv::{CatalogError, Expect, Op, Revision};

/// An entry that one commit after the other writes.
#[derive(Debug)]
pub(super) struct Slot {
    number: usize,
    /// Who wrote it last; 0 if nobody did.
    revision: u64,
}

/// A commit that may have been applied: with this in its slot, if it was.
#[derive(Debug)]
pub(super) struct Sent {
    slot: Slot,
    mark: u64,
}

/// A commit under way. Dropped midway it is left to be settled.
struct Flight {
    sent: Option<Sent>,
    /// Whether an attempt may be under way, or have been applied.
    loose: bool,
    state: Arc<Mutex<State>>,
}

impl Flight {
    fn new(state: &Arc<Mutex<State>>) -> Self {
        let mut known = state.lock();
        let slot = known.free.pop().unwrap_or_else(|| {
            known.made += 1;
            Slot { number: known.made - 1, revision: 0 }
        });
        drop(known);
        let sent = Some(Sent { slot, mark: rand::random() });
        Self { sent, loose: false, state: Arc::clone(state) }
    }

    /// The slot is free again, last written by this commit.
    fn end(mut self, revision: u64) {
        if let Some(mut sent) = self.sent.take() {
            sent.slot.revision = revision;
            self.state.lock().free.push(sent.slot);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        let mut state = self.state.lock();
        if self.loose {
            state.unsettled.push(sent);
        } else {
            state.free.push(sent.slot);
        }
    }
}

/// What an attempt came to.
enum Outcome {
    Applied(u64),
    /// Somebody else wrote the slot: to be tried again.
    SlotMoved(u64),
    /// The proxy does not lead any more.
    Replaced,
    /// Another writer was first.
    Conflict(String),
}

impl EtcdKv {
    /// Applies all of `ops` or none.
    pub(super) async fn apply(&self, ops: &[Op]) -> Result<Revision, CatalogError> {
        self.settle().await?;
        let mut flight = Flight::new(&self.state);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let Some(sent) = &mut flight.sent else { return Err(CatalogError::Unknown) };
            let ((request, held), before) = (self.transaction(ops, sent), flight.loose);
            flight.loose = true;
            match self.gateway.call("kv/txn", &request).await {
                Ok(answer) => match outcome(&answer, ops, sent, held) {
                    Outcome::Applied(revision) => {
                        flight.end(revision);
                        return Ok(Revision(revision));
                    }
                    Outcome::SlotMoved(revision) => {
                        // No attempt on the condition of the older one can be applied any more.
                        (sent.slot.revision, flight.loose) = (revision, false);
                        continue;
                    }
                    // What was sent on the condition of the entry as it was can't be applied any more.
                    Outcome::Replaced if self.may_still().await? => {
                        flight.loose = false;
                        continue;
                    }
                    refused => return self.refused(refused, flight, before).await,
                },
                Err(Failure::Refused { endpoint, reason }) if !before => {
                    flight.loose = false;
                    return Err(store("committing", Failure::Refused { endpoint, reason }));
                }
                Err(failure @ Failure::NotReached { .. }) => {
                    flight.loose = before;
                    if Instant::now() >= deadline {
                        return Err(unknown_if(flight.loose, failure));
                    }
                }
                Err(failure) if Instant::now() >= deadline => {
                    return Err(unknown_if(true, failure));
                }
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// An attempt failed its conditions. If one before it got no answer, that one must be known to be
    /// dead, or to be why.
    async fn refused(
        &self,
        outcome: Outcome,
        mut flight: Flight,
        loose: bool,
    ) -> Result<Revision, CatalogError> {
        flight.loose = loose;
        if loose && let Some(sent) = flight.sent.as_ref() {
            match self.settled(sent).await? {
                (true, revision) => {
                    flight.end(revision);
                    return Ok(Revision(revision));
                }
                (false, revision) => flight.end(revision),
            }
        }
        Err(match outcome {
            Outcome::Conflict(key) => CatalogError::Conflict(key),
            _ => CatalogError::Replaced,
        })
    }

    /// Learns what became of commits whose answer was lost.
    pub(super) async fn settle(&self) -> Result<(), CatalogError> {
        loop {
            let Some(sent) = self.state.lock().unsettled.pop() else { return Ok(()) };
            let flight = Flight { sent: Some(sent), loose: true, state: Arc::clone(&self.state) };
            let Some(sent) = &flight.sent else { return Ok(()) };
            let (applied, revision) = self.settled(sent).await?;
            tracing::info!(applied, "a change of the catalog whose answer was lost is settled");
            flight.end(revision);
        }
    }

    /// Whether a commit was applied; it can't be from now on. And who wrote its slot last.
    async fn settled(&self, sent: &Sent) -> Result<(bool, u64), CatalogError> {
        let slot = self.slot_key(&sent.slot);
        let request = json!({
            "compare": [compare_revision(&slot, sent.slot.revision)],
            "success": [{ "request_put": { "key": slot, "value": encoded("") } }],
            "failure": [{ "request_range": { "key": slot } }],
        });
        // Done twice it says the same: the second time, that nothing of the commit is there.
        let answer = self.ask("kv/txn", &request).await?;
        if answer["succeeded"] == true {
            return Ok((false, number(&answer["header"]["revision"])));
        }
        let (mark, revision) = mark_of(&answer["responses"][0]);
        Ok((mark == Some(sent.mark), revision))
    }

    fn slot_key(&self, slot: &Slot) -> String {
        self.key(&format!("{SLOTS}{}/{:04}", self.slots, slot.number))
    }

    /// Whether the entry that is held was changed, and still says that this proxy may commit.
    async fn may_still(&self) -> Result<bool, CatalogError> {
        let Some(held) = self.state.lock().held.clone() else { return Ok(false) };
        let answer = self.ask("kv/range", &json!({ "key": self.key(&held.key) })).await?;
        let Some(entry) = self.entries(&answer)?.pop() else { return Ok(false) };
        if !(held.still)(&entry.value) {
            return Ok(false);
        }
        let mut state = self.state.lock();
        if let Some(held) = &mut state.held {
            held.revision = held.revision.max(entry.revision);
        }
        Ok(true)
    }

    /// The transaction, which says in both cases what its conditions look at; and the revision of the
    /// entry that is held.
    fn transaction(&self, ops: &[Op], sent: &Sent) -> (Value, Option<Revision>) {
        let slot = self.slot_key(&sent.slot);
        let mut compare = vec![compare_revision(&slot, sent.slot.revision)];
        let mut looks = vec![json!({ "request_range": { "key": slot } })];
        let mut changes = vec![json!({
            "request_put": { "key": slot, "value": encoded(sent.mark.to_be_bytes()) }
        })];
        let held = self.state.lock().held.clone();
        let held_key = self.key(held.as_ref().map_or("etcd/none", |held| &held.key));
        let held = held.map(|held| held.revision);
        compare.extend(held.map(|revision| compare_revision(&held_key, revision.0)));
        looks.push(json!({ "request_range": { "key": held_key, "keys_only": true } }));
        for op in ops {
            let key = self.key(&op.key);
            match op.expect {
                Expect::Anything => {}
                Expect::Absent => compare.push(compare_revision(&key, 0)),
                Expect::At(revision) => compare.push(compare_revision(&key, revision.0)),
            }
            if op.expect != Expect::Anything {
                looks.push(json!({ "request_range": { "key": key, "keys_only": true } }));
            }
            changes.push(match &op.value {
                Some(value) => json!({ "request_put": { "key": key, "value": encoded(value) } }),
                None => json!({ "request_delete_range": { "key": key } }),
            });
        }
        (json!({ "compare": compare, "success": changes, "failure": looks }), held)
    }
}

/// What an attempt came to, that was made while the held entry was of this revision.
fn outcome(answer: &Value, ops: &[Op], sent: &Sent, held: Option<Revision>) -> Outcome {
    if answer["succeeded"] == true {
        return Outcome::Applied(number(&answer["header"]["revision"]));
    }
    let mut looks = answer["responses"].as_array().into_iter().flatten();
    let (mark, revision) = looks.next().map(mark_of).unwrap_or_default();
    if mark == Some(sent.mark) {
        return Outcome::Applied(revision);
    }
    if revision != sent.slot.revision {
        return Outcome::SlotMoved(revision);
    }
    let now = looks.next().map_or(0, revision_of);
    if held.is_some_and(|held| held.0 != now) {
        return Outcome::Replaced;
    }
    let conditional = ops.iter().filter(|op| op.expect != Expect::Anything);
    let unmet = conditional.zip(looks).find(|(op, look)| match op.expect {
        Expect::Anything => false,
        Expect::Absent => revision_of(look) != 0,
        Expect::At(revision) => revision_of(look) != revision.0,
    });
    Outcome::Conflict(unmet.map(|(op, _)| op.key.clone()).unwrap_or_default())
}

/// An error of a commit that may have been applied, or was not.
fn unknown_if(loose: bool, failure: Failure) -> CatalogError {
    if loose {
        tracing::warn!(error = %failure, "whether a change of the catalog was stored is not known yet");
        return CatalogError::Unknown;
    }
    store("committing", failure)
}

/// That an entry was last written by this commit; 0: that it is not there.
pub(super) fn compare_revision(key: &str, revision: u64) -> Value {
    json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
}

fn revision_of(look: &Value) -> u64 {
    number(&look["response_range"]["kvs"][0]["mod_revision"])
}

/// What stands in a slot, and who wrote it last.
fn mark_of(look: &Value) -> (Option<u64>, u64) {
    let value = decoded(&look["response_range"]["kvs"][0]["value"]).unwrap_or_default();
    (value.try_into().ok().map(u64::from_be_bytes), revision_of(look))
}
