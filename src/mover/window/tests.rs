//! Changes between the snapshots of a copy, by cases.

use std::sync::Arc;

use pg_walstream::LogicalReplicationMessage as Message;

use super::{Relations, Windows};
use crate::ids::Lsn;
use crate::mover::change::tests::{of, tuple};
use crate::mover::error::MoveError;

/// Relation 7 has a key, relation 8 none; both tables were first copied at 100.
fn told(message: &Message, commit: u64) -> Result<Vec<String>, MoveError> {
    let relations: Relations =
        [(7, Arc::new(of(b'd'))), (8, Arc::new(of(b'f')))].into_iter().collect();
    let leaf = of(b'd').table.leaf;
    let changes = Windows(vec![(leaf, Lsn(100))]).changes(message, &relations, Lsn(commit))?;
    let told = changes.iter().map(|change| {
        let word = change.sql.split(' ').next().unwrap_or_default();
        format!("{word}{}", if change.one_row { " one" } else { "" })
    });
    Ok(told.collect())
}

fn insert(relation_id: u32) -> Message {
    Message::Insert { relation_id, tuple: tuple(["1", "2", "x"]) }
}

fn update(relation_id: u32, old: Option<[&str; 3]>, new: [&str; 3]) -> Message {
    Message::Update {
        relation_id,
        old_tuple: old.map(tuple),
        new_tuple: tuple(new),
        key_type: old.map(|_| if relation_id == 7 { 'K' } else { 'O' }),
    }
}

fn delete(relation_id: u32) -> Message {
    let key_type = if relation_id == 7 { 'K' } else { 'O' };
    Message::Delete { relation_id, old_tuple: tuple(["1", "2", "x"]), key_type }
}

#[test]
fn what_is_in_the_first_snapshot_is_left_out() {
    for message in [
        insert(7),
        insert(8),
        update(7, None, ["1", "2", "y"]),
        delete(8),
        Message::Truncate { relation_ids: vec![7, 8], flags: 0 },
    ] {
        assert!(told(&message, 99).unwrap().is_empty(), "{message:?}");
        assert!(!told(&message, 100).unwrap().is_empty(), "{message:?}");
    }
}

#[test]
fn a_row_with_a_key_is_replaced_by_what_is_told_of_it() {
    let cases = [
        (insert(7), vec!["DELETE", "INSERT one"]),
        (update(7, None, ["1", "2", "y"]), vec!["DELETE", "INSERT one"]),
        (update(7, None, ["1", "2", "~"]), vec!["UPDATE"]),
        (update(7, Some(["1", "2", "-"]), ["1", "3", "y"]), vec!["DELETE", "DELETE", "INSERT one"]),
        (delete(7), vec!["DELETE"]),
    ];
    for (message, changes) in cases {
        assert_eq!(told(&message, 100).unwrap(), changes, "{message:?}");
    }
}

#[test]
fn a_table_without_a_key_is_changed_as_ever() {
    let cases = [
        (insert(8), vec!["INSERT one"]),
        (update(8, Some(["1", "2", "x"]), ["1", "2", "y"]), vec!["UPDATE one"]),
        (delete(8), vec!["DELETE one"]),
    ];
    for (message, changes) in cases {
        assert_eq!(told(&message, 100).unwrap(), changes, "{message:?}");
    }
}

#[test]
fn a_key_that_changes_without_its_large_values_starts_the_copy_anew() {
    let message = update(7, Some(["1", "2", "-"]), ["1", "3", "~"]);
    assert!(matches!(told(&message, 100), Err(MoveError::Anew(_))));
    assert!(told(&message, 99).unwrap().is_empty());
}
