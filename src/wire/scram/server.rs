//! The side that checks: towards clients.

use super::{
    BINDING, SCRAM, SCRAM_PLUS, ScramKeys, ScramVerifier, attribute, decode, decode_key, encode,
    hash, hmac, same, xor,
};
use crate::wire::{Malformed, Reader};

/// An exchange that has sent the server's first message.
#[derive(Debug)]
pub struct ScramServer {
    verifier: ScramVerifier,
    /// `client-first-message-bare,server-first-message`
    pub(super) transcript: String,
    /// Both sides' nonces.
    pub(super) nonce: String,
    /// What the client has to repeat: its header, and what it is bound to.
    binding: Vec<u8>,
}

/// The client did not prove that it has the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScramDenied;

impl ScramServer {
    /// Reads a `SASLInitialResponse`'s body; the exchange and the server's first message.
    /// `end_point` is the hash of the server's certificate over TLS, else `None`; `nonce` must be
    /// random.
    pub fn begin(
        body: &[u8],
        verifier: ScramVerifier,
        end_point: Option<&[u8]>,
        nonce: [u8; 18],
    ) -> Result<(Self, String), Malformed> {
        let mut reader = Reader::new(body);
        let mechanism = reader.cstr()?;
        let first = reader.value()?.ok_or(Malformed("the SCRAM message is missing"))?;
        reader.end()?;
        let bound = mechanism == SCRAM_PLUS.as_bytes() && end_point.is_some();
        if !bound && mechanism != SCRAM.as_bytes() {
            return Err(Malformed("the client chose a mechanism that was not offered"));
        }
        let first = std::str::from_utf8(first).map_err(|_| UNREADABLE)?;
        let (flag, rest) = first.split_once(',').ok_or(UNREADABLE)?;
        let (authorization, bare) = rest.split_once(',').ok_or(UNREADABLE)?;
        check_flag(flag, bound, end_point.is_some())?;
        if !authorization.is_empty() {
            return Err(Malformed("the client wants to act for another user"));
        }
        // The user's name is that of the startup packet, whatever stands here.
        let (_, rest) = attribute(bare, 'n').ok_or(UNREADABLE)?;
        let (client_nonce, _) = attribute(rest, 'r').ok_or(UNREADABLE)?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Malformed("the SCRAM nonce is not printable"));
        }
        let nonce = format!("{client_nonce}{}", encode(nonce));
        let answer = format!("r={nonce},s={},i={}", encode(&verifier.salt), verifier.iterations);
        let mut binding = format!("{flag},,").into_bytes();
        if bound {
            binding.extend_from_slice(end_point.unwrap_or_default());
        }
        let transcript = format!("{bare},{answer}");
        Ok((Self { verifier, transcript, nonce, binding }, answer))
    }

    /// Checks a `SASLResponse`'s body; the server's last message, and the keys with which this
    /// client can be logged in elsewhere.
    pub fn finish(self, body: &[u8]) -> Result<(String, ScramKeys), ScramDenied> {
        let message = std::str::from_utf8(body).map_err(|_| ScramDenied)?;
        let (bare, proof) = message.rsplit_once(",p=").ok_or(ScramDenied)?;
        let (binding, rest) = attribute(bare, 'c').ok_or(ScramDenied)?;
        let (nonce, _) = attribute(rest, 'r').ok_or(ScramDenied)?;
        if decode(binding).as_ref() != Some(&self.binding) || nonce != self.nonce {
            return Err(ScramDenied);
        }
        let proof = decode_key(proof).ok_or(ScramDenied)?;
        let verifier = self.verifier;
        let parts = [self.transcript.as_str(), ",", bare];
        let client_key = xor(proof, hmac(&verifier.stored_key, &parts));
        if !same(&hash(&client_key), &verifier.stored_key) {
            return Err(ScramDenied);
        }
        let signature = hmac(&verifier.server_key, &parts);
        Ok((format!("v={}", encode(signature)), ScramKeys { client_key, verifier }))
    }
}

const UNREADABLE: Malformed = Malformed("the client's first SCRAM message can't be read");

/// Whether the client's word on channel binding fits its choice, and what it was offered.
fn check_flag(flag: &str, bound: bool, offered: bool) -> Result<(), Malformed> {
    match flag {
        "n" if !bound => Ok(()),
        "y" if !bound && !offered => Ok(()),
        "y" if !bound => Err(Malformed(
            "the client could bind to the channel, but thinks that it was not offered to",
        )),
        BINDING if bound => Ok(()),
        _ => Err(Malformed("the client's channel binding does not fit its mechanism")),
    }
}
