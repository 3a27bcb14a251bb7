//! COPY's text format.

use bytes::{BufMut, BytesMut};

/// Appends a value as a field.
pub fn put_copy_text(value: &[u8], out: &mut BytesMut) {
    put_with_backslashes(value, out, |byte| match byte {
        b'\\' => Some(b'\\'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        _ => None,
    });
}

/// Appends a value with a backslash and another byte for each that `escape` names.
pub fn put_with_backslashes(value: &[u8], out: &mut BytesMut, escape: impl Fn(u8) -> Option<u8>) {
    let mut rest = value;
    while let Some((at, letter)) =
        rest.iter().enumerate().find_map(|(at, byte)| escape(*byte).map(|letter| (at, letter)))
    {
        out.put_slice(&rest[..at]);
        out.put_u8(b'\\');
        out.put_u8(letter);
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}
