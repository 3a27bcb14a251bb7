//! The first packet of a connection, which has no tag.
//! <https://www.postgresql.org/docs/15/protocol-flow.html#id-1.10.6.7.3>

use bytes::{BufMut, BytesMut};

use super::{Malformed, Reader};

/// Longest first packet that PostgreSQL accepts, in bytes.
const PACKET_MAX: u32 = 10_000;
/// The only protocol that the proxy speaks: 3.0.
const PROTOCOL_3: u32 = 3 << 16;

/// The packet that asks a server for TLS.
pub const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What a cancel request has to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process id of `BackendKeyData`.
    pub pid: i32,
    /// The secret of `BackendKeyData`.
    pub secret: i32,
}

/// What a client wants first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// A session: its parameters in the order of the packet, `user` and `database` among them.
    Startup {
        /// The minor version asked for; 0 is the one spoken.
        minor: u16,
        /// Names and values.
        parameters: Vec<(String, String)>,
    },
    /// TLS, if it is to be had.
    Tls,
    /// GSSAPI encryption, if it is to be had.
    Gss,
    /// To cancel what another connection is running.
    Cancel(CancelKey),
}

/// The first packet in `bytes` and its length; `None` if it isn't all there yet.
pub fn first_packet(bytes: &[u8]) -> Result<Option<(FirstPacket, usize)>, Malformed> {
    let [a, b, c, d, ..] = *bytes else { return Ok(None) };
    let len = u32::from_be_bytes([a, b, c, d]);
    if !(8..=PACKET_MAX).contains(&len) {
        return Err(Malformed("the startup packet's length is out of range"));
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let Some(packet) = bytes.get(4..len) else { return Ok(None) };
    let mut reader = Reader::new(packet);
    let packet = match reader.u32()? {
        80_877_103 => FirstPacket::Tls,
        80_877_104 => FirstPacket::Gss,
        80_877_102 => FirstPacket::Cancel(CancelKey { pid: reader.i32()?, secret: reader.i32()? }),
        code if code >> 16 == 3 => {
            let minor = u16::try_from(code & 0xFFFF).unwrap_or(u16::MAX);
            FirstPacket::Startup { minor, parameters: parameters(&mut reader)? }
        }
        _ => return Err(Malformed("the client asks for an unknown protocol")),
    };
    reader.end()?;
    Ok(Some((packet, len)))
}

fn parameters(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, Malformed> {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a parameter is not UTF-8"))
    };
    let mut found = Vec::new();
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            return Ok(found);
        }
        found.push((text(name)?, text(reader.cstr()?)?));
    }
}

/// Appends the startup packet of a session with these parameters.
pub fn put_startup(parameters: &[(&str, &str)], out: &mut BytesMut) {
    let start = out.len();
    out.put_u32(0);
    out.put_u32(PROTOCOL_3);
    for (name, value) in parameters {
        for text in [name, value] {
            out.put_slice(text.as_bytes());
            out.put_u8(0);
        }
    }
    out.put_u8(0);
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

impl CancelKey {
    /// The packet that cancels what the connection with this key is running.
    pub fn packet(self) -> [u8; 16] {
        let mut packet = [0; 16];
        packet[..4].copy_from_slice(&16_u32.to_be_bytes());
        packet[4..8].copy_from_slice(&80_877_102_u32.to_be_bytes());
        packet[8..12].copy_from_slice(&self.pid.to_be_bytes());
        packet[12..].copy_from_slice(&self.secret.to_be_bytes());
        packet
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{CancelKey, FirstPacket, first_packet, put_startup};

    #[test]
    fn a_startup_packet_reads_back_as_it_was_put() {
        let mut out = BytesMut::new();
        put_startup(&[("user", "u"), ("database", "d")], &mut out);
        let (packet, len) = first_packet(&out).unwrap().unwrap();
        assert_eq!(len, out.len());
        let FirstPacket::Startup { minor: 0, parameters } = packet else { panic!("{packet:?}") };
        assert_eq!(parameters[1], ("database".to_owned(), "d".to_owned()));
        assert_eq!(first_packet(&out[..len - 1]), Ok(None));
    }

    #[test]
    fn a_cancel_packet_reads_back_as_it_was_put() {
        let key = CancelKey { pid: 7, secret: -9 };
        assert_eq!(first_packet(&key.packet()), Ok(Some((FirstPacket::Cancel(key), 16))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(first_packet(&bytes));
        }
    }
}
