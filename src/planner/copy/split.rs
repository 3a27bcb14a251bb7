//! COPY data in any pieces → rows, each with its shard.

use smallvec::SmallVec;

use super::rows::{BAD_COPY, Line, Lines};
use super::{Format, KeyField, SplitBy, binary, fields};
use crate::ids::ShardId;
use crate::shard_map::KeyValue;
use crate::wire::{ServerError, SqlState};

/// Splits the client's COPY data. Feed it each CopyData, then finish it.
///
/// Every node's COPY gets [`Splitter::prologue`] first, then the rows of its shards as they come,
/// and [`Splitter::epilogue`] before CopyDone.
#[derive(Debug)]
pub struct Splitter {
    by: SplitBy,
    lines: Lines,
    /// What came and is not a whole row yet.
    buffer: Vec<u8>,
    /// The row that is looked at, from 1.
    row: u64,
    header_due: bool,
    ended: bool,
}

impl Splitter {
    /// At the start of the data.
    pub fn new(by: SplitBy) -> Self {
        let (lines, header_due) = match &by.format {
            Format::Text { header, .. } => (Lines::text(), *header),
            Format::Csv { quote, escape, header, .. } => (Lines::csv(*quote, *escape), *header),
            Format::Binary => (Lines::text(), true),
        };
        Self { by, lines, buffer: Vec::new(), row: 0, header_due, ended: false }
    }

