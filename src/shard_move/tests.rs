//! The table of transitions, by a whole move and by any order of events.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{
    Action, Cause, Event, Move, MovedColumn, MovedTable, Object, ObjectKind, Proof, State,
};
use crate::ids::{Lsn, MoveId, NodeId, ShardId};
use crate::sql::TableName;

fn requested() -> Move {
    Move::requested(MoveId(1), ShardId(3), NodeId(0), NodeId(1), Cause::Operator, 100)
}

fn table() -> MovedTable {
    MovedTable {
        parent: TableName::new("public", "orders"),
        leaf: TableName::new("public", "orders_s3"),
        new_leaf: TableName::new("public", "orders_s3"),
        key: vec!["tenant".to_owned()],
        columns: vec![MovedColumn { name: "tenant".to_owned(), type_name: "bigint".to_owned() }],
        whole_row_identity: true,
        identity: "d".to_owned(),
        shape: String::new(),
        builtin_types: true,
    }
}

fn checked() -> Event {
    let leaf = || table().leaf;
    let objects = [
        (0, ObjectKind::Slot("s".to_owned())),
        (0, ObjectKind::Publication("p".to_owned())),
        (1, ObjectKind::Leaf(leaf())),
        (0, ObjectKind::HelperCheck { leaf: leaf(), name: "c".to_owned() }),
        (0, ObjectKind::FullIdentity(leaf())),
        (0, ObjectKind::Freeze(leaf())),
        (1, ObjectKind::Position("s".to_owned())),
    ];
    let objects = objects.map(|(node, kind)| Object { node: NodeId(node), kind }).to_vec();
    let mut lanes = requested().lanes;
    lanes[0].tables = vec![table()];
    Event::Checked { lanes, objects }
}

fn verified() -> Event {
    let proof = Proof { leaf: table().leaf, rows: 1, checksum: "1".to_owned(), lsn: Lsn(1) };
    Event::Verified(vec![proof])
}

fn every_event() -> Vec<Event> {
    let error = || "why".to_owned();
    vec![
        checked(),
        Event::Prepared,
        Event::Copied { rows: 5, bytes: 50 },
        Event::Built,
        Event::CaughtUp,
        verified(),
        Event::Postponed { reason: error(), retry_unix_ms: 900 },
        Event::Switched,
        Event::Cleaned,
        Event::Undone,
        Event::Failed { error: error() },
        Event::Troubled { error: error() },
        Event::Counted { changes: 2 },
        Event::Paused { pause_ms: 1.5 },
    ]
}

fn after(events: Vec<Event>) -> Move {
    let mut now = 100;
    events.into_iter().fold(requested(), |mv, event| {
        now += 1;
        mv.on_event(event, now).unwrap()
    })
}

#[test]
fn a_move_goes_from_its_request_to_done_and_keeps_what_it_learnt() {
    let copied = Event::Copied { rows: 5, bytes: 50 };
    let postponed = Event::Postponed { reason: "busy".to_owned(), retry_unix_ms: 900 };
    let mv = after(vec![
        checked(),
        Event::Prepared,
        copied,
        Event::Built,
        Event::CaughtUp,
        verified(),
        postponed,
        Event::CaughtUp,
        Event::Switched,
        Event::Paused { pause_ms: 7.5 },
        Event::Cleaned,
    ]);
    assert_eq!(mv.state, State::Done);
    assert_eq!((mv.rows_copied, mv.bytes_copied, mv.postponed), (5, 50, 1));
    assert_eq!((mv.pause_ms, mv.switched_unix_ms), (Some(7.5), Some(109)));
    let states: Vec<_> = mv.history.iter().map(|step| step.state.word()).collect();
    let expected = "requested preparing copying building catching_up verifying switching \
         catching_up switching switched done";
    assert_eq!(states.join(" "), expected);
}

#[test]
fn after_the_switch_the_old_copy_is_what_has_to_go() {
    let copied = Event::Copied { rows: 0, bytes: 0 };
    let mv = after(vec![
        checked(),
        Event::Prepared,
        copied,
        Event::Built,
        Event::CaughtUp,
        verified(),
        Event::Switched,
    ]);
    let leaves: Vec<_> =
        mv.objects.iter().filter(|o| matches!(o.kind, ObjectKind::Leaf(_))).collect();
    assert_eq!(leaves.len(), 1);
    assert_eq!(leaves[0].node, NodeId(0));
}

