//! What a run of changes of the stream comes to, as few statements: a table's rows that came, those
//! that changed, those that went. No I/O.
//!
//! Without triggers and foreign keys, which the destination's sessions switch off, tables don't know
//! of one another: so each table's changes are put together, whatever stood between them. In a table
//! with a key, what happened to one row becomes one change of it. A change that this can't be done
//! with stays a statement of its own, and what comes after it in its table is put together anew.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use pg_walstream::LogicalReplicationMessage as Message;
use pg_walstream::{LogicalReplicationParser, TupleData};

use super::change::{Change, Relation};
use super::error::MoveError;

/// The tables of a stream, by the ids that it gives them.
pub(super) type Relations = HashMap<u32, Arc<Relation>>;

/// What is to be done at the destination.
#[derive(Debug)]
pub(super) enum Step {
    /// Statements of their own, in this order.
    Singles(Vec<Change>),
    /// Rows that came.
    Insert(Rows),
    /// Rows of which the columns of the first one's [`Rows::carried`] are new.
    Update(Rows),
    /// Rows that went, by their keys.
    Delete(Rows),
}

/// Rows of one table, each of which counts once.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) relation: Arc<Relation>,
    pub(super) rows: Vec<TupleData>,
}

/// Whether a message of the output plug-in changes rows.
pub(super) fn changes_rows(message: &[u8]) -> bool {
    matches!(message.first(), Some(b'I' | b'U' | b'D' | b'T'))
}

/// The statements of messages that change rows, one after the other.
pub(super) fn one_by_one(
    messages: &[Bytes],
    relations: &Relations,
) -> Result<Vec<Change>, MoveError> {
    let mut parser = LogicalReplicationParser::with_protocol_version(1);
    let mut changes = Vec::with_capacity(messages.len());
    for message in messages {
        let message = parsed(&mut parser, message)?;
        changes.extend(statements(&message, relations)?);
    }
    Ok(changes)
}

/// The same as few steps as can be. Tables for which `plain` says yes keep their single statements.
pub(super) fn together(
    messages: &[Bytes],
    relations: &Relations,
    plain: impl Fn(&Relation) -> bool,
) -> Result<Vec<Step>, MoveError> {
    let mut parser = LogicalReplicationParser::with_protocol_version(1);
    let mut batch = Batch::default();
    for message in messages {
        match parsed(&mut parser, message)? {
            Message::Insert { relation_id, tuple } => {
                let relation = relation(relations, relation_id)?;
                if plain(relation) {
                    batch.table(relation).one(relation.insert(&tuple)?);
                } else {
                    relation.is_whole(&tuple)?;
                    batch.table(relation).insert(tuple)?;
                }
            }
            Message::Update { relation_id, old_tuple, new_tuple, .. } => {
                let relation = relation(relations, relation_id)?;
                if old_tuple.is_some() || plain(relation) || !relation.has_key() {
                    let change = relation.update(old_tuple.as_ref(), &new_tuple)?;
                    batch.table(relation).one(change);
                } else {
                    batch.table(relation).update(new_tuple)?;
                }
            }
            Message::Delete { relation_id, old_tuple, .. } => {
                let relation = relation(relations, relation_id)?;
                if plain(relation) || !relation.has_key() {
                    batch.table(relation).one(relation.delete(&old_tuple)?);
                } else {
                    batch.table(relation).delete(old_tuple)?;
                }
            }
            other => {
                batch.close();
                batch.steps.push(Step::Singles(statements(&other, relations)?));
            }
        }
    }
    batch.close();
    Ok(batch.steps)
}

pub(super) fn parsed(
    parser: &mut LogicalReplicationParser,
    message: &Bytes,
) -> Result<Message, MoveError> {
    let parsed = parser.parse_wal_message_bytes(message.clone());
    Ok(parsed.map_err(|error| MoveError::Stream(error.to_string()))?.message)
}

pub(super) fn relation(relations: &Relations, id: u32) -> Result<&Arc<Relation>, MoveError> {
    let unknown = || MoveError::Stream(format!("relation {id} was never described"));
    relations.get(&id).ok_or_else(unknown)
}

fn statements(message: &Message, relations: &Relations) -> Result<Vec<Change>, MoveError> {
    let change = match message {
        Message::Insert { relation_id, tuple } => relation(relations, *relation_id)?.insert(tuple),
        Message::Update { relation_id, old_tuple, new_tuple, .. } => {
            relation(relations, *relation_id)?.update(old_tuple.as_ref(), new_tuple)
        }
        Message::Delete { relation_id, old_tuple, .. } => {
            relation(relations, *relation_id)?.delete(old_tuple)
        }
        Message::Truncate { relation_ids, .. } => {
            let relations: Result<Vec<&Relation>, _> =
                relation_ids.iter().map(|id| relation(relations, *id).map(|it| &**it)).collect();
            return Ok(Relation::truncate(&relations?));
        }
        other => Err(MoveError::Stream(format!("unexpected message {other:?}"))),
    };
    change.map(|change| vec![change])
}

