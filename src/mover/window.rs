//! What a stream means to tables that were copied in several snapshots: between the first of them and
//! the last, some rows are as they were at the first, others as they were later. No I/O.
//!
//! A change from before a table's first snapshot is in it. From then on until the last snapshot a
//! change of a table with a key is made without regard to what is there: what it tells of a row
//! replaces the row, and a row that is gone may have gone later. In the order of the stream this
//! leaves each row as it was at the last snapshot. A table without a key was copied in one snapshot,
//! and its changes from there on are ordinary ones.
//!
//! One change can't be made so: one of a key whose row is not told as a whole, since large values that
//! stayed the same are not sent. Then the copy has to start anew.

use pg_walstream::LogicalReplicationMessage as Message;
use pg_walstream::TupleData;

use super::batch::{Relations, relation};
use super::change::{Change, Relation};
use super::error::MoveError;
use crate::ids::Lsn;
use crate::sql::TableName;

/// The first snapshots of the tables of a lane, by their leaf at the source.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows(pub(super) Vec<(TableName, Lsn)>);

impl Windows {
    /// Whether a change of a transaction that committed at `commit` is in the copy of its table.
    fn has(&self, relation: &Relation, commit: Lsn) -> bool {
        let of_leaf = |(leaf, _): &&(TableName, Lsn)| *leaf == relation.table.leaf;
        self.0.iter().find(of_leaf).is_some_and(|(_, first)| commit < *first)
    }

    /// What a message tells, as statements for the destination.
    pub(super) fn changes(
        &self,
        message: &Message,
        relations: &Relations,
        commit: Lsn,
    ) -> Result<Vec<Change>, MoveError> {
        let known = |id: u32| -> Result<_, MoveError> {
            let relation = relation(relations, id)?;
            Ok((!self.has(relation, commit)).then_some(&**relation))
        };
        Ok(match message {
            Message::Insert { relation_id, tuple } => match known(*relation_id)? {
                None => Vec::new(),
                Some(relation) => replace(relation, &[], tuple)?,
            },
            Message::Update { relation_id, old_tuple, new_tuple, .. } => {
                match known(*relation_id)? {
                    None => Vec::new(),
                    Some(relation) => update(relation, old_tuple.as_ref(), new_tuple)?,
                }
            }
            Message::Delete { relation_id, old_tuple, .. } => match known(*relation_id)? {
                None => Vec::new(),
                Some(relation) => vec![loosely(relation, relation.delete(old_tuple)?)],
            },
            Message::Truncate { relation_ids, .. } => {
                let mut emptied = Vec::new();
                for id in relation_ids {
                    emptied.extend(known(*id)?);
                }
                Relation::truncate(&emptied)
            }
            other => return Err(MoveError::Stream(format!("unexpected message {other:?}"))),
        })
    }
}

/// A change that need not find its row, if rows have a key.
fn loosely(relation: &Relation, change: Change) -> Change {
    Change { one_row: change.one_row && !relation.has_key(), ..change }
}

/// A row in the place of itself and of others.
fn replace(
    relation: &Relation,
    others: &[&TupleData],
    row: &TupleData,
) -> Result<Vec<Change>, MoveError> {
    let mut changes = Vec::new();
    if relation.has_key() {
        for row in others.iter().chain([&row]) {
            changes.push(loosely(relation, relation.delete(row)?));
        }
    }
    changes.push(relation.insert(row)?);
    Ok(changes)
}

fn update(
    relation: &Relation,
    old: Option<&TupleData>,
    new: &TupleData,
) -> Result<Vec<Change>, MoveError> {
    if !relation.has_key() {
        return Ok(vec![relation.update(old, new)?]);
    }
    let whole = new.columns.iter().all(|column| column.data_type != b'u');
    match old {
        _ if whole => replace(relation, old.as_slice(), new),
        None => Ok(vec![loosely(relation, relation.update(None, new)?)]),
        Some(_) => Err(MoveError::Anew(format!(
            "a key of {} was changed while the copy was cut off, and its row is not known as a whole",
            relation.table.leaf
        ))),
    }
}

#[cfg(test)]
mod tests;