#[test]
fn each_state_has_an_action_of_its_own() {
    let actions = [
        (State::Requested, Action::Check),
        (State::Switching, Action::Switch),
        (State::Switched, Action::CleanUp),
        (State::Undoing, Action::Undo),
        (State::Done, Action::Rest),
        (State::Aborted, Action::Rest),
    ];
    for (state, action) in actions {
        assert_eq!(Move { state, ..requested() }.next_action(), action);
        assert_eq!(state.is_final(), action == Action::Rest);
    }
}

#[test]
fn a_stored_move_reads_back_as_it_was() {
    let mv = after(vec![checked(), Event::Prepared]);
    let text = serde_json::to_string(&mv).unwrap();
    assert!(text.contains("\"state\":\"copying\""), "{text}");
    assert_eq!(serde_json::from_str::<Move>(&text).unwrap(), mv);
}

/// What must be true after `event` took `before` to `after`.
fn invariants(before: &Move, after: &Move, event: &Event) {
    let creates = !matches!(after.state, State::Requested | State::Undoing);
    if creates && !after.is_finished() {
        assert!(!after.objects.is_empty(), "{} acts on what is not recorded", after.state);
    }
    if after.is_finished() {
        assert!(after.objects.is_empty(), "{} left something", after.state);
        for event in every_event() {
            let ended = after.clone().on_event(event, 1);
            assert!(ended.is_err() || ended.unwrap().state == after.state);
        }
    }
    if before.state.can_undo() && !matches!(event, Event::Switched | Event::Undone) {
        let failed = after.clone().on_event(Event::Failed { error: String::new() }, 1).unwrap();
        assert_eq!(failed.state, State::Undoing, "can't be undone while {}", after.state);
    }
    if before.switched_unix_ms.is_some() {
        assert!(matches!(after.state, State::Switched | State::Done), "went back after the switch");
    }
    if after.state == State::Switched {
        assert!(after.verified_unix_ms.is_some(), "switched without a comparison");
        assert!(after.error.is_none(), "switched after it failed");
    }
    if after.state == State::Aborted {
        assert!(after.error.is_some() && after.switched_unix_ms.is_none());
    }
    assert_eq!(after.history.last().unwrap().state, after.state);
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_a_promise(picks in prop::collection::vec(0usize..14, 0..60)) {
        let mut mv = requested();
        for (now, pick) in (101..).zip(picks) {
            let event = every_event().swap_remove(pick);
            if let Ok(next) = mv.clone().on_event(event.clone(), now) {
                invariants(&mv, &next, &event);
                mv = next;
            }
        }
    }

    /// Random events alone seldom get far, so: the good way with others strewn in between.
    #[test]
    fn no_disturbance_on_the_way_breaks_a_promise(
        picks in prop::collection::vec((0usize..14, 0usize..3), 1..40),
    ) {
        let mut mv = requested();
        for (now, (pick, kind)) in (101..).zip(picks) {
            let good = match mv.state {
                State::Requested => checked(),
                State::Preparing => Event::Prepared,
                State::Copying => Event::Copied { rows: 1, bytes: 1 },
                State::Building => Event::Built,
                State::CatchingUp => Event::CaughtUp,
                State::Verifying => verified(),
                State::Switching => Event::Switched,
                State::Switched => Event::Cleaned,
                State::Undoing => Event::Undone,
                State::Done | State::Aborted => break,
            };
            let event = if kind == 0 { every_event().swap_remove(pick) } else { good };
            if let Ok(next) = mv.clone().on_event(event.clone(), now) {
                invariants(&mv, &next, &event);
                mv = next;
            }
        }
    }
}

#[test]
fn every_state_can_be_reached() {
    let (mut reached, mut queue) = (HashSet::new(), vec![requested()]);
    while let Some(mv) = queue.pop() {
        if reached.insert(mv.state) {
            let next =
                every_event().into_iter().filter_map(|event| mv.clone().on_event(event, 1).ok());
            queue.extend(next);
        }
    }
    assert_eq!(reached.len(), 11);
}
