//! The table of transitions, by a whole move and by any order of events.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{
    Action, Cause, Event, Lane, Move, MovedColumn, MovedTable, Object, ObjectKind, Proof, State,
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
        across: None,
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
    let slot = ObjectKind::Slot("b".to_owned());
    Event::Checked {
        lanes,
        objects,
        objects_for_back: vec![Object { node: NodeId(1), kind: slot }],
    }
}

fn verified() -> Event {
    let proof = Proof { leaf: table().leaf, rows: 1, checksum: "1".to_owned(), lsn: Lsn(1) };
    Event::Verified { proofs: vec![proof], back: Ok(back()) }
}

/// The lane of a plain move the other way.
fn back() -> Vec<Lane> {
    let mut lanes = requested().lanes;
    for lane in &mut lanes {
        std::mem::swap(&mut lane.source, &mut lane.target);
        lane.tables = vec![table()];
    }
    lanes
}

/// A way back as the switch of a move makes it.
fn keeping() -> Move {
    let moved = Move { back: back(), ..requested() };
    let mut mv = moved.going_back(MoveId(2), 100, 1_000);
    mv.objects = vec![Object { node: NodeId(0), kind: ObjectKind::Leaf(table().leaf) }];
    mv
}

fn switched() -> Event {
    Event::Switched { way_back: None }
}

fn every_event() -> Vec<Event> {
    let error = || "why".to_owned();
    vec![
        Event::Recalled,
        Event::Lapsed { reason: error() },
        checked(),
        Event::Prepared,
        Event::Copied { rows: 5, bytes: 50 },
        Event::Built,
        Event::CaughtUp,
        verified(),
        Event::Postponed { reason: error(), retry_unix_ms: 900 },
        switched(),
        Event::Switched { way_back: Some(MoveId(3)) },
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
        switched(),
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
    let mv =
        after(vec![checked(), Event::Prepared, copied, Event::Built, Event::CaughtUp, verified()]);
    let leaves = |mv: &Move| -> Vec<NodeId> {
        let leaves = mv.objects.iter().filter(|o| matches!(o.kind, ObjectKind::Leaf(_)));
        leaves.map(|leaf| leaf.node).collect()
    };
    let has_slot =
        |mv: &Move| mv.objects.iter().any(|o| o.kind == ObjectKind::Slot("b".to_owned()));
    let gone = mv.clone().on_event(switched(), 200).unwrap();
    assert_eq!((leaves(&gone), has_slot(&gone)), (vec![NodeId(0)], true));
    let kept = mv.on_event(Event::Switched { way_back: Some(MoveId(2)) }, 200).unwrap();
    assert_eq!((leaves(&kept), has_slot(&kept)), (Vec::new(), false));
    assert!(kept.objects_for_back.is_empty());
}

#[test]
fn a_way_back_is_taken_or_lapses_and_is_a_move_once_it_is_taken() {
    let keeping = keeping();
    assert_eq!(
        (keeping.from, keeping.to, keeping.kept_until_unix_ms),
        (NodeId(1), NodeId(0), Some(1_100))
    );
    assert!(keeping.is_aside() && !keeping.is_under_way() && !keeping.is_finished());
    let lapsed =
        keeping.clone().on_event(Event::Lapsed { reason: "late".to_owned() }, 200).unwrap();
    assert!(lapsed.is_aside() && lapsed.next_action() == Action::Undo);
    let lapsed = lapsed.on_event(Event::Undone, 201).unwrap();
    assert_eq!((lapsed.state, lapsed.is_aside()), (State::Lapsed, false));
    let taken = keeping.on_event(Event::Recalled, 200).unwrap();
    assert!(taken.is_under_way());
    let taken = taken.on_event(checked(), 201).unwrap();
    assert_eq!(taken.state, State::Building, "the copy is there");
    let failed = taken.on_event(Event::Failed { error: "no".to_owned() }, 202).unwrap();
    assert!(failed.is_under_way(), "its switch may have begun");
    assert_eq!(failed.on_event(Event::Undone, 203).unwrap().state, State::Aborted);
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
        (State::Lapsed, Action::Rest),
        (State::Keeping, Action::Keep),
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
        let left = (&after.objects, &after.objects_for_back);
        assert!(left.0.is_empty() && left.1.is_empty(), "{} left something", after.state);
        for event in every_event() {
            let ended = after.clone().on_event(event, 1);
            assert!(ended.is_err() || ended.unwrap().state == after.state);
        }
    }
    if before.state.can_undo() && !matches!(event, Event::Switched { .. } | Event::Undone) {
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
    if after.state == State::Lapsed {
        assert!(after.reverses.is_some() && after.switched_unix_ms.is_none());
    }
    assert_eq!(after.history.last().unwrap().state, after.state);
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_a_promise(picks in prop::collection::vec(0usize..17, 0..60), back: bool) {
        let mut mv = if back { keeping() } else { requested() };
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
        picks in prop::collection::vec((0usize..17, 0usize..3), 1..40), back: bool,
    ) {
        let mut mv = if back { keeping() } else { requested() };
        for (now, (pick, kind)) in (101..).zip(picks) {
            let good = match mv.state {
                State::Keeping => Event::Recalled,
                State::Requested => checked(),
                State::Preparing => Event::Prepared,
                State::Copying => Event::Copied { rows: 1, bytes: 1 },
                State::Building => Event::Built,
                State::CatchingUp => Event::CaughtUp,
                State::Verifying => verified(),
                State::Switching => switched(),
                State::Switched => Event::Cleaned,
                State::Undoing => Event::Undone,
                State::Done | State::Aborted | State::Lapsed => break,
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
    let (mut reached, mut seen) = (HashSet::new(), HashSet::new());
    let mut queue = vec![requested(), keeping()];
    while let Some(mv) = queue.pop() {
        reached.insert(mv.state);
        let known = [mv.reverses.is_some(), mv.error.is_some(), mv.verified_unix_ms.is_some()];
        if seen.insert((mv.state, known)) {
            let next =
                every_event().into_iter().filter_map(|event| mv.clone().on_event(event, 1).ok());
            queue.extend(next);
        }
    }
    assert_eq!(reached.len(), 13);
}

#[test]
fn a_move_that_can_not_be_reversed_says_why() {
    let mut mv = Move { state: State::Verifying, ..requested() };
    let why = || "node 2 has no slot left".to_owned();
    let Event::Verified { proofs, .. } = verified() else { return };
    mv = mv.on_event(Event::Verified { proofs, back: Err(why()) }, 5).unwrap();
    assert_eq!((mv.state, mv.back.len()), (State::Switching, 0));
    mv = mv.on_event(switched(), 6).unwrap();
    assert_eq!(mv.irreversible, Some(why()));
}
