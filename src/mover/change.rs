//! One change of the stream as a statement for the destination. No I/O.

use std::error::Error;

use bytes::{BufMut, Bytes, BytesMut};
use pg_walstream::LogicalReplicationMessage;
use pg_walstream::TupleData;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::error::MoveError;
use super::names::{self, quoted};
use crate::shard_move::MovedTable;

/// A value in PostgreSQL's text form, for a parameter of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawText(pub(super) Option<Bytes>);

impl ToSql for RawText {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.put_slice(text);
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A table of the stream, as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    /// The table that moves.
    pub(super) table: MovedTable,
    /// Which rows of the new leaf are this stream's; `None` for all.
    share: Option<String>,
    /// For each column, in the table's order: whether it identifies a row.
    pub(super) key: Vec<bool>,
    /// Whether deletes and updates bring all of the old row.
    full: bool,
}

/// A statement for the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) sql: String,
    pub(super) parameters: Vec<RawText>,
    /// Whether it has to touch exactly one row; else it touches all.
    pub(super) one_row: bool,
}

const OTHER_WIDTH: &str = "a row has another number of columns than the table";
const NOT_SENT: &str = "a value that is needed was not sent";
const NULL_KEY: &str = "a row's key is NULL";

fn fault(table: &MovedTable, what: &str) -> MoveError {
    MoveError::Stream(format!("table {}: {what}", table.leaf))
}

impl Relation {
    /// The table that a Relation message describes, if it is still what the move was checked with.
    pub(super) fn of(
        message: &LogicalReplicationMessage,
        tables: &[(MovedTable, Option<String>)],
    ) -> Result<Option<Self>, MoveError> {
        let LogicalReplicationMessage::Relation {
            namespace,
            relation_name,
            replica_identity,
            columns,
            ..
        } = message
        else {
            return Ok(None);
        };
        let named = |(table, _): &&(MovedTable, Option<String>)| {
            *table.leaf.schema == **namespace && *table.leaf.name == **relation_name
        };
        let (table, share) = tables.iter().find(named).ok_or_else(|| {
            MoveError::Stream(format!("{namespace}.{relation_name} is no table of this move"))
        })?;
        let same = columns.len() == table.columns.len()
            && columns.iter().zip(&table.columns).all(|(now, then)| *now.name == *then.name);
        if !same {
            return Err(fault(table, "its columns were changed while it was moved"));
        }
        let full = *replica_identity == b'f';
        let key: Vec<bool> = columns.iter().map(|column| !full && column.is_key()).collect();
        if !full && !key.contains(&true) {
            return Err(fault(table, "it has no replica identity, so rows can't be told apart"));
        }
        Ok(Some(Self { table: table.clone(), share: share.clone(), key, full }))
    }

    /// Whether a row is told from others by some of its columns.
    pub(super) fn has_key(&self) -> bool {
        !self.full
    }

    /// What is wrong with its part of the stream.
    pub(super) fn fault(&self, what: &str) -> MoveError {
        fault(&self.table, what)
    }

    /// Fails if a row lacks a value.
    pub(super) fn is_whole(&self, row: &TupleData) -> Result<(), MoveError> {
        if row.columns.len() != self.table.columns.len() {
            return Err(self.fault(OTHER_WIDTH));
        }
        let all = row.columns.iter().all(|column| matches!(column.data_type, b'n' | b't'));
        if all { Ok(()) } else { Err(self.fault(NOT_SENT)) }
    }

    /// What tells a row from all others: the same bytes for the same row.
    pub(super) fn key_of(&self, row: &TupleData) -> Result<Vec<u8>, MoveError> {
        if row.columns.len() != self.table.columns.len() {
            return Err(self.fault(OTHER_WIDTH));
        }
        let mut key = Vec::with_capacity(24);
        for (column, _) in row.columns.iter().zip(&self.key).filter(|(_, key)| **key) {
            let value = column.as_bytes();
            match column.data_type {
                b't' => {}
                b'n' => return Err(self.fault(NULL_KEY)),
                _ => return Err(self.fault(NOT_SENT)),
            }
            key.extend_from_slice(&value.len().to_ne_bytes());
            key.extend_from_slice(value);
        }
        Ok(key)
    }

