//! A connection's proof to a node that it may log in.

use bytes::{BufMut, BytesMut};

use super::{Credential, Login};
use crate::wire::{Reader, ScramClient, ScramSecret, md5_answer, md5_verifier, put_frame};

/// A login under way.
pub(super) struct Proof<'a> {
    login: &'a Login,
    /// The hash of the node's certificate, over TLS.
    end_point: Option<Vec<u8>>,
    scram: Option<ScramClient>,
    /// The node has proved that it knows the password too.
    mutual: bool,
}

impl<'a> Proof<'a> {
    pub(super) fn new(login: &'a Login, end_point: Option<Vec<u8>>) -> Self {
        Self { login, end_point, scram: None, mutual: false }
    }

    /// The answer to an authentication request, as a frame; `None` if it wants none.
    pub(super) fn answer(&mut self, body: &[u8]) -> Result<Option<BytesMut>, String> {
        let mut reader = Reader::new(body);
        let kind = reader.i32().map_err(|error| error.to_string())?;
        let mut out = BytesMut::new();
        match kind {
            0 if self.scram.is_some() && !self.mutual => {
                return Err("the node let it in in the middle of SCRAM".to_owned());
            }
            0 => return Ok(None),
            3 => match &self.login.credential {
                Credential::Password(password) => put_password(password.reveal(), &mut out),
                _ => return Err(self.wants("a password in clear text")),
            },
            5 => {
                let salt = reader.bytes(4).map_err(|error| error.to_string())?;
                put_password(&self.md5([salt[0], salt[1], salt[2], salt[3]])?, &mut out);
            }
            10 => self.begin_scram(reader, &mut out)?,
            11 => {
                let secret = match &self.login.credential {
                    Credential::Password(password) => ScramSecret::Password(password.reveal()),
                    Credential::Scram(keys) => ScramSecret::Keys(keys),
                    _ => return Err(self.wants("SCRAM")),
                };
                let scram = self.scram.as_mut().ok_or("SCRAM goes on before it began")?;
                let last = scram.prove(reader.rest(), secret)?;
                put_frame(b'p', &mut out, |out| out.put_slice(last.as_bytes()));
            }
            12 => {
                let scram = self.scram.as_ref().ok_or("SCRAM ends before it began")?;
                scram.verify(reader.rest())?;
                self.mutual = true;
                return Ok(None);
            }
            other => return Err(format!("the node asks for authentication method {other}")),
        }
        Ok(Some(out))
    }

    fn begin_scram(&mut self, mut reader: Reader<'_>, out: &mut BytesMut) -> Result<(), String> {
        if !matches!(self.login.credential, Credential::Password(_) | Credential::Scram(_)) {
            return Err(self.wants("SCRAM"));
        }
        let mut offered = Vec::new();
        while let Ok(name) = reader.cstr()
            && !name.is_empty()
        {
            offered.push(std::str::from_utf8(name).unwrap_or_default());
        }
        let nonce = rand::random();
        let scram = ScramClient::begin(&offered, self.end_point.as_deref(), nonce)?;
        put_frame(b'p', out, |out| {
            out.put_slice(scram.mechanism().as_bytes());
            out.put_u8(0);
            let first = scram.first();
            out.put_u32(u32::try_from(first.len()).unwrap_or(u32::MAX));
            out.put_slice(first.as_bytes());
        });
        self.scram = Some(scram);
        Ok(())
    }

    fn md5(&self, salt: [u8; 4]) -> Result<String, String> {
        match &self.login.credential {
            Credential::Md5(verifier) => Ok(md5_answer(verifier.reveal(), salt)),
            Credential::Password(password) => {
                Ok(md5_answer(&md5_verifier(&self.login.user, password.reveal()), salt))
            }
            _ => Err(self.wants("an MD5 password")),
        }
    }

    /// The node wants what the proxy does not have.
    fn wants(&self, what: &str) -> String {
        let has = match &self.login.credential {
            Credential::Nothing => "no password of it",
            Credential::Password(_) => "a password of it",
            Credential::Scram(_) => "SCRAM keys of it",
            Credential::Md5(_) => "an MD5 hash of it",
        };
        format!("the node wants {what} of role {:?}, and the proxy has {has}", self.login.user)
    }
}

fn put_password(password: &str, out: &mut BytesMut) {
    put_frame(b'p', out, |out| {
        out.put_slice(password.as_bytes());
        out.put_u8(0);
    });
}
