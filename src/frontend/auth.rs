//! Who a client is: trusted, or by SCRAM-SHA-256.

use std::collections::HashMap;
use std::fmt;

use crate::backend::Password;
use crate::executor::Client;
use crate::wire::{Reply, ScramExchange, ScramVerifier, ServerError, SqlState, body};

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// They need not.
    Trust,
    /// By SCRAM-SHA-256.
    Scram,
}

/// The users that may connect.
pub struct Users {
    authentication: Authentication,
    known: HashMap<String, User>,
    /// For users that are unknown: no password fits it.
    nobody: ScramVerifier,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("known", &self.known.keys()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct User {
    password: Password,
    verifier: ScramVerifier,
}

impl Users {
    /// The users of these names and passwords. Clients that are trusted may connect under any other
    /// name too, and log in to the nodes without a password.
    pub fn new(
        authentication: Authentication,
        passwords: impl IntoIterator<Item = (String, Password)>,
    ) -> Self {
        let known = passwords.into_iter().map(|(name, password)| {
            let verifier = ScramVerifier::of_password(password.reveal(), rand::random());
            (name, User { password, verifier })
        });
        let random: [u8; 16] = rand::random();
        let nobody = ScramVerifier::of_password(&format!("{random:?}"), rand::random());
        Self { authentication, known: known.collect(), nobody }
    }

    /// The password with which `user` logs in to the nodes.
    pub fn password(&self, user: &str) -> Option<Password> {
        self.known.get(user).map(|user| user.password.clone())
    }

    /// Lets `user` prove who it is. An `Ok(Err(_))` is told to the client, and its connection ends.
    pub async fn authenticate(
        &self,
        user: &str,
        client: &mut Client,
    ) -> Result<Result<(), ServerError>, crate::executor::ClientError> {
        if self.authentication == Authentication::Trust {
            client.put(Reply::AuthenticationOk);
            return Ok(Ok(()));
        }
        let verifier = self.known.get(user).map_or(&self.nobody, |user| &user.verifier);
        client.put(Reply::Sasl(&["SCRAM-SHA-256"]));
        let Some(first) = password_message(client).await? else { return Ok(Err(denied(user))) };
        let Ok((exchange, answer)) = ScramExchange::begin(body(&first), verifier) else {
            let message = "the client's SASL message can't be read";
            return Ok(Err(ServerError::fatal(SqlState::PROTOCOL_VIOLATION, message)));
        };
        client.put(Reply::SaslContinue(answer));
        let Some(last) = password_message(client).await? else { return Ok(Err(denied(user))) };
        let Some(answer) = exchange.finish(body(&last)) else { return Ok(Err(denied(user))) };
        client.put(Reply::SaslFinal(answer));
        client.put(Reply::AuthenticationOk);
        Ok(Ok(()))
    }
}

/// The next frame, if it is a password message.
async fn password_message(
    client: &mut Client,
) -> Result<Option<bytes::BytesMut>, crate::executor::ClientError> {
    let Some(frame) = client.frame_within(u16::MAX.into()).await? else { return Ok(None) };
    let message = client.take(frame.len);
    Ok((frame.tag == b'p').then_some(message))
}

fn denied(user: &str) -> ServerError {
    let message = format!("password authentication failed for user \"{user}\"");
    ServerError::fatal(SqlState::INVALID_PASSWORD, message)
        .with_hint("The proxy knows the users of its configuration; is this one among them?")
}
