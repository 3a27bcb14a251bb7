//! What a client sends: the messages of the simple and the extended protocol.
//! <https://www.postgresql.org/docs/15/protocol-message-formats.html>

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::frame::{HEADER, put_frame};
use super::{Malformed, Reader};

/// The text of a `Query`'s body, without the NUL.
pub fn read_query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let text = reader.cstr()?;
    reader.end()?;
    Ok(text)
}

/// Appends a `Query`.
pub fn put_query(text: &str, out: &mut BytesMut) {
    put_frame(b'Q', out, |out| {
        out.put_slice(text.as_bytes());
        out.put_u8(0);
    });
}

/// Appends what runs one statement by the extended protocol, without a `Sync`: its answer ends with a
/// `CommandComplete`. If it fails, the server skips all that follows up to a `Sync`, a `Query` too.
pub fn put_command(text: &str, out: &mut BytesMut) {
    put_command_as(b"", text, out);
}

/// The same with a statement and a portal of this name.
pub fn put_command_as(name: &[u8], text: &str, out: &mut BytesMut) {
    put_parse(name, text.as_bytes(), &[], out);
    put_frame(b'B', out, |out| out.put_slice(&[name, b"\0", name, &[0; 7]].concat()));
    put_frame(b'E', out, |out| out.put_slice(&[name, &[0; 5]].concat()));
}

/// A `Parse`: text under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The SQL text, in the client's encoding.
    pub text: &'a [u8],
    /// Declared types of the first parameters; 0 where the server is to infer it.
    pub types: SmallVec<[u32; 8]>,
}

impl<'a> Parse<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (name, text) = (reader.cstr()?, reader.cstr()?);
        let count = reader.count(4)?;
        let types = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { name, text, types })
    }
}

/// Appends a `Parse` of `text` under `name`.
pub fn put_parse(name: &[u8], text: &[u8], types: &[u32], out: &mut BytesMut) {
    put_frame(b'P', out, |out| {
        put_cstr(name, out);
        put_cstr(text, out);
        out.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
        for oid in types {
            out.put_u32(*oid);
        }
    });
}

/// A `Bind`: a statement's parameters, as a portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// Formats of the parameters (0 text, 1 binary): none, one for all, or one each.
    pub formats: SmallVec<[i16; 8]>,
    /// The parameters' values; `None` for NULL.
    pub values: SmallVec<[Option<&'a [u8]>; 8]>,
    /// The format codes of the result's columns with their count, as they came.
    pub results: &'a [u8],
    /// Everything after the statement's name, as it came.
    pub tail: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (portal, statement) = (reader.cstr()?, reader.cstr()?);
        let tail = reader.rest();
        let count = reader.count(2)?;
        let formats = (0..count).map(|_| reader.i16()).collect::<Result<_, _>>()?;
        let count = reader.count(4)?;
        let values = (0..count).map(|_| reader.value()).collect::<Result<_, _>>()?;
        let results = reader.rest();
        let count = reader.count(2)?;
        reader.bytes(2 * count)?;
        reader.end()?;
        Ok(Self { portal, statement, formats, values, results, tail })
    }

    /// The body of one for `portal` of a statement that has no name, with these values, each in its
    /// format (0 text, 1 binary). `results` are the result's format codes with their count.
    pub fn made(portal: &[u8], values: &[(i16, Option<Bytes>)], results: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        put_cstr(portal, &mut out);
        put_cstr(b"", &mut out);
        let count = u16::try_from(values.len()).unwrap_or(u16::MAX);
        out.put_u16(count);
        for (format, _) in values {
            out.put_i16(*format);
        }
        out.put_u16(count);
        for (_, value) in values {
            put_value(value.as_deref(), &mut out);
        }
        out.put_slice(results);
        out.freeze()
    }

    /// Appends it for the unnamed statement and the unnamed portal.
    pub fn put_unnamed(&self, out: &mut BytesMut) {
        put_frame(b'B', out, |out| {
            out.put_slice(b"\0\0");
            out.put_slice(self.tail);
        });
    }

    /// Appends it for the unnamed statement and the unnamed portal, with the parameters `numbers`
    /// (from 1) only. `results` may replace the format codes of the result's columns.
    pub fn put_part(&self, numbers: &[u16], results: Option<&[u8]>, out: &mut BytesMut) {
        let at = |number: &u16| usize::from(*number).saturating_sub(1);
        let format = |index: usize| match self.formats.as_slice() {
            [] => 0,
            [one] => *one,
            many => many.get(index).copied().unwrap_or(0),
        };
        let count = u16::try_from(numbers.len()).unwrap_or(u16::MAX);
        put_frame(b'B', out, |out| {
            out.put_slice(b"\0\0");
            out.put_u16(count);
            for number in numbers {
                out.put_i16(format(at(number)));
            }
            out.put_u16(count);
            for number in numbers {
                put_value(self.values.get(at(number)).copied().flatten(), out);
            }
            out.put_slice(results.unwrap_or(self.results));
        });
    }

    /// Appends it with another statement name.
    pub fn put_as(&self, statement: &[u8], out: &mut BytesMut) {
        put_frame(b'B', out, |out| {
            put_cstr(self.portal, out);
            put_cstr(statement, out);
            out.put_slice(self.tail);
        });
    }
}