    /// `INSERT`.
    pub(super) fn insert(&self, new: &TupleData) -> Result<Change, MoveError> {
        let parameters = self.values(new, |_| true)?;
        let marks: Vec<String> = (1..=parameters.len()).map(|n| format!("${n}")).collect();
        let sql = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            self.table.new_leaf,
            names::columns(&self.table),
            marks.join(", ")
        );
        Ok(Change { sql, parameters, one_row: true })
    }

    /// `UPDATE`, of the columns that the stream brings; found by the old key if there is one.
    pub(super) fn update(
        &self,
        old: Option<&TupleData>,
        new: &TupleData,
    ) -> Result<Change, MoveError> {
        let unchanged: Vec<bool> =
            new.columns.iter().map(|column| column.data_type == b'u').collect();
        let carried = |at: usize| !unchanged.get(at).copied().unwrap_or(true);
        let mut parameters = self.values(new, carried)?;
        let columns = self.table.columns.iter().enumerate().filter(|(at, _)| carried(*at));
        let mut sets: Vec<String> = (1..)
            .zip(columns)
            .map(|(number, (_, column))| format!("{} = ${number}", quoted(&column.name)))
            .collect();
        if sets.is_empty() {
            let first = self.table.columns.first().map(|column| quoted(&column.name));
            sets.extend(first.map(|first| format!("{first} = {first}")));
        }
        let found = self.find(old.unwrap_or(new), old.is_some(), &mut parameters)?;
        let sql = format!("UPDATE {} SET {} WHERE {found}", self.table.new_leaf, sets.join(", "));
        Ok(Change { sql, parameters, one_row: true })
    }

    /// `DELETE`.
    pub(super) fn delete(&self, old: &TupleData) -> Result<Change, MoveError> {
        let mut parameters = Vec::new();
        let found = self.find(old, true, &mut parameters)?;
        let sql = format!("DELETE FROM {} WHERE {found}", self.table.new_leaf);
        Ok(Change { sql, parameters, one_row: true })
    }

    /// `TRUNCATE` of all tables that one statement of the source emptied. Rows of other streams stay.
    pub(super) fn truncate(relations: &[&Self]) -> Vec<Change> {
        let change = |sql| Change { sql, parameters: Vec::new(), one_row: false };
        let (whole, shared): (Vec<&Self>, Vec<&Self>) =
            relations.iter().partition(|relation| relation.share.is_none());
        let leaves: Vec<String> = whole.iter().map(|r| r.table.new_leaf.to_string()).collect();
        let truncate = (!leaves.is_empty()).then(|| format!("TRUNCATE {}", leaves.join(", ")));
        let deletes = shared.iter().map(|relation| {
            let share = relation.share.as_deref().unwrap_or("true");
            format!("DELETE FROM {} WHERE {share}", relation.table.new_leaf)
        });
        truncate.into_iter().chain(deletes).map(change).collect()
    }

    /// The values of the columns that `wanted` names.
    fn values(
        &self,
        tuple: &TupleData,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Vec<RawText>, MoveError> {
        if tuple.columns.len() != self.table.columns.len() {
            return Err(self.fault(OTHER_WIDTH));
        }
        let columns = tuple.columns.iter().enumerate().filter(|(at, _)| wanted(*at));
        columns
            .map(|(_, column)| match column.data_type {
                b'n' => Ok(RawText(None)),
                b't' => Ok(RawText(Some(column.raw_bytes()))),
                _ => Err(self.fault(NOT_SENT)),
            })
            .collect()
    }

    /// The condition that finds the one row that `tuple` identifies.
    fn find(
        &self,
        tuple: &TupleData,
        is_old: bool,
        parameters: &mut Vec<RawText>,
    ) -> Result<String, MoveError> {
        if self.full {
            if !is_old {
                return Err(fault(&self.table, "an update came without the old row"));
            }
            return self.find_whole(tuple, parameters);
        }
        let key = self.values(tuple, |at| self.key[at])?;
        let columns = self.table.columns.iter().zip(&self.key).filter(|(_, key)| **key);
        let mut conditions = Vec::with_capacity(key.len());
        for ((column, _), value) in columns.zip(key) {
            if value.0.is_none() {
                return Err(self.fault(NULL_KEY));
            }
            parameters.push(value);
            conditions.push(format!("{} = ${}", quoted(&column.name), parameters.len()));
        }
        Ok(conditions.join(" AND "))
    }

    /// One of the rows that look just like `tuple`. Compared as text, since not every type has an
    /// equality; the shard key by `=` as well, since it may have an index.
    fn find_whole(
        &self,
        tuple: &TupleData,
        parameters: &mut Vec<RawText>,
    ) -> Result<String, MoveError> {
        let values = self.values(tuple, |_| true)?;
        let (mut marks, mut keys) = (Vec::with_capacity(values.len()), Vec::new());
        let key = self.table.across.as_ref().map_or(&self.table.key, |across| &across.key);
        for (column, value) in self.table.columns.iter().zip(values) {
            let is_null = value.0.is_none();
            parameters.push(value);
            let mark = format!("${}::{}", parameters.len(), column.type_name);
            if key.contains(&column.name) {
                let name = quoted(&column.name);
                keys.push(if is_null {
                    format!("{name} IS NULL")
                } else {
                    format!("{name} = {mark}")
                });
            }
            marks.push(mark);
        }
        let (columns, marks) = (names::columns(&self.table), marks.join(", "));
        let leaf = &self.table.new_leaf;
        let mut conditions = keys.clone();
        conditions.push(format!("ROW({columns})::text = ROW({marks})::text"));
        let conditions = conditions.join(" AND ");
        let found = format!("ctid = (SELECT ctid FROM {leaf} WHERE {conditions} LIMIT 1)");
        // Rows of several partitions have the same ctid; those of one key are in one partition.
        if self.table.across.is_none() {
            keys.clear();
        }
        keys.push(found);
        Ok(keys.join(" AND "))
    }
}

#[cfg(test)]
pub(super) mod tests;
