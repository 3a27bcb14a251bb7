//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides (RFC 5802, RFC 7677), as PostgreSQL speaks it:
//! <https://www.postgresql.org/docs/15/sasl-authentication.html>
//!
//! The message crate's own does not hand out the client's key, with which a user who has logged in
//! here can be logged in at the nodes too, without its password. Randomness comes as an argument.

mod client;
mod server;
mod verifier;

pub use client::{ScramClient, ScramSecret};
pub use server::{ScramDenied, ScramServer};
pub use verifier::{ScramKeys, ScramVerifier};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};

/// The mechanism without channel binding.
pub const SCRAM: &str = "SCRAM-SHA-256";
/// The mechanism that is bound to the TLS connection by the server's certificate.
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only kind of channel binding that PostgreSQL knows.
const BINDING: &str = "p=tls-server-end-point";

/// A key or a hash.
type Key = [u8; 32];

fn hmac(key: &[u8], parts: &[&str]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part.as_bytes());
    }
    key_of(context.sign().as_ref())
}

fn hash(bytes: &[u8]) -> Key {
    key_of(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The 32 bytes of a SHA-256.
fn key_of(bytes: &[u8]) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&bytes[..32]);
    key
}

fn xor(mut a: Key, b: Key) -> Key {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

/// Whether two keys are equal, in a time that does not tell where they differ.
fn same(a: &Key, b: &Key) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn decode_key(text: &str) -> Option<Key> {
    decode(text)?.try_into().ok()
}

/// The value of the attribute `name` at the start of `text`, and what follows its comma.
fn attribute(text: &str, name: char) -> Option<(&str, &str)> {
    let value = text.strip_prefix(name)?.strip_prefix('=')?;
    Some(value.split_once(',').unwrap_or((value, "")))
}

#[cfg(test)]
mod tests;
