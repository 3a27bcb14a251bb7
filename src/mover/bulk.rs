//! Many rows of a table as one statement: rows that came as COPY's text, those that changed or went as
//! arrays, a column an array. No I/O.

use bytes::{BufMut, Bytes, BytesMut};
use pg_walstream::TupleData;

use super::batch::{Rows, carried};
use super::change::{RawText, Relation};
use super::error::MoveError;
use super::names::{self, quoted};
use crate::wire::{put_copy_text, put_with_backslashes};

impl Rows {
    /// `COPY` of rows that came, and its data.
    pub(super) fn copy(&self) -> (String, Bytes) {
        let table = &self.relation.table;
        let sql = format!("COPY {} ({}) FROM STDIN", table.new_leaf, names::columns(table));
        let mut data = BytesMut::with_capacity(self.rows.len() * 64);
        for row in &self.rows {
            for (at, column) in row.columns.iter().enumerate() {
                if at > 0 {
                    data.put_u8(b'\t');
                }
                if column.data_type == b'n' {
                    data.put_slice(b"\\N");
                } else {
                    put_copy_text(column.as_bytes(), &mut data);
                }
            }
            data.put_u8(b'\n');
        }
        (sql, data.freeze())
    }

    /// `UPDATE` of rows that changed, each found by its key; and the arrays.
    pub(super) fn update(&self) -> Result<(String, Vec<RawText>), MoveError> {
        let relation = &*self.relation;
        let carried = self.rows.first().map(carried).unwrap_or_default();
        let wanted = |at: usize| carried.get(at).copied().unwrap_or(false) || relation.key[at];
        let mut sets: Vec<String> = Vec::new();
        for (at, column) in relation.table.columns.iter().enumerate() {
            if wanted(at) && !relation.key[at] {
                sets.push(format!("{} = {}", quoted(&column.name), relation.element(at)));
            }
        }
        if sets.is_empty() {
            let first = relation.table.columns.first().map(|column| quoted(&column.name));
            sets.extend(first.map(|first| format!("{first} = t.{first}")));
        }
        let (found, arrays) = (relation.found(wanted), self.arrays(wanted)?);
        let (leaf, sets) = (&relation.table.new_leaf, sets.join(", "));
        Ok((format!("UPDATE {leaf} AS t SET {sets} FROM {found}"), arrays))
    }

    /// `DELETE` of rows that went, by their keys; and the arrays.
    pub(super) fn delete(&self) -> Result<(String, Vec<RawText>), MoveError> {
        let relation = &*self.relation;
        let wanted = |at: usize| relation.key[at];
        let (found, leaf) = (relation.found(wanted), &relation.table.new_leaf);
        Ok((format!("DELETE FROM {leaf} AS t USING {found}"), self.arrays(wanted)?))
    }

    /// An array of each wanted column.
    fn arrays(&self, wanted: impl Fn(usize) -> bool) -> Result<Vec<RawText>, MoveError> {
        let columns = (0..self.relation.table.columns.len()).filter(|at| wanted(*at));
        columns.map(|at| array(&self.rows, at, &self.relation)).collect()
    }
}

impl Relation {
    /// Whether the arrays of a column have its own type. An array of arrays or of composite values
    /// comes apart where it is unnested, and one of boxes is written otherwise: so such a value is a
    /// text until then.
    fn is_typed(&self, at: usize) -> bool {
        let name = &self.table.columns[at].type_name;
        self.table.builtin_types && !name.ends_with(']') && name != "box"
    }

    /// A column's value among those that are unnested as `u`.
    fn element(&self, at: usize) -> String {
        if self.is_typed(at) {
            format!("u.c{at}")
        } else {
            format!("u.c{at}::{}", self.table.columns[at].type_name)
        }
    }

    /// The wanted columns unnested, and the condition that finds rows of `t` by the key's.
    fn found(&self, wanted: impl Fn(usize) -> bool) -> String {
        let (mut arrays, mut names, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
        for (at, column) in self.table.columns.iter().enumerate().filter(|(at, _)| wanted(*at)) {
            let type_name = if self.is_typed(at) { &*column.type_name } else { "text" };
            arrays.push(format!("${}::{type_name}[]", arrays.len() + 1));
            names.push(format!("c{at}"));
            if self.key[at] {
                conditions.push(format!("t.{} = {}", quoted(&column.name), self.element(at)));
            }
        }
        let (arrays, names) = (arrays.join(", "), names.join(", "));
        format!("unnest({arrays}) AS u ({names}) WHERE {}", conditions.join(" AND "))
    }
}

/// One column of all rows as PostgreSQL writes an array.
fn array(rows: &[TupleData], at: usize, relation: &Relation) -> Result<RawText, MoveError> {
    let mut out = BytesMut::with_capacity(rows.len() * 16);
    for row in rows {
        out.put_u8(if out.is_empty() { b'{' } else { b',' });
        match row.columns.get(at) {
            Some(column) if column.data_type == b'n' => out.put_slice(b"NULL"),
            Some(column) if column.data_type == b't' => {
                out.put_u8(b'"');
                put_quoted(column.as_bytes(), &mut out);
                out.put_u8(b'"');
            }
            _ => return Err(relation.fault("a value that is needed was not sent")),
        }
    }
    out.put_u8(b'}');
    Ok(RawText(Some(out.freeze())))
}

/// A value within the quotes of an array's element.
fn put_quoted(value: &[u8], out: &mut BytesMut) {
    put_with_backslashes(value, out, |byte| matches!(byte, b'\\' | b'"').then_some(byte));
}
