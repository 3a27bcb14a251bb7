//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677); the cryptography is the message crate's.

use pgwire::api::auth::sasl::scram::{
    ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal, gen_salted_password,
};

use super::{Malformed, Reader};

/// Rounds of key derivation, as PostgreSQL's default.
const ITERATIONS: usize = 4096;

/// What a server keeps of a password: enough to check a client, not to be one.
#[derive(Clone)]
pub struct ScramVerifier {
    salt: Vec<u8>,
    salted_password: Vec<u8>,
}

impl std::fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramVerifier(***)")
    }
}

impl ScramVerifier {
    /// Derives it from a password; takes milliseconds. The salt must be random.
    pub fn of_password(password: &str, salt: [u8; 16]) -> Self {
        let salted_password = gen_salted_password(password, &salt, ITERATIONS);
        Self { salt: salt.to_vec(), salted_password }
    }

    fn secret(&self) -> ScramSecret {
        ScramSecret::verifier_from_salted_password(
            self.salt.clone(),
            self.salted_password.clone(),
            ITERATIONS,
        )
    }
}

/// An exchange that has sent the server's first message.
#[derive(Debug)]
pub struct ScramExchange(Box<ScramServerAuthWaitingForClientFinal>);

impl ScramExchange {
    /// Reads a `SASLInitialResponse`'s body; the exchange and the server's first message. An
    /// unknown user gets a verifier of a random password, so that it looks like a known one.
    pub fn begin(body: &[u8], verifier: &ScramVerifier) -> Result<(Self, String), Malformed> {
        let mut reader = Reader::new(body);
        if reader.cstr()? != b"SCRAM-SHA-256" {
            return Err(Malformed("the client chose a mechanism that was not offered"));
        }
        let first = reader.value()?.ok_or(Malformed("the SCRAM message is missing"))?;
        reader.end()?;
        let (answer, waiting) = ScramServerAuth::new()
            .on_client_first_message_with_secret(first, verifier.secret())
            .map_err(|_| Malformed("the client's first SCRAM message can't be read"))?;
        Ok((Self(Box::new(waiting)), answer))
    }

    /// Checks a `SASLResponse`'s body; the server's last message, or `None` for a wrong password.
    pub fn finish(self, body: &[u8]) -> Option<String> {
        self.0.on_client_final_message(body).ok()
    }
}