/// The steps of what has been looked at.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    tables: Vec<OfTable>,
}

impl Batch {
    /// What is known of a table. There are few.
    fn table(&mut self, relation: &Arc<Relation>) -> &mut OfTable {
        let known = self.tables.iter().position(|table| Arc::ptr_eq(&table.relation, relation));
        let at = known.unwrap_or_else(|| {
            self.tables.push(OfTable::new(relation));
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    /// What comes next comes after all that was.
    fn close(&mut self) {
        for mut table in self.tables.drain(..) {
            table.close();
            self.steps.append(&mut table.steps);
        }
    }
}

/// What became of a row within the run.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It came: this one of those that came.
    Came(usize),
    /// It was there, and changed: this one of those that changed.
    Changed(usize),
    /// It went, or came and went.
    Went,
}

/// The changes of one table.
struct OfTable {
    relation: Arc<Relation>,
    steps: Vec<Step>,
    came: Vec<Option<TupleData>>,
    changed: Vec<Option<TupleData>>,
    went: Vec<TupleData>,
    fates: HashMap<Vec<u8>, Fate>,
}

impl OfTable {
    fn new(relation: &Arc<Relation>) -> Self {
        Self {
            relation: Arc::clone(relation),
            steps: Vec::new(),
            came: Vec::new(),
            changed: Vec::new(),
            went: Vec::new(),
            fates: HashMap::default(),
        }
    }

    /// A statement of its own, after all that was.
    fn one(&mut self, change: Change) {
        self.close();
        match self.steps.last_mut() {
            Some(Step::Singles(changes)) => changes.push(change),
            _ => self.steps.push(Step::Singles(vec![change])),
        }
    }

    fn insert(&mut self, row: TupleData) -> Result<(), MoveError> {
        if self.relation.has_key() {
            let key = self.relation.key_of(&row)?;
            if let Some(Fate::Came(_) | Fate::Changed(_)) = self.fates.get(&key) {
                // It is there: the destination is going to say so.
                self.close();
            }
            self.fates.insert(key, Fate::Came(self.came.len()));
        }
        self.came.push(Some(row));
        Ok(())
    }

    fn update(&mut self, row: TupleData) -> Result<(), MoveError> {
        let key = self.relation.key_of(&row)?;
        match self.fates.get(&key) {
            Some(Fate::Came(at)) => overlay(&mut self.came[*at], row),
            Some(Fate::Changed(at)) => overlay(&mut self.changed[*at], row),
            gone_or_unknown => {
                if gone_or_unknown.is_some() {
                    self.close();
                }
                self.fates.insert(key, Fate::Changed(self.changed.len()));
                self.changed.push(Some(row));
            }
        }
        Ok(())
    }

    fn delete(&mut self, row: TupleData) -> Result<(), MoveError> {
        let key = self.relation.key_of(&row)?;
        match self.fates.get(&key) {
            Some(Fate::Came(at)) => self.came[*at] = None,
            Some(Fate::Changed(at)) => {
                self.changed[*at] = None;
                self.went.push(row);
            }
            Some(Fate::Went) => {
                self.close();
                self.went.push(row);
            }
            None => self.went.push(row),
        }
        self.fates.insert(key, Fate::Went);
        Ok(())
    }

    /// Rows that went make room for those that changed and came.
    fn close(&mut self) {
        let relation = || Arc::clone(&self.relation);
        if !self.went.is_empty() {
            let rows = std::mem::take(&mut self.went);
            self.steps.push(Step::Delete(Rows { relation: relation(), rows }));
        }
        let mut changed: Vec<(Vec<bool>, Vec<TupleData>)> = Vec::new();
        for row in self.changed.drain(..).flatten() {
            let carried = carried(&row);
            match changed.iter_mut().find(|(columns, _)| *columns == carried) {
                Some((_, rows)) => rows.push(row),
                None => changed.push((carried, vec![row])),
            }
        }
        for (_, rows) in changed {
            self.steps.push(Step::Update(Rows { relation: relation(), rows }));
        }
        let came: Vec<TupleData> = self.came.drain(..).flatten().collect();
        if !came.is_empty() {
            self.steps.push(Step::Insert(Rows { relation: relation(), rows: came }));
        }
        self.fates.clear();
    }
}

/// For each column, whether the row brings its value.
pub(super) fn carried(row: &TupleData) -> Vec<bool> {
    row.columns.iter().map(|column| column.data_type != b'u').collect()
}

/// A row after an update of it, which brings some columns.
fn overlay(row: &mut Option<TupleData>, update: TupleData) {
    let Some(row) = row else { return };
    for (column, new) in row.columns.iter_mut().zip(update.columns) {
        if new.data_type != b'u' {
            *column = new;
        }
    }
}

#[cfg(test)]
mod tests;
