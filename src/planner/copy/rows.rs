//! Where rows end in COPY's text and CSV formats (`CopyReadLineText`, `src/backend/commands/copyfromparse.c`).

use crate::wire::{ServerError, SqlState};

/// `22P04`
pub(super) const BAD_COPY: SqlState = SqlState("22P04");

/// The most bytes of one row.
pub(super) const ROW_BYTES_MAX: usize = 1 << 30;

/// Finds line ends in bytes that come in pieces.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    /// Quote and escape of CSV.
    csv: Option<(u8, u8)>,
    /// Bytes of the current line that were looked at.
    scanned: usize,
    in_quote: bool,
    /// Text: after a backslash. CSV: after an escape in quotes.
    escaped: bool,
    /// Text: `\.` stands in the line.
    marked: bool,
    /// Lines end with `\r\n`; known after the first.
    crlf: Option<bool>,
}

/// A line in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Its bytes without the line end.
    pub(super) content: usize,
    /// Its bytes with the line end.
    pub(super) whole: usize,
}

impl Lines {
    pub(super) fn text() -> Self {
        Self { csv: None, scanned: 0, in_quote: false, escaped: false, marked: false, crlf: None }
    }

    pub(super) fn csv(quote: u8, escape: u8) -> Self {
        Self { csv: Some((quote, escape)), ..Self::text() }
    }

    /// The line at the start of `buffer`, if its end is there. The same bytes and more come again
    /// until it is.
    pub(super) fn next(&mut self, buffer: &[u8]) -> Result<Option<Line>, ServerError> {
        while let Some(byte) = buffer.get(self.scanned) {
            let special = match self.csv {
                Some(csv) => self.csv_special(*byte, csv),
                None => self.text_special(*byte),
            };
            if !special {
                self.scanned += 1;
                continue;
            }
            match byte {
                b'\n' => return self.ended(self.scanned, 1, false).map(Some),
                b'\r' => match buffer.get(self.scanned + 1) {
                    None => return Ok(None),
                    Some(b'\n') => return self.ended(self.scanned, 2, true).map(Some),
                    Some(_) => return Err(self.stray("carriage return")),
                },
                _ => self.scanned += 1,
            }
        }
        if buffer.len() > ROW_BYTES_MAX {
            return Err(ServerError::new(BAD_COPY, "a row of COPY is too long"));
        }
        Ok(None)
    }

    /// The last line, which has no line end.
    pub(super) fn last(&mut self, buffer: &[u8]) -> Result<Option<Line>, ServerError> {
        if self.in_quote {
            return Err(ServerError::new(BAD_COPY, "unterminated CSV quoted field"));
        }
        if buffer.ends_with(b"\r") && !self.escaped {
            return Err(self.stray("carriage return"));
        }
        self.check_marker(buffer.len())?;
        let line = Line { content: buffer.len(), whole: buffer.len() };
        Ok((!buffer.is_empty()).then_some(line))
    }

    /// Whether a line end here would be one.
    fn text_special(&mut self, byte: u8) -> bool {
        if self.escaped {
            self.escaped = false;
            self.marked |= byte == b'.';
            return false;
        }
        self.escaped = byte == b'\\';
        matches!(byte, b'\n' | b'\r')
    }

    fn csv_special(&mut self, byte: u8, (quote, escape): (u8, u8)) -> bool {
        // Quotes that are doubled open and close: only their number counts.
        let escapes = quote != escape && byte == escape;
        if self.in_quote && escapes {
            self.escaped = !self.escaped;
        }
        if byte == quote && !self.escaped {
            self.in_quote = !self.in_quote;
        }
        if !escapes {
            self.escaped = false;
        }
        !self.in_quote && matches!(byte, b'\n' | b'\r')
    }

    fn ended(&mut self, content: usize, end: usize, crlf: bool) -> Result<Line, ServerError> {
        if *self.crlf.get_or_insert(crlf) != crlf {
            return Err(self.stray(if crlf { "carriage return" } else { "newline" }));
        }
        self.scanned = 0;
        self.escaped = false;
        self.check_marker(content)?;
        Ok(Line { content, whole: content + end })
    }

    /// `\.` ends the data of a node, so that it must end all: only alone on its line.
    fn check_marker(&mut self, content: usize) -> Result<(), ServerError> {
        if std::mem::take(&mut self.marked) && content != 2 {
            return Err(ServerError::new(BAD_COPY, "end-of-copy marker corrupt"));
        }
        Ok(())
    }

    fn stray(&self, what: &str) -> ServerError {
        let how = if self.csv.is_some() { "unquoted" } else { "literal" };
        ServerError::new(BAD_COPY, format!("{how} {what} found in data"))
    }
}