/// What a `Describe` or a `Close` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement of this name.
    Statement(&'a [u8]),
    /// A portal of this name.
    Portal(&'a [u8]),
}

/// Reads the body of a `Describe` or a `Close`.
pub fn read_target(body: &[u8]) -> Result<Target<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let (kind, name) = (reader.u8()?, reader.cstr()?);
    reader.end()?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        _ => Err(Malformed("it names neither a statement nor a portal")),
    }
}

/// Appends a `Describe` (`D`) or `Close` (`C`) of the statement `name`.
pub fn with_statement(tag: u8, name: &[u8], out: &mut BytesMut) {
    put_frame(tag, out, |out| {
        out.put_u8(b'S');
        put_cstr(name, out);
    });
}

/// A parameter's length and bytes.
fn put_value(value: Option<&[u8]>, out: &mut BytesMut) {
    match value {
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
            out.put_slice(value);
        }
        None => out.put_i32(-1),
    }
}

fn put_cstr(text: &[u8], out: &mut BytesMut) {
    out.put_slice(text);
    out.put_u8(0);
}

/// The body of a whole frame.
pub fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEADER..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{Bind, Parse, body, put_parse, read_query, read_target};

    proptest! {
        #[test]
        fn a_parse_reads_back_as_it_was_put(
            name in "[a-z]{0,9}", text in "[^\0]{0,80}", types: Vec<u32>,
        ) {
            let mut out = BytesMut::new();
            put_parse(name.as_bytes(), text.as_bytes(), &types, &mut out);
            let parse = Parse::read(body(&out)).unwrap();
            prop_assert_eq!(parse.name, name.as_bytes());
            prop_assert_eq!(parse.text, text.as_bytes());
            prop_assert_eq!(parse.types.as_slice(), types.as_slice());
        }

        #[test]
        fn no_body_makes_a_decoder_panic(bytes: Vec<u8>) {
            drop((Parse::read(&bytes), Bind::read(&bytes), read_query(&bytes)));
            read_target(&bytes).ok();
        }
    }

    #[test]
    fn a_bind_under_another_name_keeps_all_else() {
        let body_bytes = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";
        let bind = Bind::read(body_bytes).unwrap();
        assert_eq!(bind.values.as_slice(), [Some(&b"x"[..]), None]);
        let mut out = BytesMut::new();
        bind.put_as(b"other", &mut out);
        let renamed = Bind::read(body(&out)).unwrap();
        assert_eq!(renamed.statement, b"other");
        assert_eq!((renamed.portal, renamed.tail), (bind.portal, bind.tail));
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        assert!(read_query(b"select 1\0x").is_err());
        assert!(read_target(b"Sname\0\0").is_err());
        assert!(Parse::read(b"\0\0\0\0Q").is_err());
    }
}
