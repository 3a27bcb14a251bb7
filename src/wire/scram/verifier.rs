//! What is kept of a password: enough to check a client, not to be one.

use std::fmt;
use std::num::NonZeroU32;

use pgwire::api::auth::sasl::scram::gen_salted_password;

use super::{Key, decode, decode_key, encode, hash, hmac, key_of};

/// Rounds of key derivation, as PostgreSQL's default.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// PostgreSQL's verifier of a password, as `pg_authid.rolpassword` has it.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    pub(super) salt: Vec<u8>,
    pub(super) iterations: NonZeroU32,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier(***)")
    }
}

impl ScramVerifier {
    /// Derives it from a password; takes milliseconds. The salt must be random.
    pub fn of_password(password: &str, salt: [u8; 16]) -> Self {
        let client_key = hmac(&salted(password, &salt, ITERATIONS), &["Client Key"]);
        let server_key = hmac(&salted(password, &salt, ITERATIONS), &["Server Key"]);
        Self {
            salt: salt.to_vec(),
            iterations: ITERATIONS,
            stored_key: hash(&client_key),
            server_key,
        }
    }

    /// Reads `SCRAM-SHA-256$4096:salt$stored key:server key`.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self {
            salt: decode(salt)?,
            iterations: iterations.parse().ok()?,
            stored_key: decode_key(stored_key)?,
            server_key: decode_key(server_key)?,
        })
    }

    /// As PostgreSQL writes it.
    pub fn text(&self) -> String {
        let Self { salt, iterations, stored_key, server_key } = self;
        let (salt, stored, server) = (encode(salt), encode(stored_key), encode(server_key));
        format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}")
    }

    /// One that no password fits, always the same for a user and a secret: what an unknown user is
    /// asked looks like what a known one is asked, however often.
    pub fn mock(user: &str, secret: &[u8; 32]) -> Self {
        Self {
            salt: hmac(secret, &["salt", user])[..16].to_vec(),
            iterations: ITERATIONS,
            stored_key: hmac(secret, &["stored key", user]),
            server_key: hmac(secret, &["server key", user]),
        }
    }

    /// A salt that is always the same for a user and a secret.
    pub fn salt_of(user: &str, secret: &[u8; 32]) -> [u8; 16] {
        let mut salt = [0; 16];
        salt.copy_from_slice(&hmac(secret, &["salt", user])[..16]);
        salt
    }
}

/// What a client proves with. Whoever has it can log in wherever the same verifier is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub(super) client_key: Key,
    pub(super) verifier: ScramVerifier,
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys(***)")
    }
}

/// RFC 5802's `SaltedPassword`.
pub(super) fn salted(password: &str, salt: &[u8], iterations: NonZeroU32) -> Key {
    let iterations = usize::try_from(iterations.get()).unwrap_or(usize::MAX);
    key_of(&gen_salted_password(password, salt, iterations))
}
