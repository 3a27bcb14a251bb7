//! A frame: one byte of tag, four of length (which counts itself), and a body.
//! <https://www.postgresql.org/docs/15/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>

use bytes::{BufMut, BytesMut};

use super::Malformed;

/// Bytes before a frame's body.
pub const HEADER: usize = 5;

/// Longest frame that PostgreSQL itself accepts, in bytes without the tag.
pub const FRAME_MAX: usize = 0x3FFF_FFFF;

/// Tag and extent of a frame, as its header says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What kind of message it is.
    pub tag: u8,
    /// Bytes from the tag to the end of the body.
    pub len: usize,
}

/// The frame that starts `bytes`; `None` if its header isn't all there yet.
pub fn frame_at(bytes: &[u8]) -> Result<Option<Frame>, Malformed> {
    let [tag, a, b, c, d, ..] = *bytes else { return Ok(None) };
    let body = u32::from_be_bytes([a, b, c, d]);
    let body = usize::try_from(body).unwrap_or(usize::MAX);
    if !(4..=FRAME_MAX).contains(&body) {
        return Err(Malformed("a frame's length is out of range"));
    }
    Ok(Some(Frame { tag, len: body + 1 }))
}

/// Appends a frame whose body `write` appends.
pub fn put_frame(tag: u8, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let start = out.len();
    out.put_u32(0);
    write(out);
    let body = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&body.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{frame_at, put_frame};

    proptest! {
        #[test]
        fn a_frame_reads_back_as_it_was_put(tag: u8, body: Vec<u8>) {
            let mut out = BytesMut::new();
            put_frame(tag, &mut out, |out| out.extend_from_slice(&body));
            let frame = frame_at(&out).unwrap().unwrap();
            prop_assert_eq!((frame.tag, frame.len), (tag, out.len()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            frame_at(&bytes).ok();
        }
    }

    #[test]
    fn a_length_below_four_or_past_the_limit_is_malformed() {
        assert!(frame_at(b"Q\0\0\0\x03").is_err());
        assert!(frame_at(b"Q\xff\xff\xff\xff").is_err());
        assert_eq!(frame_at(b"Q\0\0\0"), Ok(None));
    }
}
