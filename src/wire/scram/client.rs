//! The side that proves: towards the nodes.

use super::verifier::salted;
use super::{
    BINDING, Key, SCRAM, SCRAM_PLUS, ScramKeys, attribute, decode, decode_key, encode, hash, hmac,
    same, xor,
};

/// What a login is proved with.
#[derive(Debug, Clone, Copy)]
pub enum ScramSecret<'a> {
    /// The password itself.
    Password(&'a str),
    /// The keys of a client that has logged in here.
    Keys(&'a ScramKeys),
}

/// An exchange with a server.
#[derive(Debug)]
pub struct ScramClient {
    /// The header about channel binding, and what the exchange is bound to.
    binding: Vec<u8>,
    flag: &'static str,
    nonce: String,
    first: String,
    /// The signature that the server's last message must bear.
    server_signature: Option<Key>,
}

impl ScramClient {
    /// Begins an exchange with a server that offers the mechanisms `offered`. `end_point` is the
    /// hash of the server's certificate over TLS, else `None`; `nonce` must be random.
    pub fn begin(
        offered: &[&str],
        end_point: Option<&[u8]>,
        nonce: [u8; 18],
    ) -> Result<Self, String> {
        let plus = offered.contains(&SCRAM_PLUS);
        let flag = match end_point {
            Some(_) if plus => BINDING,
            // I could, but you did not offer to: the server knows better if somebody lies.
            Some(_) => "y",
            None => "n",
        };
        let end_point = end_point.filter(|_| plus);
        if end_point.is_none() && !offered.contains(&SCRAM) {
            return Err(format!("it offers only the SASL mechanisms {}", offered.join(", ")));
        }
        let mut binding = format!("{flag},,").into_bytes();
        binding.extend_from_slice(end_point.unwrap_or_default());
        let nonce = encode(nonce);
        let first = format!("n=,r={nonce}");
        Ok(Self { binding, flag, nonce, first, server_signature: None })
    }

    /// The mechanism that it chose.
    pub fn mechanism(&self) -> &'static str {
        if self.flag == BINDING { SCRAM_PLUS } else { SCRAM }
    }

    /// The client's first message.
    pub fn first(&self) -> String {
        format!("{},,{}", self.flag, self.first)
    }

    /// Reads the server's first message; the client's last.
    pub fn prove(&mut self, message: &[u8], secret: ScramSecret<'_>) -> Result<String, String> {
        let unreadable = || "its SCRAM message can't be read".to_owned();
        let message = std::str::from_utf8(message).map_err(|_| unreadable())?;
        let (nonce, rest) = attribute(message, 'r').ok_or_else(unreadable)?;
        let (salt, rest) = attribute(rest, 's').ok_or_else(unreadable)?;
        let (iterations, _) = attribute(rest, 'i').ok_or_else(unreadable)?;
        let salt = decode(salt).ok_or_else(unreadable)?;
        let iterations = iterations.parse().map_err(|_| unreadable())?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("it did not add to the nonce".to_owned());
        }
        let (client_key, server_key) = match secret {
            ScramSecret::Password(password) => {
                let salted = salted(password, &salt, iterations);
                (hmac(&salted, &["Client Key"]), hmac(&salted, &["Server Key"]))
            }
            ScramSecret::Keys(ScramKeys { client_key, verifier }) => {
                if (&verifier.salt, verifier.iterations) != (&salt, iterations) {
                    return Err(
                        "it has another verifier of the password than the home node; give the \
                         role its password again through the proxy"
                            .to_owned(),
                    );
                }
                (*client_key, verifier.server_key)
            }
        };
        let bare = format!("c={},r={nonce}", encode(&self.binding));
        let parts = [self.first.as_str(), ",", message, ",", &bare];
        let proof = xor(client_key, hmac(&hash(&client_key), &parts));
        self.server_signature = Some(hmac(&server_key, &parts));
        Ok(format!("{bare},p={}", encode(proof)))
    }

    /// Reads the server's last message: it must prove that it knows the password too.
    pub fn verify(&self, message: &[u8]) -> Result<(), String> {
        let signature = std::str::from_utf8(message).ok().and_then(|message| {
            let (signature, _) = attribute(message, 'v')?;
            decode_key(signature)
        });
        match (signature, self.server_signature) {
            (Some(signature), Some(expected)) if same(&signature, &expected) => Ok(()),
            _ => Err("it did not prove that it knows the password".to_owned()),
        }
    }
}
