//! Where object ids stand in the messages that describe parameters and columns.
//! <https://www.postgresql.org/docs/15/protocol-message-formats.html>

use smallvec::SmallVec;

use super::{HEADER, Malformed, Reader};

/// Object ids from here on were given by a server to what its users made: they differ from server to
/// server. Those below are PostgreSQL's own.
pub const FIRST_USER_OID: u32 = 16_384;

/// What an object id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OidKind {
    /// A type, in `pg_type`.
    Type,
    /// A table, in `pg_class`.
    Class,
}

/// An object id in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OidPlace {
    /// Where its four bytes begin.
    pub at: usize,
    /// What it names.
    pub kind: OidKind,
    /// The id.
    pub oid: u32,
}

/// The ids that a server's users made in a whole `ParameterDescription` or `RowDescription`; none in
/// any other frame.
pub fn user_oids(frame: &[u8]) -> Result<SmallVec<[OidPlace; 8]>, Malformed> {
    let mut found = SmallVec::new();
    let body = frame.get(HEADER..).unwrap_or_default();
    let mut reader = Reader::new(body);
    let mut note = |reader: &mut Reader<'_>, kind| {
        let at = frame.len() - reader.rest().len();
        let oid = reader.u32()?;
        if oid >= FIRST_USER_OID {
            found.push(OidPlace { at, kind, oid });
        }
        Ok(())
    };
    match frame.first() {
        Some(b't') => {
            for _ in 0..reader.count(4)? {
                note(&mut reader, OidKind::Type)?;
            }
        }
        Some(b'T') => {
            for _ in 0..reader.count(19)? {
                reader.cstr()?;
                note(&mut reader, OidKind::Class)?;
                reader.i16()?;
                note(&mut reader, OidKind::Type)?;
                reader.bytes(8)?;
            }
        }
        _ => {}
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::{OidKind, user_oids};
    use crate::wire::put_frame;

    #[test]
    fn the_ids_of_tables_and_types_are_found_where_they_stand() {
        let mut frame = BytesMut::new();
        put_frame(b'T', &mut frame, |out| {
            out.put_u16(2);
            for (name, class, kind) in [(&b"id\0"[..], 20_000, 23), (b"mood\0", 0, 20_001)] {
                out.put_slice(name);
                out.put_u32(class);
                out.put_u16(1);
                out.put_u32(kind);
                out.put_slice(&[0; 8]);
            }
        });
        let found = user_oids(&frame).unwrap();
        let ids: Vec<_> = found.iter().map(|place| (place.kind, place.oid)).collect();
        assert_eq!(ids, [(OidKind::Class, 20_000), (OidKind::Type, 20_001)]);
        for place in found {
            assert_eq!(frame[place.at..place.at + 4], place.oid.to_be_bytes());
        }
        let mut frame = BytesMut::new();
        put_frame(b't', &mut frame, |out| {
            out.put_u16(2);
            out.put_u32(23);
            out.put_u32(20_001);
        });
        assert_eq!(user_oids(&frame).unwrap().len(), 1);
        assert!(user_oids(b"D\0\0\0\x08\0\0\x40\0").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tag in prop::sample::select(vec![b't', b'T']), rest: Vec<u8>) {
            let frame: Vec<u8> = [tag, 0, 0, 0, 0].into_iter().chain(rest).collect();
            user_oids(&frame).ok();
        }
    }
}
