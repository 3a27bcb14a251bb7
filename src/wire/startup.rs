//! The first packet of a connection, which has no tag.
//! <https://www.postgresql.org/docs/15/protocol-flow.html#id-1.10.6.7.3>

use bytes::{BufMut, Bytes, BytesMut};

use super::{Malformed, Reader};

/// Longest first packet that PostgreSQL accepts, in bytes.
const PACKET_MAX: u32 = 10_000;
/// The protocol that nodes are asked for: 3.0.
const PROTOCOL_3: u32 = 3 << 16;
/// The newest minor version of protocol 3 that clients may speak: PostgreSQL 18's.
pub const NEWEST_MINOR: u16 = 2;
/// From this minor version on a cancel key may be longer than four bytes.
const LONG_KEYS: u16 = 2;
/// Bytes of the secret that such a client gets: as many as PostgreSQL 18 gives.
const LONG_SECRET: usize = 32;
/// Most bytes of a secret in the protocol.
const SECRET_MAX: usize = 256;
/// Says that a packet is a cancel request.
const CANCEL: u32 = 80_877_102;

/// The packet that asks a server for TLS.
pub const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What a cancel request to a node has to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process id of `BackendKeyData`.
    pub pid: i32,
    /// The secret of `BackendKeyData`.
    pub secret: i32,
}

/// What a client's cancel request has to name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// The process id of `BackendKeyData`.
    pub pid: i32,
    /// The secret of `BackendKeyData`: four bytes, for protocol 3.2 up to 256.
    pub secret: Bytes,
}

/// What a client wants first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// A session: its parameters in the order of the packet, `user` and `database` among them.
    Startup {
        /// The minor version asked for.
        minor: u16,
        /// Names and values.
        parameters: Vec<(String, String)>,
    },
    /// TLS, if it is to be had.
    Tls,
    /// GSSAPI encryption, if it is to be had.
    Gss,
    /// To cancel what another connection is running; `None` if that is no key.
    Cancel(Option<ClientKey>),
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
        CANCEL => return Ok(Some((FirstPacket::Cancel(client_key(reader)), len))),
        code if code >> 16 == 3 => {
            let minor = u16::try_from(code & 0xFFFF).unwrap_or(u16::MAX);
            FirstPacket::Startup { minor, parameters: parameters(&mut reader)? }
        }
        _ => return Err(Malformed("the client asks for an unknown protocol")),
    };
    reader.end()?;
    Ok(Some((packet, len)))
}

fn client_key(mut reader: Reader<'_>) -> Option<ClientKey> {
    let pid = reader.i32().ok()?;
    let secret = Some(reader.rest()).filter(|secret| (1..=SECRET_MAX).contains(&secret.len()))?;
    Some(ClientKey { pid, secret: Bytes::copy_from_slice(secret) })
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
        packet[4..8].copy_from_slice(&CANCEL.to_be_bytes());
        packet[8..12].copy_from_slice(&self.pid.to_be_bytes());
        packet[12..].copy_from_slice(&self.secret.to_be_bytes());
        packet
    }
}

impl ClientKey {
    /// A key with a secret as long as clients of this minor version can keep, made of `random`.
    pub fn new(pid: i32, minor: u16, random: &[u8; LONG_SECRET]) -> Self {
        let len = if minor < LONG_KEYS { 4 } else { LONG_SECRET };
        Self { pid, secret: Bytes::copy_from_slice(&random[..len]) }
    }

    /// The packet that cancels what the session with this key is running.
    pub fn packet(&self) -> BytesMut {
        let mut packet = BytesMut::with_capacity(12 + self.secret.len());
        packet.put_u32(u32::try_from(12 + self.secret.len()).unwrap_or(u32::MAX));
        packet.put_u32(CANCEL);
        packet.put_i32(self.pid);
        packet.put_slice(&self.secret);
        packet
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{CancelKey, ClientKey, FirstPacket, SECRET_MAX, first_packet, put_startup};

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
        let secret = (-9_i32).to_be_bytes();
        let key = |secret: &[u8]| ClientKey { pid: 7, secret: secret.to_vec().into() };
        let packet = CancelKey { pid: 7, secret: -9 }.packet();
        assert_eq!(packet, *key(&secret).packet());
        assert_eq!(first_packet(&packet), Ok(Some((FirstPacket::Cancel(Some(key(&secret))), 16))));
        let longest = key(&[3; SECRET_MAX]);
        let read = first_packet(&longest.packet()).unwrap().unwrap();
        assert_eq!(read, (FirstPacket::Cancel(Some(longest)), 12 + SECRET_MAX));
        for len in [0, SECRET_MAX + 1] {
            let read = first_packet(&key(&vec![3; len]).packet()).unwrap().unwrap();
            assert_eq!(read, (FirstPacket::Cancel(None), 12 + len));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(first_packet(&bytes));
        }
    }
}
