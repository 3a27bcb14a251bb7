//! COPY's binary format
//! (<https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.4>).

use super::rows::{BAD_COPY, ROW_BYTES_MAX};
use crate::wire::ServerError;

/// What comes before the flags.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// A header without extensions, for each node.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The end of the rows, for each node.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

/// What stands at the start of a buffer.
pub(super) enum Piece {
    /// Not all of it is there.
    Partial,
    /// A row of so many bytes.
    Row(usize),
    /// The end of the rows.
    End,
}

/// The length of the header at the start of `buffer`; `None` if not all of it is there.
pub(super) fn header(buffer: &[u8]) -> Result<Option<usize>, ServerError> {
    let known = buffer.len().min(SIGNATURE.len());
    if buffer[..known] != SIGNATURE[..known] {
        return Err(ServerError::new(BAD_COPY, "COPY file signature not recognized"));
    }
    let (Some(flags), Some(extension)) = (int4(buffer, 11), int4(buffer, 15)) else {
        return Ok(None);
    };
    if flags != 0 {
        return Err(ServerError::new(BAD_COPY, "unrecognized flags in COPY file header"));
    }
    let Ok(extension) = usize::try_from(extension) else {
        return Err(ServerError::new(BAD_COPY, "invalid COPY file header (wrong length)"));
    };
    let length = 19 + extension;
    Ok((buffer.len() >= length).then_some(length))
}

/// The row at the start of `buffer`.
pub(super) fn next(buffer: &[u8]) -> Result<Piece, ServerError> {
    let Some(count) = int2(buffer, 0) else { return Ok(Piece::Partial) };
    if count == -1 {
        return Ok(Piece::End);
    }
    let mut at = 2;
    for _ in 0..count {
        let Some(length) = int4(buffer, at) else { return partial(buffer) };
        at += 4;
        match usize::try_from(length) {
            Ok(length) => at += length,
            Err(_) if length == -1 => {}
            Err(_) => return Err(ServerError::new(BAD_COPY, "invalid field size")),
        }
        if at > ROW_BYTES_MAX {
            return Err(ServerError::new(BAD_COPY, "a row of COPY is too long"));
        }
        if at > buffer.len() {
            return partial(buffer);
        }
    }
    if count < 0 {
        return Err(ServerError::new(BAD_COPY, "a negative number of fields in COPY"));
    }
    Ok(Piece::Row(at))
}

fn partial(buffer: &[u8]) -> Result<Piece, ServerError> {
    if buffer.len() > ROW_BYTES_MAX {
        return Err(ServerError::new(BAD_COPY, "a row of COPY is too long"));
    }
    Ok(Piece::Partial)
}

/// Field `position` of a whole row: `None` if there are fewer, `Some(None)` for NULL.
#[expect(clippy::option_option, reason = "a missing field and NULL are two things")]
pub(super) fn field(row: &[u8], position: usize) -> Option<Option<&[u8]>> {
    let count = usize::try_from(int2(row, 0)?).ok()?;
    if position >= count {
        return None;
    }
    let mut at = 2;
    for index in 0..=position {
        let length = usize::try_from(int4(row, at)?).ok();
        at += 4;
        if index == position {
            return match length {
                None => Some(None),
                Some(length) => Some(Some(row.get(at..at + length)?)),
            };
        }
        at += length.unwrap_or(0);
    }
    None
}

fn int2(buffer: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_be_bytes(buffer.get(at..at + 2)?.try_into().ok()?))
}

fn int4(buffer: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(buffer.get(at..at + 4)?.try_into().ok()?))
}