    /// What each node's COPY gets first.
    pub fn prologue(&self) -> &'static [u8] {
        if matches!(self.by.format, Format::Binary) { binary::HEADER } else { &[] }
    }

    /// What each node's COPY gets last.
    pub fn epilogue(&self) -> &'static [u8] {
        if matches!(self.by.format, Format::Binary) { binary::TRAILER } else { &[] }
    }

    /// Takes one CopyData; calls `sink` with the shard and the bytes of each row that it completes.
    ///
    /// # Errors
    /// As PostgreSQL's for malformed rows and keys; end the COPY on every node then.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        sink: &mut dyn FnMut(ShardId, &[u8]),
    ) -> Result<(), ServerError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(chunk);
        let mut at = 0;
        while !self.ended {
            match self.next(&buffer[at..], sink)? {
                0 => break,
                taken => at += taken,
            }
        }
        if self.ended {
            self.after_end(&buffer[at..])?;
            return Ok(());
        }
        buffer.drain(..at);
        self.buffer = buffer;
        Ok(())
    }

    /// Ends the data (CopyDone): a last row may lack its line end.
    ///
    /// # Errors
    /// As PostgreSQL's for a row that is cut off.
    pub fn finish(&mut self, sink: &mut dyn FnMut(ShardId, &[u8])) -> Result<(), ServerError> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        let buffer = std::mem::take(&mut self.buffer);
        if matches!(self.by.format, Format::Binary) {
            if self.header_due {
                return Err(ServerError::new(BAD_COPY, "COPY file signature not recognized"));
            }
            if buffer.is_empty() {
                return Ok(());
            }
            return Err(self.at_row(ServerError::new(BAD_COPY, "unexpected EOF in COPY data")));
        }
        let last = self.lines.last(&buffer);
        self.row += 1;
        if let Some(line) = last.map_err(|error| self.at_row(error))? {
            self.row -= 1;
            self.line(&buffer, line, sink)?;
        }
        Ok(())
    }

    /// Takes one row from the start of `rest`; the bytes taken, 0 if it is not whole.
    fn next(
        &mut self,
        rest: &[u8],
        sink: &mut dyn FnMut(ShardId, &[u8]),
    ) -> Result<usize, ServerError> {
        if matches!(self.by.format, Format::Binary) {
            return self.next_binary(rest, sink);
        }
        match self.lines.next(rest) {
            Ok(None) => Ok(0),
            Ok(Some(line)) => {
                self.line(&rest[..line.whole], line, sink)?;
                Ok(line.whole)
            }
            Err(error) => {
                self.row += 1;
                Err(self.at_row(error))
            }
        }
    }

    fn line(
        &mut self,
        bytes: &[u8],
        line: Line,
        sink: &mut dyn FnMut(ShardId, &[u8]),
    ) -> Result<(), ServerError> {
        self.row += 1;
        if std::mem::take(&mut self.header_due) {
            return Ok(());
        }
        let content = &bytes[..line.content];
        if content == b"\\." {
            self.ended = true;
            return Ok(());
        }
        let shard = self.shard_of(content)?;
        sink(shard, bytes);
        Ok(())
    }

    fn next_binary(
        &mut self,
        rest: &[u8],
        sink: &mut dyn FnMut(ShardId, &[u8]),
    ) -> Result<usize, ServerError> {
        if self.header_due {
            let Some(length) = binary::header(rest)? else { return Ok(0) };
            self.header_due = false;
            return Ok(length);
        }
        match binary::next(rest) {
            Ok(binary::Piece::Partial) => Ok(0),
            Ok(binary::Piece::End) => {
                self.ended = true;
                Ok(2)
            }
            Ok(binary::Piece::Row(length)) => {
                self.row += 1;
                let shard = self.shard_of(&rest[..length])?;
                sink(shard, &rest[..length]);
                Ok(length)
            }
            Err(error) => {
                self.row += 1;
                Err(self.at_row(error))
            }
        }
    }

    /// Text after `\.` does not count; PostgreSQL refuses bytes after the end of binary rows.
    fn after_end(&self, rest: &[u8]) -> Result<(), ServerError> {
        if matches!(self.by.format, Format::Binary) && !rest.is_empty() {
            return Err(ServerError::new(BAD_COPY, "received copy data after EOF marker"));
        }
        Ok(())
    }

    fn shard_of(&self, row: &[u8]) -> Result<ShardId, ServerError> {
        let mut key: SmallVec<[KeyValue; 2]> = SmallVec::new();
        for field in &self.by.key {
            let value = self.value(row, field)?;
            if let (KeyValue::Text(text), true) = (&value, field.cuts_blanks)
                && text.ends_with(b" ")
            {
                return Err(self.at_field(
                    field,
                    ServerError::new(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("the shard key \"{}\" ends with blanks", field.name),
                    )
                    .with_hint("Make the column text, or take the blanks off."),
                ));
            }
            key.push(value);
        }
        // What PostgreSQL says of NULL depends on the column: any node does.
        let any = || {
            self.by.directory.shards().first().copied().filter(|_| key.contains(&KeyValue::Null))
        };
        self.by.directory.shard_of(&key).or_else(any).ok_or_else(|| {
            let message = format!("no partition of relation \"{}\" found for row", self.by.table);
            self.at_row(ServerError::new(SqlState("23514"), message))
        })
    }

    fn value(&self, row: &[u8], field: &KeyField) -> Result<KeyValue, ServerError> {
        let missing = || {
            let message = format!("missing data for column \"{}\"", field.name);
            self.at_row(ServerError::new(BAD_COPY, message))
        };
        let parsed = match &self.by.format {
            Format::Text { delimiter, null, .. } => {
                let raw = fields::text(row, *delimiter, field.position).ok_or_else(missing)?;
                if raw == null.as_slice() {
                    return Ok(KeyValue::Null);
                }
                field.key_type.parse(&fields::unescape(raw))
            }
            Format::Csv { delimiter, null, quote, escape, .. } => {
                let (value, quoted) =
                    fields::csv(row, *delimiter, (*quote, *escape), field.position)
                        .ok_or_else(missing)?;
                if !quoted && value == *null {
                    return Ok(KeyValue::Null);
                }
                field.key_type.parse(&value)
            }
            Format::Binary => match binary::field(row, field.position).ok_or_else(missing)? {
                None => return Ok(KeyValue::Null),
                Some(bytes) => field.key_type.from_binary(bytes),
            },
        };
        parsed.map_err(|invalid| {
            if !field.key_type.reads_all() {
                let message = format!("the shard key \"{}\" can't be derived", field.name);
                let hint = "Write dates as 2026-01-31, times as 2026-01-31 12:00:00+00.";
                let error = ServerError::new(SqlState::FEATURE_NOT_SUPPORTED, message);
                return self.at_field(field, error.with_hint(hint));
            }
            let message = format!(
                "invalid input syntax for type {}: \"{}\"",
                invalid.type_name, invalid.input
            );
            self.at_field(field, ServerError::new(SqlState::INVALID_TEXT_REPRESENTATION, message))
        })
    }

    fn at_row(&self, error: ServerError) -> ServerError {
        let detail = format!("COPY {}, line {}", self.by.table, self.row);
        error.with_detail(detail)
    }

    fn at_field(&self, field: &KeyField, error: ServerError) -> ServerError {
        let detail = format!("COPY {}, line {}, column {}", self.by.table, self.row, field.name);
        error.with_detail(detail)
    }
}
